import numpy as np

from course_lib.checks import check_holm

CHECK, LESSON, EXERCISE = check_holm, "10_the_verdict", "holm"


def right(p_values, *, cap=True, running=True, factor=lambda n, rank: n - rank):
    adjusted, floor = [0.0] * len(p_values), 0.0
    for rank, at in enumerate(np.argsort(p_values)):
        value = factor(len(p_values), rank) * p_values[at]
        value = min(1, value) if cap else value
        floor = max(floor, value) if running else value
        adjusted[at] = floor
    return adjusted


def bonferroni(p_values):
    return [min(1, len(p_values) * p) for p in p_values]


def bonferroni_uncapped(p_values):
    return [len(p_values) * p for p in p_values]


def sorted_result(p_values):
    return sorted(right(p_values))


def not_monotone(p_values):
    return right(p_values, running=False)


def factors_rise(p_values):
    return right(p_values, factor=lambda n, rank: rank + 1, running=False)


def benjamini_hochberg(p_values):
    n, order = len(p_values), np.argsort(p_values)
    adjusted, ceiling = [0.0] * n, 1.0
    for rank in reversed(range(n)):
        ceiling = min(ceiling, n / (rank + 1) * p_values[order[rank]])
        adjusted[order[rank]] = ceiling
    return adjusted


def uncapped(p_values):
    return right(p_values, cap=False)


def unchanged(p_values):
    return list(p_values)


def only_the_smallest(p_values):
    adjusted = list(p_values)
    adjusted[int(np.argmin(p_values))] *= len(p_values)
    return adjusted


def one_step_off(p_values):
    return right(p_values, factor=lambda n, rank: n - rank - 1)


def decisions(p_values):
    return [p < 0.05 for p in right(p_values)]


def always_four(p_values):
    return right(p_values, factor=lambda n, rank: 4 - rank)


def nothing(p_values):
    right(p_values)


def hole(p_values):
    raise NotImplementedError("your code here")


WRONG = {
    r"multiplied by their number \(Bonferroni\)": bonferroni,
    "a probability of 2.4": bonferroni_uncapped,
    "right, and sorted": sorted_result,
    "must not end below a smaller one": not_monotone,
    "the factors rise": factors_rise,
    "Benjamini and Hochberg": benjamini_hochberg,
    "a probability is at most 1": uncapped,
    "nothing has changed": unchanged,
    r"becomes \[0.09, 0.04, 0.09, 0.6\], and \[0.04, 0.04, 0.03, 0.6\]": only_the_smallest,
    r"becomes \[0.09, 0.04, 0.09, 0.6\], and \[0.06, 0.03, 0.06": one_step_off,
    r"becomes \[0.09, 0.04, 0.09, 0.6\], and \[0.0, 1.0": decisions,
    "at most 1|becomes": always_four,
    "it returns nothing": nothing,
    "hole is not written yet": hole,
}
