"""Open the lessons of this folder in JupyterLab: python3 lab.py (after python3 install.py)"""

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
PYTHON = HERE / ".venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

if __name__ == "__main__":
    if not PYTHON.exists():
        sys.exit("error: nothing is installed here yet: python3 install.py")
    env = {**os.environ, "COURSE_DATA": str(HERE / "cache")}
    lessons = HERE / "course" / "notebooks" / "exercises"
    sys.exit(subprocess.run([PYTHON, "-m", "jupyter", "lab", lessons, *sys.argv[1:]], env=env).returncode)
