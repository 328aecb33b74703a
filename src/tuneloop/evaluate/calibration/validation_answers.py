"""A tuned model's answers to the validation split, and to documents from elsewhere: what a calibration is fitted on.

Asked once and kept as an artifact, so that another target or calibrator costs no time.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from tuneloop.artifacts import Artifact, ArtifactStore, Build, content_id
from tuneloop.config.schema import Config, ReviewConfig
from tuneloop.dataset import DatasetVersion, dataset_of, open_dataset, stratified_subset
from tuneloop.errors import DataError
from tuneloop.infer.predictions import read_predictions, write_predictions
from tuneloop.progress import Progress
from tuneloop.records import Example, Prediction

if TYPE_CHECKING:
    from tuneloop.infer.predict import Mode

KIND = "validation-answers"
STAGE_VERSION = 1  # raise it when the same inputs would give other answers
SEED = 13
WITHIN, FOREIGN = "validation.jsonl", "foreign.jsonl"


@dataclass(frozen=True)
class ValidationAnswers:
    """The documents and the answers to them, in the same order; `foreign` are answers to documents from elsewhere."""

    items: list[Example]
    answers: list[Prediction]
    foreign: list[Prediction]


def ask_validation(
    config: Config, dataset: Artifact, run: Artifact, store: ArtifactStore, progress: Progress
) -> Artifact:
    """Return the artifact with the answers, asking the tuned model where they are not there yet.

    Raises: DataError: the validation split is empty; ModelError, NetworkError: the base model cannot be had.
    """
    inputs = answers_inputs(config, run)
    id = content_id(KIND, inputs)
    if (artifact := store.find(KIND, id)) is not None:
        return artifact
    if not _items(config.review.max_validation_examples, open_dataset(dataset)):
        raise DataError(
            "the validation split is empty, so there is nothing to calibrate on",
            where=str(dataset.path),
            hint="Set data.validation above 0, then run `tuneloop data prepare` and `tuneloop train` again.",
        )
    parents = {"dataset": dataset.id, "run": run.id}
    with store.build(KIND, id, parents=parents, inputs=inputs, seed=SEED) as build:
        _ask(config, dataset, run, build, progress)
    return store.get(id)


def answers_inputs(config: Config, run: Artifact) -> dict[str, Any]:
    """Return everything that determines the answers, ready for JSON; the run stands for base model and prompt."""
    texts = foreign_texts(config.review)
    return {
        "stage_version": STAGE_VERSION,
        "dataset": run.parents["dataset"],
        "run": run.id,
        "model": config.model.model_dump(mode="json", include={"dtype", "max_tokens"}),
        "label_scoring": config.model.scoring(is_tuned=True),
        "max_new_tokens": config.evaluate.max_new_tokens,
        "max_validation_examples": config.review.max_validation_examples,
        "foreign_texts": hashlib.sha256("\n".join(texts).encode("utf-8", "surrogatepass")).hexdigest(),
    }


def read_validation_answers(artifact: Artifact) -> ValidationAnswers:
    """Return what `ask_validation` wrote, with the documents; the dataset has to be beside it in the store."""
    items = _items(artifact.manifest["inputs"]["max_validation_examples"], dataset_of(artifact))
    answers, foreign = (read_predictions(artifact.path / name) for name in (WITHIN, FOREIGN))
    return ValidationAnswers(items, answers, foreign)


def foreign_texts(review: ReviewConfig) -> list[str]:
    """Return documents from elsewhere: the configured file's, or everyday texts; none where nobody looks for such.

    Raises: DataError: the file cannot be read, or has fewer than ten lines.
    """
    if review.false_alarms is None:
        return []
    if (path := review.foreign_texts) is None:
        return files("tuneloop.evaluate.calibration").joinpath("foreign.txt").read_text(encoding="utf-8").splitlines()
    try:
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        hint = "Name a .txt file in UTF-8 with one document a line, or leave review.foreign_texts out."
        raise DataError(f"the foreign texts cannot be read: {error}", where=str(path), hint=hint) from error
    if len(lines) < 10:
        hint = "Give at least ten documents, one a line; fifty or more make the figures steady."
        raise DataError(f"{len(lines)} foreign texts say nothing", where=str(path), hint=hint)
    return lines


def _items(size: int | None, version: DatasetVersion) -> list[Example]:
    return stratified_subset(version.split("validation"), size, SEED)


def _ask(config: Config, dataset: Artifact, run: Artifact, build: Build, progress: Progress) -> None:
    from tuneloop.infer.opening import open_run

    predictor = open_run(config, run, progress)
    mode: Mode = "labels" if predictor.task.has_label else "closed"  # entities take longer, and say nothing here
    texts = [item.text for item in _items(config.review.max_validation_examples, open_dataset(dataset))]
    elsewhere = foreign_texts(config.review)
    with progress.task("Answering the validation split", len(texts) + len(elsewhere)) as advance:
        write_predictions(build.path / WITHIN, predictor.predict(texts, mode, advance))
        write_predictions(build.path / FOREIGN, predictor.predict(elsewhere, mode, advance))
    build.summary.update({"documents": len(texts), "foreign": len(elsewhere)})
