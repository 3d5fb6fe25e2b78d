"""Fast rules that every committed lesson keeps; one line per finding, exit status 1 if there is any.

Nothing is executed. CONTRIBUTING.md gives the reason behind each rule.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from tools.checkout import ROOT
from tools.notebooks.editions import HOLE, REGION, tags

MAX_LINES, MAX_BYTES = 15, 1_000_000
KNOWN_TAGS = {"setup", "imports", "parameters", "exercise", "check", "predict", "solution", "solution-only"}
KNOWN_TAGS |= {"timing", "nbval-check-output", "nbval-ignore-output", "nbval-skip", "raises-exception"}
KNOWN_TAGS |= {"hide-input", "hide-output", "hide-cell"}
HEADINGS = "What we found", "One honest limit", "The next question"
MACHINE_PATH = re.compile(r"(?<![\w.~-])/(?:tmp|home|root|work|Users|var/folders)/|[A-Z]:\\Users\\")


def squeeze(text: str) -> str:
    """The text without indentation and blank lines, so that moved code is still recognised."""
    return "\n".join(line.strip() for line in text.splitlines() if line.strip())


def texts(output: NotebookNode) -> Iterator[str]:
    """Every human-readable part of an output; images are left out."""
    yield output.get("text", "")
    yield "\n".join([output.get("evalue", ""), *output.get("traceback", [])])
    yield from (f"{data}" for mime, data in output.get("data", {}).items() if not mime.startswith("image/"))


def common(nb: NotebookNode, path: str) -> Iterator[str]:
    """Rules of both editions. `path` is relative to the repository root."""
    code = [cell for cell in nb.cells if cell.cell_type == "code"]
    markdown = [cell.source for cell in nb.cells if cell.cell_type == "markdown"]
    title = nb.cells[0].source.partition("\n")[0] if nb.cells and nb.cells[0].cell_type == "markdown" else ""
    if not re.fullmatch(r"# .+\?", title.strip()):
        yield "the first cell is not a markdown title that ends in a question mark"
    if not any(re.search(rf"colab\.research\.google\.com/[^)\"\s]*/{re.escape(path)}[)\"]", text) for text in markdown):
        yield "no Colab badge that opens this very notebook: write [![...](...)]({{COLAB}})"
    if not code or "setup" not in tags(code[0]):
        yield "the first code cell is not tagged setup"
    parameters = [cell.source for cell in code if "parameters" in tags(cell)]
    if len(parameters) != 1 or not re.search(r"^PRESET\b", parameters[0], re.M):
        yield "there is not exactly one cell tagged parameters that sets PRESET"
    for heading in HEADINGS:
        if not any(re.search(rf"^#+ {heading}\b", text, re.M) for text in markdown):
            yield f"no heading {heading!r}"
    exercises = [at for at, cell in enumerate(code) if "exercise" in tags(cell)]
    if len(exercises) < 2:
        yield "fewer than two cells tagged exercise"
    for at in exercises:
        if at + 1 == len(code) or "exercise" in tags(code[at + 1]) or "check_" not in code[at + 1].source:
            yield f"cell {nb.cells.index(code[at]) + 1}: the next code cell after this exercise calls no check_..."
    if nb.metadata.get("kernelspec", {}).get("name") != "python3":
        yield "the kernelspec is not python3"
    if "widgets" in nb.metadata:
        yield "metadata.widgets is stored, which GitHub refuses: build with `make notebooks`"
    if len({cell.id for cell in nb.cells if "id" in cell}) < len(nb.cells):
        yield "cell ids are missing or not unique"
    for number, cell in enumerate(nb.cells, start=1):
        if extra := set(cell.metadata) - {"tags"}:
            yield f"cell {number}: metadata other than tags: {', '.join(sorted(extra))}"
        if unknown := {tag for tag in tags(cell) if not re.fullmatch(r"ex-\d+", tag)} - KNOWN_TAGS:
            yield f"cell {number}: unknown tag {', '.join(sorted(unknown))}"
        if re.search(r"\{\{(SETUP|REPO|REF|COLAB)\}\}|### (BEGIN|END) SOLUTION", cell.source):
            yield f"cell {number}: a placeholder or a solution marker of the source is left"
        if cell.cell_type == "code" and cell.source.rstrip().endswith(";"):
            yield f"cell {number}: ends with a semicolon, which nbval does not honour: assign to _ or call plt.show()"
        for text in [cell.source, *(text for output in cell.get("outputs", []) for text in texts(output))]:
            if place := MACHINE_PATH.search(text):
                yield f"cell {number}: a path of one machine, {place[0]}..."


def complete(nb: NotebookNode) -> Iterator[str]:
    """Rules of the executed edition."""
    count = 0
    for number, cell in enumerate(nb.cells, start=1):
        if cell.cell_type != "code":
            continue
        count += 1
        lines = sum(bool(line.strip()) for line in cell.source.splitlines())
        if lines > MAX_LINES and "setup" not in tags(cell):
            yield f"cell {number}: {lines} lines of code, at most {MAX_LINES} are read in one go"
        if cell.execution_count != count:
            yield f"cell {number}: was not executed in order: build with `make notebooks`"
        if "nbval-check-output" in tags(cell) and not cell.outputs:
            yield f"cell {number}: is tagged nbval-check-output but has no output to compare"
        for output in cell.outputs:
            if output.output_type == "error" and "raises-exception" not in tags(cell):
                yield f"cell {number}: stores the error {output.ename}"
            if output.get("name") == "stderr":
                yield f"cell {number}: stores a message on stderr"
            if any(re.search(r"<.* at 0x[0-9a-f]+", text) for text in texts(output)):
                yield f"cell {number}: shows an object address, which changes with every run"
            for mime in (mime for mime in output.get("data", {}) if mime.startswith("image/")):
                if not (output.metadata.get(mime, {}).get("alt") or output.metadata.get("alt")):
                    yield f"cell {number}: a figure without alt text: show it by course_lib.show.display(fig, alt=...)"


def exercise(nb: NotebookNode, solutions: list[str]) -> Iterator[str]:
    """Rules of the learner's edition; `solutions` are the solution regions of the source."""
    for number, cell in enumerate(nb.cells, start=1):
        if cell.get("outputs") or cell.get("execution_count"):
            yield f"cell {number}: the exercise edition stores an output"
        if "exercise" in tags(cell) and HOLE not in cell.source:
            yield f"cell {number}: an exercise without a hole: mark its solution in the source"
        if "solution-only" in tags(cell):
            yield f"cell {number}: a solution-only cell is left"
        if "solution" not in tags(cell) and any(text in squeeze(cell.source) for text in solutions):
            yield f"cell {number}: gives a solution away"


def lint(root: Path) -> list[str]:
    """All findings of all lessons under ROOT/notebooks, each with the path of its notebook."""
    findings = []
    folder = root / "notebooks"
    for path in sorted([*folder.glob("*.ipynb"), *folder.glob("exercises/*.ipynb")]):
        name = path.relative_to(root).as_posix()
        try:
            nb = nbformat.v4.reads(path.read_text(encoding="utf-8"))  # nbformat.read would mend what is wrong
        except ValueError:
            findings.append(f"{name}: is no notebook (the marks of a merge conflict?): run `make notebooks`")
            continue
        broken = list(common(nb, name))
        if path.stat().st_size > MAX_BYTES:
            broken.append(f"is {path.stat().st_size / 1e6:.1f} MB: keep it below 1 MB with fewer or smaller figures")
        if path.parent == folder:
            broken += complete(nb)
        else:
            source = folder / "src" / f"{path.stem}.py"
            text = source.read_text(encoding="utf-8") if source.exists() else ""
            solutions = [squeeze(region) for _, region in REGION.findall(text)]
            broken += exercise(nb, [text for text in solutions if len(text) > 12])  # `return x` may stand anywhere
        findings += [f"{name}: {rule}" for rule in broken]
    return findings


if __name__ == "__main__":
    problems = lint(ROOT)
    print("\n".join(problems) if problems else "notebooks: no findings")
    sys.exit(bool(problems))
