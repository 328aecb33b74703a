"""Any number of subjects' answers to the same documents: scores side by side, paired differences, and a verdict.

Pure: takes rows, returns values, touches no file and no model. `Comparison.to_dict()` is what results.json holds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np

from tuneloop.evaluate.comparison.columns import columns_of
from tuneloop.evaluate.comparison.differences import Difference, Pairing, corrected, differences
from tuneloop.evaluate.comparison.scores import (
    Sampling,
    SubjectAnswers,
    SubjectScores,
    Usage,
    deciding_score,
    entity_answers,
    labelled,
    score_subject,
)
from tuneloop.evaluate.comparison.slices import SliceReport, find_slices
from tuneloop.evaluate.comparison.verdict import Evidence, Finding, Metric, Verdict, judge
from tuneloop.records import Example
from tuneloop.stats import Interval, McNemar

__all__ = [
    "Comparison",
    "Difference",
    "SubjectAnswers",
    "SubjectScores",
    "Usage",
    "compare",
    "deciding_score",
    "entity_answers",
    "labelled",
    "spoken_name",
]
SCHEMA = 2  # 2: any number of subjects; reference, corrected p-values, slices, usage, details


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The whole evaluation.

    `best_baseline` is the subject beside the candidate that scores highest on the deciding metric. `reference` is the
    one whose lead over each other the differences state: the candidate or, without one, the best baseline.
    """

    n_items: int
    n_free: int
    labels: tuple[str, ...]
    entity_types: tuple[str, ...]
    candidate: str | None
    best_baseline: str | None
    reference: str
    subjects: tuple[SubjectScores, ...]
    differences: tuple[Difference, ...]
    slices: SliceReport | None
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


def compare(
    items: Sequence[Example],
    subjects: Mapping[str, SubjectAnswers],
    *,
    labels: Sequence[str],
    entity_types: Sequence[str] = (),
    candidate: str | None = "tuned",
    columns: Mapping[str, Sequence[str]] | None = None,
    resamples: int = 10_000,
    seed: int = 13,
    confidence: float = 0.95,
) -> Comparison:
    """Score every subject on `items`, compare one of them to each other, and say what it comes to.

    Labels are scored where `labels` is not empty, entities where `entity_types` is not. A candidate that is None or
    not among the subjects leaves the best of them to be compared to the others. `columns` (name → one value per item)
    adds to the slices by label, length, script, language and source.

    Raises: ValueError: no subject; answers, columns and items differ in number; a true label is not one of `labels`.
    """
    _check(items, subjects)
    sampling = Sampling(resamples, seed, confidence)
    scores = tuple(score_subject(items, subject, labels, entity_types, sampling) for subject in subjects.values())
    chosen = candidate if candidate in subjects else None
    best = _best(scores, chosen)
    reference = chosen or best or scores[0].name
    changes = _all_differences(items, subjects, reference, labels, entity_types, sampling)
    return Comparison(
        n_items=len(items),
        n_free=max((len(subject.free or ()) for subject in subjects.values()), default=0),
        labels=tuple(labels),
        entity_types=tuple(entity_types),
        candidate=chosen,
        best_baseline=best,
        reference=reference,
        subjects=scores,
        differences=changes,
        slices=find_slices(
            items,
            subjects,
            columns_of(items, columns or {}),
            subject=reference,
            baseline=best if chosen else _best(scores, best),
            by_label=bool(labels),
            seed=seed,
            confidence=confidence,
        ),
        verdict=judge(_evidence(scores, changes, chosen, best)),
        resamples=resamples,
        seed=seed,
        confidence=confidence,
    )


def spoken_name(subject: SubjectScores) -> str:
    """Return what a sentence calls a subject."""
    known = {
        "tuned": "the tuned model",
        "few-shot": "few-shot prompting",
        "zero-shot": "zero-shot prompting",
        "retrieved": "few-shot prompting with retrieved examples",
    }
    if subject.name.startswith("run:"):
        return f"tuned model {subject.name.removeprefix('run:')}"
    return known.get(subject.name, subject.title)


def _check(items: Sequence[Example], subjects: Mapping[str, SubjectAnswers]) -> None:
    if not subjects:
        raise ValueError("no subject to compare")
    for subject in subjects.values():
        if len(subject.closed) != len(items):
            raise ValueError(f"{subject.name}: {len(subject.closed)} answers to {len(items)} items")
        if len(subject.free or ()) > len(items):
            raise ValueError(f"{subject.name}: more free answers than items")


def _all_differences(
    items: Sequence[Example],
    subjects: Mapping[str, SubjectAnswers],
    reference: str,
    labels: Sequence[str],
    entity_types: Sequence[str],
    sampling: Sampling,
) -> tuple[Difference, ...]:
    found = [
        difference
        for name, other in subjects.items()
        if name != reference
        for difference in differences(
            Pairing(items, subjects[reference], other, sampling.kwargs()), labels, entity_types
        )
    ]
    return corrected(found, "accuracy" if labels else "entity_f1_exact")


def _best(scores: Sequence[SubjectScores], left_out: str | None) -> str | None:
    """Return the subject with the highest deciding score, one left out; the first one where several are equal."""
    others = [subject for subject in scores if subject.name != left_out]
    if not others:
        return None
    return max(others, key=lambda subject: np.nan_to_num(deciding_score(subject).estimate, nan=-1.0)).name


def _evidence(
    scores: Sequence[SubjectScores], changes: Sequence[Difference], candidate: str | None, best: str | None
) -> Evidence:
    """Collect what the verdict rests on: the candidate and the best baseline or, without one, the best and the next."""
    by_name = {subject.name: subject for subject in scores}
    subject = by_name[candidate or best or scores[0].name]
    rival = best if candidate else _best(scores, best)
    baseline = by_name.get(rival or "")
    against = {change.metric: change for change in changes if change.baseline == rival}
    findings = []
    if subject.closed is not None:
        findings.append(_finding("accuracy", subject.closed.n, subject, baseline, against.get("accuracy")))
    if subject.entities is not None:
        findings.append(_finding("entity F1", subject.entities.n, subject, baseline, against.get("entity_f1_exact")))
    return Evidence(
        subject=spoken_name(subject),
        has_candidate=candidate is not None,
        baseline=spoken_name(baseline) if baseline else None,
        findings=tuple(findings),
        compared=len(scores),
        invented=subject.free.invented if subject.free else None,
        baseline_invented=baseline.free.invented if baseline and baseline.free else None,
        n_free=subject.free.n if subject.free else 0,
    )


def _finding(
    metric: Metric, n: int, subject: SubjectScores, baseline: SubjectScores | None, change: Difference | None
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
        difference=change.difference if change else None,
        p_value=change.p_adjusted if change else None,
    )


def _plain(value: Any) -> Any:
    """Turn frozen rows, intervals and tuples into JSON types."""
    if isinstance(value, (Interval, McNemar)):
        return value.to_dict()
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(content) for key, content in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(element) for element in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
