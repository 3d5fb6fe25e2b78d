"""When does UNet++ pay? The tables of docs/protocol.md: which U-Net is the fair baseline, and who is ahead of whom.

costs.json      weights, work and milliseconds of every net
tuning.json     validation scores, by which depth, width and learning rate were chosen
decision.json   the runs, with the IoU of every test image
"""

from collections.abc import Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from course_lib.results.compare import Comparison, compare, judge
from course_lib.results.records import load_results

Row = dict[str, Any]
KINDS = ("nuclei", "membranes", "mitochondria")
PLAIN, NESTED, SUPERVISED = "unet 8..128", "unet++ 8..128", "unet++ 8..128, mean"
SHORT, NONE = "unet+ 8..128", "unet-e 8..128, mean"  # of skips: short ones, and none inside of the grid
BUDGETS = ("weights", "work", "time", "level 1", "level 2", "level 3")  # of UNet++, and the work of its levels
WITHIN = 1.05  # times a budget still counts as that budget
COMPARED_AT = 3e-3  # the learning rate at which U-Nets of all depths and widths were compared
MAIN = {"steps": 960, "share": 1, "threads": 1}  # what a run has that belongs to no sweep
BEST = "best"  # the head, or the mean of heads, that was best on validation

# What is compared: a name, a net and how it is read, minus a net, or the U-Net tuned for a budget, and how it is read.
PRIMARY = {
    "UNet++ - plain U-Net": (NESTED, BEST, PLAIN, BEST),
    "UNet++ - U-Net, its work": (NESTED, BEST, "work", BEST),
    "all heads - one head": (SUPERVISED, BEST, NESTED, BEST),
    "level 2 - U-Net, its work": (SUPERVISED, "2", "level 2", BEST),
}
SECONDARY = {
    "UNet++ - U-Net, its weights": (NESTED, BEST, "weights", BEST),
    "UNet++ - U-Net, its time": (NESTED, BEST, "time", BEST),
    "all heads - U-Net, its work": (SUPERVISED, BEST, "work", BEST),
    "UNet++ - UNet+": (NESTED, BEST, SHORT, BEST),
    "all heads - U-Net^e": (SUPERVISED, BEST, NONE, BEST),
    "mean of heads - two U-Nets": (SUPERVISED, "mean", PLAIN, "pair"),
    "level 1 - U-Net, its work": (SUPERVISED, "1", "level 1", BEST),
    "level 3 - U-Net, its work": (SUPERVISED, "3", "level 3", BEST),
}


class Tables(NamedTuple):
    """The rows of costs.json, tuning.json and decision.json."""

    costs: list[Row]
    tuning: list[Row]
    runs: list[Row]

    @classmethod
    def load(cls) -> "Tables":
        """What is stored. Raises UserError: not measured yet."""
        return cls(*(load_results(name)["rows"] for name in ("costs", "tuning", "decision")))


def budget(costs: Sequence[Row], name: str) -> tuple[str, float]:
    """The column of costs.json that a budget is counted in, "parameters", "macs" or "ms", and the most of it."""
    whole = next(row for row in costs if row["net"] == SUPERVISED)
    if name.startswith("level "):
        return "macs", whole["levels"][name.removeprefix("level ")]["macs"]
    column = {"weights": "parameters", "work": "macs", "time": "ms"}[name]
    return column, whole[column]


def tuned(tables: Tables, kind: str, name: str) -> str:
    """The U-Net, of any depth and width, with the best validation score among those within a budget."""
    column, at_most = budget(tables.costs, name)
    cost = {row["net"]: row[column] for row in tables.costs if row["net"].startswith("unet ")}
    runs = [row for row in tables.tuning if row["kind"] == kind and row["lr"] == COMPARED_AT and row["net"] in cost]
    return max((row for row in runs if cost[row["net"]] <= WITHIN * at_most), key=score)["net"]


def rate(tuning: Sequence[Row], kind: str, net: str) -> float:
    """The learning rate with the best validation score."""
    return max((row for row in tuning if (row["kind"], row["net"]) == (kind, net)), key=score)["lr"]


def score(row: Row) -> float:
    """Validation score of a run, with several heads that of the best way to read them."""
    return max(row["val"].values())


def scores(tables: Tables, kind: str, net: str, head: str = BEST, **sweep: Any) -> np.ndarray:
    """IoU of every test image, (seeds, images). `sweep` says what differs from MAIN."""
    wanted = {"kind": kind, "net": net, **MAIN, **sweep}
    runs = sorted((row for row in tables.runs if wanted.items() <= row.items()), key=lambda row: row["seed"])
    return np.array([row["test"][max(row["val"], key=row["val"].get) if head == BEST else head]["iou"] for row in runs])


def family(
    tables: Tables, compared: dict[str, tuple[str, str, str, str]] = PRIMARY
) -> dict[str, dict[str, Comparison]]:
    """Kind -> name -> the comparison, all kinds and all names of PRIMARY, or of SECONDARY, judged together."""
    found = {}
    for kind, (name, (net, head, other, its)) in product(KINDS, compared.items()):
        base = tuned(tables, kind, other) if other in BUDGETS else other
        a, b = scores(tables, kind, net, head), scores(tables, kind, base, its)
        found[kind, name] = compare(a[: len(b)], b[: len(a)])  # the seeds that both have
    judged = dict(zip(found, judge(list(found.values())), strict=True))
    return {kind: {name: judged[kind, name] for name in compared} for kind in KINDS}
