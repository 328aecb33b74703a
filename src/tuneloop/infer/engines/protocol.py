"""What every engine does, so that parity and the service need not know which one they talk to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from tuneloop.infer.answering import Mode
from tuneloop.models.prompt import TaskPrompt
from tuneloop.progress import Advance
from tuneloop.records import Message, Prediction

FinishReason = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How free text is generated. `temperature` 0 is greedy; `stop` are texts that end the answer and are left out."""

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of streamed text, the tokens it took, and on the last piece why the answer ended."""

    text: str
    tokens: int
    finish_reason: FinishReason | None = None


@runtime_checkable
class Engine(Protocol):
    """A model that answers one task. Used by one thread at a time; `is_alive` and `close` by any thread."""

    @property
    def name(self) -> str:
        """The kind of engine: transformers, vllm, llamacpp or openai."""

    @property
    def task(self) -> TaskPrompt:
        """The task that `predict` answers."""

    def predict(self, texts: Sequence[str], mode: Mode = "closed", advance: Advance | None = None) -> list[Prediction]:
        """Answer documents, in order, with probabilities as the model gives them (not calibrated)."""

    def rendered_prompt(self, text: str) -> str:
        """Return the whole prompt for one document as this engine's own chat template writes it."""

    def prompt_ids(self, text: str) -> list[int]:
        """Return the token ids of that prompt as this engine's own tokenizer makes them."""

    def stream(
        self, messages: Sequence[Message], sampling: Sampling, is_cancelled: Callable[[], bool]
    ) -> Iterator[Piece]:
        """Generate free text after a conversation; the last piece has a finish reason."""

    def stream_completion(self, prompt: str, sampling: Sampling, is_cancelled: Callable[[], bool]) -> Iterator[Piece]:
        """Generate free text after a plain prompt, without a chat template."""

    def is_alive(self) -> bool:
        """Whether it can answer now: its process runs, or its server is reachable."""

    def close(self) -> None:
        """Free what it holds: memory, processes, connections."""
