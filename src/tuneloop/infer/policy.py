"""What happens to an answer after the model: its probability is calibrated, and it is accepted or sent to a person.

A policy is fitted once for a run (the `calibration` artifact) and applied to every closed answer after that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tuneloop.infer.answering import LabelScoring
from tuneloop.infer.calibrate import Bools, Calibrator, Confidences
from tuneloop.infer.conformal import Acceptance
from tuneloop.infer.scope import ScopeDetector
from tuneloop.records import Prediction, ReviewReason

SCHEMA = 1


@dataclass(frozen=True)
class ReviewPolicy:
    """A calibrator and a rule of acceptance.

    The rule is either `threshold`, on the calibrated probability, or `acceptances`: groups of predicted labels, each
    with the log-odds (before calibration, so that no label of a calibration document has shaped them) above which the
    promise holds. `scope` sends foreign documents to review, whatever the probability. `labels` is the label set that
    the answers were scored over, None where they were not, and `label_scoring` what their scores were.
    """

    calibrator: Calibrator
    threshold: float | None = None
    acceptances: tuple[Acceptance, ...] = ()
    scope: ScopeDetector | None = None
    labels: tuple[str, ...] | None = None
    label_scoring: LabelScoring = "constrained"

    def __post_init__(self) -> None:
        if (self.threshold is None) == (not self.acceptances):
            raise ValueError("a policy has either a threshold or acceptances")

    def apply(self, predictions: Sequence[Prediction]) -> list[Prediction]:
        """Return the answers with calibrated probability, route, and the reason for review.

        Raises: ValueError: they were not given the way the policy was fitted (closed, over this label set).
        """
        if not predictions:
            return []
        confidences = Confidences.of(predictions)
        self._require_same_way(confidences)
        probability = self.calibrator.probability(confidences)
        foreign = self.scope.is_foreign(confidences) if self.scope else np.zeros(len(predictions), dtype=bool)
        sure = self._is_sure(predictions, confidences)
        return [
            _judged(one, float(p), is_foreign=bool(f), is_sure=bool(s))
            for one, p, f, s in zip(predictions, probability, foreign, sure, strict=True)
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able form that `from_dict` reads."""
        return {
            "schema": SCHEMA,
            "calibrator": self.calibrator.to_dict(),
            "threshold": self.threshold,
            "acceptances": [acceptance.to_dict() for acceptance in self.acceptances],
            "scope": None if self.scope is None else self.scope.to_dict(),
            "labels": None if self.labels is None else list(self.labels),
            "label_scoring": self.label_scoring,
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> ReviewPolicy:
        """Read what `to_dict` wrote."""
        scope, labels = content["scope"], content["labels"]
        return cls(
            Calibrator.from_dict(content["calibrator"]),
            content["threshold"],
            tuple(Acceptance.from_dict(acceptance) for acceptance in content["acceptances"]),
            None if scope is None else ScopeDetector.from_dict(scope),
            None if labels is None else tuple(labels),
            content.get("label_scoring", "sequence"),  # the only one there was before this was written down
        )

    def _is_sure(self, predictions: Sequence[Prediction], confidences: Confidences) -> Bools:
        if self.threshold is not None:
            sure: Bools = self.calibrator.probability(confidences) >= self.threshold
            return sure
        own = {label: group.above for group in self.acceptances for label in group.labels or ()}
        rest = next((group.above for group in self.acceptances if group.labels is None), float("inf"))
        above = np.array([own.get(one.label or "", rest) for one in predictions])
        return confidences.log_odds > above

    def _require_same_way(self, confidences: Confidences) -> None:
        found = None if confidences.label_scores is None else confidences.label_scores.shape[1]
        fitted = None if self.labels is None else len(self.labels)
        if found != fitted:
            raise ValueError(f"the policy was fitted on answers over {fitted} labels, these are over {found}")


def apply_calibrator(calibrator: Calibrator, prediction: Prediction, threshold: float) -> Prediction:
    """Return one answer with calibrated probability and the route that a fixed threshold gives it."""
    labels = None if prediction.label_scores is None else ("",) * len(prediction.label_scores)
    return ReviewPolicy(calibrator, threshold, labels=labels).apply([prediction])[0]


def _judged(prediction: Prediction, probability: float, *, is_foreign: bool, is_sure: bool) -> Prediction:
    reason: ReviewReason = "" if is_sure else "unsure"
    if is_foreign:
        reason = "out-of-scope"
    if prediction.invented:
        reason = "invented"
    if not prediction.well_formed:
        reason = "malformed"
    return replace(prediction, probability=probability, route="review" if reason else "auto", reason=reason)
