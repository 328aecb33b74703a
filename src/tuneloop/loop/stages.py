"""The stages in order, each found by what the configuration says: data prepare → train → evaluate.

A stage needs the artifacts before it. They are looked up here by their ids, so that rooms need not know each other.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tuneloop.artifacts import Artifact, ArtifactStore, StageResult, content_id
from tuneloop.config.schema import Config
from tuneloop.errors import ArtifactError, ModelError
from tuneloop.progress import Progress

if TYPE_CHECKING:
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


def open_predictor(config: Config, store: ArtifactStore, progress: Progress, run: Artifact | None = None) -> Predictor:
    """Return the tuned model, loaded and ready to answer what it was trained for (no evaluation is needed).

    Args: run: the one to use (default: the run that the configuration describes).
    Raises: ArtifactError: dataset version or run are not there; ModelError: the base model is not the run's;
        NetworkError: it has to be fetched and cannot be.
    """
    from tuneloop.infer.predict import Predictor
    from tuneloop.models.load import load_model
    from tuneloop.models.prompt import TaskPrompt
    from tuneloop.train.run import ADAPTER, TASK

    run = run or find_run(config, find_dataset(config, store), store, progress)
    _require_base_model(run, config, progress)
    return Predictor(
        load_model(config.model, progress, run.path / ADAPTER),
        TaskPrompt.from_dict(json.loads((run.path / TASK).read_bytes())),
        max_tokens=config.model.max_tokens,
        max_new_tokens=config.evaluate.max_new_tokens,
        tokens_per_row=config.evaluate.tokens_per_row,
        threshold=config.review.threshold,
    )


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
    from tuneloop.train.run import KIND, run_inputs

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


def _require_base_model(run: Artifact, config: Config, progress: Progress) -> None:
    from tuneloop.models.load import base_model_folder, fingerprint

    if fingerprint(base_model_folder(config.model, progress)) != run.manifest["inputs"]["base_model"]:
        raise ModelError(
            f"run {run.id} was trained on another base model than {config.model.base_model!r}",
            where="model.base_model",
            hint="Give the base model that it was trained on, or train again with this one.",
        )
