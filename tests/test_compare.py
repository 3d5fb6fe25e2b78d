"""Intervals of differences against values by hand and against scipy's own tests."""

import numpy as np
import pytest
from scipy import stats

from course_lib.results.compare import (
    Comparison,
    Interval,
    bootstrap,
    compare,
    holm,
    interval_from_table,
    judge,
    paired_interval,
)

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


def test_seeds_and_images_by_hand():
    # Means of the images 1 and 3, so s² = 2 and 2 / 2 = 1; of the seeds 1 and 3, the same: the error is √2. Welch's
    # degrees: (1 + 1)² / (1 / 1 + 1 / 1) = 2, t is 4.303.
    d = np.array([[0.0, 2.0], [2.0, 4.0]])
    found = compare(d + 7, np.full((2, 2), 7.0))
    assert found.difference == pytest.approx((2, 2 - 4.303 * 2**0.5, 2 + 4.303 * 2**0.5), abs=2e-3)
    assert found.p == pytest.approx(2 * stats.t(2).sf(2 / 2**0.5))


def test_where_only_one_of_the_two_varies_it_is_a_paired_t():
    for scores, values in (
        (np.repeat(RNG.normal(0.3, 1, (6, 1)), 40, axis=1), 0),
        (np.repeat(RNG.normal(0.3, 1, (1, 40)), 6, axis=0), 1),
    ):
        single = scores.mean(axis=1 - values)
        found = compare(scores, np.zeros_like(scores))
        theirs = stats.ttest_1samp(single, 0)
        assert found.difference[1:] == pytest.approx(tuple(theirs.confidence_interval(0.95)))
        assert found.p == pytest.approx(theirs.pvalue)


def test_its_interval_holds_the_truth_in_at_least_95_of_100_experiments():
    """Seeds, images and noise drawn anew each time, the true difference 0.2."""
    rng, missed = np.random.default_rng(1), 0
    for _ in range(2000):
        d = 0.2 + rng.normal(0, 1, (5, 1)) + rng.normal(0, 1, (1, 30)) + rng.normal(0, 1, (5, 30))
        low, high = compare(d, np.zeros_like(d)).difference[1:]
        missed += not low <= 0.2 <= high
    assert 0.02 < missed / 2000 < 0.06


def test_equal_within_the_margin_takes_more_than_a_difference_that_is_not_clear():
    noise = RNG.normal(0, 1, (5, 100))
    noise -= noise.mean()
    for spread, shift, p_below, within in (
        (0.01, 0.0, False, True),
        (0.5, 0.0, False, False),
        (0.01, 0.02, True, False),
    ):
        found = compare(spread * noise + shift, np.zeros((5, 100)))
        assert (found.p < 0.05, found.p_margin < 0.05) == (p_below, within)
    low, high = (compare(0.05 * noise + side, np.zeros((5, 100))).p_margin for side in (-0.004, 0.004))
    assert low == pytest.approx(high)  # the margin has two sides


def test_the_two_one_sided_tests_are_scipys():
    one = np.repeat(RNG.normal(0.002, 0.01, (9, 1)), 4, axis=1)
    upper = stats.ttest_1samp(one[:, 0], 0.02, alternative="less").pvalue
    lower = stats.ttest_1samp(one[:, 0], -0.02, alternative="greater").pvalue
    assert compare(one, np.zeros_like(one)).p_margin == pytest.approx(max(lower, upper))


def test_what_never_varies_is_certain():
    assert compare(np.full((2, 3), 0.5), np.full((2, 3), 0.25))[:3] == ((0.25, 0.25, 0.25), 0, 1)
    assert compare(np.ones((2, 3)), np.ones((2, 3)))[:3] == ((0, 0, 0), 1, 0)


def test_verdicts_of_several_together():
    def one(mean, p, p_margin):
        return Comparison(Interval(mean, mean - 1, mean + 1), p, p_margin)

    given = [one(0.03, 1e-3, 1), one(-0.03, 1e-3, 1), one(0, 0.9, 1e-3), one(0.004, 1e-3, 1e-3), one(0.02, 0.04, 1)]
    judged = judge(given)
    assert [found.verdict for found in judged] == [
        "ahead",
        "behind",
        "within 0.02",
        "ahead, within 0.02",
        "open",
    ]
    assert judged[4].p == pytest.approx(0.08) and judged[0].p == pytest.approx(0.005)  # 0.04 times 2, 0.001 times 5
    assert [found.difference for found in judged] == [found.difference for found in given]
    assert judge(given[-1:])[0].verdict == "ahead" and given[-1].verdict == "second look"
    assert judge([]) == []


@pytest.mark.parametrize(
    ("a", "b"), [((5, 3), (5, 4)), ((5,), (5,)), ((0, 3), (0, 3)), ((1, 3), (1, 3)), ((3, 1), (3, 1))]
)
def test_what_is_not_seeds_by_images_is_refused(a, b):
    with pytest.raises(ValueError, match=r"give \(seeds, images\)"):
        compare(np.zeros(a), np.zeros(b))


def test_what_is_no_number_is_refused():
    scores = np.zeros((2, 3))
    scores[1, 2] = np.nan
    with pytest.raises(ValueError, match="not a number"):
        compare(scores, np.zeros((2, 3)))


def test_the_bootstrap_of_one_seed_is_scipys():
    a, b = RNG.normal(0.1, 1, (1, 80)), RNG.normal(0, 1, (1, 80))
    interval, _ = bootstrap(a, b, draws=20_000)
    theirs = stats.bootstrap(((a - b)[0],), np.mean, n_resamples=20_000, method="percentile", rng=1)
    assert interval.mean == pytest.approx((a - b).mean())
    assert interval[1:] == pytest.approx(tuple(theirs.confidence_interval), abs=0.02)


def test_the_bootstrap_draws_seeds_and_images():
    by_seed = np.repeat(RNG.normal(0, 1, (6, 1)), 40, axis=1)  # all images alike: only seeds vary
    by_image = np.repeat(RNG.normal(0, 1, (1, 40)), 6, axis=0)
    for scores, spread in ((by_seed, by_seed[:, 0].std() / 6**0.5), (by_image, by_image[0].std() / 40**0.5)):
        interval, _ = bootstrap(scores, np.zeros_like(scores))
        assert interval.high - interval.low == pytest.approx(2 * 1.96 * spread, rel=0.08)


def test_p_is_small_where_the_interval_excludes_zero():
    noise = RNG.normal(0, 1, (5, 100))
    for shift, clear in ((0.0, False), (1.0, True), (-1.0, True)):
        interval, p = bootstrap(noise - noise.mean() + shift, np.zeros((5, 100)))
        assert interval.excludes_zero == clear == (p < 0.05)
        assert interval.mean == pytest.approx(shift)
    assert bootstrap(noise + 9, np.zeros((5, 100)), draws=1000)[1] == 2 / 1000  # never 0
    assert bootstrap(np.zeros((5, 9)), np.zeros((5, 9)))[1] == 1


def test_the_bootstrap_gives_the_same_numbers_again():
    a, b = RNG.normal(0, 1, (2, 5, 30))
    assert bootstrap(a, b) == bootstrap(a, b) != bootstrap(a, b, seed=1)


@pytest.mark.parametrize(("a", "b"), [((5, 3), (5, 4)), ((5,), (5,)), ((0, 3), (0, 3))])
def test_the_bootstrap_refuses_what_is_not_paired(a, b):
    with pytest.raises(ValueError, match=r"give \(seeds, images\)"):
        bootstrap(np.zeros(a), np.zeros(b))


def test_the_bootstrap_refuses_what_is_no_number():
    scores = np.zeros((2, 3))
    scores[1, 2] = np.nan
    with pytest.raises(ValueError, match="not a number"):
        bootstrap(scores, np.zeros((2, 3)))


def test_holm_by_hand():
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])  # 1 x 0.04 may not fall below 2 x 0.03
    assert holm([0.5, 0.9]) == [1, 1]
    assert holm([0.02]) == [0.02]
    assert holm([]) == []


def test_holm_calls_one_of_twenty_nothings_a_difference_in_5_of_100():
    rng = np.random.default_rng(0)
    alarms = [min(holm(rng.random(20))) < 0.05 for _ in range(4000)]
    assert np.mean(alarms) == pytest.approx(0.05, abs=0.012)
