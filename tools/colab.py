"""Every lesson as Colab runs it: an environment with Colab's versions, set up by the lesson's own first cell.

    python tools/colab.py [--only NN ...] [--python PYTHON] [--store]

Without --python an environment is made from tools/colab.txt in build/colab, on this Python and the torch of
constraints.txt. The set-up cell is not changed: it installs the course from its address, which git is told to find in
a copy of this checkout. `google.colab` is an empty package, so the course believes to be there.
"""

import argparse
import inspect
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from course_lib.errors import UserError
from course_lib.results import machine, store
from tools import checkout
from tools.run.lessons import LOOK_AGAIN, patient_client, select

ROOT = Path(__file__).resolve().parent.parent
# Runs in the environment under test, where course_lib is not installed when it starts.
RUNNER = f"""
import json, sys, time
import nbformat
from jupyter_client import AsyncKernelManager
from nbclient import NotebookClient

LOOK_AGAIN = {LOOK_AGAIN}
{inspect.getsource(patient_client)}
nb = nbformat.read(sys.argv[1], as_version=4)
code = [cell for cell in nb.cells if cell.cell_type == "code"]
km = AsyncKernelManager(kernel_name="python3", client_factory=patient_client())
client = NotebookClient(nb, km=km, timeout=1800, resources={{"metadata": {{"path": "."}}}})
seconds, started = [], time.perf_counter()
client.on_cell_executed = lambda **_: seconds.append(time.perf_counter() - started)
client.execute()
said = "".join(output.get("text", "") for output in code[0].outputs)
print(json.dumps({{"setup": seconds[0], "seconds": seconds[-1], "said": said.strip()}}))
"""
PRELUDE = "import google.colab\n"  # a .pth file that each Python of the environment runs when it starts, as Colab does
VERSIONS = """
import importlib.metadata as m, json, platform
names = ("torch", "numpy", "matplotlib", "scikit-image", "ipywidgets", "ipython", "ipykernel")
print(json.dumps({"python": platform.python_version()} | {name: m.version(name) for name in names}))
"""


def environment(folder: Path) -> Path:
    """The Python of an environment with Colab's versions, made where it is missing."""
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    seal = folder / "whole"
    if not seal.exists() or seal.stat().st_mtime < (ROOT / "tools" / "colab.txt").stat().st_mtime:
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        wanted = ["-c", ROOT / "constraints.txt", "-r", ROOT / "tools" / "colab.txt", "torch"]
        subprocess.run([python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *wanted], check=True)
        seal.touch()
    return python


@contextmanager
def disguise(python: Path) -> Iterator[None]:
    """An empty `google.colab` in the environment of `python`, without the course; both as before at the end."""
    found = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        check=True,
        capture_output=True,
        text=True,
    )
    site = Path(found.stdout.strip())
    (site / "google" / "colab").mkdir(parents=True, exist_ok=True)
    (site / "google" / "colab" / "__init__.py").touch()
    (site / "as_on_colab.pth").write_text(PRELUDE, encoding="utf-8")
    remove = [python, "-m", "pip", "uninstall", "-q", "-y", "unetpp-course"]
    subprocess.run(remove, check=True, stderr=subprocess.DEVNULL)  # it complains where there is nothing to remove
    try:
        yield
    finally:
        (site / "as_on_colab.pth").unlink()
        shutil.rmtree(site / "google" / "colab")
        subprocess.run(remove, check=True, stderr=subprocess.DEVNULL)


def address(course: dict[str, str], copy: Path) -> dict[str, str]:
    """The environment variables that make git find the address of the course in `copy`, a commit of what lies here."""
    for name in checkout.files():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy / name)
    who = ["-c", "user.name=course", "-c", "user.email=course@localhost"]
    for command in (
        ["init", "-q", "-b", course["ref"]],
        ["add", "-A", "-f"],
        [*who, "commit", "-q", "-m", "as it lies here"],
    ):
        subprocess.run(["git", "-C", copy, *command], check=True)
    redirected = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": f"url.{copy.as_uri()}.insteadOf"}
    return redirected | {"GIT_CONFIG_VALUE_0": course["repository"]}


def run(python: Path, names: list[str], preset: str) -> list[dict]:
    """Execute lessons one after the other in a folder of nothing else; one row each. The first one installs."""
    course = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["course"]
    rows = []
    with tempfile.TemporaryDirectory() as scratch, disguise(python):
        room = Path(scratch, "content")
        room.mkdir()
        env = {key: value for key, value in os.environ.items() if not key.startswith(("COURSE_", "PYTHON", "MPL"))}
        env |= address(course, Path(scratch, "course.git"))
        env |= {"COURSE_PRESET": preset, "COURSE_DATA": str(room / "data"), "CUDA_VISIBLE_DEVICES": ""}
        for name in names:
            started = time.perf_counter()
            done = subprocess.run(
                [python, "-c", RUNNER, ROOT / "notebooks" / f"{name}.ipynb"],
                cwd=room,
                env=env,
                capture_output=True,
                text=True,
            )
            row = {"lesson": name, "passed": done.returncode == 0}
            row |= json.loads(done.stdout.splitlines()[-1]) if row["passed"] else {"said": done.stderr[-4000:]}
            print(
                f"{name:24} {'passed' if row['passed'] else 'failed'} {time.perf_counter() - started:4.0f} s",
                flush=True,
            )
            print(row["said"], flush=True)
            rows.append(row)
    return rows


def write_down(rows: list[dict], versions: dict[str, str], about: str, command: str, here: dict) -> Path:
    """data/results/colab.json: seconds of the set-up cell, which installs in the first lesson, and of all cells."""
    measured = here | {name: versions[name] for name in ("python", "torch")} | {"versions": versions}
    kept = [{"lesson": row["lesson"], **{key: round(row[key], 1) for key in ("setup", "seconds")}} for row in rows]
    return store("colab", kept, about=about, command=command, measured=measured)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", default=[], metavar="NN", help="these lessons, by number or name")
    parser.add_argument("--preset", default="smoke", help="smoke, laptop or gpu; default: smoke")
    parser.add_argument(
        "--python", type=Path, help="of an environment that has Colab's versions; the course in it goes away"
    )
    parser.add_argument("--store", action="store_true", help="write data/results/colab.json")
    args = parser.parse_args(argv)
    if args.store and args.only:
        parser.error("--store writes the table of all lessons: leave --only out")
    try:
        names = select(sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb")), args.only)
    except UserError as mistake:
        print(mistake, file=sys.stderr)
        return 2
    if args.python and args.python.absolute().parent == Path(sys.executable).absolute().parent:
        print(
            f"{args.python} is the Python that runs this: give another one, its course_lib goes away", file=sys.stderr
        )
        return 2
    python = args.python or environment(ROOT / "build" / "colab")
    versions = json.loads(subprocess.run([python, "-c", VERSIONS], check=True, capture_output=True, text=True).stdout)
    print(", ".join(f"{name} {version}" for name, version in versions.items()))
    here = machine()
    rows = run(python, names, args.preset)
    passed = all(row["passed"] for row in rows)
    if args.store and passed:
        about = (
            f"Every lesson in an environment with Colab's versions, one after the other, preset {args.preset}, no GPU."
        )
        command = f"python tools/colab.py {'--python PYTHON ' if args.python else ''}--preset {args.preset} --store"
        print(write_down(rows, versions, about, command, here))
    return int(not passed)


if __name__ == "__main__":
    sys.exit(main())
