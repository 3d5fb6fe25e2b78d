"""The tables of docs/teaching.md, put between their marks: python tools/teaching.py

Lessons with the minutes of their exercises, the plans of docs/plans.toml, and what was measured: a dry run, Colab's
versions, thirty processes (data/results/workshop.json, colab.json, classroom.json).
"""

import re
import tomllib
from pathlib import Path
from typing import Any

from course_lib.results import load_results

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "teaching.md"
IDEAS = {  # what a lesson needs are ideas; no lesson needs a variable or a file of another
    "00": "-",
    "01": "00",
    "02": "00",
    "03": "02",
    "04": "02, 03",
    "05": "04",
    "06": "04; for its last section the interval of 05",
    "07": "06; the interval of 05",
    "08": "06, 07; the interval of 05",
    "09": "06, 08",
    "10": "01, 05, 06, 08",
    "11": "04, 06, 10",
    "12": "01, 06",
}
WHERE = {"room": "room", "screen": "screen", "talk": "talk", "break": "-"}


def source(number: str) -> Path:
    """The source of a lesson by its number."""
    (path,) = (ROOT / "notebooks" / "src").glob(f"{number}_*.py")
    return path


def headings(number: str) -> list[str]:
    """The sections of a lesson, in order, without the three at its end."""
    found = re.findall(r"^# ## (.+)$", source(number).read_text(encoding="utf-8"), re.M)
    return found[: found.index("What we found")]


def exercises(number: str) -> list[int]:
    """The minutes of each exercise of a lesson, as its headings say."""
    text = source(number).read_text(encoding="utf-8")
    return [int(minutes) for minutes in re.findall(r"^# ### Exercise \d.*\((\d+) minutes", text, re.M)]


def plans() -> list[dict[str, Any]]:
    """The plans of docs/plans.toml."""
    return tomllib.loads((ROOT / "docs" / "plans.toml").read_text(encoding="utf-8"))["plan"]


def lessons_table() -> str:
    """One line a lesson."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = ["| lesson | ideas from | minutes of exercises | minutes of computing, 2 cores |", "|---|---|---|---|"]
    for number, ideas in IDEAS.items():
        name = source(number).stem
        computing = re.search(rf"^\| \[{name}\].*?\?\s*\| ([^|]+) \|", readme, re.M)[1].strip()
        link = f"[{name}](../notebooks/{name}.ipynb)"
        lines.append(f"| {link} | {ideas} | {sum(exercises(number))} | {computing} |")
    return "\n".join(lines) + "\n"


def plan_table(plan: dict[str, Any]) -> str:
    """One line a step, with the minute at which it begins."""
    lines = ["| from | minutes | where | lesson | what |", "|---|---|---|---|---|"]
    at = 0
    for step in plan["step"]:
        sections = step.get("sections", [])
        named = "all sections. " if sections == "all" else "".join(f"*{name}* " for name in sections)
        lesson, minutes = step.get("lesson", ""), step["minutes"]
        written = ""
        for number in step.get("exercise", []):
            written += f" **Exercise {number}** ({exercises(lesson)[number - 1]})."
        stop = "" if step["text"].endswith("?") else "."
        what = f"{named}{step['text']}{stop}{written}".strip()
        lines.append(f"| {at // 60}:{at % 60:02} | {minutes} | {WHERE[step['where']]} | {lesson or '-'} | {what} |")
        at += minutes
    return f"{plan['about'].strip()}\n\n" + "\n".join(lines) + "\n"


def dry_run_table() -> str:
    """Where the minutes of the shortest plan go, as measured."""
    stored = load_results("workshop")
    measured = stored["measured"]
    lines = ["| step | minutes planned | computing, seconds | exercises, minutes |", "|---|---|---|---|"]
    for row in stored["rows"]:
        shown = "-" if row["seconds"] is None else f"{row['seconds']:.0f}"
        lines.append(f"| {row['step']} | {row['minutes']} | {shown} | {row['exercises'] or '-'} |")
    total, seconds = (sum(row[key] or 0 for row in stored["rows"]) for key in ("minutes", "seconds"))
    written = sum(row["exercises"] for row in stored["rows"])
    lines.append(f"| all | {total} | {seconds:.0f} | {written} |")
    origin = f"{stored['about']} Measured on {measured['device']}, {measured['date']}: `{stored['command']}`."
    return f"{origin}\n\n" + "\n".join(lines) + "\n"


def colab_text() -> str:
    """What Colab's versions took, without Colab's machine."""
    stored = load_results("colab")
    measured, rows = stored["measured"], stored["rows"]
    versions = ", ".join(f"{name} {version}" for name, version in measured["versions"].items())
    lines = ["| lesson | seconds |", "|---|---|", *(f"| {row['lesson']} | {row['seconds']:.0f} |" for row in rows)]
    text = (
        f"{stored['about']} The set-up cell, which installs the course, took {rows[0]['setup']:.0f} seconds in the "
        f"first; the course came from this machine, not over the network. Measured on {measured['device']}, "
        f"{measured['date']}, with {versions}: `{stored['command']}`."
    )
    return f"{text}\n\n" + "\n".join(lines) + "\n"


def classroom_text() -> str:
    """What many processes did to one cache."""
    stored = load_results("classroom")
    measured, (row,) = stored["measured"], stored["rows"]
    return (
        f"{stored['about']} {row['processes']} of them took {row['seconds']:.0f} seconds on two cores, and "
        f"{row['failed']} failed. Downloads: {row['downloads']}, of {row['megabytes downloaded']:.0f} MB. Different "
        f"results: {row['different results']}. Data files that are whole: {row['data files whole']} of 2, half files "
        f"left: {row['left behind']}. Measured on {measured['device']}, {measured['date']}: `{stored['command']}`.\n"
    )


def parts() -> dict[str, str]:
    """The text that belongs between each pair of marks."""
    tables = {plan["key"]: plan_table(plan) for plan in plans()}
    measured = {"dry run": dry_run_table(), "colab": colab_text(), "classroom": classroom_text()}
    return tables | measured | {"lessons": lessons_table()}


def filled(text: str) -> str:
    """The page with every marked part as it should be."""
    for mark, part in parts().items():
        begin = text.index(f"<!-- {mark} -->\n") + len(f"<!-- {mark} -->\n")
        text = text[:begin] + part + text[text.index("<!-- end -->", begin) :]
    return text


def main() -> None:
    """Rewrite the marked parts of the page."""
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
