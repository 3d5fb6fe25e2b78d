"""Every check accepts the lesson's own solution and refuses each wrong answer in words about that very mistake."""

import importlib
import inspect
import re
from pathlib import Path

import jupytext
import nbformat
import pytest
import torch

from course_lib import checks
from course_lib.checks import expect

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


def solution(lesson: str, name: str):
    """The object that the lesson's own exercise cell defines, with the lesson's own imports."""
    return defined_in(jupytext.read(ROOT / f"notebooks/src/{lesson}.py"), name)


def defined_in(notebook, name: str):
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    imports = next(cell.source for cell in cells if "from course_lib" in cell.source and "setup" not in _tags(cell))
    exercise = next(
        cell.source
        for cell in cells
        if "exercise" in _tags(cell) and re.search(rf"^(def|class) {name}\b", cell.source, re.M)
    )
    namespace = {}
    exec(imports + "\n" + exercise, namespace)
    return namespace[name]


def _tags(cell):
    return cell.metadata.get("tags", [])


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.EXERCISE)
def test_the_lessons_own_solution_passes_and_says_so_in_one_line(module, capsys):
    module.CHECK(solution(module.LESSON, module.EXERCISE))
    assert capsys.readouterr().out == f"{module.EXERCISE}: correct\n"


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.EXERCISE)
def test_a_hole_of_the_exercise_edition_is_called_one(module):
    edition = nbformat.read(ROOT / f"notebooks/exercises/{module.LESSON}.ipynb", as_version=4)
    with pytest.raises(AssertionError, match=f"{module.EXERCISE} is not written yet: replace the line"):
        module.CHECK(defined_in(edition, module.EXERCISE))


@pytest.mark.parametrize(("check", "pattern", "answer"), WRONG)
def test_a_wrong_answer_is_refused_in_words_about_its_mistake(check, pattern, answer, capsys):
    with pytest.raises(AssertionError, match=pattern):
        check(answer)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.EXERCISE)
def test_every_exercise_has_at_least_three_wrong_answers(module):
    assert len(set(module.WRONG.values())) >= 3


def test_every_check_has_wrong_answers():
    public = {function for name, function in vars(checks).items() if name.startswith("check_")}
    assert public == {module.CHECK for module in MODULES}


def test_every_exercise_of_every_lesson_is_checked():
    for source in (ROOT / "notebooks/src").glob("*.py"):
        named = [
            re.search(r"^(?:def|class) (\w+)", cell.source, re.M)[1]
            for cell in jupytext.read(source).cells
            if "exercise" in _tags(cell)
        ]
        assert set(named) == {module.EXERCISE for module in MODULES if source.stem == module.LESSON}


def test_a_check_leaves_the_learners_random_state_alone():
    for module in MODULES:
        torch.manual_seed(3)
        module.CHECK(solution(module.LESSON, module.EXERCISE))
        after = torch.rand(1)
        torch.manual_seed(3)
        assert torch.equal(after, torch.rand(1))


def test_a_class_without_forward_is_told_apart_from_a_hole():
    class UNet(torch.nn.Module):
        def __init__(self, in_channels, classes, widths):
            super().__init__()
            self.head = torch.nn.Conv2d(in_channels, classes, 1)

        def foward(self, image):
            return self.head(image)

    with pytest.raises(AssertionError, match="UNet has no method forward"):
        checks.check_unet(UNet)


def test_checks_are_documented():
    assert all(inspect.getdoc(module.CHECK) for module in MODULES)


def test_expect_prints_a_line_without_the_measured_value(capsys):
    expect("val IoU", 0.8123, 0.81, tol=0.01)
    assert capsys.readouterr().out == "val IoU: ok (0.81 ± 0.01)\n"


@pytest.mark.parametrize("value", [0.79, 0.831, float("nan")])
def test_expect_refuses_what_is_off(value):
    with pytest.raises(AssertionError, match=r"val IoU is .*, expected 0.81 ± 0.01"):
        expect("val IoU", value, 0.81, tol=0.01)
