"""Every lesson as Colab runs it: an environment with Colab's versions, set up by the lesson's own first cell.

    python -m tools.run.colab [--only NN ...] [--python PYTHON] [--store]

Without --python an environment is made from tools/run/colab.txt in build/colab, on this Python and the torch of
constraints.txt. The set-up cell is not changed: it installs the course from its address, which git is told to find in
a copy of this checkout. `google.colab` is an empty package, so the course believes to be there.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nbformat
from nbclient.exceptions import CellExecutionError

from course_lib.errors import UserError
from course_lib.results import machine, store
from tools.checkout import ROOT, address, files
from tools.command import command
from tools.run.lessons import laptop, select, timed

ABOUT = "Every lesson in an environment with Colab's versions, one after the other, preset {}, no GPU."
WANTED = ROOT / "tools" / "run" / "colab.txt"
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
    if not seal.exists() or seal.stat().st_mtime < WANTED.stat().st_mtime:
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        wanted = ["-c", ROOT / "constraints.txt", "-r", WANTED, "torch"]
        subprocess.run([python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *wanted], check=True)
        seal.touch()
    return python


def answer(python: Path, code: str) -> str:
    """What another Python prints."""
    return subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


@contextmanager
def disguise(python: Path) -> Iterator[None]:
    """An empty `google.colab` in the environment of `python`, without the course; both as before at the end."""
    site = Path(answer(python, "import sysconfig; print(sysconfig.get_path('purelib'))"))
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


def redirected(course: dict[str, str], copy: Path) -> dict[str, str]:
    """The environment variables that make git find the address of the course in `copy`, a commit of what lies here."""
    for name in files():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy / name)
    who = ["-c", "user.name=course", "-c", "user.email=course@localhost"]
    for arguments in (
        ["init", "-q", "-b", course["ref"]],
        ["add", "-A", "-f"],
        [*who, "commit", "-q", "-m", "as it lies here"],
    ):
        subprocess.run(["git", "-C", copy, *arguments], check=True)
    redirect = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": f"url.{copy.as_uri()}.insteadOf"}
    return redirect | {"GIT_CONFIG_VALUE_0": course["repository"]}


def lesson(nb, **where) -> dict:
    """Execute one lesson: whether it passed, seconds of its set-up cell and of all, and what the set-up cell said."""
    setup = next(n for n, cell in enumerate(nb.cells) if cell.cell_type == "code")
    try:
        began = timed(nb, timeout=1800, **where)
    except (CellExecutionError, TimeoutError, RuntimeError) as problem:
        return {"passed": False, "said": str(problem)[-4000:]}
    said = "".join(output.get("text", "") for output in nb.cells[setup].outputs)
    return {"passed": True, "setup": began[setup + 1], "seconds": began[-1], "said": said.strip()}


def run(python: Path, names: list[str], preset: str) -> list[dict]:
    """Execute lessons one after the other in a folder of nothing else; one row each. The first one installs."""
    rows = []
    with tempfile.TemporaryDirectory() as scratch, disguise(python), laptop() as env:
        room = Path(scratch, "content")
        room.mkdir()
        env = {key: value for key, value in env.items() if not key.startswith("PYTHON")}
        env |= redirected(address(), Path(scratch, "course.git")) | {"COURSE_PRESET": preset}
        for name in names:
            started = time.perf_counter()
            nb = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
            row = {"lesson": name} | lesson(nb, cwd=room, env=env, python=python)
            took = f"{time.perf_counter() - started:4.0f} s"
            print(f"{name:24} {'passed' if row['passed'] else 'failed'} {took}\n{row['said']}", flush=True)
            rows.append(row)
    return rows


def write_down(rows: list[dict], versions: dict[str, str], *, about: str, given: str, here: dict) -> Path:
    """data/results/colab.json: seconds of the set-up cell, which installs in the first lesson, and of all cells."""
    measured = here | {name: versions[name] for name in ("python", "torch")} | {"versions": versions}
    kept = [{"lesson": row["lesson"], **{key: round(row[key], 1) for key in ("setup", "seconds")}} for row in rows]
    return store("colab", kept, about=about, command=f"python -m tools.run.colab {given} --store", measured=measured)


@command
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
    names = select(sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb")), args.only)
    if args.python and args.python.absolute().parent == Path(sys.executable).absolute().parent:
        raise UserError(f"{args.python} is the Python that runs this: give another one, its course_lib goes away")
    python = args.python or environment(ROOT / "build" / "colab")
    versions = json.loads(answer(python, VERSIONS))
    print(", ".join(f"{name} {version}" for name, version in versions.items()))
    here = machine()
    rows = run(python, names, args.preset)
    passed = all(row["passed"] for row in rows)
    if args.store and passed:
        given = f"{'--python PYTHON ' if args.python else ''}--preset {args.preset}"
        print(write_down(rows, versions, about=ABOUT.format(args.preset), given=given, here=here))
    return int(not passed)


if __name__ == "__main__":
    sys.exit(main())
