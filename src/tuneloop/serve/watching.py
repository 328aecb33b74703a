"""Watching engines: one that has died is noticed at once, started again with growing pauses, and put back to work."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from tuneloop.errors import TuneloopError
from tuneloop.infer.engines.protocol import Engine

if TYPE_CHECKING:
    from tuneloop.serve.models import ServedModel

logger = logging.getLogger("tuneloop.serve")

POLL_S = 0.25
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0


class Watch:
    """A thread that asks one model's engine whether it lives."""

    def __init__(self, model: ServedModel, reopen: Callable[[], Engine]) -> None:
        self._model, self._reopen = model, reopen
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tuneloop-watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; an engine that it is starting is closed when it is there."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(POLL_S):
            if self._model.find_down():
                self._restart()

    def _restart(self) -> None:
        model, pause_s = self._model, FIRST_PAUSE_S
        logger.error("the engine of model %s has died; starting it again", model.name)
        with contextlib.suppress(Exception):  # what is left of a dead engine may fail in any way
            model.engine.close()
        while not self._stopped.is_set():
            try:
                engine = self._reopen()
            except Exception as error:
                reason = error.message if isinstance(error, TuneloopError) else type(error).__name__
                logger.error("model %s cannot be started (%s); again in %g s", model.name, reason, pause_s)
                self._stopped.wait(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            else:
                self._put_to_work(engine)
                return

    def _put_to_work(self, engine: Engine) -> None:
        if self._stopped.is_set():
            engine.close()
            return
        self._model.revive(engine)
        logger.warning("the engine of model %s is up again", self._model.name)
