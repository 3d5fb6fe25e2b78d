"""Put the tables of both READMEs between their marks, as measured: python -m tools.numbers.readme_results

A mark is `<!-- results: NAME -->` for data/results/NAME.json, `<!-- results: NAME, TABLE, SHAPE -->` for a table of a
benchmark, `<!-- results: gpu_day, STAGE -->` for a stage of a day on a rented GPU, `<!-- results: lessons -->` for the
lessons there are. The table ends at `<!-- end -->`.
"""

import re
import statistics
import sys
from typing import Any

from course_lib.errors import UserError
from course_lib.results import load_results, markdown
from course_lib.results.race import mark_of, standings
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
    stored = load_results(name)
    if name == "gpu_day":
        return day_table(stored, *which)
    if which:
        return speed_table(stored, *which)
    measured = stored["measured"]
    origin = f"Measured on {measured['device']}, {measured['date']}: `{stored['command']}`"
    table = race_table(stored) if name.startswith("race") else table_of(stored)
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


def race_table(stored: dict[str, Any]) -> str:
    """One line an entrant; a record is bold."""
    lines = []
    for line in standings(stored["rows"]):
        spread = "" if line["spread"] is None else f" ± {line['spread']:.1f}"
        seconds = "-" if line["seconds"] is None else f"{line['seconds']:.1f}{spread}"
        lines.append(
            {
                "entrant": line["entrant"],
                "epochs": line["epochs"],
                "passed the mark": line["passed"],
                "seconds": f"**{seconds}**" if line["record"] else seconds,
                "IoU at its end": line["last IoU"],
            }
        )
    mark = f"The mark is {mark_of(stored['rows']):.3f}; bold: faster than every entrant above it."
    return f"{markdown(lines)}\n\n{mark}\n"


def day_table(stored: dict[str, Any], stage: str) -> str:
    """One stage of the day on a rented GPU."""
    rows = [row for row in stored["rows"] if row["stage"] == stage]
    columns = [column for column in rows[0] if column not in ("stage", "format", "MACs")]
    return markdown([{column: _digits(column, row[column]) for column in columns} for row in rows]) + "\n"


def speed_table(stored: dict[str, Any], name: str, shape: str) -> str:
    """One table of a benchmark: milliseconds without decimals from ten on, ratios with two decimals."""
    rows = [row for row in stored["rows"] if (row["table"], row["shape"]) == (name, shape)]
    columns = [column for column in rows[0] if column not in ("table", "shape")]
    return markdown([{column: _digits(column, row[column]) for column in columns} for row in rows]) + "\n"


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
