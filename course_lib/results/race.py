"""The standings of the race: how many seconds until a net passes the score of the popular recipe?

The popular recipe's last validation IoU is the mark. `benchmarks/race.py` says what each entrant does, and measures.
"""

from collections.abc import Sequence
from statistics import mean, stdev
from typing import Any

POPULAR = "popular recipe"
Row = dict[str, Any]  # of data/results/race.json


def mark_of(rows: Sequence[Row]) -> float:
    """What the popular recipe ends with: its last validation IoU, the mean over seeds."""
    return mean(row["val_iou"][-1] for row in rows if row["entrant"] == POPULAR)


def seconds_to(mark: float, row: Row) -> float | None:
    """Seconds until the first epoch whose validation IoU reaches the mark; None where no epoch does."""
    passed = [n for n, score in enumerate(row["val_iou"], start=1) if score >= mark]
    return sum(row["seconds_of_epochs"][: passed[0]]) if passed else None


def standings(rows: Sequence[Row]) -> list[Row]:
    """One line an entrant, in the order in which the rows name them.

    "seconds" is the mean over seeds to the mark, None where a seed missed it; for the popular recipe, which sets the
    mark, that of its whole run. "times as fast" is against the popular recipe. A "record" is faster than all before it.
    """
    mark, best, lines = mark_of(rows), float("inf"), []
    popular_seconds = mean(row["seconds"] for row in rows if row["entrant"] == POPULAR)
    for name in dict.fromkeys(row["entrant"] for row in rows):
        runs = [row for row in rows if row["entrant"] == name]
        times = [row["seconds"] if name == POPULAR else seconds_to(mark, row) for row in runs]
        passed = [time for time in times if time is not None]
        seconds = mean(passed) if len(passed) == len(runs) else None
        record = seconds is not None and seconds < best
        best = seconds if record else best
        line = {
            "entrant": name,
            "epochs": runs[0]["epochs"],
            "passed": "sets it" if name == POPULAR else f"{len(passed)} of {len(runs)}",
            "seconds": seconds,
            "spread": stdev(passed) if seconds is not None and len(passed) > 1 else None,
            "times as fast": None if seconds is None else popular_seconds / seconds,
            "last IoU": mean(row["val_iou"][-1] for row in runs),
            "record": "yes" if record else "",
        }
        lines.append(line)
    return lines
