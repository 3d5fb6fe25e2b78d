import importlib.util
import subprocess
import sys

REPO, REF = "{{REPO}}", "{{REF}}"
if importlib.util.find_spec("course_lib") is None:
    if "google.colab" not in sys.modules:
        raise ModuleNotFoundError(
            "course_lib is not installed for this Python: start Jupyter by `make lab`, or type "
            '`pip install -e ".[notebooks]"` in the folder of the course'
        )
    # --no-deps: Colab has all that the course needs, and its torch stays as it is.
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", f"git+{REPO}@{REF}"]
    if subprocess.run(pip).returncode != 0:
        raise ConnectionError(
            f"{REPO} could not be installed: the lines above say why. If it was the network, run this cell again"
        )
from course_lib.lesson.colab import notice

print(notice())
