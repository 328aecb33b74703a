"""From the first request to the last: listening, being ready, draining on SIGTERM, and losing nothing.

On SIGTERM /readyz says no and answers ask for their connection to be closed; after `drain_delay_s` no more is accepted,
what was accepted is answered, the prediction log is written, and the models are freed.
"""

from __future__ import annotations

import asyncio
import logging
import math
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from starlette.types import ASGIApp

from tuneloop.errors import ConfigError
from tuneloop.serve.connections import ConnectionLimits, bounded_protocol
from tuneloop.serve.service import Service

logger = logging.getLogger("tuneloop.serve")

STARTED_POLL_S = 0.01
LOG_TIMEOUT_S = 30.0
SWITCH_INTERVAL_S = 0.0005
"""How long the event loop may keep a lane's thread from going on, and the other way round. Each operation of a model
gives the interpreter up for a moment; with Python's 5 ms it got it back so late that one client had 46 ms instead of 34
(a model of 0.2 million parameters, where everything but its arithmetic shows)."""
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers, which would end the process by the signal."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def bind(host: str, port: int) -> socket.socket:
    """Return a socket bound to an address, not listening yet: nobody gets through before the models are there.

    Raises: ConfigError: the address is not this machine's, or the port is taken or not allowed.
    """
    listener: socket.socket | None = None
    try:
        name = host.strip("[]")
        family, kind, protocol, _, address = socket.getaddrinfo(
            name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        if listener is not None:
            listener.close()
        raise ConfigError(
            f"cannot listen there: {(error.strerror or str(error)).lower()}",
            where=f"serve.host {host}, serve.port {port}",
            hint="Give another --port (0 takes a free one), or end what uses this one.",
        ) from error
    return listener


def url_of(listener: socket.socket) -> str:
    """Return the address of a bound socket as an URL."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run(service: Service, app: ASGIApp, listener: socket.socket, on_ready: Callable[[], None]) -> None:
    """Serve until SIGTERM or SIGINT, drain, and return. Main thread only.

    A second signal ends the drain: requests that are not answered yet get 503.
    """
    handlers, interval_s = {number: signal.getsignal(number) for number in STOP_SIGNALS}, sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    try:
        asyncio.run(_until_signal(service, app, listener, on_ready))
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        sys.setswitchinterval(interval_s)


async def _until_signal(service: Service, app: ASGIApp, listener: socket.socket, on_ready: Callable[[], None]) -> None:
    stop, hurry, loop = asyncio.Event(), asyncio.Event(), asyncio.get_running_loop()

    def on_signal() -> None:
        (hurry if stop.is_set() else stop).set()

    for number in STOP_SIGNALS:
        loop.add_signal_handler(number, on_signal)
    await serve(service, app, listener, on_ready, stop, hurry)


async def serve(
    service: Service,
    app: ASGIApp,
    listener: socket.socket,
    on_ready: Callable[[], None],
    stop: asyncio.Event,
    hurry: asyncio.Event | None = None,
) -> None:
    """Serve until `stop` is set, then drain until all is answered or `hurry` is set.

    The models are closed and the log is written when this returns.
    """
    settings, bounds = service.settings, service.settings.limits
    limits = ConnectionLimits(bounds.header_timeout_s, bounds.body_timeout_s, bounds.max_header_bytes)
    server = _Server(
        uvicorn.Config(
            app,
            loop="asyncio",
            http=bounded_protocol(limits),
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=settings.max_connections,
            timeout_keep_alive=math.ceil(settings.keep_alive_s),
            timeout_graceful_shutdown=math.ceil(settings.drain_s),
        )
    )
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    stopping = asyncio.create_task(stop.wait())
    hurrying = asyncio.create_task((hurry or asyncio.Event()).wait())
    try:
        while not server.started and not serving.done():
            await asyncio.sleep(STARTED_POLL_S)
        if server.started:
            on_ready()
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        service.is_draining = True
        await asyncio.wait({serving, hurrying}, timeout=settings.drain_delay_s, return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = True
        await asyncio.wait({serving, hurrying}, return_when=asyncio.FIRST_COMPLETED)
        for task in () if serving.done() else server.server_state.tasks:
            task.cancel()  # as uvicorn does when the time for the drain is over
        await serving
    finally:
        stopping.cancel()
        hurrying.cancel()
        await asyncio.to_thread(_end, service)


def _end(service: Service) -> None:
    service.models.close()
    state = service.log.close(LOG_TIMEOUT_S)
    if state.waiting or state.trouble:
        logger.error("the prediction log: %d rows not in the store (%s)", state.waiting + state.spooled, state.trouble)
