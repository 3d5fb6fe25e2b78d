"""The teacher's guide: plans that add up, sections that exist, sentences that checks really say, tables as measured."""

import ast
import re

import pytest

from course_lib import checks
from tools.checkout import ROOT
from tools.notebooks.source import exercises, headings, sources
from tools.numbers import teaching

LESSONS = [path.stem[:2] for path in sources()]
PAGE = teaching.PAGE.read_text(encoding="utf-8")
PLANS = {plan["key"]: plan for plan in teaching.plans()}
STEPS = [(key, step) for key, plan in PLANS.items() for step in plan["step"]]


@pytest.mark.parametrize(("key", "minutes"), [("two hours", 120), ("half a day", 210), ("two days", 720)])
def test_a_plan_takes_what_it_says(key, minutes):
    assert sum(step["minutes"] for step in PLANS[key]["step"]) == minutes


def test_a_step_names_what_exists_and_has_more_time_than_the_headings_say():
    for key, step in STEPS:
        number, sections, written = step.get("lesson", ""), step.get("sections", []), 0
        if sections not in ([], "all"):
            assert set(sections) <= set(headings(number)), (key, number)
        for exercise in step.get("exercise", []):
            assert 1 <= exercise <= len(exercises(number)), (key, number)
            written += exercises(number)[exercise - 1]
        assert 1.15 * written <= step["minutes"], (key, number, written)


def test_within_a_lesson_sections_keep_their_order():
    for key, plan in PLANS.items():
        for number in {step.get("lesson", "") for step in plan["step"]} & set(LESSONS):
            named = [s for step in plan["step"] if step.get("lesson") == number for s in step.get("sections", [])]
            if "all" not in "".join(named) or len(named) != 3:
                order = [headings(number).index(name) for name in named if name in headings(number)]
                assert order == sorted(order), (key, number)


def test_every_lesson_has_exercises():
    assert all(sum(exercises(number)) >= 5 for number in LESSONS)  # minutes


def test_the_page_is_what_the_tool_writes():
    assert teaching.filled(PAGE) == PAGE, "run python -m tools.numbers.teaching"


def words_of_checks():
    """Every text in the checks, and in the messages of nets that they pass on, with what is filled in as {}."""
    found = []
    for path in [*(ROOT / "course_lib" / "checks").glob("*.py"), ROOT / "course_lib" / "grid.py"]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = (str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
                found.append("".join(parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(found)


MISTAKES = re.findall(r"^\| (\d\d) \| (.+?) \| (`check_\w+`|none) \| (.+) \|$", PAGE, re.M)


def test_there_are_two_mistakes_and_two_questions_for_each_lesson():
    questions = PAGE.partition("| lesson | question | answer |")[2].partition("\n\n")[0]
    assert [number for number, *_ in MISTAKES] == sorted(2 * LESSONS)
    assert re.findall(r"^\| (\d\d) \|", questions, re.M) == sorted(2 * LESSONS)


@pytest.mark.parametrize(("check", "sentence"), [row[2:] for row in MISTAKES if row[2] != "none"])
def test_checks_say_what_the_page_says(check, sentence):
    assert hasattr(checks, check.strip("`"))
    assert sentence in words_of_checks()
