"""Generated text on its way out: pieces from a worker thread, a response that notices when nobody listens."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tuneloop.infer.engines.protocol import Piece
from tuneloop.serve.entrance import disconnected
from tuneloop.serve.problems import Problem, too_late
from tuneloop.serve.work import GenerationWork

LATE = 0.05  # seconds that a worker has to report a deadline itself


async def pieces_of(work: GenerationWork) -> AsyncIterator[Piece]:
    """Yield pieces as they come; the last one has a finish reason.

    Raises: Problem: the model failed, or the deadline is over.
    """
    while True:
        left_s = work.deadline + LATE - time.monotonic()
        try:
            piece = await asyncio.wait_for(work.pieces.get(), max(left_s, 0))
        except TimeoutError:
            raise too_late() from None
        if isinstance(piece, Problem):
            raise piece
        if piece.finish_reason == "cancelled":
            raise too_late()
        yield piece
        if piece.finish_reason is not None:
            return


class EventStream(Response):
    """Server-sent events. `on_end` is called in any case: all is sent, the caller has gone, or the server stops."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[bytes], on_end: Callable[[], None]) -> None:
        super().__init__()
        del self.headers["content-length"]
        self._events, self._on_end = events, on_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all events, or stop when the caller has gone."""
        sending = asyncio.ensure_future(self._send(send))
        gone = asyncio.ensure_future(disconnected(receive))
        try:
            await asyncio.wait({sending, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            sending.cancel()
            self._on_end()
        if sending.done() and not sending.cancelled():
            sending.result()

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for event in self._events:
            await send({"type": "http.response.body", "body": event, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
