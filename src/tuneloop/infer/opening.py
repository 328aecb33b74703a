"""A model and its task, loaded and ready to answer: a finished run, or an untuned model."""

from __future__ import annotations

from tuneloop.artifacts import Artifact
from tuneloop.config.schema import Config
from tuneloop.errors import ModelError
from tuneloop.infer.predict import Predictor
from tuneloop.models.load import LoadedModel, base_model_folder, fingerprint, load_model
from tuneloop.models.prompt import TaskPrompt
from tuneloop.progress import Progress
from tuneloop.runs import ADAPTER, task_of


def open_run(config: Config, run: Artifact, progress: Progress) -> Predictor:
    """Return a run's model, which answers what it was trained for.

    Raises: ModelError: the configured base model is not the run's; NetworkError: it has to be fetched and cannot be.
    """
    if fingerprint(base_model_folder(config.model, progress)) != run.manifest["inputs"]["base_model"]:
        raise ModelError(
            f"run {run.id} was trained on another base model than {config.model.base_model!r}",
            where="model.base_model",
            hint="Give the base model that it was trained on, or train again with this one.",
        )
    return _predictor(
        config,
        load_model(config.model, progress, run.path / ADAPTER),
        TaskPrompt.from_dict(task_of(run)),
        is_tuned=True,
    )


def open_untuned(config: Config, task: TaskPrompt, progress: Progress, model: str | None = None) -> Predictor:
    """Return the base model, or another `model` (a folder or a Hub id), for a task.

    Raises: ModelError: it cannot be loaded; NetworkError: it has to be fetched and cannot be.
    """
    other = {} if model is None else {"base_model": model, "revision": None}
    return _predictor(config, load_model(config.model.model_copy(update=other), progress), task, is_tuned=False)


def _predictor(config: Config, loaded: LoadedModel, task: TaskPrompt, *, is_tuned: bool) -> Predictor:
    return Predictor(
        loaded,
        task,
        max_tokens=config.model.max_tokens,
        max_new_tokens=config.evaluate.max_new_tokens,
        tokens_per_row=config.evaluate.tokens_per_row,
        threshold=config.review.uncalibrated_threshold,
        label_scoring=config.model.scoring(is_tuned=is_tuned),
    )
