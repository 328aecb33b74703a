"""The models that are served: a name finds an engine, its review policy and its version; a switch loses no request.

A new version is opened and warmed up beside the old one, takes its place in one step, and the old one is closed when
the last request that had begun with it is answered. Both need memory meanwhile.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tuneloop.config.serving import ServedModelConfig
from tuneloop.errors import ConfigError
from tuneloop.infer.engines.protocol import Engine
from tuneloop.infer.policy import ReviewPolicy
from tuneloop.records import Prediction
from tuneloop.serve.batching import BatchLimits, Lane, OnBatch
from tuneloop.serve.problems import Problem
from tuneloop.serve.watching import Watch
from tuneloop.serve.work import estimated_tokens

logger = logging.getLogger("tuneloop.serve")

WARM_UP = "A short document that nobody sent."
DRAIN_POLL_S = 0.02


@dataclass(frozen=True)
class OpenedModel:
    """What a name stands for once it is loaded. `version` is the id of the run or export.

    Engines with the same `weights` share them, so that only one of them computes at a time; None shares with nobody.
    `interleaves` is True where documents can be answered between two pieces of a generated text.
    """

    engine: Engine
    version: str
    policy: ReviewPolicy | None = None
    weights: str | None = None
    interleaves: bool = False


OpenModel = Callable[[ServedModelConfig], OpenedModel]


class ServedModel:
    """One version of a model in service."""

    def __init__(self, name: str, source: ServedModelConfig, opened: OpenedModel, lane: Lane) -> None:
        self.name, self.source, self.lane = name, source, lane
        self.version, self.policy, self.weights = opened.version, opened.policy, opened.weights
        self.engine, self.interleaves = opened.engine, opened.interleaves
        self.since = int(time.time())
        self.is_up = True
        self.users = 0  # requests that began with it and are not answered yet

    def __repr__(self) -> str:
        return f"ServedModel({self.name!r}, version={self.version!r})"

    def answer(self, texts: Sequence[str]) -> list[Prediction]:
        """Answer documents with calibrated probabilities and routes. Only the lane's thread calls this."""
        predictions = self.engine.predict(texts)
        return predictions if self.policy is None else self.policy.apply(predictions)

    def find_down(self) -> bool:
        """Ask the engine whether it lives; returns whether the model is down now."""
        self.is_up = self.is_up and self.engine.is_alive()
        return not self.is_up

    def warm_up(self) -> None:
        """Answer a document twice: the first time reads the instruction, the second measures the speed."""
        self.answer([WARM_UP])
        started = time.monotonic()
        self.answer([WARM_UP])
        self.lane.speeds["document"].add(estimated_tokens(WARM_UP), time.monotonic() - started)

    def revive(self, engine: Engine) -> None:
        """Go on with a new engine of the same version."""
        self.engine, self.is_up = engine, True
        self.lane.wake()


class ServedModels:
    """All models in service, by name. Safe to use from any thread."""

    def __init__(self, open_model: OpenModel, limits: BatchLimits, on_batch: OnBatch | None = None) -> None:
        self._open_model, self._limits = open_model, limits
        self._on_batch = on_batch or (lambda documents, tokens, seconds: None)
        self._models: dict[str, ServedModel] = {}
        self._aliases: dict[str, str] = {}
        self._watches: dict[ServedModel, Watch] = {}
        self._lock, self._switching = threading.Lock(), threading.Lock()

    def open_all(self, sources: Sequence[ServedModelConfig]) -> None:
        """Open the models of a configuration, in order; the first one answers requests that name none.

        Raises: TuneloopError: one cannot be opened; ConfigError: an alias of nothing.
        """
        for source in sources:
            if source.alias_of is None:
                self.switch(source)
        for source in sources:
            if source.alias_of is not None:
                self.set_alias(source.name, source.alias_of)

    def switch(self, source: ServedModelConfig) -> ServedModel:
        """Open a version, warm it up, and let it take the place of the one with its name; waits for the old to end.

        Returns: the model; its `source` names the version in full, so that an engine that dies comes back as the same.
        Raises: TuneloopError: it cannot be opened; then the old one goes on.
        """
        with self._switching:
            opened = self._open_model(source)
            source = _fixed(source, opened.version)
            model = ServedModel(source.name, source, opened, self._lane_for(opened))
            try:
                model.lane.call(model.warm_up)
            except BaseException:
                self._dispose(model)
                raise
            with self._lock:
                old = self._models.get(source.name)
                self._models[source.name] = model
                self._aliases.pop(source.name, None)
                self._watches[model] = Watch(model, lambda: self._open_model(source).engine)
            if old is not None:
                self._drain(old)
                self._dispose(old)
            return model

    def set_alias(self, name: str, target: str) -> None:
        """Let a name answer as another one does.

        Raises: ConfigError: the other is not there, or the name is a model itself.
        """
        with self._lock:
            if name in self._models or target not in self._models:
                found = f"{name!r} is a model itself" if name in self._models else f"there is no model {target!r}"
                hint = "An alias is a new name for a model that is served."
                raise ConfigError(found, where=f"alias {name}", hint=hint)
            self._aliases[name] = target

    @contextmanager
    def using(self, name: str | None) -> Iterator[ServedModel]:
        """Yield the model of that name (None: the first); it is not closed before the block ends.

        Raises: Problem: 404: there is none.
        """
        with self._lock:
            known = next(iter(self._models), "") if name is None else self._aliases.get(name, name)
            model = self._models.get(known)
            if model is None:
                served = ", ".join([*self._models, *self._aliases])
                raise Problem(404, "model_not_found", f"There is no model of that name. Served are: {served}.")
            model.users += 1
        try:
            yield model
        finally:
            with self._lock:
                model.users -= 1

    def all(self) -> list[ServedModel]:
        """Return every model, the first one first."""
        with self._lock:
            return list(self._models.values())

    def listing(self) -> list[dict[str, Any]]:
        """Return what is known of every name: version, engine, task, aliases, whether it is up, what waits."""
        with self._lock:
            models, aliases = list(self._models.values()), dict(self._aliases)
        return [
            {
                "name": model.name,
                "version": model.version,
                "engine": model.engine.name,
                "task": model.engine.task.kind,
                "labels": len(model.engine.task.labels),
                "calibrated": model.policy is not None,
                "aliases": [alias for alias, target in aliases.items() if target == model.name],
                "up": model.is_up,
                "requests": model.users,
                "since": model.since,
            }
            for model in models
        ]

    def lanes(self) -> list[Lane]:
        """Return every lane once."""
        return list(dict.fromkeys(model.lane for model in self.all()))

    def close(self) -> None:
        """Refuse what waits and free all models."""
        with self._switching:
            with self._lock:
                models = list(self._models.values())
                self._models.clear()
                self._aliases.clear()
            for model in models:
                self._dispose(model)

    def _lane_for(self, opened: OpenedModel) -> Lane:
        shared = (model.lane for model in self.all() if opened.weights and model.weights == opened.weights)
        return next(shared, None) or Lane(self._limits, self._on_batch)

    def _drain(self, model: ServedModel) -> None:
        while True:
            with self._lock:
                if not model.users:
                    return
            time.sleep(DRAIN_POLL_S)

    def _dispose(self, model: ServedModel) -> None:
        watch = self._watches.pop(model, None)
        if watch is not None:
            watch.stop()
        if all(other.lane is not model.lane for other in self.all()):
            model.lane.close()
        model.engine.close()
        logger.info("model %s version %s is closed", model.name, model.version)


def _fixed(source: ServedModelConfig, version: str) -> ServedModelConfig:
    """Return what was opened, by its whole id: the beginning of an id, or no id, may mean something else later."""
    return source.model_copy(update={"run" if source.export is None else "export": version})
