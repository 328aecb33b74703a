"""Answers and truths in, numbers with intervals out: for labels, entities, probabilities and latency.

Used in training, evaluation and monitoring alike, so that a figure means the same wherever it appears. Scores over a
set of documents come in two steps: a matrix of counts with one row per document (`label_counts`, `entity_counts`), and
functions from summed counts to scores (`macro_f1`, `balanced_accuracy`, `entity_scores_from`). That is the form in
which `tuneloop.stats` resamples them, alone or paired with another model's.

Knows nothing about models, files or configuration.
"""

from __future__ import annotations

from tuneloop.metrics.confidence import (
    Calibration,
    CalibrationBin,
    Latency,
    calibration,
    expected_calibration_error,
    latency,
)
from tuneloop.metrics.extraction import (
    EntityScores,
    MatchScores,
    TypeScores,
    entities,
    entity_counts,
    entity_scores_from,
)
from tuneloop.metrics.labels import (
    ClassificationScores,
    ClassScores,
    balanced_accuracy,
    classification,
    invented_rate,
    is_correct,
    label_counts,
    macro_f1,
    well_formed_rate,
)

__all__ = [
    "Calibration",
    "CalibrationBin",
    "ClassScores",
    "ClassificationScores",
    "EntityScores",
    "Latency",
    "MatchScores",
    "TypeScores",
    "balanced_accuracy",
    "calibration",
    "classification",
    "entities",
    "entity_counts",
    "entity_scores_from",
    "expected_calibration_error",
    "invented_rate",
    "is_correct",
    "label_counts",
    "latency",
    "macro_f1",
    "well_formed_rate",
]
