"""Streamed answers of an OpenAI-compatible API (server-sent events) as pieces, with a connection that ends on demand.

A server stops computing when its client goes away, so cancelling has to close the connection at once, also while
nothing arrives. The request therefore runs in an event loop in a thread of its own, where waiting can be interrupted.
"""

from __future__ import annotations

import asyncio
import json
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from tuneloop.errors import NetworkError
from tuneloop.infer.endpoints import ApiKey
from tuneloop.infer.engines.protocol import FinishReason, Piece, Sampling

ASK_EVERY_S = 0.05  # how late a cancellation may be noticed
QUOTED_CHARS = 300
SILENT_S = 300.0  # between two pieces, the wait for the first included
REASONS: dict[str, FinishReason] = {"length": "length", "abort": "cancelled"}


@dataclass(frozen=True)
class StreamRequest:
    """A POST whose answer is streamed. `refused` makes the error for a status other than 200 and its body, `lost` the
    one for a connection that broke.
    """

    url: str
    headers: Mapping[str, str]
    body: Mapping[str, Any]
    refused: Callable[[int, bytes], Exception]
    lost: Callable[[Exception], Exception]
    trust_env: bool = True


class _Cancelled(Exception):
    """The caller wants no more; never leaves this module."""


Event = str | Exception | None


def stream_pieces(request: StreamRequest, is_cancelled: Callable[[], bool]) -> Iterator[Piece]:
    """Send a request, and yield what it streams; the last piece has a finish reason.

    Raises: what `refused` and `lost` make; NetworkError: the stream does not have the API's form, or breaks off.
    """
    events: queue.SimpleQueue[Event] = queue.SimpleQueue()
    abandoned = threading.Event()

    def run() -> None:
        try:
            asyncio.run(_send(request, events.put, lambda: abandoned.is_set() or is_cancelled()))
        finally:
            events.put(None)  # whatever happens, nobody waits for ever

    thread = threading.Thread(target=run, name="reads a stream", daemon=True)
    thread.start()
    try:
        yield from _pieces(iter(events.get, None), request.url)
    except _Cancelled:
        yield Piece("", 0, "cancelled")
    finally:
        abandoned.set()
        thread.join()


def body_of(sampling: Sampling) -> dict[str, Any]:
    """Return what both of the API's routes call the settings of `sampling`, and what makes it stream with usage."""
    body: dict[str, Any] = {
        "max_tokens": sampling.max_new_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    if sampling.seed is not None:
        body["seed"] = sampling.seed
    return body


def error_message(content: bytes, key: ApiKey | None) -> str:
    """Return what may be shown of an error's body: its message where it has one, one line, without the key."""
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        found = None
    error = found.get("error", found) if isinstance(found, dict) else None
    message = error.get("message") if isinstance(error, dict) else error
    line = " ".join(str(message or content.decode("utf-8", "replace")).split())
    line = key.redact(line) if key else line
    return line if len(line) <= QUOTED_CHARS else f"{line[:QUOTED_CHARS]}…"


async def _send(request: StreamRequest, put: Callable[[Event], None], is_unwanted: Callable[[], bool]) -> None:
    """Put the events of the stream, or the error that ended it."""
    reading = asyncio.create_task(_read(request, put))
    while not reading.done():
        await asyncio.wait({reading}, timeout=ASK_EVERY_S)
        if not reading.done() and is_unwanted():
            reading.cancel()
            await asyncio.wait({reading})
    if reading.cancelled():
        put(_Cancelled())
    elif isinstance(error := reading.exception(), httpx.HTTPError):
        put(request.lost(error))
    elif isinstance(error, Exception):
        put(error)


async def _read(request: StreamRequest, put: Callable[[Event], None]) -> None:
    timeout = httpx.Timeout(SILENT_S, connect=10.0)
    async with (
        httpx.AsyncClient(timeout=timeout, trust_env=request.trust_env) as client,
        client.stream("POST", request.url, json=dict(request.body), headers=dict(request.headers)) as response,
    ):
        if response.status_code != 200:
            raise request.refused(response.status_code, await response.aread())
        async for line in response.aiter_lines():
            if line.startswith("data:"):
                put(line.removeprefix("data:").strip())


def _pieces(events: Iterator[Event], url: str) -> Iterator[Piece]:
    told, usage, last = 0, None, None
    for event in events:
        if isinstance(event, Exception):
            raise event
        if event is None or event == "[DONE]":
            break
        chunk = _chunk(event, url)
        usage = (chunk.get("usage") or {}).get("completion_tokens", usage)
        for choice in chunk.get("choices") or ():
            piece = _piece(choice)
            if piece.finish_reason is not None:
                last = piece
            elif piece.text or piece.tokens:
                told += piece.tokens
                yield piece
    if last is None:
        raise _broken(url, "it broke off before the answer's end")
    yield Piece(last.text, last.tokens if usage is None else max(int(usage) - told, 0), last.finish_reason)


def _chunk(event: str, url: str) -> dict[str, Any]:
    try:
        chunk = json.loads(event)
    except (ValueError, RecursionError) as error:
        raise _broken(url, "an event is not JSON") from error
    if not isinstance(chunk, dict):
        raise _broken(url, "an event is not a JSON object")
    if failure := chunk.get("error"):
        message = failure.get("message") if isinstance(failure, dict) else failure
        raise _broken(url, f"the server gave up: {message}")
    return chunk


def _piece(choice: Mapping[str, Any]) -> Piece:
    """Read a choice of either route: chat completions have a delta, completions a text."""
    delta = choice.get("delta")
    text = (delta.get("content") if isinstance(delta, dict) else choice.get("text")) or ""
    ids = choice.get("token_ids")  # vLLM tells them when asked; elsewhere a chunk is one token, corrected by the usage
    tokens = len(ids) if ids is not None else int(bool(text))
    reason = choice.get("finish_reason")
    return Piece(str(text), tokens, None if reason is None else REASONS.get(reason, "stop"))


def _broken(url: str, found: str) -> NetworkError:
    return NetworkError(
        f"the streamed answer cannot be used: {found}",
        where=url,
        hint="Send the request again; if it stays so, check that this address streams as OpenAI's API does.",
    )
