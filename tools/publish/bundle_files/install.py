"""Install the course from this folder, without a network: python3 install.py

Checks every file first, then makes .venv here, and tries what a workshop needs.
"""

import hashlib
import os
import platform
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
PYTHON = HERE / ".venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def stop(sentence: str) -> None:
    sys.exit(f"error: {sentence}")


def main() -> int:
    here = f"{sys.platform}-{platform.machine().lower()}-py{sys.version_info[0]}{sys.version_info[1]}"
    made_for = (HERE / "KIND").read_text().strip()
    if here != made_for:
        stop(f"this bundle is for {made_for} and this is {here}: use that Python, or a bundle made on such a machine")
    print("checking files", flush=True)
    for line in (HERE / "SHA256SUMS").read_text(encoding="utf-8").splitlines():
        digest, _, name = line.partition("  ")
        path = HERE / name
        if not path.is_file():
            stop(f"{name} is missing: unpack the bundle again")
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                stop(f"{name} is damaged: copy and unpack the bundle again")
    print("installing into .venv", flush=True)
    if subprocess.run([sys.executable, "-m", "venv", "--clear", HERE / ".venv"]).returncode:
        stop("venv is missing: on Debian and Ubuntu, sudo apt install python3-venv")
    pip = [PYTHON, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-index"]
    if subprocess.run([*pip, "--find-links", HERE / "wheels", "unetpp-course[notebooks]"]).returncode:
        stop("pip could not install, see above: is the disk full?")
    env = {**os.environ, "COURSE_DATA": str(HERE / "cache")}
    status = subprocess.run([PYTHON, "-m", "tools.run.workshop"], env=env, cwd=HERE / "course").returncode
    print("next: python3 lab.py opens the lessons; site/index.html is the course to read")
    return status


if __name__ == "__main__":
    sys.exit(main())
