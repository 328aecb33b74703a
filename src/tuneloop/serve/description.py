"""The OpenAPI description: what FastAPI writes, put right where the service does otherwise."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from tuneloop.config.serving import ServeConfig
from tuneloop.serve.entrance import METRICS, OPEN_ROUTES
from tuneloop.serve.problems import OPENAI_ROUTES
from tuneloop.serve.schema import ProblemDetails

KEY = "key"
REQUEST_ID = {"X-Request-Id": {"description": "The request's id.", "schema": {"type": "string"}}}
RETRY_AFTER = {"Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 1}}}


def describe(app: FastAPI, settings: ServeConfig, *, has_keys: bool) -> dict[str, Any]:
    """Return the description of an application."""
    content = app.openapi()
    components = content.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    schemas["ProblemDetails"] = ProblemDetails.model_json_schema()
    for name in ("HTTPValidationError", "ValidationError"):  # FastAPI's own form of errors, which is not ours
        schemas.pop(name, None)
    _describe_limits(schemas, settings)
    if has_keys:
        components["securitySchemes"] = {KEY: {"type": "http", "scheme": "bearer", "description": "An API key."}}
    open_paths = OPEN_ROUTES if settings.metrics_need_key else {*OPEN_ROUTES, METRICS}
    for path, operations in content["paths"].items():
        for operation in operations.values():
            _describe_operation(path, operation)
            if has_keys and path not in open_paths:
                operation["security"] = [{KEY: []}]
    return content


def _describe_limits(schemas: dict[str, Any], settings: ServeConfig) -> None:
    """Write the configured limits into the forms of requests."""
    _form_of(schemas["PredictRequest"]["properties"]["documents"], "array")["maxItems"] = settings.max_documents
    for name in ("ChatRequest", "CompletionRequest"):
        for key in {"max_tokens", "max_completion_tokens"} & schemas[name]["properties"].keys():
            _form_of(schemas[name]["properties"][key], "integer")["maximum"] = settings.max_new_tokens


def _form_of(field: dict[str, Any], kind: str) -> dict[str, Any]:
    """Return the alternative of a field that has this type."""
    alternatives: list[dict[str, Any]] = field["anyOf"]
    return next(form for form in alternatives if form.get("type") == kind)


def _describe_operation(path: str, operation: dict[str, Any]) -> None:
    responses = operation["responses"]
    if path.startswith(OPENAI_ROUTES):
        responses.pop("422", None)  # OpenAI's API calls it 400
    if path in (*OPEN_ROUTES, METRICS):
        responses["400"] = _problem("The request names another host.")
    for status, response in responses.items():
        headers = REQUEST_ID | (RETRY_AFTER if status in ("429", "503") else {})
        response["headers"] = response.get("headers", {}) | headers


def _problem(description: str) -> dict[str, Any]:
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/ProblemDetails"}}}
    return {"description": description, "content": content}
