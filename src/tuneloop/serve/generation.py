"""One generation in OpenAI's words: what it was asked, what it has said and used so far, and how that is told."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from tuneloop.infer.engines.protocol import Engine, Piece, Sampling
from tuneloop.records import Message
from tuneloop.serve.models import ServedModel
from tuneloop.serve.work import estimated_tokens

Prompt = Sequence[Message] | str  # a conversation, or a plain prompt


@runtime_checkable
class CountsTokens(Protocol):
    """An engine that knows how many tokens a conversation takes; of others' prompts the usage is an estimate."""

    def count_tokens(self, asked: Sequence[Message] | str) -> int:
        """Return how many tokens a rendered conversation, or a plain prompt, has."""


@dataclass
class GenerationRun:
    """One generation: what it was asked, and what it has used so far."""

    prompt: Prompt
    request_id: str
    model: ServedModel
    sampling: Sampling
    created: int = field(default_factory=lambda: int(time.time()))
    completion_tokens: int = 0
    finish_reason: str | None = None
    texts: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.prompt_tokens = _estimated_tokens(self.prompt)  # until the engine has counted

    @property
    def is_chat(self) -> bool:
        return not isinstance(self.prompt, str)

    def generate(self, engine: Engine, is_cancelled: Callable[[], bool]) -> Iterator[Piece]:
        """Count the prompt's tokens if the engine can, and generate. Called in the lane's thread."""
        if isinstance(engine, CountsTokens):
            self.prompt_tokens = engine.count_tokens(self.prompt)
        if isinstance(self.prompt, str):
            return engine.stream_completion(self.prompt, self.sampling, is_cancelled)
        return engine.stream(self.prompt, self.sampling, is_cancelled)

    def noted(self, piece: Piece) -> Piece:
        """Count a piece, and return it."""
        self.completion_tokens += piece.tokens
        self.finish_reason = piece.finish_reason
        self.texts.append(piece.text)
        return piece

    def envelope(self, object: str, **rest: Any) -> dict[str, Any]:
        """Return what every answer and chunk begins with."""
        prefix = "chatcmpl-" if self.is_chat else "cmpl-"
        head = {"id": prefix + self.request_id, "object": object, "created": self.created, "model": self.model.name}
        return {**head, "system_fingerprint": self.model.version, **rest}

    def usage(self) -> dict[str, int]:
        """Return the tokens used."""
        used = self.prompt_tokens + self.completion_tokens
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": used,
        }

    def chunk(self, piece: Piece, *, is_first: bool) -> dict[str, Any]:
        """Return a piece as a stream's chunk."""
        if self.is_chat:
            delta = ({"role": "assistant"} if is_first else {}) | {"content": piece.text}
            choice = {"index": 0, "delta": delta, "finish_reason": piece.finish_reason, "logprobs": None}
            return self.envelope("chat.completion.chunk", choices=[choice])
        choice = {"index": 0, "text": piece.text, "finish_reason": piece.finish_reason, "logprobs": None}
        return self.envelope("text_completion", choices=[choice])

    def whole(self) -> dict[str, Any]:
        """Return the answer in one."""
        text = "".join(self.texts)
        said: dict[str, Any] = {"message": {"role": "assistant", "content": text}} if self.is_chat else {"text": text}
        choice = {"index": 0, **said, "finish_reason": self.finish_reason, "logprobs": None}
        name = "chat.completion" if self.is_chat else "text_completion"
        return self.envelope(name, choices=[choice], usage=self.usage())


def _estimated_tokens(prompt: Prompt) -> int:
    texts = [prompt] if isinstance(prompt, str) else [message.content for message in prompt]
    return sum(map(estimated_tokens, texts))
