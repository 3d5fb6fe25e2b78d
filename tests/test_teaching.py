"""The teacher's guide: plans that add up, sections that exist, sentences that checks really say, tables as measured."""

import ast
import re
from pathlib import Path

import pytest

from tools import teaching

ROOT = Path(__file__).resolve().parent.parent
PAGE = teaching.PAGE.read_text(encoding="utf-8")
PLANS = {plan["key"]: plan for plan in teaching.plans()}
STEPS = [(key, step) for key, plan in PLANS.items() for step in plan["step"]]


@pytest.mark.parametrize(("key", "minutes"), [("two hours", 120), ("half a day", 210), ("two days", 720)])
def test_a_plan_takes_what_it_says(key, minutes):
    assert sum(step["minutes"] for step in PLANS[key]["step"]) == minutes


def test_plans_name_sections_and_exercises_that_exist():
    for key, step in STEPS:
        number = step.get("lesson", "")
        sections = step.get("sections", [])
        if sections not in ([], "all"):
            assert set(sections) <= set(teaching.headings(number)), (key, number)
        for exercise in step.get("exercise", []):
            assert 1 <= exercise <= len(teaching.exercises(number)), (key, number)


def test_exercises_have_more_time_than_their_headings_say():
    for key, step in STEPS:
        written = sum(teaching.exercises(step["lesson"])[n - 1] for n in step.get("exercise", []))
        assert 1.15 * written <= step["minutes"], (key, step["lesson"], written)


def test_within_a_lesson_sections_keep_their_order():
    for key, plan in PLANS.items():
        for number in {step.get("lesson", "") for step in plan["step"]} & set(teaching.IDEAS):
            named = [s for step in plan["step"] if step.get("lesson") == number for s in step.get("sections", [])]
            if "all" not in "".join(named) or len(named) != 3:
                order = [teaching.headings(number).index(name) for name in named if name in teaching.headings(number)]
                assert order == sorted(order), (key, number)


def test_every_lesson_stands_in_the_table():
    rows = teaching.lessons_table().splitlines()[2:]
    assert len(rows) == len(list((ROOT / "notebooks" / "src").glob("*.py")))
    assert all(int(row.split("|")[3]) >= 5 for row in rows)  # minutes of exercises


def test_the_page_is_what_the_tool_writes():
    assert teaching.filled(PAGE) == PAGE, "run python tools/teaching.py"


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


def test_there_are_two_mistakes_for_each_lesson():
    assert [number for number, *_ in MISTAKES] == sorted(2 * list(teaching.IDEAS))


@pytest.mark.parametrize(("check", "sentence"), [row[2:] for row in MISTAKES if row[2] != "none"])
def test_checks_say_what_the_page_says(check, sentence):
    from course_lib import checks

    assert hasattr(checks, check.strip("`"))
    assert sentence in words_of_checks()


def test_there_are_two_questions_for_each_lesson():
    questions = PAGE.partition("| lesson | question | answer |")[2].partition("\n\n")[0]
    numbers = re.findall(r"^\| (\d\d) \|", questions, re.M)
    assert numbers == sorted(2 * list(teaching.IDEAS))
