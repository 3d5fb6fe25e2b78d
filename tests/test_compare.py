"""Intervals of differences against values by hand and against scipy's own tests."""

import numpy as np
import pytest
from scipy import stats

from course_lib.compare import Interval, interval_from_table, paired_interval

RNG = np.random.default_rng(0)


def test_two_pairs_by_hand():
    # Differences 1 and 3: mean 2, s = √2, s / √2 = 1; t with one degree of freedom is 12.706.
    found = paired_interval([2, 5], [1, 2])
    assert found == pytest.approx((2, 2 - 12.706, 2 + 12.706), abs=1e-3)
    assert not found.excludes_zero


def test_paired_is_scipys():
    a = RNG.normal(0.5, 1, 7)
    b = RNG.normal(0, 1, 7)
    theirs = stats.ttest_rel(a, b).confidence_interval(0.95)
    assert paired_interval(a, b) == pytest.approx((np.mean(a - b), theirs.low, theirs.high))


def test_what_pairs_share_cancels():
    a = RNG.normal(0, 1, 6)
    shared = RNG.normal(0, 100, 6)
    assert paired_interval(a + shared, shared) == pytest.approx(paired_interval(a, np.zeros(6)), abs=1e-9)


def test_the_sign_is_that_of_the_first():
    assert paired_interval([3, 4, 6], [1, 1, 1]).mean == pytest.approx(10 / 3)
    assert paired_interval([1, 1, 1], [3, 4, 6]).mean == pytest.approx(-10 / 3)


def test_a_table_is_welchs_test():
    a, b = RNG.normal(90.57, 1.26, 20), RNG.normal(92.44, 1.2, 20)
    given = [(x.mean(), x.std(ddof=1)) for x in (a, b)]
    theirs = stats.ttest_ind(a, b, equal_var=False).confidence_interval(0.95)
    assert interval_from_table(*given, runs=20) == pytest.approx((a.mean() - b.mean(), theirs.low, theirs.high))


@pytest.mark.parametrize(("low", "high", "clear"), [(0.1, 2, True), (-2, -0.1, True), (-1, 1, False), (0, 1, False)])
def test_an_interval_on_one_side_of_zero_excludes_it(low, high, clear):
    assert Interval(0.5, low, high).excludes_zero is clear


def test_it_reads_as_a_line_of_a_table():
    assert str(Interval(0.0123, -0.001, 0.0256)) == "+0.012 (-0.001 to +0.026)"


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [([1, 2], [1], "2 values and 1 make no pairs"), ([1], [2], "one pair has no spread")],
)
def test_what_makes_no_pairs_is_refused(a, b, message):
    with pytest.raises(ValueError, match=message):
        paired_interval(a, b)
