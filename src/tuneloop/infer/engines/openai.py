"""Any OpenAI-compatible address as an engine: the task's words as a conversation, the answer as it comes back.

What such an API does not tell stays unsaid: it has no prompt to show and no tokens to compare, and a probability only
where it tells those of its tokens. Answers are held to the label set by a schema where the API enforces one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from tuneloop.config.serving import is_loopback
from tuneloop.errors import ModelError, NetworkError, TuneloopError, UsageError
from tuneloop.infer.answering import Mode
from tuneloop.infer.calls import Patience
from tuneloop.infer.endpoints import Endpoint
from tuneloop.infer.engines.address import ServerAddress
from tuneloop.infer.engines.api_stream import StreamRequest, body_of, error_message, stream_pieces
from tuneloop.infer.engines.protocol import Piece, Sampling
from tuneloop.infer.remote import RemoteChat
from tuneloop.infer.remote_predictor import RemotePredictor
from tuneloop.models.prompt import TaskPrompt
from tuneloop.progress import Advance
from tuneloop.records import Message, Prediction

ASK_EVERY_S = 5.0


class OpenAIEngine:
    """A task answered by a model behind an API.

    Args: max_tokens: the longest answer to a document, thinking included; concurrency: requests under way at once;
        threshold: the probability under which an answer is routed to review (one without a probability always is).
    Raises: UsageError: there is no key for a maker's own API.
    """

    name = "openai"

    def __init__(
        self,
        endpoint: Endpoint,
        task: TaskPrompt,
        *,
        max_tokens: int = 1024,
        concurrency: int = 8,
        threshold: float = 0.85,
        patience: Patience | None = None,
    ) -> None:
        self.endpoint, self._task, self._key = endpoint, task, endpoint.key()
        self._chat = RemoteChat(endpoint, patience)
        self._predictor = RemotePredictor(
            self._chat, task, max_tokens=max_tokens, concurrency=concurrency, threshold=threshold
        )
        self._address = ServerAddress(endpoint.base_url, self._key, health="/models", every_s=ASK_EVERY_S)
        self._is_closed = False

    def __repr__(self) -> str:
        return f"OpenAIEngine({self.endpoint.model!r} at {self.endpoint.base_url!r})"

    @property
    def task(self) -> TaskPrompt:
        return self._task

    def predict(self, texts: Sequence[str], mode: Mode = "closed", advance: Advance | None = None) -> list[Prediction]:
        """Answer documents, in order; probabilities are unstated (0) where the API tells none.

        Raises: UsageError: wrong key or unknown model; ModelError: a request is refused; NetworkError: no answer.
        """
        found = self._predictor.predict(texts, "free" if mode == "free" else "closed", advance)
        return [replace(one, entities=None, rejected_entities=()) for one in found] if mode == "labels" else found

    def rendered_prompt(self, text: str) -> str:
        """Raises: ModelError: always; an API does not show what its template writes."""
        raise self._untold("prompt as its template writes it")

    def prompt_ids(self, text: str) -> list[int]:
        """Raises: ModelError: always; an API does not show what its tokenizer makes."""
        raise self._untold("token ids")

    def stream(
        self, messages: Sequence[Message], sampling: Sampling, is_cancelled: Callable[[], bool]
    ) -> Iterator[Piece]:
        """Generate after a conversation. Raises: UsageError: the API refuses it, or is Anthropic's."""
        turns = [{"role": message.role, "content": message.content} for message in messages]
        return self._stream("/chat/completions", {"messages": turns}, sampling, is_cancelled)

    def stream_completion(self, prompt: str, sampling: Sampling, is_cancelled: Callable[[], bool]) -> Iterator[Piece]:
        """Generate after a plain prompt. Raises: UsageError: the API refuses it, or has no such route."""
        return self._stream("/completions", {"prompt": prompt}, sampling, is_cancelled)

    def is_alive(self) -> bool:
        """Whether the address answers; a maker's own API is not asked all the time, and taken to."""
        return not self._is_closed and (self.endpoint.is_official or self._address.is_alive())

    def close(self) -> None:
        """Let go of the connections."""
        self._is_closed = True
        self._address.close()
        self._chat.close()

    def _stream(
        self, path: str, content: dict[str, Any], sampling: Sampling, is_cancelled: Callable[[], bool]
    ) -> Iterator[Piece]:
        if self.endpoint.wire != "openai":
            hint = "Use an OpenAI-compatible address for chat; documents are answered through either API."
            raise UsageError("this API's streams are not read", where=self.endpoint.base_url, hint=hint)
        body = {"model": self.endpoint.model, **body_of(sampling), **content}
        if self.endpoint.is_official and path == "/chat/completions":  # newer models know only the newer name
            body["max_completion_tokens"] = body.pop("max_tokens")
        url = self.endpoint.base_url + path
        request = StreamRequest(
            url=url,
            headers={"authorization": f"Bearer {self._key.reveal()}"} if self._key else {},
            body=body,
            refused=lambda status, reply: _refused(url, status, error_message(reply, self._key)),
            lost=lambda error: _lost(url, error),
            trust_env=not is_loopback(urlsplit(url).hostname or ""),
        )
        return stream_pieces(request, is_cancelled)

    def _untold(self, what: str) -> ModelError:
        return ModelError(
            f"an API does not tell its {what}",
            where=f"engine openai ({self.endpoint.base_url})",
            hint="Compare labels and scores only; where it is a vLLM server, the engine `vllm` can tell both.",
        )


def _refused(url: str, status: int, message: str) -> TuneloopError:
    if status in {429, 503}:
        return NetworkError(f"too many requests (HTTP {status}): {message}", where=url, hint="Try again in a while.")
    if status >= 500:
        return NetworkError(f"HTTP {status}: {message}", where=url, hint="Try again in a while.")
    hint = "Correct the request; a key comes from OPENAI_API_KEY, or TUNELOOP_API_KEY for another address."
    return UsageError(f"the API refuses the request (HTTP {status}): {message}", where=url, hint=hint)


def _lost(url: str, error: Exception) -> NetworkError:
    found = str(error) or type(error).__name__
    return NetworkError(f"the connection broke: {found}", where=url, hint="Check the address, and try again.")
