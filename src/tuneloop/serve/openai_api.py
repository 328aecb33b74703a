"""OpenAI's API over the served models: chat, completions (both streaming) and the list of models.

Free text, as the model writes it: closed answers with calibrated probabilities are what `/v1/predict` is for.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any, TypeVar

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from tuneloop.infer.engines.protocol import Piece
from tuneloop.serve.entrance import Asked, accepted, disconnected
from tuneloop.serve.generation import GenerationRun, Prompt
from tuneloop.serve.log import ServedText
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
from tuneloop.serve.scopes import needs
from tuneloop.serve.service import Service
from tuneloop.serve.streams import EventStream, pieces_of
from tuneloop.serve.work import GenerationWork

DONE = b"data: [DONE]\n\n"
CUT_OFF = "cut-off"  # why a text ended that has no finish reason
EVENTS: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}}


Result = TypeVar("Result")


def openai_router(service: Service) -> APIRouter:
    """Return the routes."""
    router, needed = APIRouter(tags=["openai"], responses=ERROR_RESPONSES), needs("predict")

    @router.post("/v1/chat/completions", response_model=ChatCompletion, responses=EVENTS, openapi_extra=needed)
    async def chat(request: Request, body: ChatRequest) -> Response:
        """Answer a conversation with free text."""
        return await _generate(service, request, body, [message.message() for message in body.messages])

    @router.post("/v1/completions", response_model=TextCompletion, responses=EVENTS, openapi_extra=needed)
    async def completions(request: Request, body: CompletionRequest) -> Response:
        """Go on after a plain prompt."""
        return await _generate(service, request, body, body.prompt)

    @router.get("/v1/models", openapi_extra=needed)
    async def models() -> ModelCards:
        """List the names that requests may give as `model`."""
        return ModelCards(object="list", data=_cards(service))

    @router.get("/v1/models/{name}", openapi_extra=needed)
    async def model(name: str) -> ModelCard:
        """Tell about one of them."""
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
    who, settings = accepted(request, service), service.settings
    if (body.tokens_asked() or 0) > settings.max_new_tokens:
        raise Problem(400, "invalid_value", f"At most {settings.max_new_tokens} tokens can be asked for.")
    with ExitStack() as stack:
        model = stack.enter_context(service.models.using(body.model))
        run = GenerationRun(prompt, who.request_id, model, body.sampling(settings.max_new_tokens))
        tokens = run.prompt_tokens + run.sampling.max_new_tokens
        model.lane.require_room("generation", 1, tokens, settings.deadline_s)
        service.guard.charge(who.caller, 1, tokens)
        deadline, loop = time.monotonic() + settings.deadline_s, asyncio.get_running_loop()
        work = GenerationWork(model, who.caller.id, tokens, deadline, run.generate, loop)
        model.lane.submit([work])
        stack.callback(model.lane.cancel, [work])
        stack.callback(_record, service, who, run)
        pieces = pieces_of(work)
        first = await _unless_gone(request, anext(pieces))  # so that an early failure is a status, not a broken stream
        if body.stream:
            with_usage = body.stream_options is not None and body.stream_options.include_usage
            return EventStream(_events(run, first, pieces, with_usage=with_usage), stack.pop_all().close)
        return JSONResponse(await _unless_gone(request, _in_one(run, first, pieces)))


async def _in_one(run: GenerationRun, first: Piece, rest: AsyncIterator[Piece]) -> dict[str, Any]:
    """Return the answer as one object, when it has ended."""
    run.noted(first)
    if first.finish_reason is None:
        async for piece in rest:
            run.noted(piece)
    return run.whole()


async def _events(
    run: GenerationRun, first: Piece, rest: AsyncIterator[Piece], *, with_usage: bool
) -> AsyncIterator[bytes]:
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


def _record(service: Service, who: Asked, run: GenerationRun) -> None:
    """Count and log what was generated, also where it was cut off; a refusal has generated nothing."""
    service.metrics.tokens.labels(run.model.name, "read").inc(run.prompt_tokens)
    service.metrics.tokens.labels(run.model.name, "generated").inc(run.completion_tokens)
    if not run.texts:
        return
    entry = ServedText(
        request_id=who.request_id,
        at=datetime.now(UTC),
        caller=who.caller.id,
        model=run.model.name,
        version=run.model.version,
        prompt=run.prompt,
        answer="".join(run.texts),
        ended=run.finish_reason or CUT_OFF,
        latency_s=time.monotonic() - who.began,
        tokens=run.prompt_tokens + run.completion_tokens,
    )
    service.log.record([entry])


def _event(content: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(content, ensure_ascii=True, separators=(",", ":")).encode("ascii") + b"\n\n"
