"""The day before a workshop: what a machine of the room must be able to do, each point tried and not guessed.

`python -m tools.run.workshop` prints it.
"""

import importlib.util
import os
import shutil
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import torch

from course_lib import data
from course_lib.data import cache
from course_lib.errors import UserError
from course_lib.grid import NestedUNet
from course_lib.lesson import presets, progress
from course_lib.lesson.colab import NOTEBOOK_PACKAGES
from course_lib.train import fit
from tools.checkout import ROOT, address
from tools.run.lessons import execute

MEMORY, DISK = 1.5e9, 1e9  # bytes free: a lesson takes below 1 GB
CONTAINER = Path("/sys/fs/cgroup")  # of cgroup v2, as a hub of notebooks sets it
SLOW = 10  # seconds for an epoch of lesson 00, which takes 1.5 on two cores: above it the plans do not hold


class Point(NamedTuple):
    name: str
    good: bool
    said: str  # how it is, or what is wrong and what to do


def checklist() -> list[Point]:
    """Every point, in order. None of them needs a network, and nothing is left behind."""
    points = []
    for check in (_packages, _kernel, _speed, _memory, _disk, _lessons, _images, _progress, _address):
        name = check.__name__.removeprefix("_")
        try:
            points.append(Point(name, True, check()))
        except UserError as problem:
            points.append(Point(name, False, str(problem)))
    return points


def _packages() -> str:
    if missing := [name for name in NOTEBOOK_PACKAGES if importlib.util.find_spec(name) is None]:
        raise UserError(f'{", ".join(missing)} missing: pip install -e ".[notebooks]"')
    return "what notebooks need is installed"


def _kernel() -> str:
    if importlib.util.find_spec("nbclient") is None:
        raise UserError("not tried, nbclient is missing")
    import nbformat

    cell = nbformat.v4.new_code_cell("from course_lib.lesson.colab import notice\nnotice()")
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        try:
            execute(nbformat.v4.new_notebook(cells=[cell]), cwd=Path(folder), env=dict(os.environ), timeout=120)
        except Exception as problem:  # whatever stops a kernel here would stop one there
            raise UserError(f"a kernel does not run ({' '.join(str(problem).split())[:200]}): install again") from None
    return f"a notebook runs; start and imports took {time.perf_counter() - started:.0f} s"


def _speed() -> str:
    sizes = presets.PRESETS["laptop"]
    splits = data.draw(sizes.images, sizes.size)
    torch.manual_seed(0)
    net = NestedUNet(widths=sizes.widths, deep_supervision=True)
    _, row = fit(net, splits, epochs=2)  # the first warms up
    where = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} threads"
    if row["seconds"] > SLOW:
        raise UserError(
            f"an epoch of lesson 00 takes {row['seconds']:.0f} s ({where}): close other programs, or use Colab"
        )
    return f"an epoch of lesson 00 takes {row['seconds']:.1f} s ({where}); the lesson has {sizes.epochs}"


def _memory() -> str:
    free = _free_memory()
    if free is None:
        return "not told by this system; a lesson takes below 1 GB"
    if free < MEMORY:
        raise UserError(f"{free / 1e9:.1f} GB free, a lesson and a browser want {MEMORY / 1e9:g}: close other programs")
    return f"{free / 1e9:.1f} GB free, a lesson takes below 1"


def _disk() -> str:
    folder = cache.folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
        free = shutil.disk_usage(folder).free
    except OSError as problem:
        raise UserError(f"{folder} cannot be written ({problem.strerror}): set COURSE_DATA to another folder") from None
    if free < DISK:
        raise UserError(f"{folder} has {free / 1e9:.1f} GB left: free {DISK / 1e9:g} GB, or set COURSE_DATA elsewhere")
    return f"{folder} can be written, {free / 1e9:.0f} GB free"


def _lessons() -> str:
    folder = ROOT / "notebooks" / "exercises"
    if not os.access(folder, os.W_OK):
        raise UserError(f"{folder} cannot be written, so no answer can be saved: copy it into the learner's own folder")
    return f"{len(list(folder.glob('*.ipynb')))} lessons in {folder}"


def _images() -> str:
    real = [name for name in data.SOURCES if _at_hand(name)]
    return f"built in{''.join(f', and {name}' for name in real)}"


def _at_hand(name: str) -> bool:
    return bool(cache.given(name)) or (cache.folder() / cache.ARCHIVES / f"{name}.zip").is_file()


def _progress() -> str:
    path = os.environ.get(progress.VARIABLE)
    if not path:
        return f"not kept ({progress.VARIABLE} is not set)"
    try:
        with Path(path).open("a", encoding="utf-8"):
            return f"kept in {path}"
    except OSError as problem:
        raise UserError(
            f"{progress.VARIABLE} names {path}, which cannot be written ({problem.strerror}): correct it"
        ) from None


def _address() -> str:
    repository = address(ROOT)["repository"]
    if "/OWNER/" in repository:
        return (
            "for a room on Colab, write the address of your public copy into [tool.course] of pyproject.toml and type "
            "make notebooks: until then the Colab buttons lead nowhere"
        )
    return f"Colab buttons lead to {repository}: open one"


def _free_memory() -> int | None:
    """Bytes that a program can have without swapping, or that its container allows; None where the system is silent."""
    free = []
    with suppress(OSError, StopIteration):
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        free.append(1024 * int(next(line.split()[1] for line in lines if line.startswith("MemAvailable:"))))
    with suppress(OSError, ValueError):  # no container, or "max"
        limit, used = (int((CONTAINER / f"memory.{name}").read_text()) for name in ("max", "current"))
        free.append(limit - used)
    return min(free, default=None)


def report(points: list[Point]) -> str:
    """One line a point: ok or mend, its name, how it is."""
    return "\n".join(f"{'ok  ' if point.good else 'mend'}  {point.name:9} {point.said}" for point in points)


def main() -> int:
    """Print the checklist: status 0 where every point is good."""
    points = checklist()
    print(report(points))
    return 0 if all(point.good for point in points) else 2


if __name__ == "__main__":
    sys.exit(main())
