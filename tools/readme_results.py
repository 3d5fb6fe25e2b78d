"""Put the measured tables of data/results between their marks: python tools/readme_results.py

A mark is `<!-- results: NAME -->`, or `<!-- results: NAME, TABLE, SHAPE -->` for a table of a benchmark. The table ends
at `<!-- end -->`.
"""

import re
import statistics
from pathlib import Path
from typing import Any

from course_lib.results import load_results
from course_lib.results.race import mark_of, standings

ROOT = Path(__file__).resolve().parent.parent
FILES = ("README.md", "benchmarks/README.md")
MARKED = re.compile(r"(<!-- results: (.+?) -->\n)(.*?)(?=<!-- end -->)", re.S)
COLUMNS = {"iou_pooled": "IoU, pooled", "iou_per_image": "IoU, per image", "dice_pooled": "Dice, pooled"}
COLUMNS |= {"dice_per_image": "Dice, per image", "boundary_iou_per_image": "boundary IoU"}


def shown(asked: str) -> str:
    """The markdown of what a mark asks for."""
    name, *which = asked.split(", ")
    stored = load_results(name)
    if which:
        return speed_table(stored, *which)
    data = f"([data](data/results/{name}.json))"
    return race_table(stored, data) if name.startswith("race") else table_of(stored, data)


def table_of(stored: dict[str, Any], data: str) -> str:
    """One line a net: mean over its seeds, ± sample standard deviation where there are several."""
    nets: dict[str, list[dict[str, Any]]] = {}
    for row in stored["rows"]:
        nets.setdefault(row["net"], []).append(row)
    lines = [["net", "parameters", "seeds", *COLUMNS.values()]]
    for net, rows in nets.items():
        seeds = len(rows) if rows[0]["seed"] is not None else 0
        scores = [_mean([row[column] for row in rows]) for column in COLUMNS]
        lines.append([net, f"{rows[0]['parameters']:,}", str(seeds or "-"), *scores])
    return _origin(stored, data) + _markdown(lines)


def race_table(stored: dict[str, Any], data: str) -> str:
    """One line an entrant; a record is bold."""
    lines = [["entrant", "epochs", "passed the mark", "seconds", "IoU at its end"]]
    for line in standings(stored["rows"]):
        spread = "" if line["spread"] is None else f" ± {line['spread']:.1f}"
        seconds = "-" if line["seconds"] is None else f"{line['seconds']:.1f}{spread}"
        seconds = f"**{seconds}**" if line["record"] else seconds
        lines.append([line["entrant"], str(line["epochs"]), line["passed"], seconds, f"{line['last IoU']:.3f}"])
    mark = f"\nThe mark is {mark_of(stored['rows']):.3f}; bold: faster than every entrant above it.\n"
    return _origin(stored, data) + _markdown(lines) + mark


def speed_table(stored: dict[str, Any], name: str, shape: str) -> str:
    """One table of a benchmark: milliseconds without decimals from ten on, ratios with two decimals."""
    rows = [row for row in stored["rows"] if (row["table"], row["shape"]) == (name, shape)]
    columns = [column for column in rows[0] if column not in ("table", "shape")]
    return _markdown([columns] + [[_digits(column, row[column]) for column in columns] for row in rows])


def _digits(column: str, value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or "-"
    if column.startswith(("of peak", "share", "change")):
        return f"{value:.1%}"
    return f"{value:.0f}" if value >= 10 and column != "times as fast" else f"{value:.2f}"


def _origin(stored: dict[str, Any], data: str) -> str:
    measured = stored["measured"]
    return f"{stored['about']} Measured on {measured['device']}, {measured['date']}: `{stored['command']}` {data}.\n\n"


def _markdown(lines: list[list[str]]) -> str:
    lines = [lines[0], ["---"] * len(lines[0]), *lines[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _mean(values: list[float]) -> str:
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.3f}{spread}"


def main() -> None:
    """Rewrite every marked part."""
    for name in FILES:
        path = ROOT / name
        text = MARKED.sub(lambda found: found[1] + shown(found[2]), path.read_text(encoding="utf-8"))
        path.write_text(text, encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
