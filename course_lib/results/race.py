"""The standings of the race: in how few seconds can a net be trained to what the popular recipe makes of it?

`benchmarks/race.py` has the rules, says what each entrant does, and measures.
"""

from collections.abc import Sequence
from statistics import mean, stdev
from typing import Any

from scipy.stats import ttest_ind

POPULAR = "popular recipe"
SEEDS, ALPHA = 20, 0.01  # an entrant passes with so many runs, and a p-value below this one
Row = dict[str, Any]  # of data/results/race.json and race_clock.json


def scores_of(rows: Sequence[Row], entrant: str) -> list[float]:
    """The validation IoU after the last epoch of each of its runs."""
    return [row["val_iou"][-1] for row in rows if row["entrant"] == entrant]


def above(rows: Sequence[Row], entrant: str) -> float | None:
    """p of "its mean is not above that of the popular recipe", one-sided; None where there are fewer than two runs.

    Welch's t-test of two samples: that the mark itself is a mean of some runs counts as well (Welch, 1947).
    """
    ours, mark = scores_of(rows, entrant), scores_of(rows, POPULAR)
    if min(len(ours), len(mark)) < 2:
        return None
    return float(ttest_ind(ours, mark, equal_var=False, alternative="greater").pvalue)


def standings(rows: Sequence[Row], clock: Sequence[Row]) -> list[Row]:
    """One line an entrant, in the order in which the rows name them.

    "seconds" are those of a warm process, "fresh" those of a new one, where they were taken; "times as fast" is against
    the popular recipe, which sets the mark. A "record" passes and is faster than all that passed before it.
    """
    best, lines, timed = float("inf"), [], {row["entrant"]: row for row in clock}
    for name in dict.fromkeys(row["entrant"] for row in rows):
        scores, p, sets = scores_of(rows, name), above(rows, name), name == POPULAR
        passed = sets or (p is not None and p < ALPHA and len(scores) >= SEEDS)
        seconds = timed.get(name, {}).get("seconds")
        record = passed and seconds is not None and seconds < best
        best = seconds if record else best
        line = {
            "entrant": name,
            "epochs": len(next(row for row in rows if row["entrant"] == name)["val_iou"]),
            "seeds": len(scores),
            "IoU": mean(scores),
            "sd": stdev(scores) if len(scores) > 1 else None,
            "p": None if sets else p,
            "passed": "sets it" if sets else "yes" if passed else "no",
            "seconds": seconds,
            "fresh": timed.get(name, {}).get("fresh"),
            "times as fast": timed[POPULAR]["seconds"] / seconds if seconds and POPULAR in timed else None,
            "record": "yes" if record else "",
        }
        lines.append(line)
    return lines
