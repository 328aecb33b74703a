"""What one engine made of the items: its prompts, their tokens, its answers, and how long they took."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from tuneloop.errors import ModelError, TuneloopError
from tuneloop.infer.predict import Mode
from tuneloop.models.prompt import TaskPrompt
from tuneloop.progress import SILENT, Advance, Progress
from tuneloop.records import Example, Prediction

ALONE = 8  # documents asked one at a time: how long one takes, and whether company changes its answer
PER_CALL = 256  # documents of one call, so that progress is shown by engines that do not tell theirs


class Answering(Protocol):
    """What parity needs of something that answers a task: every engine has it, and so has a service behind its URL."""

    @property
    def name(self) -> str: ...

    @property
    def task(self) -> TaskPrompt: ...

    def predict(self, texts: Sequence[str], mode: Mode = "closed", advance: Advance | None = None) -> list[Prediction]:
        """Answer documents, in order."""

    def rendered_prompt(self, text: str) -> str:
        """Return the whole prompt for a document. Raises: TuneloopError: it is not told."""

    def prompt_ids(self, text: str) -> list[int]:
        """Return the prompt's token ids. Raises: TuneloopError: they are not told."""

    def close(self) -> None:
        """Free what it holds."""


@dataclass(frozen=True)
class Speed:
    """How fast an engine answered: together, and `ALONE` documents one at a time (`alone_s`, seconds each)."""

    documents_per_s: float
    alone_s: tuple[float, ...]


@dataclass(frozen=True)
class Asked:
    """An engine's answers to the items, in their order.

    `prompts` and `token_ids` are None where the engine cannot tell them, and `untold` says why. `changed_alone` counts
    documents whose label was another when they were asked alone.
    """

    name: str
    task: TaskPrompt
    predictions: tuple[Prediction, ...]
    prompts: tuple[str, ...] | None
    token_ids: tuple[tuple[int, ...], ...] | None
    untold: str
    speed: Speed
    changed_alone: int = 0


def ask(engine: Answering, items: Sequence[Example], name: str = "", progress: Progress = SILENT) -> Asked:
    """Put every item through an engine.

    Args: name: what it is called in tables and sentences (default: the kind of engine).
    Raises: ModelError: it gives another number of answers than it was asked; whatever the engine raises.
    """
    name, texts = name or engine.name, [item.text for item in items]
    untold, prompts, ids = "", None, None
    try:
        prompts = tuple(engine.rendered_prompt(text) for text in texts)
        ids = tuple(tuple(engine.prompt_ids(text)) for text in texts)
    except TuneloopError as error:  # some servers keep their prompts to themselves; they are judged by their answers
        untold = error.message
    predictions, seconds = _answers(engine, texts, name, progress)
    alone, changed = _alone(engine, texts, predictions)
    return Asked(
        name=name,
        task=engine.task,
        predictions=tuple(predictions),
        prompts=prompts,
        token_ids=ids,
        untold=untold,
        speed=Speed(len(texts) / seconds if seconds > 0 else 0.0, alone),
        changed_alone=changed,
    )


def _answers(engine: Answering, texts: Sequence[str], name: str, progress: Progress) -> tuple[list[Prediction], float]:
    predictions: list[Prediction] = []
    started = time.perf_counter()
    with progress.task(f"Asking {name}", len(texts)) as advance:
        for start in range(0, len(texts), PER_CALL):
            asked = texts[start : start + PER_CALL]
            answers = engine.predict(asked, "closed", advance)
            if len(answers) != len(asked):
                raise ModelError(
                    f"it gave {len(answers)} answers to {len(asked)} documents",
                    where=name,
                    hint="Look into its log; it may have been restarted in between.",
                )
            predictions += answers
    return predictions, time.perf_counter() - started


def _alone(engine: Answering, texts: Sequence[str], together: Sequence[Prediction]) -> tuple[tuple[float, ...], int]:
    seconds, changed = [], 0
    for text, answer in zip(texts[:ALONE], together, strict=False):
        started = time.perf_counter()
        (alone,) = engine.predict([text], "closed")
        seconds.append(time.perf_counter() - started)
        changed += alone.label != answer.label
    return tuple(seconds), changed
