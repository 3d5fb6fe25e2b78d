"""Differences between nets, with how sure we may be of them: paired where the runs are, else from a table."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats


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


def paired_interval(a: Sequence[float], b: Sequence[float]) -> Interval:
    """Mean of a - b over pairs, such as two nets trained with the same seed, and its 95 % interval.

        d ± t s / √n,   s the sample standard deviation of the n differences, t Student's with n - 1 degrees

    What both runs of a pair share, an easy draw of images or a lucky order, cancels in the difference. The
    interval takes the differences to be normally distributed (Student, 1908).

    Raises:
        ValueError: fewer than two pairs, or values without a partner.
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


def _around(mean: float, error: float, degrees: float) -> Interval:
    reach = stats.t.ppf(0.975, degrees) * error
    return Interval(float(mean), float(mean - reach), float(mean + reach))
