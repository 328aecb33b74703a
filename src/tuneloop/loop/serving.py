"""What a service needs from the rest of the house: models opened by run or export, keys, and the prediction log."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tuneloop.artifacts import Artifact, ArtifactStore
from tuneloop.config.schema import Config
from tuneloop.config.serving import EngineName, ServeConfig, ServedModelConfig
from tuneloop.errors import ConfigError
from tuneloop.progress import Progress
from tuneloop.runs import run_with

if TYPE_CHECKING:
    from fastapi import FastAPI

    from tuneloop.forms import ExportedForm
    from tuneloop.infer.engines.protocol import Engine
    from tuneloop.serve.models import OpenedModel
    from tuneloop.serve.service import Service
    from tuneloop.serve.switches import SwitchBook

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
            what only a calibration can keep; ModelError: it cannot be loaded; UsageError: it is something else, or it
            is calibrated and the engine does not tell what that needs.
        """
        from tuneloop.forms import read_form
        from tuneloop.infer.engines.opening import open_engine, require_calibrated_answers
        from tuneloop.infer.engines.transformers import TransformersEngine
        from tuneloop.infer.policy import ReviewPolicy
        from tuneloop.loop.stages import find_policy
        from tuneloop.serve.models import OpenedModel

        artifact = self._find(source)
        form = None if source.export is None else read_form(artifact)
        run = artifact if form is None else None
        name, url = _engine_of(self._config.serve, form)
        if run is not None:
            policy = find_policy(self._config, run, self._store)
        else:
            policy = None if form is None or form.policy is None else ReviewPolicy.from_dict(form.policy)
        if policy is not None:
            require_calibrated_answers(self._config, name, artifact.id, policy)
        with self._lock:
            self._opened = [engine for engine in self._opened if engine.is_alive()]
            beside = next((engine for engine in self._opened if isinstance(engine, TransformersEngine)), None)
            engine = open_engine(
                self._config,
                name,
                run=run,
                form=form,
                url=url,
                progress=self._progress,
                beside=beside,
            )
            self._opened.append(engine)
        is_embedded = isinstance(engine, TransformersEngine)
        weights = f"base-{id(engine.base)}" if isinstance(engine, TransformersEngine) else None
        return OpenedModel(engine, artifact.id, policy, weights, interleaves=is_embedded)

    def resolve(self, source: ServedModelConfig) -> ServedModelConfig:
        """Return the same with the whole id of its run or export. Raises: as calling does, but nothing is loaded."""
        if source.alias_of is not None:
            return source
        return source.model_copy(update={"run" if source.export is None else "export": self._find(source).id})

    def _find(self, source: ServedModelConfig) -> Artifact:
        """Return the run or the export that a name stands for; without either the configuration's own run."""
        from tuneloop.forms import read_form
        from tuneloop.loop.stages import find_dataset, find_run

        if source.run is not None:
            return run_with(self._store, source.run, f"model {source.name}, run {source.run}")
        if source.export is not None:
            artifact = self._store.get(source.export)
            read_form(artifact)
            return artifact
        dataset = find_dataset(self._config, self._store)
        return find_run(self._config, dataset, self._store, self._progress)


def _engine_of(serve: ServeConfig, form: ExportedForm | None) -> tuple[EngineName, str | None]:
    """Return the engine for a run or a form, and its address where it has one.

    A GGUF file is computed by llama.cpp in this process, unless the settings say that it is asked for at an address.
    """
    if form is None or form.engine == "transformers" or serve.engine == "openai":
        return serve.engine, serve.engine_url
    return form.engine, serve.engine_url if serve.engine == form.engine else None


@dataclass(frozen=True)
class Opened:
    """A service without models yet, its application, and whether requests need a key."""

    service: Service
    app: FastAPI
    needs_keys: bool
    opener: ModelOpener
    switches: SwitchBook

    def choose_models(
        self, told: Sequence[ServedModelConfig], *, is_explicit: bool
    ) -> tuple[list[ServedModelConfig], list[str]]:
        """Return what to open and what to say about it; see `starting.choose_models`."""
        from tuneloop.loop.starting import choose_models

        return choose_models(told, self.switches, self.opener.resolve, is_explicit=is_explicit)

    def forget_switches(self) -> None:
        """Let every name be as configured again. Raises: StorageError."""
        self.switches.forget(list(self.switches.latest()), "command line")


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
    from tuneloop.serve.switches import SwitchBook
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
        opener, switches = ModelOpener(config, store, progress), SwitchBook(database)
        service = make_service(settings, opener, guard, memory.log)
        service.remember_switch = switches.record
        stack.callback(service.models.close)
        app = create_app(service, [lambda served: feedback_router(served, memory.feedback)])
        yield Opened(service, app, needs_keys, opener, switches)


def _nothing() -> None:
    return
