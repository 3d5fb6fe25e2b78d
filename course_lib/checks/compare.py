"""Lessons 05 and 10: how often an image can be halved, how sure a difference is, and how sure many are."""

from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats

from course_lib.checks.machinery import as_check


@as_check
def check_deepest(fn: Callable[[int, int], int]) -> None:
    """`fn(height, width) -> depth`: how often both sides can be halved without a remainder."""
    cases = {(96, 96): 5, (64, 96): 5, (16, 24): 3, (48, 20): 2, (20, 48): 2, (100, 100): 2, (97, 96): 0, (12, 6): 1}
    found = {sides: fn(*sides) for sides in cases}
    assert all(depth is not None for depth in found.values()), "it returns nothing: return the number of halvings"
    assert not all(found[sides] == depth + 1 for sides, depth in cases.items()), (
        "one too many: count the halvings, not the sizes before and after them"
    )
    assert found[96, 96] not in (32, 96), "this is a divisor: count how often it holds the factor 2"
    assert not (found[100, 100] == 6 or found[97, 96] == 6), (
        "the size of the sides is counted, not their divisibility: 100 becomes 50, then 25, and 25 is odd"
    )
    assert not (found[48, 20] == found[20, 48] == 4), (
        "of the two sides the less divisible one decides: 20 can be halved twice, however often 48 can"
    )
    assert found[97, 96] != 5 and found[48, 20] != 4 and found[20, 48] != 4, (
        "only one side is looked at: a depth needs both sides to be divisible"
    )
    for (height, width), depth in cases.items():
        assert found[height, width] == depth, (
            f"{height}x{width} can be halved {depth} times without a remainder, {found[height, width]} came out"
        )


@as_check
def check_paired_interval(fn: Callable[[Sequence[float], Sequence[float]], tuple[float, float, float]]) -> None:
    """`fn(a, b) -> (mean, low, high)`: mean of a - b over pairs, and its 95 % interval by Student's t."""
    a, b = [0.82, 0.78, 0.85, 0.80, 0.90], [0.80, 0.77, 0.81, 0.79, 0.83]
    answer = fn(a, b)
    assert isinstance(answer, tuple | list | np.ndarray) and len(answer) == 3, (
        "three numbers are wanted: (mean, low, high)"
    )
    mean, low, high = (float(value) for value in answer)
    d = np.subtract(a, b)
    n, s, t = len(d), d.std(ddof=1), stats.t.ppf(0.975, len(d) - 1)

    def is_(reach: float) -> bool:
        return bool(np.allclose([low, high], [d.mean() - reach, d.mean() + reach], rtol=1e-4, atol=1e-7))

    assert not np.isclose(mean, -d.mean()), "the sign is reversed: a minus b"
    assert not np.isclose(mean, np.median(d)), "the median came out: take the mean of the differences"
    assert np.isclose(mean, d.mean()), f"the mean of a - b is {d.mean():.4g}, {mean:.4g} came out"
    half = t * s / n**0.5
    assert not np.allclose([low, high], [-half, half], rtol=1e-4), (
        "the interval lies around zero: it is the mean minus and plus the reach"
    )
    assert not np.isclose(low, high), "low and high are the same number: the mean minus the reach, and plus the reach"
    assert low < high, "low is above high"
    assert not is_(t * s), (
        "this is the spread of single differences: a mean of n is surer than one of them, by the root of n"
    )
    assert not is_(t * s / n), "the spread of a mean falls with the root of n, not with n"
    assert not is_(t * d.std() / n**0.5), (
        "the deviation of a sample divides by n - 1 (ddof=1): by n it is too small, most of all for few runs"
    )
    assert not is_(t * s**2 / n**0.5), "this is the variance: its root, the standard deviation, has the units of d"
    assert not (is_(1.96 * s / n**0.5) or is_(2 * s / n**0.5) or is_(stats.norm.ppf(0.975) * s / n**0.5)), (
        "1.96 is for many runs: with n = 5 Student's t is 2.78, because the deviation itself is a guess"
    )
    assert not is_(stats.t.ppf(0.975, n) * s / n**0.5), "n differences leave n - 1 degrees of freedom"
    assert not is_(stats.t.ppf(0.95, n - 1) * s / n**0.5), (
        "5 % are cut off at both ends: 95 % inside leaves 2.5 % at each, so the quantile is that of 0.975"
    )
    assert not is_(s / n**0.5), "this is one standard error: stretch it by Student's t for 95 %"
    unpaired = (np.var(a, ddof=1) / n + np.var(b, ddof=1) / n) ** 0.5
    for degrees in (n - 1, 2 * n - 2):
        assert not is_(stats.t.ppf(0.975, degrees) * unpaired), (
            "the two lists are taken apart: subtract pair by pair first, then what both runs share cancels"
        )
    assert is_(half), f"the interval is {d.mean() - half:.4f} to {d.mean() + half:.4f}, not {low:.4f} to {high:.4f}"
    again = tuple(float(value) for value in fn(a[:3], b[:3]))
    want = stats.ttest_rel(a[:3], b[:3]).confidence_interval(0.95)
    assert np.allclose(again[1:], want, rtol=1e-4), (
        "right for five pairs and wrong for three: let n be the number of pairs, also inside Student's t"
    )


@as_check
def check_resampled_means(fn: Callable[[np.ndarray, int, np.random.Generator], np.ndarray]) -> None:
    """`fn(differences, draws, generator) -> means`: of `draws` samples of the images, with replacement."""
    d = np.random.default_rng(1).normal(0.3, 1.0, 60)
    found = fn(d.copy(), 4000, np.random.default_rng(2))
    assert found is not None, "it returns nothing: return the means"
    found = np.asarray(found, dtype=float)
    assert found.ndim > 0, "one number came out: return a mean for every draw, not one for all of them"
    assert found.shape == (4000,), f"4000 draws give 4000 means, and the answer has shape {found.shape}"
    assert not np.allclose(found, found[0]), (
        "all means are the same: an image may be drawn twice and another not at all (with replacement)"
    )
    middle, spread, want = found.mean(), found.std(), d.std() / len(d) ** 0.5
    assert not np.isclose(middle, d.sum(), rtol=0.1), "sums came out: take the mean of each draw"
    assert not np.isclose(middle, 0, atol=4 * want / 4000**0.5), (
        "the means lie around zero: draw from the differences as they are, without subtracting their mean"
    )
    assert not np.isclose(spread, d.std(), rtol=0.15), (
        "these are single images: draw as many images as there are, and take their mean"
    )
    assert spread < 1.25 * want, "the means vary too much: draw as many images as there are, not fewer"
    assert spread > 0.8 * want, "the means vary too little: draw as many images as there are, not more, and each anew"
    assert np.isclose(middle, d.mean(), atol=4 * want / 4000**0.5), (
        f"the means lie around {middle:.3f}, and the mean difference is {d.mean():.3f}: is every image as likely?"
    )
    again, other = (np.asarray(fn(d.copy(), 50, np.random.default_rng(s))) for s in (3, 4))
    assert not np.array_equal(again, other), "another generator gives the same draws: draw with the one you are given"
    assert np.array_equal(again, np.asarray(fn(d.copy(), 50, np.random.default_rng(3)))), (
        "the same generator gives other draws: use no random numbers but those of `generator`"
    )


@as_check
def check_holm(fn: Callable[[Sequence[float]], Sequence[float]]) -> None:
    """`fn(p_values) -> adjusted`: Holm's correction, in the order of the p-values."""
    p = [0.04, 0.01, 0.03, 0.6]
    answer = fn(list(p))
    assert answer is not None, "it returns nothing: return the adjusted p-values"
    found = [float(value) for value in answer]
    assert len(found) == len(p), f"four p-values give four adjusted ones, not {len(found)}"
    want = [0.09, 0.04, 0.09, 0.6]

    def is_(values: Sequence[float]) -> bool:
        return bool(np.allclose(found, values, atol=1e-9))

    assert not is_(p), "nothing has changed: the smallest of four is multiplied by 4, the next by 3, and so on"
    assert not is_([min(1, 4 * value) for value in p]), (
        "every p-value is multiplied by their number (Bonferroni): Holm multiplies the second smallest by one less"
    )
    assert not is_([4 * value for value in p]), "a probability of 2.4: none rises above 1, and Holm's factors fall"
    assert not is_(sorted(want)), "right, and sorted: give the values back in the order in which they came"
    assert not is_([0.08, 0.04, 0.09, 0.6]), (
        "0.03 became 0.09 and 0.04 only 0.08: a larger p-value must not end below a smaller one"
    )
    assert not is_([0.12, 0.01, 0.06, 1.0]) and not is_([0.12, 0.01, 0.06, 2.4]), (
        "the factors rise where they should fall: the smallest p-value gets the largest factor"
    )
    assert not is_([0.04 * 4 / 3, 0.04, 0.04 * 4 / 3, 0.6]), (
        "this bounds the share of false alarms (Benjamini and Hochberg), not the chance of one: Holm's factors fall"
    )
    assert is_(want), f"{p} becomes {want}, and {[round(value, 4) for value in found]} came out"
    capped = [float(value) for value in fn([0.9, 0.8, 0.7])]
    assert max(capped) <= 1, f"[0.9, 0.8, 0.7] becomes {capped}: a probability is at most 1"
    assert np.allclose(capped, 1), f"[0.9, 0.8, 0.7] becomes [1, 1, 1], and {capped} came out"
    three = [float(value) for value in fn([0.01, 0.02, 0.03])]
    assert np.allclose(three, [0.03, 0.04, 0.04]), (
        f"[0.01, 0.02, 0.03] becomes [0.03, 0.04, 0.04], and {three} came out"
    )
