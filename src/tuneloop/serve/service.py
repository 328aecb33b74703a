"""What every route needs, in one place: models, guard, log, figures, settings, and whether the service is stopping."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tuneloop.config.serving import ServeConfig, ServedModelConfig
from tuneloop.serve.batching import BatchLimits
from tuneloop.serve.guard import Guard, OpenGuard
from tuneloop.serve.log import NoLog, PredictionLog
from tuneloop.serve.metrics import Metrics
from tuneloop.serve.models import OpenModel, ServedModels

RememberSwitch = Callable[[ServedModelConfig, str], None]
"""Keeps what a name was switched to, and by whom, for the next start. Raises: StorageError."""


@dataclass
class Service:
    """A service; `start` makes one. It is changed only by its lifecycle."""

    settings: ServeConfig
    models: ServedModels
    guard: Guard = field(default_factory=OpenGuard)
    log: PredictionLog = field(default_factory=NoLog)
    metrics: Metrics = field(default_factory=Metrics)
    remember_switch: RememberSwitch = lambda source, caller: None
    is_draining: bool = False
    open_requests: int = 0

    def reasons_unready(self) -> list[str]:
        """Return why the service should get no requests now; empty where it should."""
        reasons = ["the service is stopping"] if self.is_draining else []
        models = self.models.all()
        reasons += [] if models else ["no model is loaded"]
        reasons += [f"the engine of model {model.name} is down" for model in models if not model.is_up]
        reasons += ["the prediction log is full"] if self.log.is_full else []
        return reasons

    def update_gauges(self) -> None:
        """Bring the figures that are states, not counts, up to date."""
        metrics, lanes, log = self.metrics, self.models.lanes(), self.log.state
        metrics.waiting_documents.set(sum(lane.waiting_documents for lane in lanes))
        metrics.waiting_tokens.set(sum(lane.waiting_tokens for lane in lanes))
        metrics.draining.set(self.is_draining)
        metrics.model_up.clear()
        for model in self.models.all():
            metrics.model_up.labels(model.name, model.version).set(model.is_up)
        for name in ("waiting", "written", "spooled", "dropped"):
            metrics.log_rows.labels(name).set(getattr(log, name))


def make_service(
    settings: ServeConfig, open_model: OpenModel, guard: Guard | None = None, log: PredictionLog | None = None
) -> Service:
    """Return a service without models yet: `service.models.open_all` opens them.

    Args: guard: who may ask (None: everybody, for loopback only); log: what keeps the answers (None: nothing does).
    """
    metrics = Metrics()
    limits = BatchLimits(
        settings.max_batch_documents,
        settings.max_batch_tokens,
        settings.max_waiting_documents,
        settings.max_waiting_tokens,
    )
    models = ServedModels(open_model, limits, metrics.on_batch)
    return Service(settings, models, guard or OpenGuard(), log or NoLog(), metrics)
