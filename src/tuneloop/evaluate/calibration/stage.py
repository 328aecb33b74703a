"""The calibration of a run: fitted on its validation answers, never on test data, and applied to every answer after.

The artifact holds `policy.json` (what is applied), `calibration.json` (the evidence) and stands on the run's answers
to the validation split, an artifact of its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tuneloop.artifacts import Artifact, ArtifactStore, StageResult, content_id
from tuneloop.config.schema import Config
from tuneloop.dataset import open_dataset
from tuneloop.errors import ConfigError
from tuneloop.evaluate.calibration import validation_answers
from tuneloop.evaluate.calibration.policy_fit import FittedPolicy, fit_policy
from tuneloop.evaluate.calibration.validation_answers import answers_inputs, ask_validation, read_validation_answers
from tuneloop.evaluate.calibration.words import describe
from tuneloop.infer.policy import ReviewPolicy
from tuneloop.progress import Progress

KIND = "calibration"
STAGE_VERSION = 2  # raise it when the same answers would give another policy
POLICY, EVIDENCE = "policy.json", "calibration.json"
SHAPES_POLICY = {"threshold", "target_error", "confidence", "batch", "per_label", "calibrator", "false_alarms"}


def calibrate(
    config: Config, dataset: Artifact, run: Artifact, store: ArtifactStore, progress: Progress
) -> StageResult:
    """Fit the review policy that the configuration describes for a run, or find it.

    Raises: DataError: the validation split is empty; ConfigError: the configured calibrator does not suit the task;
        ModelError, NetworkError: the base model cannot be had.
    """
    inputs = _inputs(config, run)
    id = content_id(KIND, inputs)
    if (artifact := store.find(KIND, id)) is not None:
        return StageResult(artifact, is_skipped=True)
    asked = ask_validation(config, dataset, run, store, progress)
    parents = {"dataset": dataset.id, "run": run.id, "answers": asked.id}
    with store.build(KIND, id, parents=parents, inputs=inputs) as build:
        fitted = _fit(config, dataset, asked)
        evidence = {**fitted.to_dict(), "sentences": describe(fitted, config.review)}
        for name, content in ((POLICY, fitted.policy.to_dict()), (EVIDENCE, evidence)):
            text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
            (build.path / name).write_text(text + "\n", encoding="utf-8")
        build.summary.update(_summary(fitted))
    return StageResult(store.get(id), is_skipped=False)


def find_calibration(config: Config, run: Artifact, store: ArtifactStore) -> Artifact | None:
    """Return the calibration of a run with these settings, or None where it was not made yet; needs no model."""
    return store.find(KIND, content_id(KIND, _inputs(config, run)))


def open_policy(calibration: Artifact) -> ReviewPolicy:
    """Return the policy to apply to closed answers of the run."""
    return ReviewPolicy.from_dict(json.loads((calibration.path / POLICY).read_bytes()))


def read_evidence(calibration: Artifact) -> Mapping[str, Any]:
    """Return what calibration.json says; `sentences` are for people."""
    evidence: Mapping[str, Any] = json.loads((calibration.path / EVIDENCE).read_bytes())
    return evidence


def _inputs(config: Config, run: Artifact) -> dict[str, Any]:
    return {
        "stage_version": STAGE_VERSION,
        "answers": content_id(validation_answers.KIND, answers_inputs(config, run)),
        "review": config.review.model_dump(mode="json", include=SHAPES_POLICY),
    }


def _fit(config: Config, dataset: Artifact, asked: Artifact) -> FittedPolicy:
    answered, version, review = read_validation_answers(asked), open_dataset(dataset), config.review
    has_labels = version.kind != "extract"
    if review.calibrator == "temperature" and not (has_labels and len(version.labels) > 1):
        raise ConfigError(
            "a temperature is fitted to the scores of several labels, and this task has none",
            where="review.calibrator: temperature",
            hint="Set review.calibrator to auto, platt or isotonic.",
        )
    labels = version.labels if has_labels else ()
    fitted = fit_policy(answered.items, answered.answers, answered.foreign, labels=labels, review=review)
    return replace(fitted, policy=replace(fitted.policy, label_scoring=config.model.scoring(is_tuned=True)))


def _summary(fitted: FittedPolicy) -> dict[str, Any]:
    return {
        "documents": len(fitted.correct),
        "calibrator": fitted.policy.calibrator.method,
        "ece_before": round(fitted.before.ece.estimate, 4),
        "ece_after": round(fitted.after.ece.estimate, 4),
        "accepted": int(fitted.accepted.sum()),
        "accepted_wrong": int((fitted.accepted & ~fitted.correct).sum()),
    }
