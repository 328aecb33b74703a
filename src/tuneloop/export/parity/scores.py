"""By how much do the label scores and probabilities of two engines differ on the same items?

Shapes: N items that both scored, K labels in the order of the reference's label set.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuneloop.export.parity.asked import Asked
from tuneloop.records import Example, Prediction
from tuneloop.stats import Floats

PERMUTED = 0.02  # sorting both rows takes away all but this share of a difference that only lies in the labels


@dataclass(frozen=True)
class Differences:
    """Absolute differences over `n` items: the largest with its item's id, and the median."""

    n: int
    largest: float
    median: float
    largest_item: str

    def to_dict(self) -> dict[str, Any]:
        """Return the fields for JSON, null for what is no finite number."""
        return {name: None if value in (math.inf, -math.inf) else value for name, value in asdict(self).items()}


@dataclass(frozen=True)
class ScorePair:
    """Label log-scores of the items that both engines scored, each (N, K), and the items' places among all (N,)."""

    mine: Floats
    theirs: Floats
    items: NDArray[np.int64]

    @property
    def per_item(self) -> Floats:
        """The largest difference of each item's log-scores, in nats (N,); infinite where a score is no number."""
        with np.errstate(invalid="ignore"):
            gaps = np.abs(self.mine - self.theirs).max(axis=1)
        return np.where(np.isfinite(gaps), gaps, np.inf)


def pair_scores(reference: Asked, other: Asked) -> ScorePair | None:
    """Return the scores of all items that both scored, by label; None where there are none or the labels differ."""
    labels = reference.task.labels
    if not labels or set(labels) != set(other.task.labels):
        return None
    places = [other.task.labels.index(label) for label in labels]
    both = [
        (number, mine.label_scores, theirs.label_scores)
        for number, (mine, theirs) in enumerate(zip(reference.predictions, other.predictions, strict=True))
        if mine.label_scores is not None and theirs.label_scores is not None
    ]
    if not both:
        return None
    return ScorePair(
        np.array([mine for _, mine, _ in both], dtype=np.float64),
        np.array([[theirs[place] for place in places] for _, _, theirs in both], dtype=np.float64),
        np.array([number for number, _, _ in both], dtype=np.int64),
    )


def score_differences(pair: ScorePair, items: Sequence[Example]) -> Differences:
    """Return the differences of label log-scores, in nats; an item counts with the label that differs most."""
    return _differences(pair.per_item, [items[number].id for number in pair.items])


def probability_differences(reference: Asked, other: Asked, items: Sequence[Example]) -> Differences | None:
    """Return the differences of the probabilities of the answers; None where an engine does not tell any.

    Where both scored the labels, it is the probability that each gives the reference's label; else that of its own
    answer, on the items where both answer the same.
    """
    pair = pair_scores(reference, other)
    if pair is not None:
        mine, theirs = softmax(pair.mine), softmax(pair.theirs)
        chosen = mine.argmax(axis=1)
        rows = np.arange(len(chosen))
        gaps = np.abs(mine[rows, chosen] - theirs[rows, chosen])
        return _differences(np.where(np.isfinite(gaps), gaps, 1.0), [items[number].id for number in pair.items])
    told = [
        (abs(mine.probability - theirs.probability), item.id)
        for mine, theirs, item in zip(reference.predictions, other.predictions, items, strict=True)
        if _comparable(mine, theirs)
    ]
    return _differences(np.array([gap for gap, _ in told]), [id for _, id in told]) if told else None


def softmax(scores: Floats) -> Floats:
    """Return probabilities (N, K) over the label set from log-scores (N, K)."""
    with np.errstate(invalid="ignore"):
        odds = np.exp(scores - scores.max(axis=1, keepdims=True))
        shares: Floats = odds / odds.sum(axis=1, keepdims=True)
    return shares


def margins(scores: Floats) -> Floats:
    """Return by how many nats the best label leads the second best (N,); infinite for a single label."""
    if scores.shape[1] < 2:
        return np.full(len(scores), np.inf)
    best = np.sort(scores, axis=1)[:, -2:]
    leads: Floats = best[:, 1] - best[:, 0]
    return leads


def is_permutation(pair: ScorePair, noise: float) -> bool:
    """Say whether the other gives the very same scores to other labels: equal when sorted, different as they stand."""
    if not np.isfinite(pair.theirs).all():
        return False
    as_sorted = np.abs(np.sort(pair.mine, axis=1) - np.sort(pair.theirs, axis=1)).max(axis=1)
    as_they_stand = float(np.median(pair.per_item))
    return as_they_stand > noise and float(np.median(as_sorted)) <= PERMUTED * as_they_stand


def _comparable(mine: Prediction, theirs: Prediction) -> bool:
    return mine.states_probability and theirs.states_probability and mine.label == theirs.label


def _differences(gaps: Floats, ids: Sequence[str]) -> Differences:
    return Differences(len(gaps), float(gaps.max()), float(np.median(gaps)), ids[int(gaps.argmax())])
