"""Both editions of a lesson from its source notebooks/src/NN_title.py, not executed.

In the source: `### BEGIN SOLUTION` and `### END SOLUTION` around what the learner writes, in a cell tagged `exercise`,
with its check in the next code cell; cells tagged `solution-only` are not in the learner's edition; a cell tagged
`setup` becomes setup_cell.py; {{REPO}}, {{REF}} and {{COLAB}} become the address of the course, its version, and the
link that opens this very notebook on Colab.
"""

import copy
import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import jupytext
import nbformat
from nbformat import NotebookNode

from course_lib.errors import UserError

REGION = re.compile(r"^([ \t]*)### BEGIN SOLUTION[ \t]*\n(.*?)^[ \t]*### END SOLUTION[ \t]*$", re.M | re.S)
HOLE = 'raise NotImplementedError("your code here")'
SETUP = Path(__file__).with_name("setup_cell.py").read_text(encoding="utf-8").strip()
DETAILS = "<details>\n<summary>Solution (open when you are stuck)</summary>\n\n```python\n{}\n```\n\n</details>"


def tags(cell: NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def solved(region: re.Match) -> str:
    return region[2].rstrip("\n")


def editions(source: Path, course: dict[str, str]) -> dict[str, NotebookNode]:
    """Both editions of one source, not executed, by their path inside notebooks/."""
    nb, seen = jupytext.read(source, fmt="py:percent"), Counter()
    nb.nbformat, nb.nbformat_minor = 4, 5
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    nb.metadata = NotebookNode(kernelspec=kernel, language_info={"name": "python"})
    for cell in nb.cells:
        if "setup" in tags(cell):
            cell.source = SETUP
        key = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:12]
        seen[key] += 1
        cell.id = f"{key}-{seen[key]}"  # an edited cell changes its own id and no other
        cell.metadata = NotebookNode(tags=tags(cell)) if tags(cell) else NotebookNode()
    complete, exercise = copy.deepcopy(nb), copy.deepcopy(nb)
    for cell in complete.cells:
        cell.source = REGION.sub(solved, cell.source)
    exercise.cells = list(with_holes(exercise.cells))
    name = f"{source.stem}.ipynb"
    both = {name: complete, f"exercises/{name}": exercise}
    for path, edition in both.items():
        link = course["repository"].replace("https://", "https://colab.research.google.com/")
        colab = link.replace("/github.com/", "/github/") + f"/blob/{course['ref']}/notebooks/{path}"
        for cell in edition.cells:
            cell.source = cell.source.replace("{{COLAB}}", colab).replace("{{REPO}}", course["repository"])
            cell.source = cell.source.replace("{{REF}}", course["ref"])
            if "### BEGIN SOLUTION" in cell.source or "### END SOLUTION" in cell.source:
                raise UserError(f"{source.name}: a BEGIN or END SOLUTION has no partner; add it in the same cell")
    return both


def with_holes(cells: list[NotebookNode]) -> Iterator[NotebookNode]:
    """The learner's cells: holes for solutions, each solution folded away behind the check that follows it."""
    folded = None
    for cell in cells:
        if "solution-only" in tags(cell):
            continue
        is_check = cell.cell_type == "code" and "exercise" not in tags(cell)
        if "exercise" in tags(cell):
            text = DETAILS.format(REGION.sub(solved, cell.source))
            folded = nbformat.v4.new_markdown_cell(text, id=f"{cell.id}-solution", metadata={"tags": ["solution"]})
        cell.source = REGION.sub(rf"\1{HOLE}", cell.source)
        yield cell
        if is_check and folded:
            yield folded
            folded = None
