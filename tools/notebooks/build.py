"""notebooks/src/NN_title.py -> notebooks/NN_title.ipynb (executed) and notebooks/exercises/NN_title.ipynb.

Where the lesson shows widgets their state goes to notebooks/widgets/NN_title.json.

The same sources give the same bytes. Only outputs of cells tagged `timing` (measured seconds) may differ from
run to run; a notebook in which nothing else has changed is left as it is. CONTRIBUTING.md describes a source.
"""

import argparse
import copy
import re
import sys
import time
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

import nbformat
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode

from course_lib.errors import UserError
from course_lib.files import write
from tools.checkout import ROOT, address
from tools.command import command
from tools.notebooks import widget_state
from tools.notebooks.editions import editions, tags
from tools.run.lessons import execute, laptop, select


def run(nb: NotebookNode, cwd: Path, name: str) -> dict:
    """Execute as on a laptop, and keep only what belongs in git.

    Returns the state of the widgets, which the notebook does not keep. Raises UserError for a failing cell.
    """
    with laptop() as env:
        try:
            execute(nb, cwd=cwd, env=env, timeout=900)
        except (CellExecutionError, TimeoutError, RuntimeError) as error:
            raise UserError(f"{name}: a cell failed, nothing was written\n{error}") from None
    nb.metadata.language_info = {"name": "python"}
    for cell in nb.cells:  # PyTorch's profiler tells the world when it starts and stops
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if not output.get("text", "").startswith("USDT:")]
    return widget_state.take(nb)


def committed(path: Path) -> NotebookNode:
    """A committed notebook; an empty one for a file that is none, such as one with the marks of a merge conflict."""
    try:
        return nbformat.read(path, as_version=4)
    except ValueError:
        return nbformat.v4.new_notebook()


def first_difference(old: list, new: list) -> int | None:
    """Number of the first cell, from 1, in which two lists of cells differ; None for equal lists."""
    pairs = enumerate(zip_longest(old, new), start=1)
    return next((number for number, (left, right) in pairs if left != right), None)


def lasting(nb: NotebookNode) -> list[dict]:
    """The cells without the outputs that may differ from run to run."""
    return [dict(cell, outputs=[]) if "timing" in tags(cell) else cell for cell in nb.cells]


def written(nb: NotebookNode) -> list[tuple]:
    """What the source decides about each cell: all but its outputs."""
    return [(cell.id, cell.cell_type, cell.source, tags(cell)) for cell in nb.cells]


def drift(folder: Path, names: list[str], course: dict[str, str]) -> Iterator[str]:
    """One sentence for every committed notebook that its source would not give again."""
    for name in names:
        for path, fresh in editions(folder / "src" / f"{name}.py", course).items():
            if not (folder / path).exists():
                yield f"{name}: notebooks/{path} is missing: run `make notebooks`"
            elif at := first_difference(written(committed(folder / path)), written(fresh)):
                yield f"{name}: cell {at} of notebooks/{path} is not what src/{name}.py says: run `make notebooks`"
        shown = {cell.id for cell in fresh.cells if re.search(r"^widgets\.\w+\(", cell.source, re.M)}
        stored = set(widget_state.load(folder / "widgets" / f"{name}.json")["views"])
        if shown - stored or stored - {cell.id for cell in fresh.cells}:
            yield f"{name}: notebooks/widgets/{name}.json is not of these widgets: run `make notebooks`"
    for path in sorted([*folder.glob("*.ipynb"), *folder.glob("exercises/*.ipynb")]):
        if not (folder / "src" / f"{path.stem}.py").exists():
            yield f"{path.relative_to(folder.parent)} has no source notebooks/src/{path.stem}.py: delete or write it"


def unrepeatable(folder: Path, names: list[str], course: dict[str, str]) -> Iterator[str]:
    """One sentence for every lesson that two executions give different outputs."""
    for name in names:
        nb = editions(folder / "src" / f"{name}.py", course)[f"{name}.ipynb"]
        once, twice = copy.deepcopy(nb), copy.deepcopy(nb)
        for copied in (once, twice):
            run(copied, folder, name)
        if at := first_difference(lasting(once), lasting(twice)):
            yield f"{name}: cell {at} gives other outputs every time: seed it, or tag it `timing` if it shows seconds"


def build(folder: Path, name: str, course: dict[str, str], *, executed: bool) -> None:
    """Write both editions, after the lesson has run; a failing lesson leaves the old files."""
    both = editions(folder / "src" / f"{name}.py", course)
    if executed:
        widget_state.store(folder / "widgets" / f"{name}.json", run(both[f"{name}.ipynb"], folder, name))
    for path, nb in both.items():
        target = folder / path
        if target.exists() and lasting(committed(target)) == lasting(nb):
            continue
        write(target, nbformat.writes(nb) + "\n")


@command
def main(argv: list[str] | None = None, root: Path = ROOT) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="+", default=[], metavar="NN", help="these lessons, by number or name")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--no-execute", action="store_true", help="write the complete edition without outputs")
    mode.add_argument("--check", action="store_true", help="write nothing; exit 1 if a committed notebook drifted")
    mode.add_argument("--repeat", action="store_true", help="write nothing; execute twice, exit 1 if outputs differ")
    args = parser.parse_args(argv)
    folder, course = root / "notebooks", address(root)
    names = select(sorted(path.stem for path in folder.glob("src/*.py")), args.only)
    if args.check or args.repeat:
        findings = list((drift if args.check else unrepeatable)(folder, names, course))
        print("\n".join(findings), end="\n" if findings else "")
        return 1 if findings else 0
    for name in names:
        start = time.perf_counter()
        build(folder, name, course, executed=not args.no_execute)
        print(f"{name}  {time.perf_counter() - start:.1f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
