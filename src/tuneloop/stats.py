"""How sure a figure is: intervals for one share, for any score over items, for a difference on the same items.

Everything here is arithmetic on arrays; it knows nothing about models, labels or documents.

A score over a set of items (accuracy, macro-F1, entity micro-F1, …) is described by a matrix of counts with one row
per item and a function from *summed* counts to the score. Resampling items is then one matrix product.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import binom, norm

Floats = NDArray[np.float64]
Statistic = Callable[[Floats], Floats]
"""Summed counts (S, F) → scores (S,) or (S, M); NaN where a score has no meaning (a class that was not drawn)."""

EXACT_BELOW = 25  # discordant pairs; from here on the mid-p test is as safe and has more power
CELLS_PER_CHUNK = 2_000_000  # resampled items held at once: 16 MB of int64
ROUNDING = 1e-12  # resampled scores that differ by less are the same score


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure and the range that holds the true one with probability `confidence`.

    `estimate` is NaN where nothing was counted; `low` and `high` may be infinite where the data set no bound.
    """

    estimate: float
    low: float
    high: float
    confidence: float = 0.95

    def excludes_zero(self) -> bool:
        """Say whether all of the interval lies on one side of zero."""
        return self.low > 0 or self.high < 0

    def to_dict(self) -> dict[str, float | None]:
        """Return the four numbers for JSON, with None for what is not a finite number."""
        values = {"estimate": self.estimate, "low": self.low, "high": self.high, "confidence": self.confidence}
        return {name: float(value) if math.isfinite(value) else None for name, value in values.items()}


@dataclass(frozen=True, slots=True)
class McNemar:
    """Whether two classifiers differ on the same items: how many items only one of them got right, and the p-value."""

    a_only: int
    b_only: int
    p_value: float
    method: Literal["exact", "mid-p"]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        return {"a_only": self.a_only, "b_only": self.b_only, "p_value": self.p_value, "method": self.method}


def wilson(successes: float, n: float, confidence: float = 0.95) -> Interval:
    """Return a share with its score interval (Wilson 1927; recommended by Brown, Cai & DasGupta 2001, section 5).

    It stays inside [0, 1] and keeps a width at 0 of n and n of n, where the usual ± formula shrinks to nothing.
    With n = 0 the estimate is NaN and the interval all of [0, 1]. Half credits count as they are.

    Raises: ValueError: `successes` is not within 0 to n.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} successes out of {n}")
    if n == 0:
        return Interval(math.nan, 0.0, 1.0, confidence)
    z = _z(confidence)
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return Interval(share, low, high, confidence)


def wilson_f1(hits: float, false_alarms: float, misses: float, confidence: float = 0.95) -> Interval:
    """Return one class's F1 with an interval that keeps its width at 0 and 1.

    Given how many items involve the class at all, hits are a binomial share J = hits / (hits + false alarms + misses),
    and F1 = 2J / (1 + J) grows with J: the Wilson bounds of J, transformed, bound F1.
    """
    share = wilson(hits, hits + false_alarms + misses, confidence)
    estimate, low, high = (2 * j / (1 + j) for j in (share.estimate, share.low, share.high))
    return Interval(estimate, low, high, confidence)


def mcnemar(a_correct: ArrayLike, b_correct: ArrayLike) -> McNemar:
    """Test whether two classifiers are right equally often on the same items (McNemar 1947).

    Only discordant items count, and under equality each is a fair coin. Below 25 of them the exact binomial test is
    used, which never claims too much; from 25 on the mid-p version, which Fagerland, Lydersen & Laake (2013, BMC
    Medical Research Methodology 13:91) found to keep its level with nearly the power of the chi-squared test, while
    the chi-squared test with continuity correction is needlessly conservative.

    Args: a_correct, b_correct (N,) booleans.
    """
    a, b = np.asarray(a_correct, dtype=bool), np.asarray(b_correct, dtype=bool)
    _require_same_items(a, b)
    a_only, b_only = int((a & ~b).sum()), int((b & ~a).sum())
    discordant, fewer = a_only + b_only, min(a_only, b_only)
    two_sided = 2 * float(binom.cdf(fewer, discordant, 0.5))
    if discordant < EXACT_BELOW:
        return McNemar(a_only, b_only, min(1.0, two_sided), "exact")
    return McNemar(a_only, b_only, min(1.0, two_sided - float(binom.pmf(fewer, discordant, 0.5))), "mid-p")


def percentiles(values: ArrayLike, levels: Sequence[float], confidence: float = 0.95) -> list[Interval]:
    """Return quantiles (`levels` in percent) with intervals that assume nothing about the distribution.

    The bounds are order statistics whose ranks are binomial quantiles (Conover 1999, section 3.2). Where too few
    values were seen for a bound (the upper one of a 95th percentile needs about 75) it is infinite.
    With no values every estimate is NaN.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    n = len(ordered)
    if n == 0:
        return [Interval(math.nan, -math.inf, math.inf, confidence) for _ in levels]
    tail = (1 - confidence) / 2
    results = []
    for level in levels:
        share = level / 100
        below = int(binom.ppf(tail, n, share))  # rank of the lower bound, 1-based; 0: no such value
        above = int(binom.ppf(1 - tail, n, share)) + 1
        low = float(ordered[below - 1]) if below >= 1 else -math.inf
        high = float(ordered[above - 1]) if above <= n else math.inf
        results.append(Interval(float(np.quantile(ordered, share)), low, high, confidence))
    return results


def bootstrap(
    rows: ArrayLike,
    statistic: Statistic | None = None,
    *,
    resamples: int = 10_000,
    seed: int = 13,
    confidence: float = 0.95,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> list[Interval]:
    """Return the scores of a set of items with percentile intervals (Efron & Tibshirani 1993, section 13.3).

    Percentile rather than BCa (Efron 1987): on macro-F1 over 77 classes and 500 items, 500 simulations, the nominal
    95 % interval held the true value in 93 % of cases against 88 % for BCa, and 93 against 91 % for the paired
    difference; with a dozen classes the two agree within simulation error.
    Where all items are alike, resamples cannot vary and say nothing; the interval is then what Wilson's bound leaves
    for a kind of item that was not seen in N, within `bounds`.

    Args: rows (N,) scores, whose mean is taken, or (N, F) counts; statistic: see `Statistic`.
    Returns: one interval per score (M; one where the statistic returns a single column).
    """
    counts, summarise = _as_counts(rows, statistic)
    n = len(counts)
    estimates = _columns(summarise(counts.sum(axis=0, keepdims=True)))[0]
    if n == 0:
        return [Interval(math.nan, *bounds, confidence) for _ in estimates]
    drawn = _columns(summarise(resampled_sums(counts, resamples, seed)))
    return [
        _percentile_interval(float(estimate), drawn[:, column], n, confidence, bounds)
        for column, estimate in enumerate(estimates)
    ]


def paired_bootstrap_difference(
    a: ArrayLike,
    b: ArrayLike,
    statistic: Statistic | None = None,
    *,
    resamples: int = 10_000,
    seed: int = 13,
    confidence: float = 0.95,
) -> Interval:
    """Return score(a) - score(b) where both answered the same items, which are resampled together.

    Pairing removes what makes an item hard for both (Efron & Tibshirani 1993, section 8.3; for language models
    Koehn 2004). Intervals as in `bootstrap`.

    Args: a, b (N,) scores or (N, F) counts of the same items in the same order; statistic gives one score (S,).
    Raises: ValueError: the two do not have the same shape.
    """
    first, summarise = _as_counts(a, statistic)
    second, _ = _as_counts(b, statistic)
    _require_same_items(first, second)
    width = first.shape[1]

    def difference(sums: Floats) -> Floats:
        return summarise(sums[:, :width]) - summarise(sums[:, width:])

    both = np.hstack([first, second])
    kwargs = {"resamples": resamples, "seed": seed}
    return bootstrap(both, difference, confidence=confidence, bounds=(-1.0, 1.0), **kwargs)[0]


def resampled_sums(counts: Floats, resamples: int, seed: int) -> Floats:
    """Draw N of the N rows with replacement, `resamples` times, and return the column sums (R, F).

    The draws depend on N and the seed alone. Equal rows are one kind of item, so the work after drawing grows with
    the number of kinds. Sums are exact for integer counts below 2^53.
    """
    kinds, kind_of_item = np.unique(counts, axis=0, return_inverse=True)
    kind_of_item = kind_of_item.reshape(-1)
    n, rng = len(counts), np.random.default_rng(seed)
    per_chunk = max(1, CELLS_PER_CHUNK // n)
    sums = np.empty((resamples, counts.shape[1]))
    for start in range(0, resamples, per_chunk):
        size = min(per_chunk, resamples - start)
        drawn = kind_of_item[rng.integers(0, n, size=(size, n), dtype=np.int32)]
        drawn += np.arange(size)[:, None] * len(kinds)
        times = np.bincount(drawn.reshape(-1), minlength=size * len(kinds)).reshape(size, len(kinds))
        sums[start : start + size] = times.astype(np.float64) @ kinds
    return sums


def _percentile_interval(
    estimate: float, drawn: Floats, n: int, confidence: float, bounds: tuple[float, float]
) -> Interval:
    """Return the interval that the middle of the resampled scores (R,) spans."""
    drawn = drawn[~np.isnan(drawn)]
    if math.isnan(estimate) or len(drawn) == 0:
        return Interval(math.nan, *bounds, confidence)
    if np.ptp(drawn) <= ROUNDING:
        unseen = _z(confidence) ** 2 / (n + _z(confidence) ** 2)
        return Interval(estimate, max(bounds[0], estimate - unseen), min(bounds[1], estimate + unseen), confidence)
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail])
    return Interval(estimate, min(float(low), estimate), max(float(high), estimate), confidence)


def _as_counts(rows: ArrayLike, statistic: Statistic | None) -> tuple[Floats, Statistic]:
    values = np.asarray(rows, dtype=np.float64)
    if values.ndim == 1:
        values = np.column_stack([values, np.ones(len(values))])
    return values, statistic or _mean


def _mean(sums: Floats) -> Floats:
    """Turn sums (S, 2) of score and item count into means (S,)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        means: Floats = sums[:, 0] / sums[:, 1]
    return means


def _columns(scores: Floats) -> Floats:
    return scores.reshape(len(scores), -1)


def _require_same_items(a: NDArray[Any], b: NDArray[Any]) -> None:
    if a.shape != b.shape:
        raise ValueError(f"paired comparison of different items: shapes {a.shape} and {b.shape}")


def _z(confidence: float) -> float:
    return float(norm.ppf(0.5 + confidence / 2))
