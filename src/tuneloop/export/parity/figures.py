"""How often two engines answer alike, and how often each is right: shares with intervals over the same items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from tuneloop.export.parity.asked import Asked, Speed
from tuneloop.metrics import entities, is_correct
from tuneloop.records import Example, Prediction
from tuneloop.stats import Interval, score_difference, wilson

RESAMPLES = 2_000


@dataclass(frozen=True)
class Disagreement:
    """The first item that the two label differently (`item` counts from 1), and how sure each was."""

    item: int
    item_id: str
    expected: str | None
    found: str | None
    expected_probability: float
    found_probability: float

    def to_dict(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class LabelParity:
    """Label agreement (Wilson), and the first item without."""

    same: int
    agreement: Interval
    first: Disagreement | None


@dataclass(frozen=True)
class AccuracyParity:
    """Accuracy of both (Wilson) over the `n` items with a known label, and other minus reference (Tango, paired)."""

    n: int
    reference: Interval
    other: Interval
    difference: Interval


@dataclass(frozen=True)
class EntityParity:
    """Entities: items with exactly the same ones (Wilson), micro-F1 against the reference's, and against the truth."""

    same_items: Interval
    agreement_f1: Interval
    reference_f1: Interval | None
    other_f1: Interval | None


def compare_labels(reference: Asked, other: Asked, items: Sequence[Example]) -> LabelParity | None:
    """Return how often the labels are equal; None where the task has none."""
    if not reference.task.has_label:
        return None
    pairs = list(zip(reference.predictions, other.predictions, strict=True))
    same = [mine.label == theirs.label for mine, theirs in pairs]
    first = None
    if not all(same):
        number = same.index(False)
        mine, theirs = pairs[number]
        first = Disagreement(
            number + 1, items[number].id, mine.label, theirs.label, mine.probability, theirs.probability
        )
    return LabelParity(sum(same), wilson(sum(same), len(same)), first)


def compare_accuracy(reference: Asked, other: Asked, items: Sequence[Example]) -> AccuracyParity | None:
    """Return who is right how often, over the items whose label is known; None where there are none."""
    known = [number for number, item in enumerate(items) if item.label is not None]
    if not reference.task.has_label or not known:
        return None
    truths = [items[number] for number in known]
    mine, theirs = (is_correct(truths, [asked.predictions[number] for number in known]) for asked in (reference, other))
    wins, losses, n = int((theirs & ~mine).sum()), int((mine & ~theirs).sum()), len(known)
    return AccuracyParity(
        n, wilson(int(mine.sum()), n), wilson(int(theirs.sum()), n), score_difference(wins, losses, n)
    )


def compare_entities(reference: Asked, other: Asked, items: Sequence[Example]) -> EntityParity | None:
    """Return how alike the entities are; None where the task has none."""
    if not reference.task.has_entities:
        return None
    types = reference.task.entity_types
    same = [
        _values(mine) == _values(theirs) for mine, theirs in zip(reference.predictions, other.predictions, strict=True)
    ]
    as_truth = [
        replace(item, entities=mine.entities or ()) for item, mine in zip(items, reference.predictions, strict=True)
    ]
    agreement = _micro_f1(as_truth, other.predictions, types)
    if not any(_values(one) for asked in (reference, other) for one in asked.predictions):
        agreement = replace(agreement, estimate=1.0)  # neither finds anything: the same answer, though F1 has no value
    known = [number for number, item in enumerate(items) if item.entities is not None]
    truths = [items[number] for number in known]
    figures = [
        _micro_f1(truths, [asked.predictions[number] for number in known], types) if known else None
        for asked in (reference, other)
    ]
    return EntityParity(wilson(sum(same), len(same)), agreement, *figures)


def speed_figures(speed: Speed) -> dict[str, float | None]:
    """Return documents per second together, and the median and largest time of one alone, for JSON and tables."""
    alone = np.array(speed.alone_s)
    return {
        "documents_per_s": speed.documents_per_s,
        "alone_median_s": float(np.median(alone)) if len(alone) else None,
        "alone_largest_s": float(alone.max()) if len(alone) else None,
    }


def _micro_f1(truths: Sequence[Example], answers: Sequence[Prediction], types: Sequence[str]) -> Interval:
    return entities(truths, answers, types, resamples=RESAMPLES).exact.micro_f1


def _values(prediction: Prediction) -> set[tuple[str, str]]:
    return {(entity.type, entity.text) for entity in prediction.entities or ()}
