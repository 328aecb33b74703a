"""OpenAI's API over the served models: chat, completions (both streaming) and the list of models.

Free text, as the model writes it: closed answers with calibrated probabilities are what `/v1/predict` is for.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, runtime_checkable

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from tuneloop.infer.engines.protocol import Engine, Piece, Sampling
from tuneloop.records import Message
from tuneloop.serve.entrance import asked, disconnected
from tuneloop.serve.models import ServedModel
from tuneloop.serve.openai_schema import (
    ERROR_RESPONSES,
    ChatCompletion,
    ChatRequest,
    CompletionRequest,
    Generation,
    ModelCard,
    ModelCards,
    TextCompletion,
)
from tuneloop.serve.problems import CLIENT_GONE, Problem
from tuneloop.serve.service import Service
from tuneloop.serve.streams import EventStream, pieces_of
from tuneloop.serve.work import GenerationWork, estimated_tokens

DONE = b"data: [DONE]\n\n"
EVENTS: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}}


@runtime_checkable
class CountsTokens(Protocol):
    """An engine that knows how many tokens a conversation takes; of others' prompts the usage is an estimate."""

    def count_tokens(self, asked: Sequence[Message] | str) -> int:
        """Return how many tokens a rendered conversation, or a plain prompt, has."""


Result = TypeVar("Result")
Prompt = Sequence[Message] | str  # a conversation, or a plain prompt


@dataclass
class _Run:
    """One generation: what it was asked, and what it has used so far."""

    prompt: Prompt
    id: str
    model: ServedModel
    sampling: Sampling
    created: int = field(default_factory=lambda: int(time.time()))
    completion_tokens: int = 0
    finish_reason: str | None = None

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
        return piece

    def envelope(self, object: str, **rest: Any) -> dict[str, Any]:
        """Return what every answer and chunk begins with."""
        head = {"id": self.id, "object": object, "created": self.created, "model": self.model.name}
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

    def whole(self, text: str) -> dict[str, Any]:
        """Return the answer in one."""
        said: dict[str, Any] = {"message": {"role": "assistant", "content": text}} if self.is_chat else {"text": text}
        choice = {"index": 0, **said, "finish_reason": self.finish_reason, "logprobs": None}
        name = "chat.completion" if self.is_chat else "text_completion"
        return self.envelope(name, choices=[choice], usage=self.usage())


def openai_router(service: Service) -> APIRouter:
    """Return the routes."""
    router = APIRouter(tags=["openai"], responses=ERROR_RESPONSES)

    @router.post("/v1/chat/completions", response_model=ChatCompletion, responses=EVENTS)
    async def chat(request: Request, body: ChatRequest) -> Response:
        """Answer a conversation with free text."""
        return await _generate(service, request, body, [message.message() for message in body.messages])

    @router.post("/v1/completions", response_model=TextCompletion, responses=EVENTS)
    async def completions(request: Request, body: CompletionRequest) -> Response:
        """Go on after a plain prompt."""
        return await _generate(service, request, body, body.prompt)

    @router.get("/v1/models")
    async def models(request: Request) -> ModelCards:
        """List the names that requests may give as `model`."""
        asked(request, service, "predict")
        return ModelCards(object="list", data=_cards(service))

    @router.get("/v1/models/{name}")
    async def model(request: Request, name: str) -> ModelCard:
        """Tell about one of them."""
        asked(request, service, "predict")
        found = next((card for card in _cards(service) if card.id == name), None)
        if found is None:
            raise Problem(404, "model_not_found", "There is no model of that name. /v1/models lists all.")
        return found

    return router


def _cards(service: Service) -> list[ModelCard]:
    """Return a card for every name, aliases included."""
    return [
        ModelCard(id=name, object="model", created=model["since"], owned_by="tuneloop", version=model["version"])
        for model in service.models.listing()
        for name in (model["name"], *model["aliases"])
    ]


async def _generate(service: Service, request: Request, body: Generation, prompt: Prompt) -> Response:
    """Let the model's lane generate, and answer in one or as a stream.

    Raises: Problem: 404, 429, 503: refused; whatever the model met before its first piece.
    """
    who, settings = asked(request, service, "predict"), service.settings
    if (body.tokens_asked() or 0) > settings.max_new_tokens:
        raise Problem(400, "invalid_value", f"At most {settings.max_new_tokens} tokens can be asked for.")
    with ExitStack() as stack:
        model = stack.enter_context(service.models.using(body.model))
        run = _Run(prompt, _prefix(prompt) + who.request_id, model, body.sampling(settings.max_new_tokens))
        tokens = run.prompt_tokens + run.sampling.max_new_tokens
        model.lane.require_room("generation", 1, tokens, settings.deadline_s)
        service.guard.charge(who.caller, 1, tokens)
        deadline, loop = time.monotonic() + settings.deadline_s, asyncio.get_running_loop()
        work = GenerationWork(model, who.caller.id, tokens, deadline, run.generate, loop)
        model.lane.submit([work])
        stack.callback(model.lane.cancel, [work])
        stack.callback(_count, service, run)
        pieces = pieces_of(work)
        first = await _unless_gone(request, anext(pieces))  # so that an early failure is a status, not a broken stream
        if body.stream:
            with_usage = body.stream_options is not None and body.stream_options.include_usage
            return EventStream(_events(run, first, pieces, with_usage=with_usage), stack.pop_all().close)
        return JSONResponse(await _unless_gone(request, _in_one(run, first, pieces)))


async def _in_one(run: _Run, first: Piece, rest: AsyncIterator[Piece]) -> dict[str, Any]:
    """Return the answer as one object, when it has ended."""
    texts = [run.noted(first).text]
    if first.finish_reason is None:
        texts += [run.noted(piece).text async for piece in rest]
    return run.whole("".join(texts))


async def _events(run: _Run, first: Piece, rest: AsyncIterator[Piece], *, with_usage: bool) -> AsyncIterator[bytes]:
    """Yield the stream's events; a failure on the way is an event with OpenAI's error object."""
    usage = {"usage": None} if with_usage else {}
    yield _event(run.chunk(run.noted(first), is_first=True) | usage)
    try:
        if first.finish_reason is None:
            async for piece in rest:
                yield _event(run.chunk(run.noted(piece), is_first=False) | usage)
    except Problem as problem:
        yield _event(problem.to_openai())
        return
    if with_usage:
        name = "chat.completion.chunk" if run.is_chat else "text_completion"
        yield _event(run.envelope(name, choices=[], usage=run.usage()))
    yield DONE


async def _unless_gone(request: Request, answer: Awaitable[Result]) -> Result:
    """Return the answer. Raises: Problem: the caller closed the connection before it was there."""
    answering = asyncio.ensure_future(answer)
    gone = asyncio.ensure_future(disconnected(request.receive))
    try:
        await asyncio.wait({answering, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            raise Problem(CLIENT_GONE, "client-gone", "The caller has closed the connection.")
        return answering.result()
    finally:
        gone.cancel()
        answering.cancel()


def _count(service: Service, run: _Run) -> None:
    service.metrics.tokens.labels(run.model.name, "read").inc(run.prompt_tokens)
    service.metrics.tokens.labels(run.model.name, "generated").inc(run.completion_tokens)


def _event(content: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(content, ensure_ascii=True, separators=(",", ":")).encode("ascii") + b"\n\n"


def _prefix(prompt: Prompt) -> str:
    return "cmpl-" if isinstance(prompt, str) else "chatcmpl-"


def _estimated_tokens(prompt: Prompt) -> int:
    texts = [prompt] if isinstance(prompt, str) else [message.content for message in prompt]
    return sum(map(estimated_tokens, texts))
