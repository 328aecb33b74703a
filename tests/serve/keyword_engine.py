"""A small engine that really answers, by keywords, and lets a test hold it, look at its batches, and kill it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

from tuneloop.errors import ModelError, UsageError
from tuneloop.infer.answering import Mode
from tuneloop.infer.engines.protocol import Piece, Sampling
from tuneloop.models.prompt import TaskPrompt
from tuneloop.progress import Advance
from tuneloop.records import Entity, Message, Prediction

TASK = TaskPrompt("classify+extract", "Which animal is it?", ("cat", "dog", "bird"), ("name",))
SOUNDS = {"purrs": "cat", "meows": "cat", "barks": "dog", "sings": "bird"}
POISON = "the model breaks on this"


class KeywordEngine:
    """Answers which animal makes the sound that a document names; `suffix` is added to tell versions apart."""

    name = "transformers"
    task = TASK

    def __init__(self, words: Sequence[str] = ("once", " upon", " a", " time"), hold: bool = False) -> None:
        self.words = list(words)
        self.batches: list[list[str]] = []
        self.gate = threading.Event()
        self.entered = threading.Event()
        self.is_dead = self.is_closed = False
        self.messages: list[Message] = []
        if not hold:
            self.gate.set()

    def predict(self, texts: Sequence[str], mode: Mode = "closed", advance: Advance | None = None) -> list[Prediction]:
        self.entered.set()
        assert self.gate.wait(20)
        if self.is_dead or self.is_closed:
            raise ModelError("the process has ended", where="engine", hint="Start it again.")
        self.batches.append(list(texts))
        if any(POISON in text for text in texts):
            raise RuntimeError("broken by " + POISON)
        return [self._answer(text) for text in texts]

    def _answer(self, text: str) -> Prediction:
        label = next((animal for sound, animal in SOUNDS.items() if sound in text), "cat")
        probability = 1 / (1 + len(text) % 7)
        found = tuple(
            Entity("name", name, text.index(name), text.index(name) + len(name))
            for name in ("Tom", "Zoé")
            if name in text
        )
        sure = probability >= 0.5
        return Prediction(
            label=label,
            probability=probability,
            entities=found,
            route="auto" if sure else "review",
            reason="" if sure else "unsure",
        )

    def rendered_prompt(self, text: str) -> str:
        return f"{self.task.system()}\n{text}"

    def prompt_ids(self, text: str) -> list[int]:
        return [ord(character) for character in self.rendered_prompt(text)]

    def stream(
        self, messages: Sequence[Message], sampling: Sampling, is_cancelled: Callable[[], bool]
    ) -> Iterator[Piece]:
        self.messages = list(messages)
        if "too long" in messages[-1].content:
            raise UsageError("the prompt has 9 tokens; 8 are available", where="prompt", hint="Shorten it.")
        return self._pieces(sampling, is_cancelled)

    def stream_completion(self, prompt: str, sampling: Sampling, is_cancelled: Callable[[], bool]) -> Iterator[Piece]:
        return self._pieces(sampling, is_cancelled)

    def count_tokens(self, asked: Sequence[Message] | str) -> int:
        return len(asked.split()) if isinstance(asked, str) else sum(len(one.content.split()) for one in asked)

    def _pieces(self, sampling: Sampling, is_cancelled: Callable[[], bool]) -> Iterator[Piece]:
        for number, word in enumerate(self.words):
            self.entered.set()
            while not self.gate.wait(0.01):
                if is_cancelled():
                    yield Piece("", 0, "cancelled")
                    return
            if self.is_dead:
                raise ModelError("the process has ended", where="engine", hint="Start it again.")
            if word == POISON:
                raise RuntimeError(word)
            if number == sampling.max_new_tokens:
                yield Piece("", 0, "length")
                return
            if word.strip() in sampling.stop:
                break
            yield Piece(word, 1)
        yield Piece("", 1, "stop")

    def is_alive(self) -> bool:
        return not self.is_dead

    def close(self) -> None:
        self.is_closed = True
        self.gate.set()
