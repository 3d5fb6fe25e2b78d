"""The comparisons of docs/protocol.md computed a second time, in another way, from the stored scores alone."""

import json
from math import sqrt

import numpy as np
import pytest
from scipy import stats

from course_lib.results import decision
from tools.checkout import ROOT

RESULTS = ROOT / "data" / "results"
pytestmark = pytest.mark.skipif(not (RESULTS / "decision.json").exists(), reason="not measured yet")
UPP, ALL = "unet++ 8..128", "unet++ 8..128, mean"
SIDES = {  # net, head ("" is the best on validation), and the other one: a net, or the column and the cost of a budget
    "UNet++ - plain U-Net": (UPP, "", "unet 8..128", ""),
    "UNet++ - U-Net, its weights": (UPP, "", ("parameters", None), ""),
    "UNet++ - U-Net, its work": (UPP, "", ("macs", None), ""),
    "UNet++ - U-Net, its time": (UPP, "", ("ms", None), ""),
    "all heads - U-Net, its work": (ALL, "", ("macs", None), ""),
    "all heads - one head": (ALL, "", UPP, ""),
    "UNet++ - UNet+": (UPP, "", "unet+ 8..128", ""),
    "all heads - U-Net^e": (ALL, "", "unet-e 8..128, mean", ""),
    "mean of heads - two U-Nets": (ALL, "mean", "unet 8..128", "pair"),
    "level 1 - U-Net, its work": (ALL, "1", ("macs", "1"), ""),
    "level 2 - U-Net, its work": (ALL, "2", ("macs", "2"), ""),
    "level 3 - U-Net, its work": (ALL, "3", ("macs", "3"), ""),
}


def rows(name):
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))["rows"]


def baseline(kind, column, level):
    """By sorting: what costs too much is dropped, and of the rest the last one in the order of scores taken."""
    costs = {row["net"]: row for row in rows("costs")}
    limit = costs[ALL][column] if level is None else costs[ALL]["levels"][level][column]
    tried = [row for row in rows("tuning") if row["kind"] == kind and row["lr"] == 0.003 and row["net"][:5] == "unet "]
    paid = [row for row in tried if costs[row["net"]][column] / limit <= 1.05]
    return sorted(paid, key=lambda row: row["val"]["-1"])[-1]["net"]


def table(kind, net, head):
    """Seeds by images, from a dictionary of the seeds."""
    found = {}
    for row in rows("decision"):
        if (row["kind"], row["net"], row["steps"], row["share"], row["threads"]) == (kind, net, 960, 1, 1):
            best = max(row["val"].values())
            key = head or next(name for name, value in row["val"].items() if value == best)
            found[row["seed"]] = row["test"][key]["iou"]
    return np.array([found[seed] for seed in sorted(found)])


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


@pytest.mark.parametrize(("compared", "many"), [(decision.PRIMARY, 12), (decision.SECONDARY, 24)])
def test_a_second_computation_agrees(compared, many):
    found = decision.family(decision.Tables.load(), compared)
    theirs = [(kind, name, one) for kind, lines in found.items() for name, one in lines.items()]
    ours = []
    for kind, name, _ in theirs:
        net, head, other, its = SIDES[name]
        a = table(kind, net, head)
        b = table(kind, other if isinstance(other, str) else baseline(kind, *other), its)
        both = min(len(a), len(b))
        ours.append(welch(a[:both] - b[:both]))
    assert len(ours) == many
    clear, within = corrected([one[3] for one in ours]), corrected([one[4] for one in ours])
    for n, ((_, _, comparison), one) in enumerate(zip(theirs, ours, strict=True)):
        assert tuple(comparison.difference) == pytest.approx(one[:3], abs=1e-9)
        side = "ahead" if one[0] > 0 else "behind"
        assert comparison.verdict == ("equal" if n in within else side if n in clear else "open")
