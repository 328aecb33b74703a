"""How each kind of subject comes to its answers: a model in this process, one behind an API, or a file."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tuneloop.artifacts import Artifact
from tuneloop.config.schema import Config
from tuneloop.dataset import DatasetVersion, dataset_of, open_dataset, stratified_subset
from tuneloop.errors import DataError
from tuneloop.evaluate.subjects.foreign import read_predictions
from tuneloop.evaluate.subjects.names import Subject
from tuneloop.evaluate.subjects.retrieval import ShotIndex
from tuneloop.infer.completion import Completion
from tuneloop.infer.opening import open_run, open_untuned
from tuneloop.infer.predict import Predictor
from tuneloop.models.prompt import TaskPrompt
from tuneloop.progress import Progress
from tuneloop.records import Example, Prediction

if TYPE_CHECKING:
    from tuneloop.infer.remote_predictor import Usage

LATENCY_ITEMS = 8  # documents that a local model also answers one at a time
LATENCY_S = 10.0  # after so long it answers no more of them


@dataclass(frozen=True, kw_only=True)
class Answered:
    """Everything a subject gave.

    `labels` is the label set in the order of the answers' `label_scores`. `busy_s` is the time that all closed answers
    took together; `calls` are the requests behind them, where there were requests; `notes` say what was done without.
    """

    closed: Sequence[Prediction]
    labels: tuple[str, ...]
    free: Sequence[Prediction] | None = None
    latency_s: Sequence[float] = ()
    busy_s: float | None = None
    calls: Sequence[Completion] = ()
    notes: tuple[str, ...] = ()


def ask_model(
    subject: Subject, config: Config, dataset: Artifact, items: Sequence[Example], progress: Progress
) -> Answered:
    """Return the answers of a model that runs in this process.

    Raises: ModelError, NetworkError: it cannot be loaded; DataError: it was trained on some of the items.
    """
    version = open_dataset(dataset)
    if subject.run is not None:
        _refuse_trained_on(subject.run, dataset, items)
        predictor = open_run(config, subject.run, progress)
    else:
        predictor = open_untuned(config, prompt_of(subject, config, version), progress, subject.model_path)
    texts, shots = [item.text for item in items], shots_of(subject, config, version, items, progress)
    started = time.perf_counter()
    with progress.task(f"{subject.title}: answering", len(texts)) as advance:
        closed = predictor.predict(texts, "closed", advance, shots)
    busy_s = time.perf_counter() - started
    return Answered(
        closed=closed,
        labels=predictor.task.labels,
        free=_freely(subject, predictor, config, texts, shots, progress),
        latency_s=_latency(subject, predictor, texts[:LATENCY_ITEMS], shots, progress),
        busy_s=busy_s,
    )


def ask_api(
    subject: Subject,
    config: Config,
    dataset: Artifact,
    items: Sequence[Example],
    scratch: Path,
    progress: Progress,
) -> Answered:
    """Return the answers of a model behind an API; those that came before an interruption are in `scratch`.

    Raises: UsageError: there is no key; NetworkError, ModelError: the API gives no answer.
    """
    from tuneloop.infer.answer_log import known_capabilities
    from tuneloop.infer.calls import Patience
    from tuneloop.infer.remote import RemoteChat
    from tuneloop.infer.remote_predictor import RemotePredictor

    assert subject.endpoint is not None
    version, settings = open_dataset(dataset), config.evaluate
    task = prompt_of(subject, config, version)
    texts, shots = [item.text for item in items], shots_of(subject, config, version, items, progress)
    freely = texts[: settings.free_generation_examples or 0] if task.has_label else []
    scratch.mkdir(parents=True, exist_ok=True)
    patience = Patience(total_s=settings.api_total_s)
    with RemoteChat(subject.endpoint, patience, known_capabilities(scratch)) as chat:
        predictor = RemotePredictor(
            chat,
            task,
            max_tokens=settings.api_max_tokens,
            concurrency=settings.api_concurrency,
            threshold=config.review.uncalibrated_threshold,
        )
        with progress.task(f"{subject.title}: answering", len(texts)) as advance:
            closed = predictor.answer(texts, "closed", folder=scratch, advance=advance, shots=shots)
        free = None
        if freely:
            with progress.task(f"{subject.title}: answering freely", len(freely)) as advance:
                near = None if shots is None else shots[: len(freely)]
                free = predictor.answer(freely, "free", folder=scratch, advance=advance, shots=near).predictions
    return Answered(
        closed=closed.predictions,
        labels=task.labels,
        free=free,
        latency_s=closed.latency_s,
        calls=closed.completions,
        notes=(*closed.notes, *_shortcomings(closed.usage)),
    )


def read_file(subject: Subject, config: Config, dataset: Artifact, items: Sequence[Example]) -> Answered:
    """Return the answers that a file holds. Raises: DataError: it does not answer exactly these items."""
    assert subject.file is not None
    task = TaskPrompt.for_dataset(config.task, open_dataset(dataset))
    answers = read_predictions(subject.file, items, task, config.review.uncalibrated_threshold)
    return Answered(closed=answers, labels=task.labels)


def prompt_of(subject: Subject, config: Config, version: DatasetVersion) -> TaskPrompt:
    """Return what an untuned model is asked with; fixed shots are in it, retrieved ones come with each document."""
    task = TaskPrompt.for_dataset(config.task, version)
    if subject.prompt != "few-shot":
        return task
    return task.with_shots(choose_shots(version.split("train"), config.evaluate.shots, config.evaluate.seed))


def shots_of(
    subject: Subject, config: Config, version: DatasetVersion, items: Sequence[Example], progress: Progress
) -> list[list[Example]] | None:
    """Return the training examples nearest to each item, where the subject is shown such."""
    if subject.prompt != "retrieved":
        return None
    near = config.data.near_duplicates
    index = ShotIndex.build(version.split("train"), near_copy=near.threshold, shingle_words=near.shingle_words)
    with progress.task(f"{subject.title}: finding examples", len(items)) as advance:
        return index.shots_for([item.text for item in items], config.evaluate.shots, advance)


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


def _shortcomings(usage: Usage) -> list[str]:
    counted = ((usage.cut, "reached the token limit"), (usage.refused, "were refused"))
    return [f"{count} of {usage.requests} answers {what}" for count, what in counted if count]


def _freely(
    subject: Subject,
    predictor: Predictor,
    config: Config,
    texts: Sequence[str],
    shots: Sequence[Sequence[Example]] | None,
    progress: Progress,
) -> list[Prediction] | None:
    freely = texts[: config.evaluate.free_generation_examples or 0]
    if not predictor.task.has_label or not freely:
        return None
    with progress.task(f"{subject.title}: answering freely", len(freely)) as advance:
        return predictor.predict(freely, "free", advance, None if shots is None else shots[: len(freely)])


def _latency(
    subject: Subject,
    predictor: Predictor,
    texts: Sequence[str],
    shots: Sequence[Sequence[Example]] | None,
    progress: Progress,
) -> list[float]:
    """Return the seconds each document takes when it comes alone; fewer documents where they take long."""
    seconds: list[float] = []
    with progress.task(f"{subject.title}: answering one by one", len(texts)) as advance:
        for number, text in enumerate(texts):
            if sum(seconds) > LATENCY_S:
                break
            started = time.perf_counter()
            predictor.predict([text], shots=None if shots is None else [shots[number]])
            seconds.append(time.perf_counter() - started)
            advance(1)
    return seconds


def _refuse_trained_on(run: Artifact, dataset: Artifact, items: Sequence[Example]) -> None:
    """Refuse a run of another dataset version that has seen some of the items: its answers would prove nothing."""
    if run.parents["dataset"] == dataset.id:
        return
    learnt = dataset_of(run)
    seen = {_normal(example.text) for name in ("train", "validation") for example in learnt.split(name)}
    known = sum(_normal(item.text) in seen for item in items)
    if known:
        raise DataError(
            f"run {run.id} was trained on {known} of the {len(items)} test documents (it has another dataset version)",
            where=f"dataset {run.parents['dataset']}",
            hint="Compare it on test documents of its own dataset version, or train it again on this one.",
        )


def _normal(text: str) -> str:
    return " ".join(text.casefold().split())
