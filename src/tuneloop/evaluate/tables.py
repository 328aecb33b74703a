"""The report's tables as plain rows of text, the same for HTML and for Markdown."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tuneloop.evaluate.compare import Comparison, SubjectScores
from tuneloop.evaluate.wording import percent, range_of, seconds, seconds_range
from tuneloop.metrics import ClassScores
from tuneloop.stats import Interval

METRIC_NAMES = {
    "accuracy": "Accuracy",
    "macro_f1": "Macro-F1",
    "accuracy_free": "Accuracy, free generation",
    "invented_free": "Invented labels, free generation",
    "entity_f1_exact": "Entity F1, exact",
    "entity_f1_partial": "Entity F1, partial",
}


@dataclass(frozen=True, slots=True)
class Figure:
    """A number and its interval as text, and whether it is the best of its row."""

    value: str
    range: str
    is_best: bool = False


@dataclass(frozen=True, slots=True)
class MetricRow:
    """One metric, one figure per subject (None where a subject has none)."""

    name: str
    note: str
    figures: tuple[Figure | None, ...]


@dataclass(frozen=True, slots=True)
class LineageRow:
    """One artifact: what it is, what it was made from, what it took."""

    kind: str
    id: str
    parents: tuple[tuple[str, str], ...]
    seed: str
    took: str
    summary: str


_Reader = Callable[[SubjectScores], Interval | None]


def metric_rows(comparison: Comparison) -> list[MetricRow]:
    """Return every metric that at least one subject has, subjects in the comparison's order."""
    free = f"free generation, {comparison.n_free:,} documents"
    share: list[tuple[str, str, _Reader, int]] = [
        ("Accuracy", "label scoring", lambda s: s.closed.accuracy if s.closed else None, 1),
        ("Macro-F1", "mean over labels", lambda s: s.closed.macro_f1 if s.closed else None, 1),
        ("Balanced accuracy", "mean recall over labels", lambda s: s.closed.balanced_accuracy if s.closed else None, 1),
        ("Accuracy", free, lambda s: s.free.accuracy if s.free else None, 1),
        ("Invented labels", free, lambda s: s.free.invented if s.free else None, -1),
        (
            "Invented labels",
            "label scoring: none by construction",
            lambda s: s.closed.invented if s.closed else None,
            0,
        ),
        ("In the format asked for", free, lambda s: s.free.well_formed if s.free else None, 1),
        ("Calibration error", "ECE, label scoring", lambda s: s.calibration.ece if s.calibration else None, -1),
        ("Entity F1, exact", "micro", lambda s: s.entities.exact.micro_f1 if s.entities else None, 1),
        ("Entity F1, partial", "micro", lambda s: s.entities.partial.micro_f1 if s.entities else None, 1),
        (
            "Values not in the document",
            "of all values written",
            lambda s: s.entities.absent if s.entities else None,
            -1,
        ),
    ]
    rows = [_row(comparison, name, note, read, sign, percent, range_of) for name, note, read, sign in share]
    times: list[tuple[str, _Reader]] = [
        ("median", lambda s: s.latency.p50_s if s.latency else None),
        ("95th percentile", lambda s: s.latency.p95_s if s.latency else None),
    ]
    rows += [_row(comparison, "Time per document", note, read, -1, seconds, seconds_range) for note, read in times]
    return [row for row in rows if any(figure is not None for figure in row.figures)]


def classes_worst_first(comparison: Comparison, name: str) -> list[ClassScores]:
    """Return the classes that occur among truths or answers, by rising F1; those that are no truth come last."""
    closed = comparison.subject(name).closed
    found = [row for row in closed.per_class if row.support or row.predicted] if closed else []
    return sorted(found, key=lambda row: (row.support == 0, row.f1.estimate, -row.support, row.label))


def lineage_rows(lineage: Sequence[Mapping[str, Any]]) -> list[LineageRow]:
    """Return one row per artifact manifest; keys that a manifest lacks are left blank."""
    return [
        LineageRow(
            kind=str(manifest.get("kind", "")),
            id=str(manifest.get("id", "")),
            parents=tuple((str(role), str(parent)) for role, parent in (manifest.get("parents") or {}).items()),
            seed="" if manifest.get("seed") is None else str(manifest["seed"]),
            took="" if manifest.get("wall_time_s") is None else seconds(float(manifest["wall_time_s"])),
            summary="; ".join(f"{key} {_short(value)}" for key, value in (manifest.get("summary") or {}).items()),
        )
        for manifest in lineage
    ]


def surroundings(lineage: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return package versions and machine facts of the whole lineage, each different value once."""
    found: dict[str, dict[str, None]] = {}
    for manifest in lineage:
        for facts in (manifest.get("packages") or {}, manifest.get("machine") or {}):
            for key, value in facts.items():
                found.setdefault(str(key), {})[_short(value)] = None
    return [(key, " / ".join(values)) for key, values in found.items()]


def counts_of(mapping: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """Return name → count as text, with thousands separated."""
    return [(str(name), f"{count:,}") for name, count in (mapping or {}).items()]


def label_split_rows(dataset_report: Mapping[str, Any]) -> list[tuple[str, tuple[str, ...]]]:
    """Return label → examples in train, validation and test, the most frequent label first."""
    labels: Mapping[str, Mapping[str, int]] = dataset_report.get("labels") or {}
    in_order = sorted(labels.items(), key=lambda pair: (-sum(pair[1].values()), pair[0]))
    return [
        (label, tuple(f"{splits.get(s, 0):,}" for s in ("train", "validation", "test"))) for label, splits in in_order
    ]


def _row(
    comparison: Comparison,
    name: str,
    note: str,
    read: _Reader,
    sign: int,
    write: Callable[[float], str],
    write_range: Callable[[Interval], str],
) -> MetricRow:
    """Return one row; `sign` is 1 where more is better, -1 where less is, 0 where nothing is best."""
    intervals = [read(subject) for subject in comparison.subjects]
    best = max((sign * i.estimate for i in intervals if i and i.estimate == i.estimate), default=0.0)
    several = len(intervals) > 1 and sign != 0
    figures = [
        None if i is None else Figure(write(i.estimate), write_range(i), several and sign * i.estimate == best)
        for i in intervals
    ]
    return MetricRow(name, note, tuple(figures))


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (dict, list)):
        return json.dumps(value, ensure_ascii=False)
    return str(value)
