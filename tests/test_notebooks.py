"""The two editions of a sample lesson: building, drift, lint. The committed ones go through `make lint`."""

import copy
import re
from pathlib import Path

import nbformat
import pytest

from course_lib.errors import UserError
from tools.checkout import ROOT
from tools.notebooks import widget_state
from tools.notebooks.build import main as build
from tools.notebooks.editions import SETUP, editions
from tools.notebooks.lint import lint
from tools.notebooks.source import sources

SAMPLE = (ROOT / "tests/sample_lesson.py").read_text(encoding="utf-8")
COURSE = {"repository": "https://github.com/someone/course", "ref": "v1.2"}
LESSONS = [path.stem for path in sources()]
COMPLETE, EXERCISE = "00_sample.ipynb", "exercises/00_sample.ipynb"


def checkout(root: Path, **lessons: str) -> Path:
    """A checkout that holds nothing but these lessons."""
    (root / "notebooks/src").mkdir(parents=True)
    table = "".join(f'{key} = "{value}"\n' for key, value in COURSE.items())
    (root / "pyproject.toml").write_text(f"[tool.course]\n{table}", encoding="utf-8")
    for name, text in lessons.items():
        (root / f"notebooks/src/{name}.py").write_text(text, encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The sample lesson, executed once; tests copy it before they break it."""
    root = checkout(tmp_path_factory.mktemp("course"), **{"00_sample": SAMPLE})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COURSE_PRESET", "gpu")
        patch.setenv("COURSE_BBBC038_ARCHIVE", "somewhere.zip")
        patch.setenv("MPLBACKEND", "agg")
        assert build([], root=root) == 0
    return root


@pytest.fixture
def fresh(tmp_path):
    """The sample lesson, not executed."""
    root = checkout(tmp_path, **{"00_sample": SAMPLE})
    assert build(["--no-execute"], root=root) == 0
    return root


@pytest.fixture
def check(fresh, capsys):
    """Status and lines of --check."""

    def ask():
        capsys.readouterr()
        return build(["--check"], root=fresh), capsys.readouterr().out.splitlines()

    return ask


def read(root: Path, path: str):
    return nbformat.read(root / "notebooks" / path, as_version=4)


def code(nb) -> list[str]:
    return [cell.source for cell in nb.cells if cell.cell_type == "code"]


def test_a_second_build_gives_the_same_bytes(built):
    before = [(built / "notebooks" / path).read_bytes() for path in (COMPLETE, EXERCISE)]
    assert build(["--only", "00"], root=built) == 0
    assert [(built / "notebooks" / path).read_bytes() for path in (COMPLETE, EXERCISE)] == before
    assert build(["--check"], root=built) == 0


def test_repeat_names_the_cell_whose_output_changes(tmp_path, capsys):
    source = "# %%\nimport time\n\n# %%{}\nprint(time.perf_counter())\n"
    root = checkout(tmp_path, **{"00_clock": source.format(""), "01_tagged": source.format(' tags=["timing"]')})
    assert build(["--repeat"], root=root) == 1
    assert re.fullmatch(r"00_clock: cell 2 gives other outputs .*\n", capsys.readouterr().out)


def test_the_complete_edition_is_executed_on_a_laptop_without_the_archive(built):
    nb = read(built, COMPLETE)
    assert "laptop None\n" in [output.get("text") for cell in nb.cells for output in cell.get("outputs", [])]
    assert [cell.execution_count for cell in nb.cells if cell.cell_type == "code"] == list(range(1, 13))


def test_the_complete_edition_stores_figures_and_no_widgets_which_have_a_file_of_their_own(built):
    nb = read(built, COMPLETE)
    data = [output.data for cell in nb.cells for output in cell.get("outputs", []) if "data" in output]
    assert [sorted(each) for each in data] == [["image/png", "text/plain"]]
    saved = widget_state.load(built / "notebooks/widgets/00_sample.json")
    ((cell_id, model),) = saved["views"].items()
    assert saved["state"][model]["model_name"] == "IntSliderModel"
    assert saved["state"][model]["state"]["value"] == 3
    assert [cell.source for cell in nb.cells if cell.id == cell_id] == ["IntSlider(value=3)"]


def test_the_set_up_cell_and_the_address_are_filled_in(built):
    for path in (COMPLETE, EXERCISE):
        text = (built / "notebooks" / path).read_text(encoding="utf-8")
        assert "SOLUTION\\n" not in text and "{{" not in text
        assert f"https://colab.research.google.com/github/someone/course/blob/v1.2/notebooks/{path})" in text
        setup = read(built, path).cells[1].source
        assert setup == SETUP.replace("{{REPO}}", COURSE["repository"]).replace("{{REF}}", "v1.2")


def test_a_hole_raises_at_the_indentation_of_the_solution(built):
    space = {}
    double, triple = (cell for cell in code(read(built, EXERCISE)) if "NotImplemented" in cell)
    exec(f"{double}\n{triple}", space)
    assert space["triple"](None) is None
    for name in ("double", "triple"):
        with pytest.raises(NotImplementedError, match="your code here"):
            space[name](2)


def test_the_learners_edition_folds_each_solution_behind_its_check(built):
    cells = read(built, EXERCISE).cells
    folded = [n for n, cell in enumerate(cells) if "solution" in cell.metadata.get("tags", [])]
    assert [cells[n - 1].source.splitlines()[-1] for n in folded] == ["check_double(double)", "check_triple(triple)"]
    assert '```python\ndef double(x):\n    """Twice x."""\n    twice = x + x\n    return twice\n```' in (
        cells[folded[0]].source
    )


@pytest.mark.parametrize("name", ["sample_lesson", *LESSONS])
def test_the_learners_edition_with_its_solutions_is_the_complete_edition(name):
    path = ROOT / "tests/sample_lesson.py" if name == "sample_lesson" else ROOT / f"notebooks/src/{name}.py"
    complete, exercise = editions(path, COURSE).values()
    folded = {cell.id: cell.source for cell in exercise.cells if cell.id.endswith("solution")}
    solutions = {key: re.search(r"```python\n(.*)\n```", text, re.S)[1] for key, text in folded.items()}
    filled = [solutions.get(f"{c.id}-solution", c.source) for c in exercise.cells if c.cell_type == "code"]
    complete.cells = [cell for cell in complete.cells if "solution-only" not in cell.metadata.get("tags", [])]
    assert solutions
    assert filled == code(complete)


def test_editing_one_cell_changes_one_id(tmp_path):
    root = checkout(tmp_path, **{"00_old": SAMPLE, "01_new": SAMPLE.replace("value=3", "value=4")})
    old, new = ([c.id for c in editions(p, COURSE)[f"{p.stem}.ipynb"].cells] for p in sorted(root.rglob("*.py")))
    assert [a == b for a, b in zip(old, new, strict=True)].count(False) == 1
    assert len(set(old)) == len(old)


def test_a_marker_without_partner_is_refused(tmp_path):
    root = checkout(tmp_path, **{"00_sample": SAMPLE.replace("    ### END SOLUTION\n", "", 1)})
    with pytest.raises(UserError, match=r"00_sample\.py: a BEGIN or END SOLUTION has no partner"):
        editions(root / "notebooks/src/00_sample.py", COURSE)


def test_a_failing_lesson_is_named_and_leaves_the_old_notebook(tmp_path, capsys):
    root = checkout(tmp_path, **{"00_sample": "# %%\n1 / 0\n"})
    (root / "notebooks/00_sample.ipynb").write_text("old")
    assert build([], root=root) == 2
    message = capsys.readouterr().err
    assert "00_sample: a cell failed, nothing was written" in message and "ZeroDivisionError" in message
    assert (root / "notebooks/00_sample.ipynb").read_text() == "old"


@pytest.mark.parametrize("path", [COMPLETE, EXERCISE])
@pytest.mark.parametrize("part", ["source", "id", "tags", "inserted", "last"])
def test_check_names_a_notebook_that_was_edited_by_hand(path, part, fresh, check):
    assert check() == (0, [])
    nb, number = read(fresh, path), 5
    if part == "inserted":
        nb.cells.insert(4, nbformat.v4.new_markdown_cell("one more"))
    elif part == "last":
        del nb.cells[-1]
        number = len(nb.cells) + 1
    elif part == "tags":
        nb.cells[4].metadata.tags = ["timing"]
    else:
        nb.cells[4][part] = "edited"
    nbformat.write(nb, fresh / "notebooks" / path)
    said = f"00_sample: cell {number} of notebooks/{path} is not what src/00_sample.py says: run `make notebooks`"
    assert check() == (1, [said])


def test_check_names_missing_and_orphaned_notebooks(fresh, check):
    (fresh / "notebooks/00_sample.ipynb").rename(fresh / "notebooks/01_left.ipynb")
    status, (first, second) = check()
    assert status == 1 and first == "00_sample: notebooks/00_sample.ipynb is missing: run `make notebooks`"
    assert second.startswith("notebooks/01_left.ipynb has no source notebooks/src/01_left.py")


def test_check_names_widgets_whose_state_is_not_stored(fresh, check):
    (fresh / "notebooks/src/00_sample.py").write_text(SAMPLE + "\n# %%\nwidgets.grid_explorer()\n")
    build(["--no-execute"], root=fresh)
    assert check() == (1, ["00_sample: notebooks/widgets/00_sample.json is not of these widgets: run `make notebooks`"])


def cell(nb, text):
    return next(cell for cell in nb.cells if text in cell.source)


def edit(text, old, new):
    def change(nb):
        target = cell(nb, text)
        target.source = target.source.replace(old, new)

    return change


def tag(text, *tags):
    return lambda nb: cell(nb, text).metadata.update(tags=list(tags))


def output(kind, **fields):
    return lambda nb: cell(nb, "perf_counter").outputs.append(nbformat.v4.new_output(kind, **fields))


BROKEN = [
    (COMPLETE, edit("# Does", "?", "."), "is not a markdown title that ends in a question mark"),
    (COMPLETE, edit("# Does", "colab.research", "example"), "no Colab badge"),
    (EXERCISE, edit("# Does", "notebooks/exercises/", "notebooks/"), "no Colab badge that opens this very notebook"),
    (EXERCISE, tag("import importlib"), "the first code cell is not tagged setup"),
    (COMPLETE, tag("perf_counter", "parameters"), "not exactly one cell tagged parameters"),
    (COMPLETE, edit("PRESET =", "PRESET =", "BUDGET ="), "not exactly one cell tagged parameters that sets PRESET"),
    (COMPLETE, edit("## What", "What we found", "We found"), "no heading 'What we found'"),
    (COMPLETE, tag("def double"), "fewer than two cells tagged exercise"),
    (COMPLETE, edit("check_triple(", "check_", "test_"), "cell 11: the next code cell after this exercise calls no"),
    (COMPLETE, lambda nb: nb.metadata.kernelspec.update(name="julia"), "the kernelspec is not python3"),
    (COMPLETE, lambda nb: nb.metadata.update(widgets={}), "metadata.widgets is stored"),
    (COMPLETE, lambda nb: nb.cells[3].update(id=nb.cells[4].id), "cell ids are missing or not unique"),
    (EXERCISE, lambda nb: nb.cells[3].pop("id"), "cell ids are missing or not unique"),
    (COMPLETE, lambda nb: nb.cells[4].metadata.update(execution={}), "cell 5: metadata other than tags: execution"),
    (COMPLETE, tag("perf_counter", "nbval-check-outputs"), "cell 8: unknown tag nbval-check-outputs"),
    (COMPLETE, edit("PRESET", "SEED", "### BEGIN SOLUTION\nSEED"), "cell 4: a placeholder or a solution marker"),
    (COMPLETE, edit("PRESET", "auto", "{{REF}}"), "cell 4: a placeholder or a solution marker"),
    (COMPLETE, edit("perf_counter", "())", "());"), "cell 8: ends with a semicolon"),
    (EXERCISE, edit("PRESET", "auto", "/home/me/x"), "cell 4: a path of one machine, /home/"),
    (COMPLETE, output("stream", text="read /tmp/x\n"), "cell 8: a path of one machine, /tmp/"),
    (COMPLETE, output("display_data", data={"text/html": "'/Users/x'"}), "cell 8: a path of one machine, /Users/"),
    (COMPLETE, edit("PRESET", "SEED = 0", "SEED = 0\n" * 15), "cell 4: 16 lines of code, at most 15"),
    (COMPLETE, lambda nb: nb.cells[5].update(execution_count=9), "cell 6: was not executed in order"),
    (COMPLETE, lambda nb: nb.cells[4].update(outputs=[]), "cell 5: is tagged nbval-check-output but has no output"),
    (COMPLETE, output("error", ename="KeyError", evalue="", traceback=[]), "cell 8: stores the error KeyError"),
    (COMPLETE, output("stream", name="stderr", text="warning"), "cell 8: stores a message on stderr"),
    (COMPLETE, output("stream", text="<object object at 0x7f>"), "cell 8: shows an object address"),
    (COMPLETE, output("display_data", data={"image/png": ""}), "cell 8: a figure without alt text"),
    (COMPLETE, edit("PRESET", "auto", "x" * 1_000_000), "is 1.0 MB: keep it below 1 MB"),
    (EXERCISE, output("stream", text="1"), "cell 8: the exercise edition stores an output"),
    (EXERCISE, edit("def double", "raise", "return #"), "cell 9: an exercise without a hole"),
    (EXERCISE, tag("perf_counter", "solution-only"), "cell 8: a solution-only cell is left"),
    (EXERCISE, edit("# Does", "?", "?\n  twice = x + x\n\n  return twice"), "cell 1: gives a solution away"),
]


@pytest.mark.parametrize(("path", "change", "message"), BROKEN, ids=[f"{n}-{b[2][:30]}" for n, b in enumerate(BROKEN)])
def test_lint_names_the_broken_rule_and_no_other(path, change, message, built, fresh):
    for name in (COMPLETE, EXERCISE):
        nb = copy.deepcopy(read(built, name))
        if name == path:
            change(nb)
        (fresh / "notebooks" / name).write_text(nbformat.v4.writes(nb), encoding="utf-8")  # not validated
    (finding,) = lint(fresh)
    assert finding.startswith(f"notebooks/{path}: ") and message in finding


def test_lint_lets_web_addresses_and_relative_paths_pass(built, fresh):
    for name in (COMPLETE, EXERCISE):
        nb = read(built, name)
        nb.cells[0].source += "\nsee https://example.org/home/work/ and ../work/x, and/or/home/"
        nbformat.write(nb, fresh / "notebooks" / name)
    assert lint(fresh) == []


@pytest.mark.parametrize("name", LESSONS)
def test_every_lesson_has_five_exact_facts_for_nbval(name):
    cells = [c for c in read(ROOT, f"{name}.ipynb").cells if "nbval-check-output" in c.metadata.get("tags", [])]
    lines = [line for cell in cells for output in cell.outputs for line in output.get("text", "").splitlines()]
    assert len(cells) >= 3 and len(lines) >= 5
