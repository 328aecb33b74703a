"""The stages in order, each found by what the configuration says: data prepare → train → evaluate.

A stage needs the artifacts before it. They are looked up here by their ids, so that rooms need not know each other.
"""

from __future__ import annotations

from tuneloop.artifacts import Artifact, ArtifactStore, StageResult, content_id
from tuneloop.config.schema import Config
from tuneloop.errors import ArtifactError
from tuneloop.progress import Progress


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

    id = content_id(KIND, run_inputs(config, dataset.id, base_model_folder(config.model, progress)))
    return _require(store, KIND, id, "tuneloop train")


def _require(store: ArtifactStore, kind: str, id: str, command: str) -> Artifact:
    artifact = store.find(kind, id)
    if artifact is None:
        raise ArtifactError(
            f"there is no {kind} for this configuration yet (it would be {id})",
            where=str(store.root),
            hint=f"Run `{command}` first, with the same configuration.",
        )
    return artifact
