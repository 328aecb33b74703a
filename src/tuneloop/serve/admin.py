"""`/v1/admin/models`: which models are served, and letting a name stand for another version."""

from __future__ import annotations

import asyncio
import threading

from fastapi import APIRouter, Request

from tuneloop.config.serving import ServedModelConfig
from tuneloop.errors import StorageError, TuneloopError
from tuneloop.serve.entrance import asked
from tuneloop.serve.problems import Problem
from tuneloop.serve.schema import PROBLEM_RESPONSES, ModelList, ModelState, SwitchRequest, SwitchToAlias
from tuneloop.serve.scopes import needs
from tuneloop.serve.service import Service


def admin_router(service: Service) -> APIRouter:
    """Return the routes that need the scope admin."""
    router = APIRouter(prefix="/v1/admin", tags=["admin"], responses=PROBLEM_RESPONSES)
    one_at_a_time = threading.Lock()  # so that what is remembered last was switched last

    def switch_in_turn(body: SwitchRequest, caller: str) -> None:
        with one_at_a_time:
            _switch(service, body, caller)

    @router.get("/models", openapi_extra=needs("admin"))
    async def models() -> ModelList:
        """List the models in service."""
        return _listing(service)

    @router.post(
        "/models",
        responses={409: {"description": "It cannot be opened; what was served goes on."}},
        openapi_extra=needs("admin"),
    )
    async def switch(request: Request, body: SwitchRequest) -> ModelList:
        """Let a name stand for another version, without a dropped request; answers when the old one has ended.

        The new version is loaded and warmed up first. If the caller leaves meanwhile, the switch goes on. It holds
        after a restart, too, until the configuration names something else.
        """
        caller = asked(request).caller.id
        await asyncio.shield(asyncio.create_task(asyncio.to_thread(switch_in_turn, body, caller)))
        return _listing(service)

    return router


def _switch(service: Service, body: SwitchRequest, caller: str) -> None:
    source = ServedModelConfig.model_validate(body.model_dump())
    try:
        if isinstance(body, SwitchToAlias):
            service.models.set_alias(body.name, body.alias_of)
        else:
            source = service.models.switch(source).source
    except TuneloopError as error:
        raise Problem(409, "cannot-switch", f"{error.message}. {error.hint}") from error
    try:
        service.remember_switch(source, caller)
    except StorageError as error:
        found = "It is switched, but the store does not answer: a restart would undo it. Send it again to have it kept."
        raise Problem(503, "switch-not-kept", found, retry_after_s=5) from error


def _listing(service: Service) -> ModelList:
    return ModelList(models=[ModelState(**state) for state in service.models.listing()])
