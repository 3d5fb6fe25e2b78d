"""When does UNet++ pay? The tables of docs/protocol.md: which nets are the fair rivals, and who is ahead of whom.

costs.json      weights, work and milliseconds of every net
tuning.json     validation scores, by which depth, width and learning rate were chosen
decision.json   the runs, with the IoU of every test image
"""

from collections.abc import Sequence
from itertools import product
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np

from course_lib.errors import UserError
from course_lib.results.compare import Comparison, compare, judge
from course_lib.results.records import load_results

Row = dict[str, Any]
KINDS = ("nuclei", "membranes", "mitochondria")
PLAIN, NESTED, SUPERVISED = "unet 8..128", "unet++ 8..128", "unet++ 8..128, mean"
SHORT, LONG = "unet+ 8..128", "unet-e 8..128, mean"  # the other wirings: with short skips, with long ones alone
BUDGETS = ("weights", "work", "time", "level 1", "level 2", "level 3")  # of UNet++, and the work of its levels
TUNED = "tuned UNet++"  # UNet++ at the best depth for its work, with one head or all
WITHIN = 1.05  # times a budget still counts as that budget
COMPARED_AT = 3e-3  # the learning rate at which depths and widths were compared
TUNING_SEEDS = (0, 1000, 1001)  # no run of these decides
MAIN = {"steps": 960, "share": 1, "threads": 1}  # what a run has that belongs to no sweep
BEST = "best"  # the head, or the mean of heads, that was best on the validation images of the same run

# What is compared: a name, a net and how it is read, minus another and how that is read. A net may be one of BUDGETS,
# which is the U-Net tuned for it, or TUNED.
Side = tuple[str, str, str, str]
PRIMARY: dict[str, Side] = {
    "UNet++ - plain U-Net": (NESTED, BEST, PLAIN, BEST),
    "best UNet++ - best U-Net": (TUNED, BEST, "work", BEST),
    "all heads - one head": (SUPERVISED, BEST, NESTED, BEST),
    "level 2 - best U-Net": (SUPERVISED, "2", "level 2", BEST),
}
SECONDARY: dict[str, Side] = {
    "UNet++ - best U-Net, weights": (NESTED, BEST, "weights", BEST),
    "UNet++ - best U-Net, work": (NESTED, BEST, "work", BEST),
    "UNet++ - best U-Net, time": (NESTED, BEST, "time", BEST),
    "UNet++ - UNet+": (NESTED, BEST, SHORT, BEST),
    "all heads - U-Net^e": (SUPERVISED, BEST, LONG, BEST),
    "mean of heads - two U-Nets": (SUPERVISED, "mean", PLAIN, "pair"),
    "level 1 - best U-Net": (SUPERVISED, "1", "level 1", BEST),
    "level 3 - best U-Net": (SUPERVISED, "3", "level 3", BEST),
}
SEEDS, FEWER = range(1, 9), range(1, 5)  # of the primary family, and of the secondary one


class Tables(NamedTuple):
    """The rows of costs.json, of tuning.json, and of decision.json and sweeps.json together."""

    costs: list[Row]
    tuning: list[Row]
    runs: list[Row]

    @classmethod
    def load(cls) -> "Tables":
        """What is stored. Raises UserError: not measured yet."""
        costs, tuning, *runs = (load_results(name)["rows"] for name in ("costs", "tuning", "decision", "sweeps"))
        return cls(costs, tuning, [row for rows in runs for row in rows])


def budget(costs: Sequence[Row], name: str) -> tuple[str, float]:
    """The column of costs.json that a budget is counted in, "parameters", "macs" or "ms", and the most of it."""
    whole = next(row for row in costs if row["net"] == SUPERVISED)
    if name.startswith("level "):
        return "macs", whole["levels"][name.removeprefix("level ")]["macs"]
    column = {"weights": "parameters", "work": "macs", "time": "ms"}[name]
    return column, whole[column]


def ranking(tables: Tables, kind: str, name: str) -> list[str]:
    """The U-Nets within a budget, or for TUNED the UNet++ within its work, the best on validation first.

    Nets that were tried with more seeds come before the others, by their mean over the seeds.
    """
    column, most = budget(tables.costs, "work" if name == TUNED else name)
    wiring = "unet++ " if name == TUNED else "unet "
    paid = {row["net"] for row in tables.costs if row["net"].startswith(wiring) and row[column] <= WITHIN * most}
    tried: dict[str, list[float]] = {}
    for row in tables.tuning:
        if row["kind"] == kind and row["lr"] == COMPARED_AT and row["net"] in paid:
            tried.setdefault(row["net"], []).append(max(row["val"].values()))
    return sorted(tried, key=lambda net: (len(tried[net]), fmean(tried[net])), reverse=True)


def named(tables: Tables, kind: str, name: str) -> str:
    """The net that is meant: itself, or the tuned one."""
    return ranking(tables, kind, name)[0] if name in (*BUDGETS, TUNED) else name


def rate(tuning: Sequence[Row], net: str) -> float:
    """The learning rate with the best validation score for a wiring, the mean over all its runs with seed 0.

    Of a net with several heads it is that of their mean. Only nets count that were tried at every rate, so the rates
    are compared on the same nets and the same kinds of images. Raises UserError: no such net was.
    """
    like = [row for row in tuning if wiring_of(row["net"]) == wiring_of(net) and row["seed"] == 0]
    rates = sorted({row["lr"] for row in tuning})
    whole = {key for key in ((row["kind"], row["net"]) for row in like)
             if {row["lr"] for row in like if (row["kind"], row["net"]) == key} == set(rates)}  # fmt: skip
    if not whole:
        raise UserError(f"no net like {net!r} was tried at every learning rate: run the experiment tuning first")
    runs = [row for row in like if (row["kind"], row["net"]) in whole]
    return max(rates, key=lambda lr: fmean(_mean_head(row["val"]) for row in runs if row["lr"] == lr))


def wiring_of(net: str) -> tuple[str, bool]:
    """Of a net's name: its wiring, and whether it has a loss on all heads."""
    return net.partition(" ")[0], "," in net


def scores(
    tables: Tables, kind: str, net: str, head: str = BEST, *, seeds: Sequence[int] = (), **sweep: Any
) -> np.ndarray:
    """IoU of every test image, (seeds, images): of these seeds, or of all that were run, in their order.

    `sweep` says what differs from MAIN. Raises UserError: a seed is missing, or there twice.
    """
    wanted = {"kind": kind, "net": net, **MAIN, **sweep}
    runs = sorted((row for row in tables.runs if wanted.items() <= row.items()), key=lambda row: row["seed"])
    runs = [row for row in runs if row["seed"] in seeds] if seeds else runs
    if [row["seed"] for row in runs] != (list(seeds) or sorted({row["seed"] for row in runs})):
        raise UserError(f"{net} on {kind}: the seeds {[row['seed'] for row in runs]} are not what is compared")
    return np.array([row["test"][max(row["val"], key=row["val"].get) if head == BEST else head]["iou"] for row in runs])


def family(tables: Tables, compared: dict[str, Side] = PRIMARY) -> dict[str, dict[str, Comparison]]:
    """Kind -> name -> the comparison, all kinds and all names of PRIMARY, or of SECONDARY, judged together.

    What is the same two nets, read alike, as a comparison before it, is left out: it would count twice.
    """
    found, seen, seeds = {}, set(), SEEDS if compared is PRIMARY else FEWER
    if compared is SECONDARY:
        seen = {(k, sides(tables, k, side)) for k, side in product(KINDS, PRIMARY.values())}
    for kind, (name, side) in product(KINDS, compared.items()):
        both = sides(tables, kind, side)
        if (kind, both) not in seen:
            seen.add((kind, both))
            a, b = (scores(tables, kind, net, head, seeds=seeds) for net, head in both)
            found[kind, name] = compare(a, b)
    judged = dict(zip(found, judge(list(found.values())), strict=True))
    return {kind: {name: one for (of, name), one in judged.items() if of == kind} for kind in KINDS}


def sides(tables: Tables, kind: str, side: Side) -> tuple[tuple[str, str], tuple[str, str]]:
    """The two nets of a comparison and how each is read."""
    net, head, other, its = side
    return (named(tables, kind, net), head), (named(tables, kind, other), its)


def _mean_head(val: dict[str, float]) -> float:
    return val.get("mean", next(iter(val.values())))
