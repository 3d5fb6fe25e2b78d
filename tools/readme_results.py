"""Put the measured tables of data/results between their marks in README.md: python tools/readme_results.py"""

import re
import statistics
from pathlib import Path
from typing import Any

from course_lib.results import load_results

ROOT = Path(__file__).resolve().parent.parent
COLUMNS = {"iou_pooled": "IoU, pooled", "iou_per_image": "IoU, per image", "dice_pooled": "Dice, pooled"}
COLUMNS |= {"dice_per_image": "Dice, per image", "boundary_iou_per_image": "boundary IoU"}


def table_of(stored: dict[str, Any]) -> str:
    """One line a net: mean over its seeds, ± sample standard deviation where there are several."""
    nets: dict[str, list[dict[str, Any]]] = {}
    for row in stored["rows"]:
        nets.setdefault(row["net"], []).append(row)
    head = ["net", "parameters", "seeds", *COLUMNS.values()]
    lines = [head, ["---"] * len(head)]
    for net, rows in nets.items():
        seeds = len(rows) if rows[0]["seed"] is not None else 0
        scores = [_mean([row[column] for row in rows]) for column in COLUMNS]
        lines.append([net, f"{rows[0]['parameters']:,}", str(seeds or "-"), *scores])
    measured = stored["measured"]
    note = f"{stored['about']} Measured on {measured['device']}, {measured['date']}: `{stored['command']}`."
    return note + "\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _mean(values: list[float]) -> str:
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.3f}{spread}"


def main() -> None:
    """Rewrite every marked part of the README."""
    path = ROOT / "README.md"
    marked = re.compile(r"(<!-- results: (\w+) -->\n).*?(?=<!-- end -->)", re.S)
    text = marked.sub(lambda found: found[1] + table_of(load_results(found[2])), path.read_text(encoding="utf-8"))
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
