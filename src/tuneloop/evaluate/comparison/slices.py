"""Where a subject is worse than elsewhere: its score by label, length, source or any column, and by pairs of them.

Like SliceFinder (Chung et al. 2019), slices are conjunctions of one or two attributes with enough documents; unlike it,
every candidate is tested, none is pruned by its score, so that the correction can count them all. Documents belong to
several overlapping slices, which Holm and Benjamini–Hochberg pay for dearly; the step taken here is Westfall & Young's
(1993, section 2.3): scores are dealt out to the documents at random many times, and a slice is found where it is
worse than the *worst of all slices* is in 97.5 of 100 deals. On pure noise some 2.5 % of evaluations name a slice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import hypergeom

from tuneloop.evaluate.comparison.columns import LABEL, LANGUAGE, LENGTH, SCRIPT, SOURCE, UNKNOWN, in_order
from tuneloop.evaluate.comparison.languages import UNCERTAIN
from tuneloop.evaluate.comparison.scores import SubjectAnswers, document_scores
from tuneloop.records import Example
from tuneloop.stats import Floats, Interval, bootstrap, paired_bootstrap_difference, wilson

MIN_DOCUMENTS = 20  # smaller slices are shown but not searched
MIN_SHARE = 0.02
MAX_CANDIDATES = 2000  # pairs beyond this are left out, the smallest first: their number costs power and time
MAX_FOUND = 5
DEALS = 2000
RESAMPLES = 1000
WORSE_THAN_PARENT = 0.05  # a pair of attributes is named only where it is worse than either of them alone

Attributes = tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Slice:
    """Documents that share one or two attributes, and how well they were answered.

    `scores` holds every subject's mean score; `to_rest` is the subject's score here minus elsewhere, `to_baseline` its
    score minus the baseline's on these documents. `p_adjusted` (worse than elsewhere, doubled) accounts for all
    slices searched; NaN where the slice was too small to be searched.
    """

    attributes: Attributes
    words: str
    n: int
    scores: Mapping[str, Interval]
    to_rest: Interval
    to_baseline: Interval | None
    p_adjusted: float


@dataclass(frozen=True, kw_only=True)
class SliceReport:
    """All slices by one attribute, column by column, and the worst ones of one or two that are no accident.

    `searched` counts the slices that were tested; `measure` says what a score is.
    """

    subject: str
    baseline: str | None
    measure: str
    columns: Mapping[str, tuple[Slice, ...]]
    worst: tuple[Slice, ...]
    searched: int


@dataclass(frozen=True)
class _Table:
    """Scores (N,) per subject, and who belongs to which candidate (S, N)."""

    scores: Mapping[str, Floats]
    subject: str
    baseline: str | None
    confidence: float
    seed: int
    is_share: bool

    def cut(self, attributes: Attributes, inside: NDArray[np.bool_], p_adjusted: float) -> Slice:
        ours = self.scores[self.subject]
        theirs = self.scores[self.baseline] if self.baseline else None
        kwargs: dict[str, Any] = {"resamples": RESAMPLES, "seed": self.seed, "confidence": self.confidence}
        change = None
        if theirs is not None:
            asked = inside & ~np.isnan(theirs)
            change = paired_bootstrap_difference(ours[asked], theirs[asked], **kwargs) if asked.any() else None
        return Slice(
            attributes=attributes,
            words=in_words(attributes),
            n=int(inside.sum()),
            scores={name: self._mean(scores[inside & ~np.isnan(scores)]) for name, scores in self.scores.items()},
            to_rest=_gap(ours[inside], ours[~inside & ~np.isnan(ours)], self.confidence),
            to_baseline=change,
            p_adjusted=p_adjusted,
        )

    def _mean(self, scores: Floats) -> Interval:
        if self.is_share:
            return wilson(float(scores.sum()), len(scores), self.confidence)
        return bootstrap(scores, resamples=RESAMPLES, seed=self.seed, confidence=self.confidence)[0]


def find_slices(
    items: Sequence[Example],
    answers: Mapping[str, SubjectAnswers],
    columns: Mapping[str, Sequence[str]],
    *,
    subject: str,
    baseline: str | None = None,
    by_label: bool = True,
    seed: int = 13,
    confidence: float = 0.95,
) -> SliceReport | None:
    """Return the subject's score slice by slice, and the worst slices; None where there is nothing to tell apart.

    A document's score is 1 for the right label (`by_label`), else the F1 of its values. Args: columns: name → one
    attribute per item (see `columns_of`).
    """
    scores = {name: document_scores(items, one, by_label=by_label) for name, one in answers.items()}
    asked = ~np.isnan(scores[subject])
    if not columns or asked.sum() < 2:
        return None
    table = _Table(scores, subject, baseline, confidence, seed, by_label)
    singles = _singles(columns, asked)
    pairs = _pairs(singles, _support(int(asked.sum())))
    candidates = _candidates({**singles, **pairs}, _support(int(asked.sum())), int(asked.sum()))
    adjusted = dict(zip(candidates, _adjusted(scores[subject], asked, list(candidates.values()), seed), strict=True))
    found = _worth_naming(candidates, adjusted, singles, scores[subject], 1 - confidence)
    return SliceReport(
        subject=subject,
        baseline=baseline,
        measure="documents labelled correctly" if by_label else "F1 of a document's values, mean over documents",
        columns={
            name: tuple(
                table.cut(key, inside, adjusted.get(key, math.nan))
                for key, inside in singles.items()
                if key[0][0] == name
            )
            for name in columns
        },
        worst=tuple(table.cut(key, candidates[key], adjusted[key]) for key in found[:MAX_FOUND]),
        searched=len(candidates),
    )


def in_words(attributes: Attributes) -> str:
    """Return "documents labelled Copyleft in the longest quarter (over 910 characters)"."""
    return "documents " + " ".join(_phrase(name, value) for name, value in attributes)


def _phrase(name: str, value: str) -> str:
    if value == UNKNOWN:
        return f"without a {name}"
    known = {
        LABEL: f"labelled {value}",
        LENGTH: f"in the {value}",
        SCRIPT: f"written in {value}" if value != "no letters" else "without letters",
        LANGUAGE: f"in language {value}" if value != UNCERTAIN else "whose language is not certain",
        SOURCE: f"from {value}",
    }
    return known.get(name, f"with {name} {value}")


def _support(n: int) -> int:
    return max(MIN_DOCUMENTS, math.ceil(MIN_SHARE * n))


def _singles(columns: Mapping[str, Sequence[str]], asked: NDArray[np.bool_]) -> dict[Attributes, NDArray[np.bool_]]:
    """Return attribute → members (N,), column by column, in the order of a table."""
    found: dict[Attributes, NDArray[np.bool_]] = {}
    for name, values in columns.items():
        array = np.array(values, dtype=object)
        members = {value: (array == value) & asked for value in set(values)}
        for value in in_order({value: int(inside.sum()) for value, inside in members.items()}):
            if members[value].any():
                found[(name, value),] = members[value]
    return found


def _pairs(singles: Mapping[Attributes, NDArray[np.bool_]], support: int) -> dict[Attributes, NDArray[np.bool_]]:
    """Return pairs of attributes of different columns with enough documents in common."""
    frequent = {key: inside for key, inside in singles.items() if inside.sum() >= support}
    found: dict[Attributes, NDArray[np.bool_]] = {}
    for (first, a), (second, b) in combinations(frequent.items(), 2):
        if first[0][0] != second[0][0] and (both := a & b).sum() >= support:
            found[first + second] = both
    return found


def _candidates(
    members: Mapping[Attributes, NDArray[np.bool_]], support: int, n: int
) -> dict[Attributes, NDArray[np.bool_]]:
    """Return what is searched: enough documents inside and outside, each set of documents once, the larger first."""
    seen: set[bytes] = set()
    found: dict[Attributes, NDArray[np.bool_]] = {}
    in_order = sorted(members.items(), key=lambda pair: (len(pair[0]), -pair[1].sum(), pair[0]))
    for key, inside in in_order:
        content = np.packbits(inside).tobytes()
        if support <= inside.sum() <= n - MIN_DOCUMENTS and content not in seen and len(found) < MAX_CANDIDATES:
            seen.add(content)
            found[key] = inside
    return found


def _adjusted(scores: Floats, asked: NDArray[np.bool_], members: Sequence[NDArray[np.bool_]], seed: int) -> list[float]:
    """Return each slice's p-value for being worse than elsewhere, adjusted for all of them (Westfall & Young 1993).

    A slice's statistic is the standardised mean of n of N scores drawn without replacement. Its adjusted p-value is the
    share of random deals in which the lowest statistic of all slices is at least as low, doubled as for two sides: the
    page asks where the subject is weak because it is, and should not be answered too readily.
    """
    values = scores[asked]
    if not members or np.ptp(values) == 0:
        return [1.0] * len(members)
    inside = np.array([member[asked] for member in members], dtype=np.float32)  # (S, N)
    n, size = len(values), inside.sum(axis=1)
    spread = np.sqrt(values.var(ddof=1) * size * (n - size) / n)
    centred = (values - values.mean()).astype(np.float32)
    observed = inside @ centred / spread
    rng, at_least = np.random.default_rng(seed), np.ones(len(members))
    for _ in range(0, DEALS, 250):
        deals = rng.permuted(np.tile(centred, (250, 1)), axis=1)  # (250, N)
        lowest = (inside @ deals.T / spread[:, None]).min(axis=0)
        at_least += (lowest[None, :] <= observed[:, None] + 1e-4).sum(axis=1)
    return [min(1.0, 2 * float(count)) for count in at_least / (DEALS + 1)]


def _worth_naming(
    candidates: Mapping[Attributes, NDArray[np.bool_]],
    adjusted: Mapping[Attributes, float],
    singles: Mapping[Attributes, NDArray[np.bool_]],
    scores: Floats,
    alpha: float,
) -> list[Attributes]:
    """Return the slices that are no accident, the lowest score first; pairs only where they add to their parts."""
    found = [key for key in candidates if adjusted[key] < alpha]
    found = [key for key in found if len(key) == 1 or _adds(candidates[key], [singles[k,] for k in key], scores, alpha)]
    return sorted(found, key=lambda key: (float(scores[candidates[key]].mean()), key))


def _adds(inside: NDArray[np.bool_], parts: Sequence[NDArray[np.bool_]], scores: Floats, alpha: float) -> bool:
    """Say whether a pair of attributes is clearly worse than each of the two alone."""
    for part in parts:
        rest = part & ~inside
        if not rest.any() or scores[inside].mean() > scores[part].mean() - WORSE_THAN_PARENT:
            return False
        bad = scores < 0.5  # a wrong label, or a document of which less than half was found
        if hypergeom.sf(bad[inside].sum() - 1, part.sum(), bad[part].sum(), inside.sum()) >= alpha:
            return False
    return True


def _gap(inside: Floats, outside: Floats, confidence: float) -> Interval:
    """Return mean(inside) − mean(outside) with Newcombe's interval (1998, method 10), from both sides' Wilson bounds.

    For scores between 0 and 1 that are not shares of documents it is wider than need be, since their variance is less.
    """
    if not len(inside) or not len(outside):
        return Interval(math.nan, -1.0, 1.0, confidence)
    a, b = (wilson(float(side.sum()), len(side), confidence) for side in (inside, outside))
    estimate = a.estimate - b.estimate
    low = estimate - math.hypot(a.estimate - a.low, b.high - b.estimate)
    high = estimate + math.hypot(a.high - a.estimate, b.estimate - b.low)
    return Interval(estimate, max(-1.0, low), min(1.0, high), confidence)
