"""Intervals hold what they promise, and tests agree with the textbooks' definitions."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from tuneloop.stats import (
    Interval,
    bootstrap,
    mcnemar,
    paired_bootstrap_difference,
    percentiles,
    resampled_sums,
    wilson,
    wilson_f1,
)

SIMULATIONS = 2_000


@given(st.integers(1, 2_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(0.5, 0.999))
def test_wilson_equals_scipys(counts: tuple[int, int], confidence: float) -> None:
    successes, n = counts
    ours = wilson(successes, n, confidence)
    theirs = scipy_stats.binomtest(successes, n).proportion_ci(confidence, method="wilson")
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    assert 0 <= ours.low <= ours.estimate <= ours.high <= 1


def test_wilson_of_nothing_knows_nothing() -> None:
    nothing = wilson(0, 0)
    assert math.isnan(nothing.estimate)
    assert (nothing.low, nothing.high) == (0.0, 1.0)
    assert nothing.to_dict() == {"estimate": None, "low": 0.0, "high": 1.0, "confidence": 0.95}


@pytest.mark.parametrize(("successes", "n"), [(-1, 5), (6, 5)])
def test_wilson_refuses_impossible_counts(successes: int, n: int) -> None:
    with pytest.raises(ValueError, match="out of 5"):
        wilson(successes, n)


@pytest.mark.parametrize(("share", "n"), [(0.5, 60), (0.84, 300), (0.95, 200), (0.3, 1000)])
def test_wilson_holds_the_true_share_in_95_of_100_samples(share: float, n: int) -> None:
    draws = np.random.default_rng(5).binomial(n, share, SIMULATIONS)
    intervals = {k: wilson(int(k), n) for k in np.unique(draws)}
    held = np.mean([intervals[k].low <= share <= intervals[k].high for k in draws])
    assert 0.93 <= held <= 0.97


def test_wilson_f1_holds_the_true_f1_in_95_of_100_samples() -> None:
    shares = np.array([0.12, 0.03, 0.05, 0.80])  # hit, false alarm, miss, none of the class's business
    truth = 2 * 0.12 / (2 * 0.12 + 0.03 + 0.05)
    draws = np.random.default_rng(3).multinomial(400, shares, SIMULATIONS)
    intervals = [wilson_f1(*row[:3]) for row in draws.tolist()]
    assert 0.93 <= np.mean([i.low <= truth <= i.high for i in intervals]) <= 0.97


def test_a_perfect_f1_on_three_documents_is_not_certain() -> None:
    perfect = wilson_f1(3, 0, 0)
    assert perfect.estimate == perfect.high == 1.0
    assert perfect.low < 0.65


@given(st.integers(0, 24), st.integers(0, 24), st.integers(0, 30))
def test_mcnemar_below_25_discordant_pairs_is_the_exact_binomial_test(a_only: int, b_only: int, both: int) -> None:
    a_only, b_only = a_only % 12, b_only % 12
    result = mcnemar(
        [True] * a_only + [False] * b_only + [True] * both, [False] * a_only + [True] * b_only + [True] * both
    )
    expected = scipy_stats.binomtest(a_only, a_only + b_only).pvalue if a_only + b_only else 1.0
    assert (result.a_only, result.b_only, result.method) == (a_only, b_only, "exact")
    assert result.p_value == pytest.approx(expected)


@given(st.integers(0, 300), st.integers(25, 300))
def test_mcnemar_from_25_on_subtracts_half_the_probability_of_the_outcome(a_only: int, b_only: int) -> None:
    result = mcnemar([True] * a_only + [False] * b_only, [False] * a_only + [True] * b_only)
    n = a_only + b_only
    exact = min(1.0, 2 * scipy_stats.binom.cdf(min(a_only, b_only), n, 0.5))
    assert result.method == "mid-p"
    assert 0 <= result.p_value <= 1
    assert exact - scipy_stats.binom.pmf(min(a_only, b_only), n, 0.5) - 1e-12 <= result.p_value <= exact


def test_mcnemar_rejects_equal_models_in_at_most_five_of_a_hundred_samples() -> None:
    rng = np.random.default_rng(8)
    samples = rng.random((SIMULATIONS, 2, 200)) < 0.7
    rejected = np.mean([mcnemar(a, b).p_value < 0.05 for a, b in samples])
    assert 0.03 <= rejected <= 0.06


def test_a_paired_comparison_of_different_items_is_refused() -> None:
    with pytest.raises(ValueError, match="different items"):
        mcnemar([True], [True, False])
    with pytest.raises(ValueError, match="different items"):
        paired_bootstrap_difference([1.0, 0.0], [1.0])


def test_the_paired_difference_holds_the_truth_in_95_of_100_samples() -> None:
    rng = np.random.default_rng(1)
    held = 0
    for simulation in range(SIMULATIONS):
        ease = rng.random(150)  # what makes an item easy for both
        a, b = ease + 0.6 * rng.random(150) > 0.5, ease + 0.6 * rng.random(150) > 0.8
        interval = paired_bootstrap_difference(a, b, resamples=400, seed=simulation)
        held += interval.low <= _true_difference() <= interval.high
    assert 0.93 <= held / SIMULATIONS <= 0.97


def _true_difference() -> float:
    """Return P(u + 0.6 v > 0.5) - P(u + 0.6 v > 0.8) for uniform u and v."""

    def above(threshold: float) -> float:
        v = (np.arange(100_000) + 0.5) / 100_000
        return float(np.clip(1 - (threshold - 0.6 * v), 0, 1).mean())

    return above(0.5) - above(0.8)


def test_the_bootstrap_of_a_mean_agrees_with_scipys() -> None:
    values = np.random.default_rng(2).normal(size=80)
    (ours,) = bootstrap(values, resamples=20_000, bounds=(-math.inf, math.inf))
    theirs = scipy_stats.bootstrap((values,), np.mean, n_resamples=20_000, method="percentile", rng=4)
    assert ours.estimate == pytest.approx(values.mean())
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=0.01)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=0.01)


def test_resampled_sums_of_equal_items_are_the_sums_themselves() -> None:
    sums = resampled_sums(np.tile([1.0, 2.0], (7, 1)), 11, seed=0)
    assert (sums == [7.0, 14.0]).all()


def test_resampling_draws_as_many_items_as_there_are() -> None:
    rows = np.column_stack([np.eye(9), np.ones(9)])
    sums = resampled_sums(rows, 3_000, seed=0)
    assert (sums[:, -1] == 9).all()
    assert (sums[:, :9].sum(axis=1) == 9).all()
    assert sums[:, :9].mean(axis=0) == pytest.approx(np.ones(9), abs=0.1)
    assert sums[:, :9].var(axis=0) == pytest.approx(np.full(9, 8 / 9), abs=0.1)


def test_the_same_seed_gives_the_same_interval_and_another_seed_another() -> None:
    values = np.random.default_rng(0).random(50)
    assert bootstrap(values, resamples=200, seed=1) == bootstrap(values, resamples=200, seed=1)
    assert bootstrap(values, resamples=200, seed=1) != bootstrap(values, resamples=200, seed=2)


def test_models_that_never_differ_still_leave_room_for_a_difference() -> None:
    same = paired_bootstrap_difference([1.0] * 40, [1.0] * 40, resamples=50)
    assert same.low < same.estimate == 0 < same.high
    assert not same.excludes_zero()
    always = paired_bootstrap_difference([1.0] * 10, [0.0] * 10, resamples=50)
    assert always.estimate == always.high == 1
    assert 0.6 < always.low < 0.8


def test_the_bootstrap_of_no_items_has_no_estimate_but_every_column() -> None:
    empty = bootstrap(np.zeros((0, 2)), lambda sums: sums / np.where(sums > 0, sums, np.nan), resamples=10)
    assert [math.isnan(interval.estimate) for interval in empty] == [True, True]
    (mean,) = bootstrap([], resamples=10)
    assert math.isnan(mean.estimate)


@pytest.mark.parametrize("level", [50, 95])
def test_percentiles_hold_the_true_quantile_in_at_least_93_of_100_samples(level: float) -> None:
    rng = np.random.default_rng(6)
    truth = float(scipy_stats.lognorm(0.5).ppf(level / 100))
    held = 0
    for _ in range(SIMULATIONS):
        (interval,) = percentiles(rng.lognormal(0, 0.5, 200), [level])
        held += interval.low <= truth <= interval.high
    assert 0.93 <= held / SIMULATIONS <= 0.99  # ranks are whole numbers, so the level is at least 95 %


def test_few_values_set_no_upper_bound_to_a_high_percentile() -> None:
    median, high = percentiles([3.0, 1.0, 2.0, 5.0, 4.0, 6.0], [50, 99])
    assert (median.estimate, median.low, median.high) == (3.5, 1.0, 6.0)
    assert high.high == math.inf
    assert high.to_dict()["high"] is None


def test_percentiles_of_nothing_are_unknown() -> None:
    (nothing,) = percentiles([], [50])
    assert math.isnan(nothing.estimate)
    assert json.dumps(nothing.to_dict(), allow_nan=False)


@pytest.mark.parametrize(
    ("low", "high", "expected"), [(0.1, 0.2, True), (-0.2, -0.1, True), (-0.1, 0.1, False), (0, 1, False)]
)
def test_an_interval_excludes_zero_only_when_it_lies_on_one_side(low: float, high: float, expected: bool) -> None:
    assert Interval(0.0, low, high).excludes_zero() is expected
