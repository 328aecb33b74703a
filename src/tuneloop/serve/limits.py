"""What a request's body may be: so long, so slow, so deep. An ASGI middleware that reads the body before the routes do.

The body is counted while it arrives, with or without Content-Length, and its time is limited as a whole, so that a
client that sends a byte now and then is cut off. Refusals are `Problem`s, raised for the middleware around this one.
"""

from __future__ import annotations

import asyncio
import re

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tuneloop.serve.problems import Problem

# A string (also one that never ends: every character is looked at once), an opening, a closing, or what separates.
TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)|([\[{])|([\]}])|[,:]', re.DOTALL)
HANG_UP = {"Connection": "close"}  # where the rest of the body is not wanted


class RequestLimits:
    """The ASGI middleware. Used by one event loop.

    Args: max_held_bytes: of the bodies of all requests under way; body_timeout_s: for a whole body, from the end of the
        headers; max_json_values: strings, commas, colons and brackets.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        max_body_bytes: int,
        max_held_bytes: int,
        body_timeout_s: float,
        max_json_depth: int,
        max_json_values: int,
    ) -> None:
        self._app = app
        self._max_body_bytes, self._max_held_bytes = max_body_bytes, max_held_bytes
        self._body_timeout_s = body_timeout_s
        self._max_json_depth, self._max_json_values = max_json_depth, max_json_values
        self.held_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read and check the body, and hand it on. Raises: Problem: 400, 408, 413, 503."""
        if scope["type"] != "http" or not _has_body(headers := Headers(scope=scope)):
            await self._app(scope, receive, send)
            return
        self._require_length(headers)
        chunks: list[bytes] = []
        try:
            if not await self._read(receive, chunks):
                return  # the client has gone
            body = b"".join(chunks)
            if "json" in headers.get("content-type", "json").lower():
                check_json(body, max_depth=self._max_json_depth, max_values=self._max_json_values)
            await self._app(scope, _replay(body, receive), send)
        finally:
            self.held_bytes -= sum(map(len, chunks))

    def _require_length(self, headers: Headers) -> None:
        """Refuse before anything is read where the headers tell already that it is too much."""
        length = headers.get("content-length", "0")
        if not length.isdecimal() or len(length) > 18 or int(length) > self._max_body_bytes:
            raise self._too_large()
        if self.held_bytes + int(length) > self._max_held_bytes:
            raise _too_many()

    async def _read(self, receive: Receive, chunks: list[bytes]) -> bool:
        """Append the body's pieces to `chunks`; False where the client has gone before its end."""
        size = 0
        try:
            async with asyncio.timeout(self._body_timeout_s):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return False
                    chunk = message.get("body", b"")
                    chunks.append(chunk)
                    size += len(chunk)
                    self.held_bytes += len(chunk)
                    if size > self._max_body_bytes:
                        raise self._too_large()
                    if self.held_bytes > self._max_held_bytes:
                        raise _too_many()
                    if not message.get("more_body", False):
                        return True
        except TimeoutError:
            found = f"The body did not arrive within {self._body_timeout_s:g} s."
            raise Problem(408, "body-too-slow", found, headers=HANG_UP) from None

    def _too_large(self) -> Problem:
        found = f"The body is longer than {self._max_body_bytes:,} bytes."
        return Problem(413, "body-too-large", found, headers=HANG_UP)


def check_json(body: bytes, *, max_depth: int, max_values: int) -> None:
    """Refuse a body that is not UTF-8, or would be much larger or deeper as objects than it looks.

    Whether it is JSON at all is for the parser to say. The time is proportional to the length, and short for a bomb.
    Raises: Problem: 400.
    """
    try:
        body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Problem(400, "not-utf-8", f"The body is not UTF-8: see the byte at offset {error.start}.") from None
    depth = 0
    for count, token in enumerate(TOKEN.finditer(body), start=1):
        if token.lastindex == 1:
            depth += 1
        elif token.lastindex == 2:
            depth -= 1
        if depth > max_depth:
            raise Problem(400, "json-too-deep", f"The body is nested more than {max_depth} deep.")
        if count > max_values:
            raise Problem(400, "json-too-many-values", f"The body has more than {max_values:,} values and separators.")


def _too_many() -> Problem:
    found = "Too many large requests are under way."
    return Problem(503, "bodies-full", found, retry_after_s=2, headers=HANG_UP)


def _has_body(headers: Headers) -> bool:
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives the whole body first, and then whatever else comes (that the client has gone)."""
    is_given = False

    async def receive_again() -> Message:
        nonlocal is_given
        if is_given:
            return await receive()
        is_given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive_again
