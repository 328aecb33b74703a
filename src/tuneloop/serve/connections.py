"""Connections that cannot be held open by sending slowly: uvicorn's HTTP protocol with limits on receiving a request.

uvicorn 0.54 limits only how long a connection may be idle between requests, and any byte starts that anew; httptools
collects a header of any length. A middleware cannot help: it is called when the headers are complete.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

GRACE_S = 5.0
"""Beyond the body's time, in which a middleware can still answer 408 or whatever it refuses."""


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """How long the headers and the body of a request may take, and how long the headers may be."""

    header_timeout_s: float
    body_timeout_s: float
    max_header_bytes: int


class BoundedProtocol(HttpToolsProtocol):
    """One connection, which is closed where a request does not arrive in time. `bounded_protocol` sets the limits."""

    limits: ClassVar[ConnectionLimits]
    _timer: asyncio.TimerHandle | None = None
    _is_in_headers = True
    _header_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._wait(self.limits.header_timeout_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take in some bytes; headers that are too long get 400."""
        if self._is_in_headers:
            self._header_bytes += len(data)
        super().data_received(data)
        if self._is_in_headers and self._header_bytes > self.limits.max_header_bytes:
            self._stop_waiting()
            self.send_400_response("The headers are too long.")

    def on_message_begin(self) -> None:
        """Begin to wait for the end of the headers."""
        super().on_message_begin()
        self._is_in_headers, self._header_bytes = True, 0
        self._wait(self.limits.header_timeout_s)

    def on_headers_complete(self) -> None:
        """Begin to wait for the end of the body. Raises: ValueError, which makes uvicorn answer 400: too long."""
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > self.limits.max_header_bytes:
            raise ValueError("the headers are too long")
        self._is_in_headers = False
        super().on_headers_complete()
        self._wait(self.limits.body_timeout_s + GRACE_S)

    def on_message_complete(self) -> None:
        """Stop waiting: the request is there."""
        self._stop_waiting()
        super().on_message_complete()

    def _wait(self, seconds: float) -> None:
        self._stop_waiting()
        self._timer = self.loop.call_later(seconds, self._give_up, seconds)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self, seconds: float) -> None:
        """Close the connection, unless an earlier request on it is still being answered."""
        is_answering = self.cycle is not None and not self.cycle.response_complete
        if self.pipeline or (self._is_in_headers and is_answering):
            self._wait(seconds)
        else:
            self.transport.close()


def bounded_protocol(limits: ConnectionLimits) -> type[BoundedProtocol]:
    """Return the protocol class for `uvicorn.Config(http=…)`."""
    return type("BoundedProtocol", (BoundedProtocol,), {"limits": limits})
