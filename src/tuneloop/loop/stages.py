"""The stages in order, each found by what the configuration says: data prepare → train → evaluate → export.

A stage needs the artifacts before it. They are looked up here by their ids, so that rooms need not know each other.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tuneloop.artifacts import Artifact, ArtifactStore, StageResult, content_id
from tuneloop.config.schema import Config
from tuneloop.errors import ArtifactError
from tuneloop.progress import Progress

if TYPE_CHECKING:
    from tuneloop.evaluate.general.forgetting import General
    from tuneloop.evaluate.general.regression import RegressionResult
    from tuneloop.evaluate.subjects.names import Subject
    from tuneloop.export.run import Exported
    from tuneloop.forms import FormName
    from tuneloop.infer.policy import ReviewPolicy
    from tuneloop.infer.predict import Predictor


def prepare(config: Config, store: ArtifactStore, progress: Progress) -> StageResult:
    """Make the dataset version, or find it."""
    from tuneloop.data.prepare import prepare as run_prepare

    return run_prepare(config, store, progress)


def train(config: Config, store: ArtifactStore, progress: Progress) -> StageResult:
    """Train the run, or find it. Raises: ArtifactError: the dataset version is not there."""
    from tuneloop.train.run import train as run_training

    return run_training(config, find_dataset(config, store), store, progress)


def evaluate(config: Config, store: ArtifactStore, progress: Progress) -> StageResult:
    """Evaluate the run, or find the evaluation. Raises: ArtifactError: dataset version or run are not there."""
    from tuneloop.evaluate.run import evaluate as run_evaluation

    dataset = find_dataset(config, store)
    return run_evaluation(config, dataset, find_run(config, dataset, store, progress), store, progress)


def calibrate(config: Config, store: ArtifactStore, progress: Progress) -> StageResult:
    """Calibrate the run, or find the calibration. Raises: ArtifactError: dataset version or run are not there."""
    from tuneloop.evaluate.calibration.stage import calibrate as run_calibration

    dataset = find_dataset(config, store)
    return run_calibration(config, dataset, find_run(config, dataset, store, progress), store, progress)


def find_policy(config: Config, run: Artifact, store: ArtifactStore) -> ReviewPolicy | None:
    """Return how the run's closed answers are calibrated and routed, or None where it was not calibrated yet.

    Raises: ArtifactError: it was not, and `review.target_error` cannot be kept without.
    """
    from tuneloop.evaluate.calibration.stage import find_calibration, open_policy

    calibration = find_calibration(config, run, store)
    if calibration is None and config.review.target_error is not None:
        raise _missing(store, "calibration", f"run {run.id} with these review settings", "tuneloop calibrate")
    return None if calibration is None else open_policy(calibration)


def compare(config: Config, names: Sequence[str], store: ArtifactStore, progress: Progress) -> StageResult:
    """Compare what `names` name (see `evaluate.subjects`) on the frozen test items, or find the comparison.

    Raises: ArtifactError: the dataset version or a run is not there; UsageError: a name is unknown, or there twice.
    """
    from tuneloop.evaluate.run import compare_subjects

    dataset, subjects = find_subjects(config, names, store, progress)
    candidate = next((subject.name for subject in subjects if subject.name == "tuned"), None)
    return compare_subjects(config, dataset, subjects, store, progress, candidate)


def find_subjects(
    config: Config, names: Sequence[str], store: ArtifactStore, progress: Progress
) -> tuple[Artifact, list[Subject]]:
    """Return the dataset version that the configuration describes, and the subjects that `names` name.

    Raises: ArtifactError: the dataset version or a run is not there; UsageError: a name is unknown.
    """
    from tuneloop.evaluate.subjects.names import parse_subject

    dataset = find_dataset(config, store)
    return dataset, [parse_subject(name, store, lambda: find_run(config, dataset, store, progress)) for name in names]


def export_items(config: Config, path: Path, store: ArtifactStore) -> int:
    """Write the frozen test items, without their labels, for a system outside to answer; returns how many.

    Raises: ArtifactError: the dataset version is not there; UsageError: the file cannot have this name.
    """
    from tuneloop.evaluate.subjects.answers import frozen_items
    from tuneloop.evaluate.subjects.foreign import write_items

    items = frozen_items(config, find_dataset(config, store))
    write_items(path, items)
    return len(items)


def general(config: Config, store: ArtifactStore, progress: Progress, *, allow_code_execution: bool = False) -> General:
    """Measure the general ability of base model and run (or find it measured), and what tuning cost of it.

    Raises: ArtifactError: dataset version or run are not there; UsageError, NetworkError: a benchmark cannot be run.
    """
    from tuneloop.evaluate.general.forgetting import general as measure

    run = find_run(config, find_dataset(config, store), store, progress)
    return measure(config, run, store, progress, allow_code_execution=allow_code_execution)


def regression(
    config: Config, store: ArtifactStore, progress: Progress, run: Artifact | None = None
) -> RegressionResult | None:
    """Let a run (default: the configuration's) answer the regression cases; None where no folder is configured.

    Raises: ArtifactError: dataset version or run are not there; DataError: a case cannot be used.
    """
    from tuneloop.evaluate.general.regression import read_cases
    from tuneloop.evaluate.general.suite import run_suite

    if config.evaluate.regression is None:
        return None
    cases = read_cases(config.evaluate.regression)
    chosen = run or find_run(config, find_dataset(config, store), store, progress)
    predictor = open_predictor(config, store, progress, chosen)
    return run_suite(config, cases, predictor, predictor.task, chosen, store, progress)


def export(
    config: Config,
    store: ArtifactStore,
    progress: Progress,
    forms: Collection[FormName] = (),
    *,
    run: Artifact | None = None,
    allow_beyond_tolerance: Collection[FormName] = (),
) -> list[Exported]:
    """Export a run in these forms (default: the configuration's), each proven to answer like it, or find it done.

    Args: run: the one to export (default: the run that the configuration describes); allow_beyond_tolerance: forms
        that are exported even where they answer differently.
    Raises: ArtifactError: dataset version or run are not there, or `review.target_error` asks for a calibration that
        is not; what stands in the way of making a form. A form that is refused is part of the result.
    """
    from tuneloop.evaluate.calibration.stage import find_calibration
    from tuneloop.export.run import export as run_export
    from tuneloop.export.source import gather

    chosen = run or find_run(config, find_dataset(config, store), store, progress)
    calibration = find_calibration(config, chosen, store)
    if calibration is None:
        find_policy(config, chosen, store)  # refuses where the settings promise what only a calibration can keep
        progress.say("The run is not calibrated: what is exported knows no honest probabilities.")
    source = gather(config, chosen, calibration, store, progress)
    wanted = list(forms or config.export.forms)
    return run_export(source, wanted, store, progress, allow_beyond_tolerance=allow_beyond_tolerance)


def open_predictor(config: Config, store: ArtifactStore, progress: Progress, run: Artifact | None = None) -> Predictor:
    """Return the tuned model, loaded and ready to answer what it was trained for (no evaluation is needed).

    Args: run: the one to use (default: the run that the configuration describes).
    Raises: ArtifactError: dataset version or run are not there; ModelError: the base model is not the run's;
        NetworkError: it has to be fetched and cannot be.
    """
    from tuneloop.infer.opening import open_run

    return open_run(config, run or find_run(config, find_dataset(config, store), store, progress), progress)


def find_dataset(config: Config, store: ArtifactStore) -> Artifact:
    """Return the dataset version that the configuration describes.

    Raises: ArtifactError: it was not made yet.
    """
    from tuneloop.data.versions import dataset_id
    from tuneloop.dataset import KIND

    return _require(store, KIND, dataset_id(config), "tuneloop data prepare")


def find_run(config: Config, dataset: Artifact, store: ArtifactStore, progress: Progress) -> Artifact:
    """Return the finished run that the configuration describes.

    Raises: ArtifactError: it was not trained yet.
    """
    from tuneloop.models.load import base_model_folder
    from tuneloop.runs import KIND
    from tuneloop.train.run import run_inputs

    if not any(run.kind == KIND and run.parents.get("dataset") == dataset.id for run in store):
        raise _missing(store, KIND, f"dataset {dataset.id}", "tuneloop train")  # without fetching the base model
    id = content_id(KIND, run_inputs(config, dataset.id, base_model_folder(config.model, progress)))
    return _require(store, KIND, id, "tuneloop train")


def _require(store: ArtifactStore, kind: str, id: str, command: str) -> Artifact:
    artifact = store.find(kind, id)
    if artifact is None:
        raise _missing(store, kind, "this configuration", command)
    return artifact


def _missing(store: ArtifactStore, kind: str, wanted_for: str, command: str) -> ArtifactError:
    others = sum(other.kind == kind for other in store)
    noted = f", only {others} of other data or settings" if others else ""
    return ArtifactError(
        f"there is no {kind} for {wanted_for} yet{noted}",
        where=str(store.root),
        hint=f"Run `{command}` first, with the same configuration and the same --set.",
    )
