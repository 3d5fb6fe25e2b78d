"""Put the tables of both READMEs between their marks, as measured: python -m tools.numbers.readme_results

A mark is `<!-- results: NAME -->` for data/results/NAME.json, `<!-- results: NAME, STAGE -->` for a stage of a
benchmark (speed, gpu_day), `<!-- results: lessons -->` for the lessons there are. The table ends at `<!-- end -->`. Of
what was not measured yet a sentence stands in its place.
"""

import re
import statistics
import sys
from typing import Any

from course_lib.errors import UserError
from course_lib.results import decision, load_results, markdown
from course_lib.results.compare import Comparison
from course_lib.results.race import standings
from tools.checkout import ROOT
from tools.command import command
from tools.notebooks.source import front, sources

FILES = ("README.md", "benchmarks/README.md")
MARKED = re.compile(r"(<!-- results: (.+?) -->\n)(.*?)(?=<!-- end -->)", re.S)
COLUMNS = {"iou_pooled": "IoU, pooled", "iou_per_image": "IoU, per image", "dice_pooled": "Dice, pooled"}
COLUMNS |= {"dice_per_image": "Dice, per image", "boundary_iou_per_image": "boundary IoU"}


def shown(asked: str) -> str:
    """The markdown of what a mark asks for."""
    if asked == "lessons":
        return lessons_table()
    name, *which = asked.split(", ")
    try:
        stored = load_results(name)
    except UserError:
        return f"Not measured yet: `python -m benchmarks.experiments {name}`.\n"
    if which:
        return stage_table(stored, *which)
    measured = stored["measured"]
    origin = f"Measured on {measured['device']}, {measured['date']}: `{stored['command']}`"
    if "race" in name:
        table = race_table(stored, load_results(name.replace("race", "race_clock")))
    else:
        table = decision_table() if name == "decision" else table_of(stored)
    return f"{stored['about']} {origin} ([data](data/results/{name}.json)).\n\n{table}"


def lessons_table() -> str:
    """One line a lesson: what it asks, and how long it computes."""
    try:
        on_gpu = {row["lesson"]: row["seconds"] for row in load_results("lessons_gpu")["rows"]}
    except UserError:
        on_gpu = {}
    rows = []
    for path in sources():
        title, _, minutes = front(path)
        row = {"lesson": f"[{path.stem}](notebooks/{path.stem}.ipynb)", "question": title, "minutes, 2 cores": minutes}
        seconds = on_gpu.get(path.stem)
        rows.append(row | ({"minutes, GPU": max(1, round(seconds / 60))} if seconds else {}))
    return markdown(rows, ["lesson", "question", "minutes, 2 cores", "minutes, GPU"]) + "\n"


def decision_table() -> str:
    """One line a comparison, a column a kind of images: difference, interval and verdict; clear ones are bold."""
    tables, lines = decision.Tables.load(), []
    for compared in (decision.PRIMARY, decision.SECONDARY):
        found = decision.family(tables, compared)
        for name in compared:
            said = {kind: _verdict(found[kind][name]) if name in found[kind] else "as above" for kind in found}
            lines.append({"minus": name} | said)
    return markdown(lines) + "\n"


def _verdict(one: Comparison) -> str:
    text = f"{one.difference} {one.verdict}"
    return f"**{text}**" if one.verdict.startswith(("ahead", "behind")) else text


def table_of(stored: dict[str, Any]) -> str:
    """One line a net: mean over its seeds, ± sample standard deviation where there are several."""
    nets: dict[str, list[dict[str, Any]]] = {}
    for row in stored["rows"]:
        nets.setdefault(row["net"], []).append(row)
    lines = []
    for net, rows in nets.items():
        seeds = len(rows) if rows[0]["seed"] is not None else None
        scores = {name: _mean([row[column] for row in rows]) for column, name in COLUMNS.items()}
        lines.append({"net": net, "parameters": rows[0]["parameters"], "seeds": seeds, **scores})
    return markdown(lines) + "\n"


def race_table(stored: dict[str, Any], clock: dict[str, Any]) -> str:
    """One line an entrant; a record is bold."""
    lines = []
    for line in standings(stored["rows"], clock["rows"]):
        seconds = "not measured yet" if line["seconds"] is None else f"{line['seconds']:.1f}"
        times = "-" if line["times as fast"] is None else f"{line['times as fast']:.1f}"
        lines.append(
            {
                "entrant": line["entrant"],
                "epochs": line["epochs"],
                "seeds": line["seeds"],
                "IoU at the end": f"{line['IoU']:.3f}" + ("" if line["sd"] is None else f" ± {line['sd']:.3f}"),
                "p": "-" if line["p"] is None else f"{line['p']:.1g}",
                "passed": line["passed"],
                "seconds": f"**{seconds}**" if line["record"] else seconds,
                "times as fast": times,
            }
        )
    said = (
        f"The seconds are those of `{clock['command']}` on {clock['measured']['device']}, {clock['measured']['date']}."
    )
    return f"{markdown(lines)}\n\n{said} Bold: passed, and faster than every entrant above that passed.\n"


def stage_table(stored: dict[str, Any], stage: str) -> str:
    """One stage of a benchmark: milliseconds without decimals from ten on, ratios with two decimals."""
    rows = [row for row in stored["rows"] if row["stage"] == stage]
    if not rows:
        return "Not measured yet.\n"
    columns = [column for column in rows[0] if column not in ("stage", "format", "MACs", "parameters")]
    return markdown([{column: _digits(column, row.get(column)) for column in columns} for row in rows]) + "\n"


def _digits(column: str, value: Any) -> str:
    if value is None or isinstance(value, str | bool):
        return "-" if value is None else str(value)
    if column.startswith(("of ", "share", "change")):
        return f"{value:.1%}"
    return f"{value:.0f}" if value >= 10 and column != "times as fast" else f"{value:.2f}"


def _mean(values: list[float]) -> str:
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.3f}{spread}"


@command
def main() -> int:
    """Rewrite every marked part."""
    for name in FILES:
        path = ROOT / name
        text = MARKED.sub(lambda mark: mark[1] + shown(mark[2]), path.read_text(encoding="utf-8"))
        path.write_text(text, encoding="utf-8", newline="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
