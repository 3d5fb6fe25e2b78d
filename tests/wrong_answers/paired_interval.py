import numpy as np
from scipy import stats

from course_lib.checks import check_paired_interval

CHECK, LESSON, EXERCISE = check_paired_interval, "05_how_deep", "paired_interval"


def around(a, b, reach):
    mean = np.mean(np.subtract(a, b))
    return mean, mean - reach, mean + reach


def right(a, b, *, ddof=1, quantile=0.975, degrees=None, root=0.5):
    d, n = np.subtract(a, b), len(a)
    return around(a, b, stats.t.ppf(quantile, n - 1 if degrees is None else degrees) * d.std(ddof=ddof) / n**root)


def normal_quantile(a, b):
    return around(a, b, 1.96 * np.std(np.subtract(a, b), ddof=1) / len(a) ** 0.5)


def divides_by_n(a, b):
    return right(a, b, ddof=0)


def spread_of_single_runs(a, b):
    return right(a, b, root=0)


def divides_by_n_not_its_root(a, b):
    return right(a, b, root=1)


def one_sided(a, b):
    return right(a, b, quantile=0.95)


def n_degrees(a, b):
    return right(a, b, degrees=len(a))


def always_five(a, b):
    return right(a, b, degrees=4)


def variance(a, b):
    d = np.subtract(a, b)
    return around(a, b, stats.t.ppf(0.975, len(a) - 1) * d.var(ddof=1) / len(a) ** 0.5)


def b_minus_a(a, b):
    return right(b, a)


def unpaired(a, b):
    error = (np.var(a, ddof=1) / len(a) + np.var(b, ddof=1) / len(b)) ** 0.5
    return around(a, b, stats.t.ppf(0.975, 2 * len(a) - 2) * error)


def around_zero(a, b):
    mean, low, high = right(a, b)
    return mean, low - mean, high - mean


def mean_and_reach(a, b):
    mean, _, high = right(a, b)
    return mean, high - mean


def standard_error(a, b):
    return around(a, b, np.std(np.subtract(a, b), ddof=1) / len(a) ** 0.5)


def median(a, b):
    _, low, high = right(a, b)
    return np.median(np.subtract(a, b)), low, high


def bounds_swapped(a, b):
    mean, low, high = right(a, b)
    return mean, high, low


def minimum_and_maximum(a, b):
    d = np.subtract(a, b)
    return d.mean(), d.min(), d.max()


def hole(a, b):
    raise NotImplementedError("your code here")


WRONG = {
    "1.96 is for many runs": normal_quantile,
    r"divides by n - 1 \(ddof=1\)": divides_by_n,
    "the spread of single differences": spread_of_single_runs,
    "falls with the root of n, not with n": divides_by_n_not_its_root,
    "the quantile is that of 0.975": one_sided,
    "n - 1 degrees of freedom": n_degrees,
    "right for five pairs and wrong for three": always_five,
    "this is the variance": variance,
    "the sign is reversed": b_minus_a,
    "subtract pair by pair first": unpaired,
    "the interval lies around zero": around_zero,
    "three numbers are wanted": mean_and_reach,
    "this is one standard error": standard_error,
    "the median came out": median,
    "low is above high": bounds_swapped,
    r"the interval is .* not 0.0100 to 0.0700": minimum_and_maximum,
    "hole is not written yet": hole,
}
