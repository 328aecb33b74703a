"""What a service needs from the rest of the house: models opened by run or export, keys, and the prediction log."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tuneloop.artifacts import Artifact, ArtifactStore
from tuneloop.config.schema import Config
from tuneloop.config.serving import ServedModelConfig
from tuneloop.errors import ConfigError, UsageError
from tuneloop.progress import Progress

if TYPE_CHECKING:
    from fastapi import FastAPI

    from tuneloop.infer.engines.protocol import Engine
    from tuneloop.serve.models import OpenedModel
    from tuneloop.serve.service import Service

DEFAULT_MODEL = ServedModelConfig(name="default")
LOG_TIMEOUT_S = 5.0


class ModelOpener:
    """Opens what the names of a service stand for. Runs on one base model share it in memory."""

    def __init__(self, config: Config, store: ArtifactStore, progress: Progress) -> None:
        self._config, self._store, self._progress = config, store, progress
        self._opened: list[Engine] = []
        self._lock = threading.Lock()

    def __call__(self, source: ServedModelConfig) -> OpenedModel:
        """Return a model, ready to answer.

        Raises: ArtifactError: there is no such run or export, or one that is not calibrated where the settings promise
            what only a calibration can keep; ModelError: it cannot be loaded; UsageError: it is something else.
        """
        from tuneloop.forms import read_form
        from tuneloop.infer.engines.opening import open_engine
        from tuneloop.infer.engines.transformers import TransformersEngine
        from tuneloop.infer.policy import ReviewPolicy
        from tuneloop.loop.stages import find_policy
        from tuneloop.serve.models import OpenedModel

        artifact, serve = self._find(source), self._config.serve
        form = None if source.export is None else read_form(artifact)
        run = artifact if form is None else None
        name = serve.engine if form is None or form.engine == "transformers" else form.engine
        if run is not None:
            policy = find_policy(self._config, run, self._store)
        else:
            policy = None if form is None or form.policy is None else ReviewPolicy.from_dict(form.policy)
        with self._lock:
            self._opened = [engine for engine in self._opened if engine.is_alive()]
            beside = next((engine for engine in self._opened if isinstance(engine, TransformersEngine)), None)
            engine = open_engine(
                self._config,
                name,
                run=run,
                form=form,
                url=serve.engine_url,
                progress=self._progress,
                beside=beside,
            )
            self._opened.append(engine)
        is_embedded = isinstance(engine, TransformersEngine)
        weights = f"base-{id(engine.base)}" if isinstance(engine, TransformersEngine) else None
        return OpenedModel(engine, artifact.id, policy, weights, interleaves=is_embedded)

    def _find(self, source: ServedModelConfig) -> Artifact:
        """Return the run or the export that a name stands for; without either the configuration's own run."""
        from tuneloop.loop.stages import find_dataset, find_run

        wanted, kind = (source.run, "run") if source.run else (source.export, "export")
        if wanted is None:
            dataset = find_dataset(self._config, self._store)
            return find_run(self._config, dataset, self._store, self._progress)
        artifact = self._store.get(wanted)
        if artifact.kind != kind:
            raise UsageError(
                f"{artifact.id} is an artifact of kind {artifact.kind!r}, not {kind!r}",
                where=f"model {source.name}, {kind} {wanted}",
                hint="`tuneloop lineage` lists all artifacts with their kinds.",
            )
        return artifact


@dataclass(frozen=True)
class Opened:
    """A service without models yet, its application, and whether requests need a key."""

    service: Service
    app: FastAPI
    needs_keys: bool


@contextmanager
def open_service(config: Config, store: ArtifactStore, progress: Progress) -> Iterator[Opened]:
    """Yield a service with its keys, log and routes; everything is closed when the block ends.

    Where the store has keys, every request needs one. Without any the service is open, and for this machine only.

    Raises: ConfigError: others could reach it, and there is no key; StorageError: the store cannot be opened.
    """
    from tuneloop.serve.app import create_app
    from tuneloop.serve.feedback import feedback_router
    from tuneloop.serve.guard import OpenGuard
    from tuneloop.serve.keys import list_keys
    from tuneloop.serve.protection import open_guard, open_memory
    from tuneloop.serve.service import make_service
    from tuneloop.store.database import open_database

    settings = config.serve
    with ExitStack() as stack:
        database = stack.enter_context(open_database(config.store))
        needs_keys = bool(list_keys(database))
        if not needs_keys and not settings.is_loopback:
            raise ConfigError(
                f"others can reach {settings.host}, and there is no API key yet",
                where="serve.host",
                hint="Make a key first (`tuneloop keys create --help`), or listen on 127.0.0.1.",
            )
        guard = open_guard(settings.quotas, database) if needs_keys else OpenGuard()
        stack.callback(getattr(guard, "close", _nothing))
        memory = open_memory(settings.log, database, config.store.root)
        stack.callback(memory.log.close, LOG_TIMEOUT_S)
        service = make_service(settings, ModelOpener(config, store, progress), guard, memory.log)
        stack.callback(service.models.close)
        app = create_app(service, [lambda served: feedback_router(served, memory.feedback)])
        yield Opened(service, app, needs_keys)


def _nothing() -> None:
    return
