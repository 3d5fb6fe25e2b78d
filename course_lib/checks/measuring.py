"""Lessons 05, 09 and 10: how often an image can be halved, how long a run takes, how sure differences are."""

from collections.abc import Callable, Sequence
from math import gcd, log2

import numpy as np
from scipy import stats

from course_lib.checks.machinery import AnyOf, as_check, as_number, ask, is_same, told
from course_lib.results import compare


@as_check
def check_deepest(fn: Callable[[int, int], int]) -> None:
    """`fn(height, width) -> depth`: how often both sides can be halved without a remainder."""
    cases = [(96, 96), (64, 96), (16, 24), (48, 20), (20, 48), (100, 100), (97, 96), (12, 6)]
    depths = [as_number(ask(fn, *sides, returns=object, what="the number of halvings")) for sides in cases]
    twos = [[(side & -side).bit_length() - 1 for side in sides] for sides in cases]  # how often 2 divides each side
    right, deeper = [min(pair) for pair in twos], [max(pair) for pair in twos]
    divisors, sizes = [gcd(*sides) for sides in cases], [int(log2(min(sides))) for sides in cases]
    mistakes = {
        "one too many: count the halvings, not the sizes before and after them": [depth + 1 for depth in right],
        "this is a divisor: count how often it holds the factor 2": AnyOf([divisors, [2**depth for depth in right]]),
        "the size of the sides is counted, not their divisibility: 100 becomes 50, then 25, and 25 is odd": sizes,
        "of the two sides the less divisible one decides: 20 can be halved twice, however often 48 can": deeper,
        "only one side is looked at: a depth needs both sides to be divisible": AnyOf(zip(*twos, strict=True)),
    }
    n = next((n for n, depth in enumerate(depths) if depth != right[n]), 0)
    shown = "{}x{} can be halved {} times without a remainder, {:g} came out".format(*cases[n], right[n], depths[n])
    told(depths, right, mistakes, shown)


@as_check
def check_paired_interval(fn: Callable[[Sequence[float], Sequence[float]], tuple[float, float, float]]) -> None:
    """`fn(a, b) -> (mean, low, high)`: mean of a - b over pairs, and its 95 % interval by Student's t."""
    a, b = [0.82, 0.78, 0.85, 0.80, 0.90], [0.80, 0.77, 0.81, 0.79, 0.83]
    answer = ask(fn, a, b, returns=tuple | list | np.ndarray, what="(mean, low, high)")
    assert len(answer) == 3, "three numbers are wanted: (mean, low, high)"
    mean, low, high = (as_number(value, "mean, low and high are one number each") for value in answer)
    d, n, right, quantile = np.subtract(a, b), len(a), compare.paired_interval(a, b), stats.t.ppf
    mistakes = {"the sign is reversed: a minus b": -right.mean, "the median came out: take the mean": np.median(d)}
    told(mean, right.mean, mistakes, f"the mean of a - b is {right.mean:.4g}, {mean:.4g} came out")
    shown = f"the interval is {right.low:.4f} to {right.high:.4f}, not {low:.4f} to {high:.4f}"
    zero = {"the interval lies around zero: it is the mean minus and plus the reach": 0.0}
    told((low + high) / 2, right.mean, zero, shown)
    assert low <= high, "low is above high"
    t, error, unpaired = quantile(0.975, n - 1), stats.sem(d), np.hypot(stats.sem(a), stats.sem(b)) / stats.sem(d)
    over_n, many, one_end = t * (1 - 1 / n) ** 0.5, AnyOf([1.96, stats.norm.ppf(0.975), 2]), quantile(0.95, n - 1)
    apart = AnyOf([unpaired * t, unpaired * quantile(0.975, 2 * n - 2)])
    mistakes = {  # the reach in standard errors
        "this is the spread of single differences: a mean of n is surer than one of them, by the root of n": t * n**0.5,
        "the spread of a mean falls with the root of n, not with n": t / n**0.5,
        "the deviation of a sample divides by n - 1 (ddof=1): by n it is too small, most of all for few runs": over_n,
        "this is the variance: its root, the standard deviation, has the units of d": t * d.std(ddof=1),
        "1.96 is for many runs: with n = 5 Student's t is 2.78, because the deviation itself is a guess": many,
        "n differences leave n - 1 degrees of freedom": quantile(0.975, n),
        "5 % are cut off at both ends: 95 % inside leaves 2.5 % at each, so the quantile is that of 0.975": one_end,
        "this is one standard error: stretch it by Student's t for 95 %": 1.0,
        "the two lists are taken apart: subtract pair by pair first, then what both runs share cancels": apart,
    }
    told((high - low) / 2 / error, t, mistakes, shown, tol=1e-4)
    wrong = "right for five pairs and wrong for three: let n be the number of pairs, also inside Student's t"
    told([as_number(one, wrong) for one in fn(a[:3], b[:3])], compare.paired_interval(a[:3], b[:3]), {}, wrong)


class Device:
    """A device that works while Python runs ahead, with a clock of its own: what a GPU does to a stopwatch.

    `run` hands over work and returns at once; `finish` waits for it. Runs take the seconds in `work`, later ones 1.
    """

    def __init__(self, *work: float, waiting: float = 0.0):
        self.work, self.waiting, self.now, self.runs, self.read = iter(work), waiting, 0.0, 0, False

    def run(self) -> None:
        self.runs += 1
        self.now, self.waiting = self.now + 0.001, self.waiting + next(self.work, 1.0)

    def finish(self) -> None:
        self.now, self.waiting = self.now + self.waiting, 0.0

    def clock(self) -> float:
        self.read = True
        return self.now


@as_check
def check_median_seconds(fn: Callable[..., float]) -> None:
    """`fn(run, finish, clock, repeats, warm_up) -> seconds`: the median of one run, on a device that runs ahead."""

    def seconds(device: Device, repeats: int, warm_up: int) -> float:
        value = ask(fn, device.run, device.finish, device.clock, repeats, warm_up, returns=object, what="the seconds")
        return as_number(value, "one number is wanted: the median of the seconds")

    device = Device(9, 9)
    median, spiky = seconds(device, 5, 2), seconds(Device(9, 9, 1, 1, 51), 5, 2)
    late = seconds(Device(waiting=100), 1, 0)  # somebody else's work is still going on
    assert device.read, "the clock is never read: call clock() before and after a run"
    assert device.runs == 7, f"{device.runs} runs were made: 2 to warm up and 5 that count, each one call of run()"
    assert median < 4, "the slow first runs are in it: do not count the warm-up"
    assert spiky < 2, "one slow run among five moves the answer: take the median, not the mean"
    assert late < 50, "work that was there before is in it: call finish() before the clock is read the first time, too"
    handed = {"only the handing over was timed: call finish() before the clock is read the second time": 0.001}
    told(median, 1.001, handed, f"a run takes 1.001 s on this device, and {median:.4g} came out", tol=1e-6)


@as_check
def check_resampled_means(fn: Callable[[np.ndarray, int, np.random.Generator], np.ndarray]) -> None:
    """`fn(differences, draws, generator) -> means`: of `draws` samples of the images, with replacement."""
    d = np.random.default_rng(1).normal(0.3, 1.0, 60)
    means = np.asarray(ask(fn, d, 4000, np.random.default_rng(2), returns=object, what="the means"), dtype=float)
    assert means.shape == (4000,), f"4000 draws give 4000 means, a mean for every draw: this has shape {means.shape}"
    middle, spread, want = means.mean(), means.std(), d.std() / len(d) ** 0.5
    noise = 4 * want / 4000**0.5
    assert not is_same(middle / len(d), d.mean(), tol=noise), "sums came out: take the mean of each draw"
    mistakes = {
        "all means are the same: an image may be drawn twice and another not at all (with replacement)": 0.0,
        "these are single images: draw as many images as there are, and take their mean": len(d) ** 0.5,
    }
    size, why = ("much", "fewer") if spread > want else ("little", "more")
    shown = f"the means vary too {size}: draw as many images as there are, not {why}, and each anew"
    told(spread / want, 1.0, mistakes, shown, tol=0.11)
    zero = {"the means lie around zero: draw from the differences as they are, without subtracting their mean": 0.0}
    shown = f"the means lie around {middle:.3f}, and the mean difference is {d.mean():.3f}: is every image as likely?"
    told(middle, d.mean(), zero, shown, tol=noise)
    again, same, other = (np.asarray(fn(d, 50, np.random.default_rng(seed))) for seed in (3, 3, 4))
    assert not is_same(again, other), "another generator gives the same draws: draw with the one you are given"
    told(again, same, {}, "the same generator gives other draws: use no random numbers but those of `generator`")


@as_check
def check_holm(fn: Callable[[Sequence[float]], Sequence[float]]) -> None:
    """`fn(p_values) -> adjusted`: Holm's correction, in the order of the p-values."""
    for given in ([0.04, 0.01, 0.03, 0.6], [0.9, 0.8, 0.7], [0.01, 0.02, 0.03]):
        adjusted = [as_number(value) for value in ask(fn, given, returns=object, what="the adjusted p-values")]
        assert len(adjusted) == len(given), f"{len(given)} p-values give as many adjusted ones, not {len(adjusted)}"
        assert max(adjusted) <= 1, f"{given} gives a probability of {max(adjusted):g}: a probability is at most 1"
        p, right, n = np.array(given), compare.holm(given), len(given)
        rank, shares = p.argsort().argsort(), stats.false_discovery_control(p)  # the smallest has rank 0
        falling, rising, bonferroni = ((factors * p).clip(max=1) for factors in (n - rank, 1 + rank, n))
        shown = f"{given} becomes {np.round(right, 4).tolist()}, and {np.round(adjusted, 4).tolist()} came out"
        mistakes = {
            "nothing has changed: the smallest of four is multiplied by 4, the next by 3, and so on": p,
            "every p-value is multiplied by their number (Bonferroni): Holm's factors fall": bonferroni,
            "right, and sorted: give the values back in the order in which they came": np.sort(right),
            "a larger p-value must not end below a smaller one": falling,
            "the factors rise where they should fall: the smallest p-value gets the largest factor": rising,
            "this bounds the share of false alarms (Benjamini and Hochberg), Holm the chance of one": shares,
        }
        told(np.array(adjusted), np.array(right), mistakes, shown)
