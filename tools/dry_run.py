"""A plan with a stopwatch: what its lessons compute, section by section -> data/results/workshop.json

    python tools/dry_run.py

Every lesson of the plan "two hours" runs once, whole, at the preset laptop, as a learner's would whose answers are
right. A step gets the seconds of the cells of its sections; on the screen nothing runs. Talk, reading and writing are
the teacher's guess: the minutes of the plan.
"""

import argparse
import os
import re
import sys
import tempfile
import time
from collections import Counter
from itertools import pairwise

import nbformat

from course_lib.results import machine, store
from tools.run.lessons import execute
from tools.teaching import ROOT, exercises, headings, plans, source


def seconds_of_sections(number: str) -> Counter:
    """Heading -> seconds of its cells; what stands before the first heading is "set-up"."""
    nb = nbformat.read(ROOT / "notebooks" / f"{source(number).stem}.ipynb", as_version=4)
    at, marks = ["set-up"], [(0, time.perf_counter())]
    for cell in nb.cells:
        found = re.findall(r"^## (.+)$", cell.source, re.M) if cell.cell_type == "markdown" else []
        at.append(found[-1] if found else at[-1])
    env = {key: value for key, value in os.environ.items() if not key.startswith(("COURSE_", "MPLBACKEND"))}
    with tempfile.TemporaryDirectory() as scratch:
        env |= {"COURSE_PRESET": "laptop", "COURSE_DATA": scratch, "CUDA_VISIBLE_DEVICES": ""}
        on_cell = lambda index: marks.append((index, time.perf_counter()))  # noqa: E731
        execute(nb, cwd=ROOT / "notebooks", env=env, on_cell=on_cell)
    marks.append((len(nb.cells), time.perf_counter()))
    seconds = Counter()
    for (index, begun), (_, ended) in pairwise(marks[1:]):
        seconds[at[index + 1]] += ended - begun
    seconds["set-up"] += marks[1][1] - marks[0][1]  # the kernel starts
    return seconds


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.parse_args(argv)
    plan = plans()[0]  # the shortest, whose minutes are the tightest
    here, measured = machine(), {}
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
    about = f"A dry run of the plan {plan['key']}: each lesson of the room once, whole, preset laptop, right answers."
    print(store("workshop", rows, about=about, command="python tools/dry_run.py", measured=here))
    return 0


if __name__ == "__main__":
    sys.exit(main())
