"""The two editions of the lessons, on a sample lesson and on the committed ones: building, drift, lint."""

import copy
import re
from pathlib import Path

import nbformat
import pytest

from course_lib.errors import UserError
from tools import build_notebooks, lint_notebooks, widget_state
from tools.editions import editions

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = (ROOT / "tests/sample_lesson.py").read_text(encoding="utf-8")
COURSE = {"repository": "https://github.com/someone/course", "ref": "v1.2"}
LESSONS = sorted(path.stem for path in ROOT.glob("notebooks/src/*.py"))


def checkout(root: Path, **sources: str) -> Path:
    """A checkout that holds nothing but these lessons."""
    (root / "notebooks/src").mkdir(parents=True)
    table = "".join(f'{key} = "{value}"\n' for key, value in COURSE.items())
    (root / "pyproject.toml").write_text(f"[tool.course]\n{table}", encoding="utf-8")
    for name, text in sources.items():
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
        assert build_notebooks.main([], root=root) == 0
    return root


def read(root: Path, path: str):
    return nbformat.read(root / "notebooks" / path, as_version=4)


def code(nb) -> list[str]:
    return [cell.source for cell in nb.cells if cell.cell_type == "code"]


def test_a_second_build_gives_the_same_bytes(built):
    paths = [built / "notebooks/00_sample.ipynb", built / "notebooks/exercises/00_sample.ipynb"]
    before = [path.read_bytes() for path in paths]
    assert build_notebooks.main(["--only", "00"], root=built) == 0
    assert [path.read_bytes() for path in paths] == before
    assert build_notebooks.main(["--check"], root=built) == 0


def test_repeat_names_the_cell_whose_output_changes(tmp_path, capsys):
    source = "# %%\nimport time\n\n# %%{}\nprint(time.perf_counter())\n"
    root = checkout(tmp_path, **{"00_clock": source.format(""), "01_tagged": source.format(' tags=["timing"]')})
    assert build_notebooks.main(["--repeat"], root=root) == 1
    assert re.fullmatch(r"00_clock: cell 2 gives other outputs .*\n", capsys.readouterr().out)


def test_the_complete_edition_is_executed_on_a_laptop_without_the_archive(built):
    nb = read(built, "00_sample.ipynb")
    assert "laptop None\n" in [output.get("text") for cell in nb.cells for output in cell.get("outputs", [])]
    assert [cell.execution_count for cell in nb.cells if cell.cell_type == "code"] == list(range(1, 13))


def test_the_complete_edition_stores_figures_and_no_widgets_which_have_a_file_of_their_own(built):
    data = [o.data for c in read(built, "00_sample.ipynb").cells for o in c.get("outputs", []) if "data" in o]
    assert [sorted(each) for each in data] == [["image/png", "text/plain"]]
    assert "widget-view" not in (built / "notebooks/00_sample.ipynb").read_text(encoding="utf-8")
    saved = widget_state.load(built / "notebooks/widgets/00_sample.json")
    ((cell_id, model),) = saved["views"].items()
    assert saved["state"][model]["model_name"] == "IntSliderModel"
    assert saved["state"][model]["state"]["value"] == 3
    (shown,) = (cell for cell in read(built, "00_sample.ipynb").cells if cell.id == cell_id)
    assert shown.source == "IntSlider(value=3)"


def test_check_names_widgets_whose_state_is_not_stored(tmp_path, capsys):
    root = checkout(tmp_path, **{"00_sample": SAMPLE + "\n# %%\nwidgets.grid_explorer()\n"})
    build_notebooks.main(["--no-execute"], root=root)
    capsys.readouterr()
    assert build_notebooks.main(["--check"], root=root) == 1
    assert "notebooks/widgets/00_sample.json is not of these widgets" in capsys.readouterr().out


def test_no_edition_keeps_markers_or_placeholders(built):
    for path in ("00_sample.ipynb", "exercises/00_sample.ipynb"):
        text = (built / "notebooks" / path).read_text(encoding="utf-8")
        assert "SOLUTION\\n" not in text
        assert "{{" not in text
        assert f"https://colab.research.google.com/github/someone/course/blob/v1.2/notebooks/{path})" in text
        assert "https://github.com/someone/course@v1.2" in text


def test_a_hole_raises_at_the_indentation_of_the_solution(built):
    space = {}
    double, triple = (cell for cell in code(read(built, "exercises/00_sample.ipynb")) if "NotImplemented" in cell)
    exec(f"{double}\n{triple}", space)
    assert space["triple"](None) is None
    for name in ("double", "triple"):
        with pytest.raises(NotImplementedError, match="your code here"):
            space[name](2)


def test_the_learners_edition_folds_each_solution_behind_its_check(built):
    cells = read(built, "exercises/00_sample.ipynb").cells
    folded = [n for n, cell in enumerate(cells) if "solution" in cell.metadata.get("tags", [])]
    assert [cells[n - 1].source.splitlines()[-1] for n in folded] == ["check_double(double)", "check_triple(triple)"]
    assert '```python\ndef double(x):\n    """Twice x."""\n    twice = x + x\n    return twice\n```' in (
        cells[folded[0]].source
    )


@pytest.mark.parametrize("name", ["00_sample", *LESSONS])
def test_the_learners_edition_with_its_solutions_is_the_complete_edition(name, tmp_path):
    root = checkout(tmp_path, **{"00_sample": SAMPLE}) if name == "00_sample" else ROOT
    both = editions(root / f"notebooks/src/{name}.py", COURSE)
    exercise = both[f"exercises/{name}.ipynb"].cells
    solutions = {
        c.id: re.search(r"```python\n(.*)\n```", c.source, re.S) for c in exercise if c.id.endswith("solution")
    }
    filled = [
        solutions[f"{cell.id}-solution"][1] if f"{cell.id}-solution" in solutions else cell.source
        for cell in exercise
        if cell.cell_type == "code"
    ]
    kept = [c for c in both[f"{name}.ipynb"].cells if "solution-only" not in c.metadata.get("tags", [])]
    assert solutions
    assert filled == [cell.source for cell in kept if cell.cell_type == "code"]


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
    assert build_notebooks.main([], root=root) == 1
    message = capsys.readouterr().err
    assert "00_sample: a cell failed" in message
    assert "ZeroDivisionError" in message
    assert (root / "notebooks/00_sample.ipynb").read_text() == "old"


def test_an_unknown_lesson_is_refused_with_the_list(tmp_path, capsys):
    assert build_notebooks.main(["--only", "07"], root=checkout(tmp_path, **{"00_sample": SAMPLE})) == 2
    assert capsys.readouterr().err == "--only 07 names no lesson: choose from 00_sample\n"


@pytest.mark.parametrize("path", ["00_sample.ipynb", "exercises/00_sample.ipynb"])
@pytest.mark.parametrize("part", ["source", "id", "tags", "cells"])
def test_check_names_a_notebook_that_was_edited_by_hand(path, part, tmp_path, capsys):
    root = checkout(tmp_path, **{"00_sample": SAMPLE})
    assert build_notebooks.main(["--no-execute"], root=root) == 0
    assert build_notebooks.main(["--check"], root=root) == 0
    nb = read(root, path)
    if part == "cells":
        nb.cells.insert(4, nbformat.v4.new_markdown_cell("one more"))
    elif part == "tags":
        nb.cells[4].metadata.tags = ["timing"]
    else:
        nb.cells[4][part] = "edited"
    nbformat.write(nb, root / "notebooks" / path)
    capsys.readouterr()
    assert build_notebooks.main(["--check"], root=root) == 1
    expected = f"00_sample: cell 5 of notebooks/{path} is not what src/00_sample.py says: run `make notebooks`\n"
    assert capsys.readouterr().out == expected


def test_check_names_a_notebook_without_its_last_cell(tmp_path, capsys):
    root = checkout(tmp_path, **{"00_sample": SAMPLE})
    build_notebooks.main(["--no-execute"], root=root)
    nb = read(root, "00_sample.ipynb")
    del nb.cells[-1]
    nbformat.write(nb, root / "notebooks/00_sample.ipynb")
    assert build_notebooks.main(["--check"], root=root) == 1
    assert f"00_sample: cell {len(nb.cells) + 1} of notebooks/00_sample.ipynb is not" in capsys.readouterr().out


def test_check_names_missing_and_orphaned_notebooks(tmp_path, capsys):
    root = checkout(tmp_path, **{"00_sample": SAMPLE})
    build_notebooks.main(["--no-execute"], root=root)
    (root / "notebooks/00_sample.ipynb").rename(root / "notebooks/01_left.ipynb")
    capsys.readouterr()
    assert build_notebooks.main(["--check"], root=root) == 1
    first, second = capsys.readouterr().out.splitlines()
    assert first == "00_sample: notebooks/00_sample.ipynb is missing: run `make notebooks`"
    assert second.startswith("notebooks/01_left.ipynb has no source notebooks/src/01_left.py")


def test_the_sample_lesson_passes_the_lint(built):
    assert lint_notebooks.lint(built) == []


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


COMPLETE, EXERCISE = "00_sample.ipynb", "exercises/00_sample.ipynb"
BROKEN = [
    (COMPLETE, edit("# Does", "?", "."), "is not a markdown title that ends in a question mark"),
    (COMPLETE, edit("# Does", "colab.research", "example"), "no Colab badge"),
    (EXERCISE, edit("# Does", "notebooks/exercises/", "notebooks/"), "no Colab badge that opens this very notebook"),
    (COMPLETE, tag("import os"), "the first code cell is not tagged setup"),
    (EXERCISE, edit("import os", "import time", "import times"), "its setup cell differs from the one in notebooks/00"),
    (COMPLETE, tag("PRESET ="), "not exactly one cell tagged parameters"),
    (COMPLETE, tag("perf_counter", "parameters"), "not exactly one cell tagged parameters"),
    (COMPLETE, edit("PRESET =", "PRESET =", "BUDGET ="), "not exactly one cell tagged parameters that sets PRESET"),
    (COMPLETE, edit("## What", "What we found", "We found"), "no heading 'What we found'"),
    (EXERCISE, edit("## What", "One honest limit", "Limits"), "no heading 'One honest limit'"),
    (COMPLETE, edit("## What", "The next question", "Bye"), "no heading 'The next question'"),
    (COMPLETE, tag("def double"), "fewer than two cells tagged exercise"),
    (
        COMPLETE,
        edit("check_triple(", "check_", "test_"),
        "cell 10: the next code cell after this exercise calls no check_",
    ),
    (COMPLETE, lambda nb: nb.metadata.kernelspec.update(name="julia"), "the kernelspec is not python3"),
    (COMPLETE, lambda nb: nb.metadata.update(widgets={}), "metadata.widgets is stored"),
    (COMPLETE, lambda nb: nb.cells[3].update(id=nb.cells[4].id), "cell ids are missing or not unique"),
    (EXERCISE, lambda nb: nb.cells[3].pop("id"), "cell ids are missing or not unique"),
    (COMPLETE, lambda nb: nb.cells[3].metadata.update(execution={}), "cell 4: metadata other than tags: execution"),
    (COMPLETE, tag("perf_counter", "nbval-check-outputs"), "cell 7: unknown tag nbval-check-outputs"),
    (COMPLETE, edit("PRESET", "SEED", "### BEGIN SOLUTION\nSEED"), "cell 3: a placeholder or a solution marker"),
    (COMPLETE, edit("PRESET", "auto", "{{REF}}"), "cell 3: a placeholder or a solution marker"),
    (COMPLETE, edit("perf_counter", "())", "());"), "cell 7: ends with a semicolon"),
    (EXERCISE, edit("PRESET", "auto", "/home/me/x"), "cell 3: a path of one machine, /home/"),
    (COMPLETE, output("stream", text="read /tmp/x\n"), "cell 7: a path of one machine, /tmp/"),
    (COMPLETE, output("display_data", data={"text/html": "'/Users/x'"}), "cell 7: a path of one machine, /Users/"),
    (COMPLETE, edit("PRESET", "SEED = 0", "SEED = 0\n" * 15), "cell 3: 16 lines of code, at most 15"),
    (COMPLETE, lambda nb: nb.cells[4].update(execution_count=9), "cell 5: was not executed in order"),
    (COMPLETE, lambda nb: nb.cells[3].update(outputs=[]), "cell 4: is tagged nbval-check-output but has no output"),
    (COMPLETE, output("error", ename="KeyError", evalue="", traceback=[]), "cell 7: stores the error KeyError"),
    (COMPLETE, output("stream", name="stderr", text="warning"), "cell 7: stores a message on stderr"),
    (COMPLETE, output("stream", text="<object object at 0x7f>"), "cell 7: shows an object address"),
    (COMPLETE, output("display_data", data={"image/png": ""}), "cell 7: a figure without alt text"),
    (COMPLETE, edit("PRESET", "auto", "x" * 1_000_000), "is 1.0 MB: keep it below 1 MB"),
    (EXERCISE, output("stream", text="1"), "cell 7: the exercise edition stores an output"),
    (EXERCISE, edit("def double", "raise", "return #"), "cell 8: an exercise without a hole"),
    (EXERCISE, tag("perf_counter", "solution-only"), "cell 7: a solution-only cell is left"),
    (EXERCISE, edit("# Does", "?", "?\n  twice = x + x\n\n  return twice"), "cell 1: gives a solution away"),
    (EXERCISE, edit("PRESET", "SEED = 0", "result = double(x) + x"), "cell 3: gives a solution away"),
]


@pytest.mark.parametrize(("path", "change", "message"), BROKEN, ids=[f"{n}-{b[2][:30]}" for n, b in enumerate(BROKEN)])
def test_lint_names_the_broken_rule_and_no_other(path, change, message, built, tmp_path):
    root = checkout(tmp_path, **{"00_sample": SAMPLE})
    (root / "notebooks/exercises").mkdir()
    for name in (COMPLETE, EXERCISE):
        nb = copy.deepcopy(read(built, name))
        if name == path:
            change(nb)
        (root / "notebooks" / name).write_text(nbformat.v4.writes(nb), encoding="utf-8")  # not validated
    (finding,) = lint_notebooks.lint(root)
    assert finding.startswith(f"notebooks/{path}: ")
    assert message in finding


def test_lint_lets_web_addresses_and_relative_paths_pass(built, tmp_path):
    root = checkout(tmp_path, **{"00_sample": SAMPLE})
    nb = read(built, COMPLETE)
    nb.cells[0].source += "\nsee https://example.org/home/work/ and ../work/x, and/or/home/"
    nbformat.write(nb, root / "notebooks/00_sample.ipynb")
    assert lint_notebooks.lint(root) == []


@pytest.mark.skipif(not LESSONS, reason="no lesson is written yet")
def test_committed_lessons_pass_the_lint():
    assert lint_notebooks.lint(ROOT) == []


@pytest.mark.parametrize("name", LESSONS)
def test_every_lesson_has_five_exact_facts_for_nbval(name):
    nb = nbformat.read(ROOT / f"notebooks/{name}.ipynb", as_version=4)
    compared = [cell for cell in nb.cells if "nbval-check-output" in cell.metadata.get("tags", [])]
    lines = [line for cell in compared for output in cell.outputs for line in output.get("text", "").splitlines()]
    assert len(compared) >= 3 and len(lines) >= 5


@pytest.mark.skipif(not LESSONS, reason="no lesson is written yet")
def test_committed_lessons_are_what_their_sources_say(capsys):
    build_notebooks.main(["--check"])
    assert capsys.readouterr().out == ""
