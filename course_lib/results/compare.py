"""Differences between nets, with how sure we may be of them: over seeds, over seeds and images, or from a table.

`compare` and `judge` are the one test of all stored experiments (docs/protocol.md).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

MARGIN = 0.02  # of IoU: what UNet++ gains in its paper of 2020, on the mean of five data sets
WITHIN = f"within {MARGIN}"


class Interval(NamedTuple):
    """A mean difference and the range that holds the true one in 95 of 100 such experiments."""

    mean: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether the data tell the difference from none."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        return f"{self.mean:+.3f} ({self.low:+.3f} to {self.high:+.3f})"


class Comparison(NamedTuple):
    """A difference over seeds and images, and two p-values.

    Attributes:
        difference: its mean and 95 % interval.
        p: of "there is no difference".
        p_margin: of "the difference is MARGIN or more"; small where it is surely less.
        verdict: from `judge`; before that a second look, of which we say nothing.
    """

    difference: Interval
    p: float
    p_margin: float
    verdict: str = "second look"


def paired_interval(a: Sequence[float], b: Sequence[float]) -> Interval:
    """Mean of a - b over pairs, such as two nets trained with the same seed, and its 95 % interval.

        d ± t s / √n,   s the sample standard deviation of the n differences, t Student's with n - 1 degrees

    What both runs of a pair share, an easy draw of images or a lucky order, cancels in the difference. The
    interval takes the differences to be normally distributed (Student, 1908).
    Raises ValueError: fewer than two pairs, or values without a partner.
    """
    if len(a) != len(b):
        raise ValueError(f"{len(a)} values and {len(b)} make no pairs: give one of each for every seed")
    if len(a) < 2:
        raise ValueError("one pair has no spread: give at least two")
    differences = np.subtract(a, b)
    return _around(differences.mean(), differences.std(ddof=1) / len(a) ** 0.5, len(a) - 1)


def interval_from_table(a: tuple[float, float], b: tuple[float, float], *, runs: int) -> Interval:
    """Mean of a - b and its 95 % interval from the (mean, standard deviation) of `runs` independent runs each.

    For what papers print, where single runs are not given, so that nothing can be paired (Welch, 1947).
    """
    (mean_a, sd_a), (mean_b, sd_b) = a, b
    error_a, error_b = sd_a**2 / runs, sd_b**2 / runs
    degrees = (error_a + error_b) ** 2 / ((error_a**2 + error_b**2) / (runs - 1))
    return _around(mean_a - mean_b, (error_a + error_b) ** 0.5, degrees)


def compare(a: np.ndarray, b: np.ndarray, *, margin: float = MARGIN) -> Comparison:
    """a - b over seeds and images: how it would vary with other runs on these training images, and other test images.

        d ± t √(s_S² / S + s_N² / N)

    s_S is the deviation of the seeds' means, s_N that of the images' means, and t has the degrees of freedom of
    Welch's formula for a sum of two variances. The noise of one image in one run is in both terms, so the interval is
    rather too wide (min F' of Clark, 1973). The p of the margin is the larger one of two one-sided tests.

    Args:
        a, b: the scores of two nets, (seeds, images) each; the same seed and the same image in the same place.
    Raises ValueError: the shapes differ, there are fewer than two of a kind, or a score is not a number.
    """
    if np.shape(a) != np.shape(b) or np.ndim(a) != 2 or min(np.shape(a)) < 2:
        raise ValueError(f"scores of shapes {np.shape(a)} and {np.shape(b)}: give (seeds, images), two or more of each")
    d = np.subtract(a, b, dtype=float)
    if not np.isfinite(d).all():
        raise ValueError("a score is not a number: leave that image out for both nets")
    parts = [
        d.mean(axis=axis).var(ddof=1) / d.shape[1 - axis] for axis in (0, 1)
    ]  # of the images', of the seeds' means
    if sum(parts) == 0:  # every difference is the same number
        return Comparison(Interval(*[float(d[0, 0])] * 3), float(d[0, 0] == 0), float(abs(d[0, 0]) >= margin))
    degrees = sum(parts) ** 2 / sum(part**2 / (d.shape[1 - axis] - 1) for axis, part in enumerate(parts))
    error, student = sum(parts) ** 0.5, stats.t(degrees)
    outside = student.sf((margin - abs(d.mean())) / error)
    return Comparison(_around(d.mean(), error, degrees), float(2 * student.sf(abs(d.mean()) / error)), float(outside))


def judge(comparisons: Sequence[Comparison], *, level: float = 0.05) -> list[Comparison]:
    """The same with a verdict, all of them together: both p-values are corrected for their number by `holm`.

    "ahead" or "behind" where the difference is clear; "within 0.02" where it is clearly smaller than MARGIN; both, as
    in "ahead, within 0.02", where it is clear and small; "open" where the runs were too few or too different to tell.
    """
    judged = []
    corrected = (holm([one[field] for one in comparisons]) for field in (1, 2))
    for one, p, p_margin in zip(comparisons, *corrected, strict=True):
        side = "ahead" if one.difference.mean > 0 else "behind"
        said = [text for text, sure in ((side, p), (WITHIN, p_margin)) if sure < level]
        judged.append(Comparison(one.difference, p, p_margin, ", ".join(said) or "open"))
    return judged


def bootstrap(a: np.ndarray, b: np.ndarray, *, draws: int = 10_000, seed: int = 0) -> tuple[Interval, float]:
    """Mean of a - b over seeds and images, its 95 % interval, and the p-value of "there is no difference".

    Seeds and images are both drawn anew, with replacement: another training, other test images (Efron, 1979). The
    interval holds the middle 95 % of the means of all draws. p is twice the share of draws on the other side of 0,
    never below 2 / draws.
    With few seeds it is rough: what seeds alone decide comes out too narrow, s of them drawn with replacement vary by
    (s - 1) / s of what s new ones would; noise of single images in single runs is drawn twice and comes out too wide.

    Args:
        a, b: the scores of two nets, (seeds, images) each; the same seed and the same image in the same place.
    Raises ValueError: the shapes differ, there is nothing to draw from, or a score is not a number.
    """
    if np.shape(a) != np.shape(b) or np.ndim(a) != 2 or 0 in np.shape(a):
        raise ValueError(f"scores of shapes {np.shape(a)} and {np.shape(b)}: give (seeds, images), the same for both")
    differences = np.subtract(a, b, dtype=float)
    if not np.isfinite(differences).all():
        raise ValueError("a score is not a number: leave that image out for both nets")
    seeds, images = differences.shape
    generator = np.random.default_rng(seed)
    of_seeds = generator.multinomial(seeds, np.full(seeds, 1 / seeds), draws) / seeds  # how often each was drawn
    of_images = generator.multinomial(images, np.full(images, 1 / images), draws) / images
    means = np.einsum("ds,si,di->d", of_seeds, differences, of_images, optimize=True)
    low, high = np.quantile(means, [0.025, 0.975])
    beyond = min((means <= 0).mean(), (means >= 0).mean())
    return Interval(float(differences.mean()), float(low), float(high)), float(min(1, max(2 * beyond, 2 / draws)))


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values corrected for their number, in the order given: below 0.05 they are believed together.

    The smallest of n is multiplied by n, the next by n - 1, and so on; none may fall below one before it, and none
    rises above 1. The chance that one of n true "no difference" is called a difference stays at 5 % (Holm, 1979).
    """
    adjusted, floor = [0.0] * len(p_values), 0.0
    for rank, n in enumerate(np.argsort(p_values, kind="stable")):
        floor = max(floor, min(1.0, (len(p_values) - rank) * p_values[n]))
        adjusted[n] = floor
    return adjusted


def _around(mean: float, error: float, degrees: float) -> Interval:
    reach = stats.t.ppf(0.975, degrees) * error
    return Interval(float(mean), float(mean - reach), float(mean + reach))
