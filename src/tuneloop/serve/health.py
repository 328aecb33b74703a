"""`/healthz` (the process answers), `/readyz` (send it requests), `/metrics` (Prometheus)."""

from __future__ import annotations

from fastapi import APIRouter, Response

from tuneloop.serve.schema import Health
from tuneloop.serve.scopes import needs
from tuneloop.serve.service import Service

PROMETHEUS_TEXT = "text/plain; version=0.0.4; charset=utf-8"


def health_router(service: Service) -> APIRouter:
    """Return the three routes."""
    router = APIRouter(tags=["operation"])

    @router.get("/healthz")
    async def healthz() -> Health:
        """Tell that the process answers: one that does not should be started again."""
        return Health(status="ok", reasons=[])

    @router.get("/readyz", responses={503: {"model": Health, "description": "It should get no requests now."}})
    async def readyz(response: Response) -> Health:
        """Tell whether requests should be sent here, and if not, why."""
        reasons = service.reasons_unready()
        response.status_code = 503 if reasons else 200
        return Health(status="unavailable" if reasons else "ok", reasons=reasons)

    @router.get(
        "/metrics",
        response_class=Response,
        openapi_extra=needs("admin"),
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def metrics() -> Response:
        """Return the service's figures in Prometheus' text format."""
        service.update_gauges()
        return Response(service.metrics.text(), media_type=PROMETHEUS_TEXT)

    return router
