"""Several models' answers to the same documents: scores side by side, paired differences, and a verdict.

Pure: takes rows, returns values, touches no file and no model. `Comparison.to_dict()` is what results.json holds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np

from tuneloop.evaluate.verdict import Evidence, Finding, Metric, Verdict, judge
from tuneloop.metrics import (
    Calibration,
    ClassificationScores,
    EntityScores,
    Latency,
    calibration,
    classification,
    entities,
    entity_counts,
    entity_scores_from,
    is_correct,
    label_counts,
    latency,
    macro_f1,
)
from tuneloop.records import Example, Prediction
from tuneloop.stats import Floats, Interval, McNemar, mcnemar, paired_bootstrap_difference

SCHEMA = 1
MICRO_F1_EXACT, MICRO_F1_PARTIAL = 2, 6  # columns of entity_scores_from


@dataclass(frozen=True, kw_only=True)
class SubjectAnswers:
    """What one model answered: `closed` on all items (label scoring), `free` on the first len(free) (generation)."""

    name: str
    title: str
    closed: Sequence[Prediction]
    free: Sequence[Prediction] | None = None
    latency_s: Sequence[float] = ()


@dataclass(frozen=True, kw_only=True)
class SubjectScores:
    """One model's figures. Parts that the task does not have are None.

    `closed` and `calibration` are on all labelled items; `free` on the first of them; `entities` on all items that have
    entities where `closed` carries some, else on the freely answered ones.
    """

    name: str
    title: str
    closed: ClassificationScores | None
    free: ClassificationScores | None
    calibration: Calibration | None
    entities: EntityScores | None
    latency: Latency | None


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How much better the candidate scores than one baseline on the same items (a share, not points)."""

    metric: str
    baseline: str
    n: int
    difference: Interval
    mcnemar: McNemar | None = None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The whole evaluation. `best_baseline` is the one that scores higher on the deciding metric."""

    n_items: int
    n_free: int
    labels: tuple[str, ...]
    entity_types: tuple[str, ...]
    candidate: str | None
    best_baseline: str | None
    subjects: tuple[SubjectScores, ...]
    differences: tuple[Difference, ...]
    verdict: Verdict
    resamples: int
    seed: int
    confidence: float

    def subject(self, name: str) -> SubjectScores:
        """Return one subject's scores. Raises: KeyError: no such subject."""
        return {subject.name: subject for subject in self.subjects}[name]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON types: intervals as {estimate, low, high, confidence}, None for not-a-number."""
        plain: dict[str, Any] = _plain(self)
        return {"schema": SCHEMA, **plain}


@dataclass(frozen=True)
class _Sampling:
    resamples: int
    seed: int
    confidence: float

    def kwargs(self) -> dict[str, Any]:
        return {"resamples": self.resamples, "seed": self.seed, "confidence": self.confidence}


def compare(
    items: Sequence[Example],
    subjects: Mapping[str, SubjectAnswers],
    *,
    labels: Sequence[str],
    entity_types: Sequence[str] = (),
    candidate: str = "tuned",
    resamples: int = 10_000,
    seed: int = 13,
    confidence: float = 0.95,
) -> Comparison:
    """Score every subject on `items`, compare `candidate` to each other one, and say what it comes to.

    Labels are scored where `labels` is not empty, entities where `entity_types` is not. A candidate that is not among
    the subjects leaves a comparison without differences.

    Raises: ValueError: no subject; answers and items differ in number; a true label is not one of `labels`.
    """
    _check(items, subjects)
    sampling = _Sampling(resamples, seed, confidence)
    scores = tuple(_score(items, subject, labels, entity_types, sampling) for subject in subjects.values())
    differences = tuple(
        difference
        for name, baseline in subjects.items()
        if candidate in subjects and name != candidate
        for difference in _differences(items, subjects[candidate], baseline, labels, entity_types, sampling)
    )
    best = _best_baseline(scores, candidate)
    return Comparison(
        n_items=len(items),
        n_free=max((len(subject.free or ()) for subject in subjects.values()), default=0),
        labels=tuple(labels),
        entity_types=tuple(entity_types),
        candidate=candidate if candidate in subjects else None,
        best_baseline=best,
        subjects=scores,
        differences=differences,
        verdict=judge(_evidence(scores, differences, candidate, best)),
        resamples=resamples,
        seed=seed,
        confidence=confidence,
    )


def labelled(items: Sequence[Example]) -> list[int]:
    """Return the positions of the items that have a label."""
    return [position for position, item in enumerate(items) if item.label is not None]


def entity_answers(subject: SubjectAnswers) -> Sequence[Prediction]:
    """Return the answers that carry entities: the closed ones if any does, else the free ones."""
    if any(answer.entities is not None for answer in subject.closed):
        return subject.closed
    return subject.free or ()


def _check(items: Sequence[Example], subjects: Mapping[str, SubjectAnswers]) -> None:
    if not subjects:
        raise ValueError("no subject to compare")
    for subject in subjects.values():
        if len(subject.closed) != len(items):
            raise ValueError(f"{subject.name}: {len(subject.closed)} answers to {len(items)} items")
        if len(subject.free or ()) > len(items):
            raise ValueError(f"{subject.name}: more free answers than items")


def _score(
    items: Sequence[Example],
    subject: SubjectAnswers,
    labels: Sequence[str],
    entity_types: Sequence[str],
    sampling: _Sampling,
) -> SubjectScores:
    truths, closed = _pairs(items, subject.closed)
    free_truths, free = _pairs(items, subject.free or ())
    asked, found = _entity_pairs(items, subject)
    kwargs = sampling.kwargs()
    return SubjectScores(
        name=subject.name,
        title=subject.title,
        closed=classification(truths, closed, labels, **kwargs) if labels else None,
        free=classification(free_truths, free, labels, **kwargs) if labels and free else None,
        calibration=calibration(truths, closed, **kwargs) if labels else None,
        entities=entities(asked, found, entity_types, **kwargs) if entity_types else None,
        latency=latency(subject.latency_s, sampling.confidence) if len(subject.latency_s) else None,
    )


def _differences(
    items: Sequence[Example],
    candidate: SubjectAnswers,
    baseline: SubjectAnswers,
    labels: Sequence[str],
    entity_types: Sequence[str],
    sampling: _Sampling,
) -> list[Difference]:
    kwargs = sampling.kwargs()
    found = []
    if labels:
        found += _label_differences(items, candidate, baseline, labels, kwargs)
    both = min(len(entity_answers(candidate)), len(entity_answers(baseline)))
    if entity_types and both:
        ours, theirs = (
            entity_counts(*_entity_pairs(items[:both], side), entity_types) for side in (candidate, baseline)
        )
        for metric, column in (("entity_f1_exact", MICRO_F1_EXACT), ("entity_f1_partial", MICRO_F1_PARTIAL)):
            interval = paired_bootstrap_difference(ours, theirs, _Column(column), **kwargs)
            found.append(Difference(metric=metric, baseline=baseline.name, n=len(ours), difference=interval))
    return found


def _label_differences(
    items: Sequence[Example],
    candidate: SubjectAnswers,
    baseline: SubjectAnswers,
    labels: Sequence[str],
    kwargs: Mapping[str, Any],
) -> list[Difference]:
    truths, ours = _pairs(items, candidate.closed)
    _, theirs = _pairs(items, baseline.closed)
    found = [_accuracy_difference("accuracy", baseline.name, truths, ours, theirs, kwargs)]
    our_counts, their_counts = label_counts(truths, ours, labels), label_counts(truths, theirs, labels)
    interval = paired_bootstrap_difference(our_counts, their_counts, macro_f1, **kwargs)
    found.append(Difference(metric="macro_f1", baseline=baseline.name, n=len(truths), difference=interval))
    both = min(len(candidate.free or ()), len(baseline.free or ()))
    if both and labelled(items[:both]):
        truths, ours = _pairs(items[:both], candidate.free or ())
        _, theirs = _pairs(items[:both], baseline.free or ())
        found.append(_accuracy_difference("accuracy_free", baseline.name, truths, ours, theirs, kwargs))
        our_invented, their_invented = ([float(answer.invented) for answer in side] for side in (ours, theirs))
        interval = paired_bootstrap_difference(our_invented, their_invented, **kwargs)
        found.append(Difference(metric="invented_free", baseline=baseline.name, n=len(truths), difference=interval))
    return found


def _accuracy_difference(
    metric: str,
    baseline: str,
    truths: Sequence[Example],
    ours: Sequence[Prediction],
    theirs: Sequence[Prediction],
    kwargs: Mapping[str, Any],
) -> Difference:
    a, b = is_correct(truths, ours), is_correct(truths, theirs)
    interval = paired_bootstrap_difference(a, b, **kwargs)
    return Difference(metric=metric, baseline=baseline, n=len(truths), difference=interval, mcnemar=mcnemar(a, b))


@dataclass(frozen=True)
class _Column:
    """One of the scores that `entity_scores_from` returns, 0 where it has no value."""

    index: int

    def __call__(self, sums: Floats) -> Floats:
        return np.nan_to_num(entity_scores_from(sums)[:, self.index])


def _pairs(items: Sequence[Example], answers: Sequence[Prediction]) -> tuple[list[Example], list[Prediction]]:
    """Return the labelled items that were answered, and their answers."""
    positions = [position for position in labelled(items) if position < len(answers)]
    return [items[position] for position in positions], [answers[position] for position in positions]


def _entity_pairs(items: Sequence[Example], subject: SubjectAnswers) -> tuple[list[Example], list[Prediction]]:
    """Return the items that have entities (perhaps none) and were answered, and their answers."""
    pairs = [pair for pair in zip(items, entity_answers(subject), strict=False) if pair[0].entities is not None]
    return [item for item, _ in pairs], [answer for _, answer in pairs]


def deciding_score(subject: SubjectScores) -> Interval:
    """Return the figure that decides: accuracy where the task has labels, else entity micro-F1 (exact)."""
    if subject.closed is not None:
        return subject.closed.accuracy
    if subject.entities is not None:
        return subject.entities.exact.micro_f1
    return Interval(math.nan, 0.0, 1.0)


def _best_baseline(scores: Sequence[SubjectScores], candidate: str) -> str | None:
    """Return the baseline with the highest deciding score; the first one where several are equal."""
    baselines = [subject for subject in scores if subject.name != candidate]
    if not baselines:
        return None
    return max(baselines, key=lambda subject: np.nan_to_num(deciding_score(subject).estimate, nan=-1.0)).name


def _evidence(
    scores: Sequence[SubjectScores], differences: Sequence[Difference], candidate: str, best: str | None
) -> Evidence:
    by_name = {subject.name: subject for subject in scores}
    subject = by_name.get(candidate) or by_name[best or ""]
    baseline = by_name.get(best or "") if candidate in by_name else None
    against = {difference.metric: difference for difference in differences if difference.baseline == best}
    findings = []
    if subject.closed is not None:
        findings.append(_finding("accuracy", subject.closed.n, subject, baseline, against.get("accuracy")))
    if subject.entities is not None:
        findings.append(_finding("entity F1", subject.entities.n, subject, baseline, against.get("entity_f1_exact")))
    return Evidence(
        subject=spoken_name(subject),
        has_candidate=candidate in by_name,
        baseline=spoken_name(baseline) if baseline else None,
        findings=tuple(findings),
        invented=subject.free.invented if subject.free else None,
        baseline_invented=baseline.free.invented if baseline and baseline.free else None,
        n_free=subject.free.n if subject.free else 0,
    )


def _finding(
    metric: Metric, n: int, subject: SubjectScores, baseline: SubjectScores | None, difference: Difference | None
) -> Finding:
    def score_of(side: SubjectScores) -> Interval | None:
        if metric == "accuracy":
            return side.closed.accuracy if side.closed else None
        return side.entities.exact.micro_f1 if side.entities else None

    return Finding(
        metric=metric,
        n=n,
        score=score_of(subject) or Interval(math.nan, 0.0, 1.0),
        baseline_score=score_of(baseline) if baseline else None,
        difference=difference.difference if difference else None,
        p_value=difference.mcnemar.p_value if difference and difference.mcnemar else None,
    )


def spoken_name(subject: SubjectScores) -> str:
    """Return what a sentence calls a subject."""
    known = {
        "tuned": "the tuned model",
        "few-shot": "few-shot prompting",
        "zero-shot": "zero-shot prompting",
    }
    return known.get(subject.name, subject.title)


def _plain(value: Any) -> Any:
    """Turn frozen rows, intervals and tuples into JSON types."""
    if isinstance(value, (Interval, McNemar)):
        return value.to_dict()
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, (tuple, list)):
        return [_plain(element) for element in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
