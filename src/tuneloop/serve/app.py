"""The FastAPI application: routes, how errors are told, and a description that tools can rely on."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from tuneloop import __version__
from tuneloop.serve.admin import admin_router
from tuneloop.serve.description import describe
from tuneloop.serve.entrance import ASKED, METRICS, OPEN_ROUTES, Entrance, refuse
from tuneloop.serve.guard import OpenGuard
from tuneloop.serve.health import health_router
from tuneloop.serve.limits import RequestLimits
from tuneloop.serve.openai_api import openai_router
from tuneloop.serve.predicting import predict_router
from tuneloop.serve.problems import OPENAI_ROUTES, Problem
from tuneloop.serve.scopes import PathScopes
from tuneloop.serve.service import Service

MakeRouter = Callable[[Service], APIRouter]
ROUTERS: tuple[MakeRouter, ...] = (predict_router, openai_router, admin_router, health_router)
SHOWN_ERRORS = 20
PLAIN_NAME = re.compile(r"[A-Za-z0-9_.\[\], -]{1,64}")


def create_app(service: Service, routers: Sequence[MakeRouter] = ()) -> FastAPI:
    """Return the application of a service; `routers` are further parts of it."""
    app = FastAPI(
        title="tuneloop",
        version=__version__,
        description="A tuned model behind HTTP: `/v1/predict` for documents, OpenAI's API for free text.",
        docs_url=None,  # its pages load scripts from elsewhere; /openapi.json opens in any viewer
        redoc_url=None,
        redirect_slashes=False,
    )
    for make_router in (*ROUTERS, *routers):
        app.include_router(make_router(service))
    settings = service.settings
    app.add_middleware(
        RequestLimits,
        max_body_bytes=settings.max_body_bytes,
        max_held_bytes=settings.limits.max_held_bytes,
        body_timeout_s=settings.limits.body_timeout_s,
        max_json_depth=settings.limits.max_json_depth,
        max_json_values=settings.limits.max_json_values,
    )
    described = describe(app, settings, has_keys=not isinstance(service.guard, OpenGuard))
    open_paths = OPEN_ROUTES if settings.metrics_need_key else {*OPEN_ROUTES, METRICS}
    app.add_middleware(Entrance, service=service, scopes=PathScopes(described["paths"], open_paths))
    _tell_errors(app, service)
    app.openapi = lambda: described  # type: ignore[method-assign]
    return app


def _tell_errors(app: FastAPI, service: Service) -> None:
    def respond(request: Request, problem: Problem) -> Response:
        return refuse(service, problem, request.scope, request.scope[ASKED].request_id)  # type: ignore[return-value]

    @app.exception_handler(Problem)
    async def problem(request: Request, error: Problem) -> Response:
        return respond(request, error)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        return respond(request, _validation_problem(request, error.errors()))

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> Response:
        codes = {400: "unreadable", 404: "no-such-route", 405: "method-not-allowed"}
        details = {404: "There is nothing at this path. /openapi.json describes what there is."}
        detail = details.get(error.status_code, "The request cannot be answered.")
        code = codes.get(error.status_code, "refused")
        return respond(request, Problem(error.status_code, code, detail, headers=error.headers))


def _validation_problem(request: Request, errors: Sequence[Any]) -> Problem:
    """Return what is wrong with a request, without a word of what it says."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json" and not media_type.endswith("+json"):
        return Problem(415, "not-json", "The body has to be JSON, with the header Content-Type: application/json.")
    if any(error["type"] == "json_invalid" for error in errors):
        return Problem(400, "not-json", "The body is not JSON.")
    shown = [{"location": _location(error["loc"]), "message": _message(error)} for error in errors[:SHOWN_ERRORS]]
    if not request.url.path.startswith(OPENAI_ROUTES):
        return Problem(422, "invalid-request", "The request does not have the form that is expected.", errors=shown)
    unknown = next((error for error in errors if error["type"] == "extra_forbidden"), None)
    if unknown is None:
        return Problem(400, "invalid_value", "The request does not have the form that is expected.", errors=shown)
    found = {"location": _location(unknown["loc"]), "message": "is not supported here, and would not be obeyed"}
    return Problem(400, "unsupported_parameter", "A parameter is not supported.", errors=[found])


def _location(keys: Sequence[str | int]) -> str:
    """Return `documents.0`; a name that the client made up is shown only if it is a plain one."""
    names = [str(key) for key in keys if key != "body"]
    return ".".join(name if PLAIN_NAME.fullmatch(name) else "?" for name in names)


def _message(error: Any) -> str:
    return "this field is not known" if error["type"] == "extra_forbidden" else str(error["msg"])
