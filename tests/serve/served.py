"""Answers as the service would log them."""

from __future__ import annotations

from datetime import UTC, datetime

from tuneloop.records import Entity, Prediction, Route
from tuneloop.serve.log import Served


def answer(
    request_id: str,
    item: int,
    *,
    text: str = "a document",
    label: str = "cat",
    route: Route = "auto",
    model: str = "default",
    at: datetime | None = None,
    entities: tuple[Entity, ...] | None = None,
) -> Served:
    """Return one answered document."""
    return Served(
        request_id=request_id,
        item=item,
        at=at or datetime.now(UTC),
        caller="local",
        model=model,
        version="v1",
        text=text,
        prediction=Prediction(label=label, probability=0.9, entities=entities, route=route),
        latency_s=0.01,
        tokens=5,
    )
