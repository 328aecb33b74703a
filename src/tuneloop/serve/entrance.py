"""What every request passes: it gets an id, its host, key and scope are checked, and how it ended is counted.

All of that comes before the body is read: who may not ask learns nothing about what would be a good request.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

from fastapi import Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tuneloop.config.serving import is_loopback
from tuneloop.serve.guard import Caller
from tuneloop.serve.problems import Problem, raised_at
from tuneloop.serve.scopes import PathScopes
from tuneloop.serve.service import Service

logger = logging.getLogger("tuneloop.serve")

OPEN_ROUTES = {"/healthz", "/readyz", "/openapi.json"}
METRICS = "/metrics"
ASKED = "tuneloop.asked"
UNKNOWN_ROUTE = "unknown"
IDS_DRAWN = 256  # at once


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that was let in: its id, who asks, and when it began (time.monotonic)."""

    request_id: str
    caller: Caller
    began: float


def asked(request: Request) -> Asked:
    """Return who asks; that they may was found out before the route was called."""
    who: Asked = request.scope[ASKED]
    return who


def accepted(request: Request, service: Service) -> Asked:
    """Return who asks for an answer. Raises: Problem: 503: the prediction log cannot take more."""
    if service.log.is_full:
        raise Problem(503, "log-full", "The prediction log has to catch up first.", retry_after_s=5)
    return asked(request)


async def disconnected(receive: Callable[[], Awaitable[Message]]) -> None:
    """Return when the caller has closed the connection. The request's body has to be read before."""
    while (await receive())["type"] != "http.disconnect":
        pass


class Entrance:
    """The ASGI middleware around everything. `scopes` tells which scope each path needs."""

    def __init__(self, app: ASGIApp, service: Service, scopes: PathScopes) -> None:
        self._app, self._service, self._scopes = app, service, scopes
        self._hosts = {host.lower() for host in service.settings.allowed_hosts}
        self._ids = _request_ids()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let one request through, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id, began, status = next(self._ids), time.monotonic(), 0

        async def send_marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                self._mark(MutableHeaders(scope=message), request_id)
            await send(message)

        self._service.open_requests += 1
        try:
            scope[ASKED] = Asked(request_id, self._admitted(scope), began)
            await self._app(scope, receive, send_marked)
        except asyncio.CancelledError:  # by the server, when the time for the drain is over
            if status:
                raise
            late = Problem(503, "closing", "The service is stopping.", retry_after_s=1)
            await refuse(self._service, late, scope, request_id)(scope, receive, send_marked)
        except Exception as error:
            problem = error if isinstance(error, Problem) else _unexpected(error)
            if not status:  # what has begun is cut off by the server; its own log would quote the error
                await refuse(self._service, problem, scope, request_id)(scope, receive, send_marked)
        finally:
            self._service.open_requests -= 1
            self._count(scope, status, time.monotonic() - began)

    def _admitted(self, scope: Scope) -> Caller:
        """Return who asks. Raises: Problem: 400: for another host; 401: no valid key; 403: without the scope."""
        headers, path = Headers(scope=scope), scope["path"]
        if not self._is_for_us(headers.get("host", "")):
            raise Problem(400, "wrong-host", "This service does not answer for the host that the request names.")
        if path in OPEN_ROUTES or (path == METRICS and not self._service.settings.metrics_need_key):
            return Caller("", frozenset())
        caller, needed = self._service.guard.authenticate(headers), self._scopes.of(path)
        if needed is not None:
            self._service.guard.require(caller, needed)
        return caller

    def _is_for_us(self, host: str) -> bool:
        name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
        if self._hosts:
            return name.lower() in self._hosts
        return not self._service.settings.is_loopback or is_loopback(name)

    def _mark(self, headers: MutableHeaders, request_id: str) -> None:
        headers["X-Request-Id"] = request_id
        headers["Cache-Control"] = "no-store"
        headers["X-Content-Type-Options"] = "nosniff"
        if self._service.is_draining:
            headers["Connection"] = "close"  # so that clients and proxies take another copy for the next request

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", UNKNOWN_ROUTE)
        method = scope["method"] if route != UNKNOWN_ROUTE else UNKNOWN_ROUTE
        self._service.metrics.requests.labels(route, method, str(status)).inc()
        self._service.metrics.request_seconds.labels(route).observe(seconds)


def _request_ids() -> Iterator[str]:
    """Yield ids of 128 random bits; a system call for each would take longer than much else that a request needs."""
    while True:
        drawn = secrets.token_bytes(16 * IDS_DRAWN).hex()
        yield from (drawn[start : start + 32] for start in range(0, len(drawn), 32))


def refuse(service: Service, problem: Problem, scope: Scope, request_id: str) -> ASGIApp:
    """Count a problem, and return the response that tells it."""
    service.metrics.refusals.labels(problem.code).inc()
    return problem.response(scope["path"], request_id)


def _unexpected(error: Exception) -> Problem:
    logger.error("%s at %s", type(error).__name__, raised_at(error))
    return Problem(500, "internal-error", "The service failed on this request. Its log says where.")
