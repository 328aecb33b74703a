"""The regression suite, run in one way wherever it is asked for: by `tuneloop evaluate` and by the gate.

A tuned model is held to its own run's label set and entity types, whatever the dataset is called today, and its
probabilities are those that users see: calibrated where the run was calibrated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tuneloop.artifacts import Artifact, ArtifactStore
from tuneloop.config.schema import Config
from tuneloop.evaluate.calibration.stage import find_calibration, open_policy
from tuneloop.evaluate.general.regression import Answerer, Case, RegressionResult, run_cases
from tuneloop.infer.policy import ReviewPolicy
from tuneloop.models.prompt import TaskPrompt
from tuneloop.progress import Progress
from tuneloop.records import Prediction


@dataclass(frozen=True)
class Calibrated:
    """Answers of a model with the policy of its run applied."""

    predictor: Answerer
    policy: ReviewPolicy

    def predict(self, texts: Sequence[str]) -> list[Prediction]:
        """Answer every document."""
        return self.policy.apply(self.predictor.predict(texts))


def run_suite(
    config: Config,
    cases: Sequence[Case],
    predictor: Answerer,
    task: TaskPrompt,
    run: Artifact | None,
    store: ArtifactStore,
    progress: Progress,
) -> RegressionResult:
    """Let an open model answer every case.

    Args: task: what the model answers; run: the run it comes from, None for an untuned model, which has no policy.
    Raises: DataError: a case expects a label or an entity type that the task does not have.
    """
    calibration = suite_calibration(config, run, store)
    answerer = predictor if calibration is None else Calibrated(predictor, open_policy(calibration))
    return run_cases(
        cases,
        answerer,
        labels=task.labels if task.has_label else (),
        entity_types=task.entity_types if task.has_entities else (),
        is_calibrated=calibration is not None,
        progress=progress,
    )


def suite_calibration(config: Config, run: Artifact | None, store: ArtifactStore) -> Artifact | None:
    """Return the calibration that the suite's probabilities go through, or None where the run has none."""
    return None if run is None else find_calibration(config, run, store)
