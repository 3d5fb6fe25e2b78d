"""A plan with a stopwatch: what its lessons compute, section by section -> data/results/workshop.json

    python -m tools.run.dry_run

Every lesson of the plan "two hours" runs once, whole, at the preset laptop, as a learner's would whose answers are
right. A step gets the seconds of the cells of its sections; on the screen nothing runs. Talk, reading and writing are
the teacher's guess: the minutes of the plan.
"""

import argparse
import re
import sys
from collections import Counter
from itertools import pairwise

import nbformat

from course_lib.results import machine, store
from tools.checkout import ROOT
from tools.notebooks.source import exercises, headings, source
from tools.numbers.teaching import plans
from tools.run.lessons import laptop, timed


def seconds_of_sections(number: str) -> Counter:
    """Heading -> seconds of its cells; what stands before the first heading is "set-up"."""
    nb = nbformat.read(ROOT / "notebooks" / f"{source(number).stem}.ipynb", as_version=4)
    at = ["set-up"]
    for cell in nb.cells:
        named = re.findall(r"^## (.+)$", cell.source, re.M) if cell.cell_type == "markdown" else []
        at.append(named[-1] if named else at[-1])
    with laptop() as env:
        began = timed(nb, cwd=ROOT / "notebooks", env=env)
    seconds = Counter({"set-up": began[0]})  # the kernel starts
    for name, (begin, end) in zip(at[1:], pairwise(began), strict=True):
        seconds[name] += end - begin
    return seconds


def rows_of(plan: dict) -> list[dict]:
    """One row a step of the plan: its minutes, the seconds that it computes, the minutes of its exercises."""
    measured = {}
    for number in sorted({step["lesson"] for step in plan["step"] if step["where"] == "room"}):
        measured[number] = seconds_of_sections(number)
        print(number, f"{sum(measured[number].values()):.0f} s", flush=True)
    rows, opened = [], set()
    for step in plan["step"]:
        number, sections, seconds = step.get("lesson", ""), step.get("sections", []), None
        if step["where"] == "room":
            named = headings(number) if sections == "all" else sections
            named = named if number in opened else ["set-up", *named]
            opened.add(number)
            seconds = round(sum(measured[number].pop(name, 0) for name in named), 1)
        elif step["where"] == "screen" and number in measured:  # the room runs it without talk
            seconds = round(sum(measured[number].pop(name, 0) for name in sections), 1)
        written = sum(exercises(number)[n - 1] for n in step.get("exercise", []))
        name = " ".join(filter(None, [number, "; ".join(sections) if isinstance(sections, list) else sections]))
        rows.append(
            {"step": name or step["text"], "minutes": step["minutes"], "seconds": seconds, "exercises": written}
        )
    return rows


def main(argv: list[str] | None = None) -> int:
    argparse.ArgumentParser(description=__doc__.partition("\n")[0]).parse_args(argv)
    plan, here = plans()[0], machine()  # the shortest, whose minutes are the tightest
    rows = rows_of(plan)
    about = f"A dry run of the plan {plan['key']}: each lesson of the room once, whole, preset laptop, right answers."
    print(store("workshop", rows, about=about, command="python -m tools.run.dry_run", measured=here))
    return 0


if __name__ == "__main__":
    sys.exit(main())
