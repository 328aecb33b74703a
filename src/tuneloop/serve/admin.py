"""`/v1/admin/models`: which models are served, and letting a name stand for another version."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, Request

from tuneloop.config.serving import ServedModelConfig
from tuneloop.errors import TuneloopError
from tuneloop.serve.entrance import asked
from tuneloop.serve.problems import Problem
from tuneloop.serve.schema import PROBLEM_RESPONSES, ModelList, ModelState, SwitchRequest, SwitchToAlias
from tuneloop.serve.service import Service


def admin_router(service: Service) -> APIRouter:
    """Return the routes that need the scope admin."""
    router = APIRouter(prefix="/v1/admin", tags=["admin"], responses=PROBLEM_RESPONSES)

    @router.get("/models")
    async def models(request: Request) -> ModelList:
        """List the models in service."""
        asked(request, service, "admin")
        return _listing(service)

    @router.post("/models", responses={409: {"description": "It cannot be opened; what was served goes on."}})
    async def switch(request: Request, body: SwitchRequest) -> ModelList:
        """Let a name stand for another version, without a dropped request; answers when the old one has ended.

        The new version is loaded and warmed up first. If the caller leaves meanwhile, the switch goes on.
        """
        asked(request, service, "admin")
        await asyncio.shield(asyncio.create_task(asyncio.to_thread(_switch, service, body)))
        return _listing(service)

    return router


def _switch(service: Service, body: SwitchRequest) -> None:
    try:
        if isinstance(body, SwitchToAlias):
            service.models.set_alias(body.name, body.alias_of)
        else:
            service.models.switch(ServedModelConfig.model_validate(body.model_dump()))
    except TuneloopError as error:
        raise Problem(409, "cannot-switch", f"{error.message}. {error.hint}") from error


def _listing(service: Service) -> ModelList:
    return ModelList(models=[ModelState(**state) for state in service.models.listing()])
