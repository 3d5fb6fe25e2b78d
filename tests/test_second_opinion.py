"""The comparisons of docs/protocol.md computed a second time, in another way, from the stored scores alone."""

import json
from math import sqrt

import numpy as np
import pytest
from scipy import stats

from course_lib.results import decision
from tools.checkout import ROOT

RESULTS = ROOT / "data" / "results"
pytestmark = pytest.mark.skipif(not (RESULTS / "sweeps.json").exists(), reason="not measured yet")
UPP, ALL = "unet++ 8..128", "unet++ 8..128, mean"
# Net, head ("" is the best on validation), and the other: a net, or a column of the costs and a level or None.
FIRST = {
    "UNet++ - plain U-Net": (UPP, "", "unet 8..128", ""),
    "best UNet++ - best U-Net": ("unet++", "", ("macs", None), ""),
    "all heads - one head": (ALL, "", UPP, ""),
    "level 2 - best U-Net": (ALL, "2", ("macs", "2"), ""),
}
SECOND = {
    "UNet++ - best U-Net, weights": (UPP, "", ("parameters", None), ""),
    "UNet++ - best U-Net, work": (UPP, "", ("macs", None), ""),
    "UNet++ - best U-Net, time": (UPP, "", ("ms", None), ""),
    "UNet++ - UNet+": (UPP, "", "unet+ 8..128", ""),
    "all heads - U-Net^e": (ALL, "", "unet-e 8..128, mean", ""),
    "mean of heads - two U-Nets": (ALL, "mean", "unet 8..128", "pair"),
    "level 1 - best U-Net": (ALL, "1", ("macs", "1"), ""),
    "level 3 - best U-Net": (ALL, "3", ("macs", "3"), ""),
}


def rows(name):
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))["rows"]


def best(kind, wiring, column, level):
    """By hand: what costs too much is dropped; of those with three seeds the one with the largest sum is taken."""
    costs = {row["net"]: row for row in rows("costs")}
    limit = costs[ALL][column] if level is None else costs[ALL]["levels"][level][column]
    sums, seeds = {}, {}
    for row in rows("tuning"):
        net = row["net"]
        if (
            row["kind"] == kind
            and row["lr"] == 0.003
            and net.split()[0] == wiring
            and costs[net][column] / limit <= 1.05
        ):
            sums[net] = sums.get(net, 0) + max(row["val"].values())
            seeds.setdefault(net, set()).add(row["seed"])
    thrice = [net for net in sums if seeds[net] == {0, 1000, 1001}]
    return max(thrice, key=sums.get)


def net_of(kind, side):
    if side == "unet++":
        return best(kind, side, "macs", None)
    return side if isinstance(side, str) else best(kind, "unet", *side)


def table(kind, net, head, seeds):
    """Seeds by images; of each seed there is one row, at the rate of all rows of this wiring."""
    found = {}
    for row in rows("decision"):
        if (row["kind"], row["net"]) == (kind, net):
            assert (row["steps"], row["share"], row["threads"]) == (960, 1, 1) and row["seed"] not in found
            top = max(row["val"].values())
            key = head or next(name for name, value in row["val"].items() if value == top)
            found[row["seed"]] = row["test"][key]["iou"]
    return np.array([found[seed] for seed in seeds])


def welch(d):
    """Mean, 95 % interval, p of no difference, p of a difference of 0.02 or more; sums written out."""
    many, images = d.shape
    mean = d.sum() / d.size
    of_seeds = sum((line.sum() / images - mean) ** 2 for line in d) / (many - 1) / many
    of_images = sum((line.sum() / many - mean) ** 2 for line in d.T) / (images - 1) / images
    error = sqrt(of_seeds + of_images)
    degrees = (of_seeds + of_images) ** 2 / (of_seeds**2 / (many - 1) + of_images**2 / (images - 1))
    low, high = stats.t.interval(0.95, degrees, loc=mean, scale=error)
    p = stats.t.cdf(-abs(mean) / error, degrees) * 2
    below, above = stats.t.cdf((mean - 0.02) / error, degrees), stats.t.cdf((-mean - 0.02) / error, degrees)
    return mean, low, high, p, max(below, above)


def corrected(p_values):
    """Holm by his own rule: up from the smallest p, until one is not below 0.05 over the number of those left."""
    believed = set()
    for rank, n in enumerate(sorted(range(len(p_values)), key=lambda n: p_values[n])):
        if p_values[n] * (len(p_values) - rank) >= 0.05:
            break
        believed.add(n)
    return believed


@pytest.mark.parametrize(
    ("mine", "theirs", "seeds"),
    [(FIRST, decision.PRIMARY, range(1, 9)), (SECOND, decision.SECONDARY, range(1, 5))],
)
def test_a_second_computation_agrees(mine, theirs, seeds):
    found = decision.family(decision.Tables.load(), theirs)
    listed = [(kind, name, one) for kind, lines in found.items() for name, one in lines.items()]
    ours, pairs = [], []
    for kind, name, _ in listed:
        net, head, other, its = mine[name]
        a, b = net_of(kind, net), net_of(kind, other)
        pairs.append((kind, a, head, b, its))
        ours.append(welch(table(kind, a, head, seeds) - table(kind, b, its, seeds)))
    assert len(set(pairs)) == len(pairs)
    assert len(pairs) == 12 or theirs is decision.SECONDARY
    clear, within = corrected([one[3] for one in ours]), corrected([one[4] for one in ours])
    for n, ((_, _, comparison), one) in enumerate(zip(listed, ours, strict=True)):
        assert tuple(comparison.difference) == pytest.approx(one[:3], abs=1e-9)
        side = "ahead" if one[0] > 0 else "behind"
        said = [*([side] if n in clear else []), *(["within 0.02"] if n in within else [])]
        assert comparison.verdict == (", ".join(said) or "open")


def test_every_wiring_was_trained_at_one_rate():
    rates = {}
    for row in rows("decision"):
        rates.setdefault((row["net"].split()[0], "," in row["net"]), set()).add(row["lr"])
    assert all(len(of) == 1 for of in rates.values())
