"""One subject's answers to the frozen items: asked once, kept as an artifact, and read by every evaluation after that.

A baseline's answers do not depend on the tuned model, so a new run is compared without asking the baselines again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from tuneloop.artifacts import Artifact, ArtifactStore, Build, content_id
from tuneloop.config.schema import Config
from tuneloop.dataset import open_dataset, stratified_subset
from tuneloop.evaluate.compare import SubjectAnswers
from tuneloop.infer.predict import Predictor
from tuneloop.models.load import base_model_folder, fingerprint, load_model
from tuneloop.models.prompt import TaskPrompt
from tuneloop.progress import Progress
from tuneloop.records import Entity, Example, Prediction

KIND = "answers"
STAGE_VERSION = 1  # raise it when the same inputs would give other answers
SubjectName = Literal["zero-shot", "few-shot", "tuned"]
TITLES: dict[SubjectName, str] = {
    "zero-shot": "Base model, zero-shot",
    "few-shot": "Base model, few-shot",
    "tuned": "Tuned model",
}
LATENCY_ITEMS = 8  # documents that are also answered one at a time


@dataclass(frozen=True)
class Subject:
    """Something that answers: the base model with a prompt, or (with a run) the tuned one."""

    name: SubjectName
    dataset: Artifact
    run: Artifact | None = None

    def task(self, config: Config) -> TaskPrompt:
        """Return the prompt it is asked with: few-shot shows examples of the training split, tuned has its own."""
        if self.run is not None:
            return TaskPrompt.from_dict(json.loads((self.run.path / "task.json").read_bytes()))
        version = open_dataset(self.dataset)
        task = TaskPrompt.for_dataset(config.task, version)
        if self.name == "zero-shot":
            return task
        return task.with_shots(choose_shots(version.split("train"), config.evaluate.shots, config.evaluate.seed))


def choose_shots(examples: Sequence[Example], count: int, seed: int) -> list[Example]:
    """Return `count` short examples, as many labels as possible among them, in a seeded random order."""
    shuffled = stratified_subset(examples, None, seed)
    lengths = sorted(len(example.text) for example in examples)
    short = [example for example in shuffled if len(example.text) <= lengths[len(lengths) // 2]]
    seen: dict[str | None, int] = {}
    turns = []
    for place, example in enumerate(short):
        seen[example.label] = seen.get(example.label, -1) + 1
        turns.append((seen[example.label], place))
    return [short[place] for _, place in sorted(turns)[:count]]


def frozen_items(config: Config, dataset: Artifact) -> list[Example]:
    """Return the test items that every subject answers, in the same order."""
    settings = config.evaluate
    return stratified_subset(open_dataset(dataset).split("test"), settings.max_examples, settings.seed)


def ask(subject: Subject, config: Config, store: ArtifactStore, progress: Progress) -> Artifact:
    """Return the artifact with the subject's answers, asking the model where they are not there yet."""
    settings = config.evaluate
    of_no_account = {"subjects", "bootstrap_resamples", "tokens_per_row"} | (
        {"shots"} if subject.name != "few-shot" else set()
    )
    inputs = {
        "stage_version": STAGE_VERSION,
        "subject": subject.name,
        "dataset": subject.dataset.id,
        "run": subject.run.id if subject.run else None,
        "base_model": fingerprint(base_model_folder(config.model, progress)),
        "model": config.model.model_dump(mode="json", include={"dtype", "max_tokens"}),
        "task": config.task.model_dump(mode="json", include={"instruction", "name_labels_in_prompt"}),
        "threshold": config.review.threshold,
        "evaluate": settings.model_dump(mode="json", exclude=of_no_account),
    }
    id = content_id(KIND, inputs)
    if (artifact := store.find(KIND, id)) is not None:
        progress.say(f"{TITLES[subject.name]}: answered already ({id}).")
        return artifact
    parents = {"dataset": subject.dataset.id} | ({"run": subject.run.id} if subject.run else {})
    with store.build(KIND, id, parents=parents, inputs=inputs, seed=settings.seed) as build:
        _ask_all(subject, config, build, progress)
    return store.get(id)


def read_answers(artifact: Artifact) -> SubjectAnswers:
    """Return what `ask` wrote."""
    name: SubjectName = artifact.manifest["inputs"]["subject"]
    free = artifact.path / "free.jsonl"
    return SubjectAnswers(
        name=name,
        title=TITLES[name],
        closed=_read(artifact.path / "closed.jsonl"),
        free=_read(free) if free.exists() else None,
        latency_s=json.loads((artifact.path / "latency.json").read_text()),
    )


def _ask_all(subject: Subject, config: Config, build: Build, progress: Progress) -> None:
    settings, title = config.evaluate, TITLES[subject.name]
    texts = [item.text for item in frozen_items(config, subject.dataset)]
    loaded = load_model(config.model, progress, subject.run.path / "adapter" if subject.run else None)
    predictor = Predictor(
        loaded,
        subject.task(config),
        max_tokens=config.model.max_tokens,
        max_new_tokens=settings.max_new_tokens,
        tokens_per_row=settings.tokens_per_row,
        threshold=config.review.threshold,
    )
    with progress.task(f"{title}: answering", len(texts)) as advance:
        _write(build.path / "closed.jsonl", predictor.predict(texts, "closed", advance))
    freely = texts[: settings.free_generation_examples or 0]
    if predictor.task.has_label and freely:
        with progress.task(f"{title}: answering freely", len(freely)) as advance:
            _write(build.path / "free.jsonl", predictor.predict(freely, "free", advance))
    latency = _latency(predictor, texts[:LATENCY_ITEMS])
    (build.path / "latency.json").write_text(json.dumps(latency))
    build.summary.update({"subject": subject.name, "items": len(texts), "free_items": len(freely)})


def _latency(predictor: Predictor, texts: Sequence[str]) -> list[float]:
    """Return the seconds each document takes when it comes alone."""
    seconds = []
    for text in texts:
        started = time.perf_counter()
        predictor.predict([text])
        seconds.append(time.perf_counter() - started)
    return seconds


def _write(path: Path, predictions: Iterable[Prediction]) -> None:
    """Write one line of ASCII each: a model may invent line separators and halves of surrogate pairs."""
    path.write_text("".join(json.dumps(asdict(prediction)) + "\n" for prediction in predictions), encoding="ascii")


def _read(path: Path) -> list[Prediction]:
    return [_prediction(json.loads(line)) for line in path.read_text(encoding="ascii").splitlines()]


def _prediction(content: dict[str, Any]) -> Prediction:
    entities, rejected = content.pop("entities"), content.pop("rejected_entities")
    return Prediction(
        **content,
        entities=None if entities is None else tuple(Entity(**entity) for entity in entities),
        rejected_entities=tuple(Entity(**entity) for entity in rejected),
    )
