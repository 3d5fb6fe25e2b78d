"""docs/own_data.md: the doctor's answers are those of this version, and the commands are those that were run."""

from tools.numbers.own_data import COMMANDS, FAULTS, PAGE, answers


def between(mark):
    return PAGE.read_text(encoding="utf-8").partition(f"<!-- {mark} -->\n")[2].partition("<!-- end -->")[0]


def test_the_doctors_answers_are_those_of_the_page():
    table = answers()
    assert between("doctor") == table, "run python -m tools.numbers.own_data --only doctor"
    assert all(f"\n| {done} | " in table for done in FAULTS)


def test_every_command_of_the_page_was_run():
    shown = [
        line.removeprefix("$ python -m course_lib ") for line in between("commands").splitlines() if "$ py" in line
    ]
    assert shown == COMMANDS.strip().splitlines()
