"""Every check accepts the lesson's own solution and refuses each wrong answer in words about that very mistake."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path

import jupytext
import nbformat
import numpy as np
import pytest
import torch
from torch import nn

from course_lib import checks
from course_lib.checks import expect
from course_lib.checks.machinery import ask

ROOT = Path(__file__).resolve().parent.parent
MODULES = [
    importlib.import_module(f"tests.wrong_answers.{path.stem}")
    for path in sorted((ROOT / "tests/wrong_answers").glob("*.py"))
    if path.stem != "__init__"
]
WRONG = [
    pytest.param(module.CHECK, pattern, answer, id=f"{module.EXERCISE}-{answer.__name__}")
    for module in MODULES
    for pattern, answer in module.WRONG.items()
]
every_exercise = pytest.mark.parametrize("module", MODULES, ids=lambda module: module.EXERCISE)


def defined_in(notebook, name: str):
    """The object that an exercise cell of this notebook defines, with the notebook's own imports."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    imports = "\n".join(cell.source for cell in cells if "setup" not in _tags(cell) and _only_imports(cell.source))
    exercise = next(
        cell.source
        for cell in cells
        if "exercise" in _tags(cell) and re.search(rf"^(def|class) {name}\b", cell.source, re.M)
    )
    namespace = {}
    exec(imports + "\n" + exercise, namespace)
    return namespace[name]


def _only_imports(code):
    try:
        return all(isinstance(node, ast.Import | ast.ImportFrom) for node in ast.parse(code).body)
    except SyntaxError:  # a magic of the notebook
        return False


def _tags(cell):
    return cell.metadata.get("tags", [])


@every_exercise
def test_the_lessons_own_solution_passes_in_one_line_and_random_numbers_go_on(module, capsys):
    solution = defined_in(jupytext.read(ROOT / f"notebooks/src/{module.LESSON}.py"), module.EXERCISE)
    torch.manual_seed(3)
    module.CHECK(solution)
    assert capsys.readouterr().out == f"{module.EXERCISE}: correct\n"
    after = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(after, torch.rand(1))


@every_exercise
def test_a_hole_of_the_exercise_edition_is_called_one(module):
    edition = nbformat.read(ROOT / f"notebooks/exercises/{module.LESSON}.ipynb", as_version=4)
    with pytest.raises(AssertionError, match=f"{module.EXERCISE} is not written yet: replace the line"):
        module.CHECK(defined_in(edition, module.EXERCISE))


@pytest.mark.parametrize(("check", "pattern", "answer"), WRONG)
def test_a_wrong_answer_is_refused_in_words_about_its_mistake(check, pattern, answer, capsys):
    with pytest.raises(AssertionError, match=pattern):
        check(answer)
    assert capsys.readouterr().out == ""


def test_every_check_has_three_wrong_answers_and_says_what_it_asks_for():
    public = {function for name, function in vars(checks).items() if name.startswith("check_")}
    assert public == {module.CHECK for module in MODULES}
    assert all(inspect.getdoc(check) for check in public)
    assert all(len(set(module.WRONG.values())) >= 3 for module in MODULES)


def test_every_exercise_of_every_lesson_is_checked():
    for source in (ROOT / "notebooks/src").glob("*.py"):
        named = [
            re.search(r"^(?:def|class) (\w+)", cell.source, re.M)[1]
            for cell in jupytext.read(source).cells
            if "exercise" in _tags(cell)
        ]
        assert set(named) == {module.EXERCISE for module in MODULES if source.stem == module.LESSON}


def test_a_class_without_forward_is_told_apart_from_a_hole():
    class UNet(nn.Module):
        def __init__(self, in_channels, classes, widths):
            super().__init__()

    with pytest.raises(AssertionError, match="UNet has no method forward"):
        checks.check_unet(UNet)


@pytest.mark.parametrize(
    ("given", "change"),
    [
        (torch.ones(2), lambda tensor: tensor.add_(1)),
        (np.ones(2), lambda array: array.fill(0)),
        (nn.Linear(1, 1), lambda net: net.bias.data.add_(1)),
        ([torch.ones(2)], lambda tensors: tensors[0].mul_(2)),
        ({"a": 1}, lambda scores: scores.pop("a")),
    ],
)
def test_an_answer_that_changes_what_it_was_given_is_refused(given, change):
    with pytest.raises(AssertionError, match="what came in was changed"):
        ask(change, given)


def test_expect_prints_a_line_without_the_measured_value(capsys):
    expect("val IoU", 0.8123, 0.81, tol=0.01)
    assert capsys.readouterr().out == "val IoU: ok (0.81 ± 0.01)\n"


@pytest.mark.parametrize("value", [0.79, 0.831, float("nan")])
def test_expect_refuses_what_is_off(value):
    with pytest.raises(AssertionError, match=r"val IoU is .*, expected 0.81 ± 0.01"):
        expect("val IoU", value, 0.81, tol=0.01)


def dressed(value, kind):
    """Each number of an answer as a number in other clothes."""
    if isinstance(value, tuple | list):
        return (
            [dressed(one, kind) for one in value]
            if isinstance(value, list)
            else tuple(dressed(one, kind) for one in value)
        )
    return kind(value) if isinstance(value, int | float | np.generic) and not isinstance(value, bool) else value


CLOTHES = [lambda x: np.array([x]), lambda x: torch.tensor([x]), lambda x: np.array(x), lambda x: np.array([x, x])]
BARE = ("average_precision", "deepest", "holm", "median_seconds", "paired_interval", "iou", "dice", "receptive_field")


@pytest.mark.parametrize("clothes", CLOTHES)
@pytest.mark.parametrize("module", [one for one in MODULES if one.EXERCISE in BARE], ids=lambda module: module.EXERCISE)
def test_a_number_may_come_as_an_array_of_one_and_two_are_refused_in_words(module, clothes):
    solution = defined_in(jupytext.read(ROOT / f"notebooks/src/{module.LESSON}.py"), module.EXERCISE)

    def answer(*given):
        return dressed(solution(*given), clothes)

    if clothes is not CLOTHES[-1]:
        module.CHECK(answer)
        return
    with pytest.raises(AssertionError) as refusal:
        module.CHECK(answer)
    assert "stops with" not in str(refusal.value)


def test_where_python_leaves_out_asserts_no_answer_is_called_correct():
    """Without them every wrong answer would pass."""
    program = "from course_lib.checks import check_iou; check_iou(lambda predicted, true: 7.0)"
    done = subprocess.run([sys.executable, "-O", "-c", program], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 1 and "correct" not in done.stdout
    assert "python -O leaves out what checks assert: start Python without it" in done.stderr
