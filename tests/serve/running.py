"""A real service on loopback for a test: uvicorn in a thread, on a free port, stopped when the block ends."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from tuneloop.config.serving import ServeConfig, ServedModelConfig
from tuneloop.errors import ModelError
from tuneloop.infer.engines.protocol import Engine
from tuneloop.infer.policy import ReviewPolicy
from tuneloop.serve.app import MakeRouter, create_app
from tuneloop.serve.guard import Guard
from tuneloop.serve.lifecycle import bind, serve, url_of
from tuneloop.serve.log import PredictionLog
from tuneloop.serve.models import OpenedModel, OpenModel
from tuneloop.serve.service import Service, make_service

DEFAULT = ServedModelConfig(name="default", run="v1")


def opening(engines: Mapping[str, Engine], policy: ReviewPolicy | None = None) -> OpenModel:
    """Return what opens models: `run` is the name of the engine, and the version."""

    def open_model(source: ServedModelConfig) -> OpenedModel:
        run = source.run or ""
        if run not in engines:
            raise ModelError("there is no such run", where=f"run {run}", hint="Train one.")
        return OpenedModel(engines[run], run, policy, interleaves=True)

    return open_model


@dataclass(frozen=True)
class Running:
    """A service that answers at `url`. `stop` begins the drain, `hurry` cuts it short; `ended` is set at its end."""

    url: str
    service: Service
    stop: Callable[[], object]
    hurry: Callable[[], object]
    ended: threading.Event

    def client(self, **settings: Any) -> httpx.Client:
        """Return a client of the service."""
        return httpx.Client(base_url=self.url, timeout=20, trust_env=False, verify=False, **settings)

    def get(self, path: str) -> httpx.Response:
        """Get a path."""
        with self.client() as client:
            return client.get(path)

    def predict(self, documents: str | Sequence[str], **more: Any) -> httpx.Response:
        """Ask for answers."""
        with self.client() as client:
            return client.post("/v1/predict", json={"documents": documents, **more})


@contextmanager
def running(
    engines: Mapping[str, Engine] | Engine,
    models: Sequence[ServedModelConfig] = (DEFAULT,),
    *,
    guard: Guard | None = None,
    log: PredictionLog | None = None,
    policy: ReviewPolicy | None = None,
    routers: Sequence[MakeRouter] = (),
    **settings: Any,
) -> Iterator[Running]:
    """Serve engines by name (one alone is `v1`) until the block ends."""
    known = engines if isinstance(engines, Mapping) else {"v1": engines}
    service = make_service(ServeConfig(port=0, **settings), opening(known, policy), guard, log)
    service.models.open_all(models)
    listener = bind("127.0.0.1", 0)
    ready, ended = threading.Event(), threading.Event()
    stop: list[Callable[[], object]] = []

    async def main() -> None:
        loop, stopping, hurrying = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
        stop.append(lambda: loop.call_soon_threadsafe(stopping.set))
        stop.append(lambda: loop.call_soon_threadsafe(hurrying.set))
        await serve(service, create_app(service, routers), listener, ready.set, stopping, hurrying)

    def run() -> None:
        try:
            asyncio.run(main())
        finally:
            ended.set()
            ready.set()

    thread = threading.Thread(target=run)
    thread.start()
    assert ready.wait(20)
    assert not ended.is_set()
    try:
        yield Running(url_of(listener), service, lambda: stop[0](), lambda: stop[1](), ended)
    finally:
        if not ended.is_set():
            stop[0]()
        for engine in known.values():
            getattr(engine, "gate", threading.Event()).set()
        thread.join(20)
        assert ended.is_set()
