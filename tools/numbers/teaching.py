"""The tables of docs/teaching.md, put between their marks: python -m tools.numbers.teaching

Lessons with the minutes of their exercises, the plans of docs/plans.toml, and what was measured: a dry run, Colab's
versions, thirty processes (data/results/workshop.json, colab.json, classroom.json).
"""

import sys
import tomllib
from typing import Any

from course_lib.results import load_results, markdown
from tools.checkout import ROOT
from tools.command import command
from tools.notebooks.source import exercises, front, sources

PAGE = ROOT / "docs" / "teaching.md"
WHERE = {"room": "room", "screen": "screen", "talk": "talk", "break": "-"}


def plans() -> list[dict[str, Any]]:
    """The plans of docs/plans.toml."""
    return tomllib.loads((ROOT / "docs" / "plans.toml").read_text(encoding="utf-8"))["plan"]


def lessons_table() -> str:
    """One line a lesson."""
    rows = []
    for path in sources():
        _, needs, minutes = front(path)
        row = {"lesson": f"[{path.stem}](../notebooks/{path.stem}.ipynb)", "ideas from": needs}
        row["minutes of exercises"] = sum(exercises(path.stem[:2]))
        rows.append(row | {"minutes of computing, 2 cores": minutes})
    return markdown(rows) + "\n"


def plan_table(plan: dict[str, Any]) -> str:
    """One line a step, with the minute at which it begins."""
    rows, at = [], 0
    for step in plan["step"]:
        sections = step.get("sections", [])
        named = "all sections. " if sections == "all" else "".join(f"*{name}* " for name in sections)
        lesson, minutes, stop = step.get("lesson"), step["minutes"], "" if step["text"].endswith("?") else "."
        written = "".join(f" **Exercise {n}** ({exercises(lesson)[n - 1]})." for n in step.get("exercise", []))
        what = f"{named}{step['text']}{stop}{written}".strip()
        row = {"from": f"{at // 60}:{at % 60:02}", "minutes": minutes, "where": WHERE[step["where"]]}
        rows.append(row | {"lesson": lesson, "what": what})
        at += minutes
    return f"{plan['about'].strip()}\n\n{markdown(rows)}\n"


def dry_run_table() -> str:
    """Where the minutes of the shortest plan go, as measured."""
    stored = load_results("workshop")
    rows = stored["rows"]
    total = {key: sum(row[key] or 0 for row in rows) for key in ("minutes", "seconds", "exercises")}
    lines = [
        {
            "step": row["step"],
            "minutes planned": row["minutes"],
            "computing, seconds": None if row["seconds"] is None else round(row["seconds"]),
            "exercises, minutes": row["exercises"] or None,
        }
        for row in [*rows, {"step": "all", **total}]
    ]
    return f"{stored['about']} {origin(stored)}.\n\n{markdown(lines)}\n"


def origin(stored: dict[str, Any], more: str = "") -> str:
    """Where, when and by which command something was measured."""
    measured = stored["measured"]
    return f"Measured on {measured['device']}, {measured['date']}{more}: `{stored['command']}`"


def colab_text() -> str:
    """What Colab's versions took, without Colab's machine."""
    stored = load_results("colab")
    rows = stored["rows"]
    versions = ", ".join(f"{name} {version}" for name, version in stored["measured"]["versions"].items())
    text = (
        f"{stored['about']} The set-up cell, which installs the course, took {rows[0]['setup']:.0f} seconds in the "
        f"first; the course came from this machine, not over the network. {origin(stored, f', with {versions}')}."
    )
    return f"{text}\n\n{markdown([{'lesson': row['lesson'], 'seconds': round(row['seconds'])} for row in rows])}\n"


def classroom_text() -> str:
    """What many processes did to one cache."""
    stored = load_results("classroom")
    (row,) = stored["rows"]
    return (
        f"{stored['about']} {row['processes']} of them took {row['seconds']:.0f} seconds on two cores, and "
        f"{row['failed']} failed. Downloads: {row['downloads']}, of {row['megabytes downloaded']:.0f} MB. Different "
        f"results: {row['different results']}. Data files that are whole: {row['data files whole']} of 2, half files "
        f"left: {row['left behind']}. {origin(stored)}.\n"
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


@command
def main() -> int:
    """Rewrite the marked parts of the page."""
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
