"""Refusals and failures as HTTP says them: RFC 9457 problem details, or OpenAI's error object under its routes.

A problem never repeats what the client sent, and is written in ASCII: neither a document nor half a surrogate pair can
leave with an error.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from starlette.responses import Response

OPENAI_ROUTES = ("/v1/chat/completions", "/v1/completions", "/v1/models")
PROBLEM_TYPE = "urn:tuneloop:problem:"
CLIENT_GONE, CLIENT_GONE_TITLE = 499, "Client Closed Request"  # nobody reads it, but the figures tell it apart


class Problem(Exception):
    """A request, or one document of it, that is not answered.

    `code` is a short fixed word for programs (`queue-full`), `detail` one sentence for people. `retry_after_s` becomes
    the header Retry-After; `headers` are sent as they are; `errors` say what is wrong where (422 only).
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        retry_after_s: float | None = None,
        headers: Mapping[str, str] | None = None,
        errors: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        super().__init__(f"{status} {code}: {detail}")
        self.status, self.code, self.detail = status, code, detail
        self.retry_after_s = retry_after_s
        self.headers = dict(headers or {})
        self.errors = [dict(error) for error in errors]

    def to_dict(self, request_id: str | None = None) -> dict[str, Any]:
        """Return the problem details object (RFC 9457, section 3)."""
        content = {
            "type": PROBLEM_TYPE + self.code,
            "title": CLIENT_GONE_TITLE if self.status == CLIENT_GONE else HTTPStatus(self.status).phrase,
            "status": self.status,
            "code": self.code,
            "detail": self.detail,
            "request_id": request_id,
            "errors": self.errors,
        }
        return {name: value for name, value in content.items() if value not in (None, [])}

    def to_openai(self) -> dict[str, Any]:
        """Return the error object that OpenAI's clients read."""
        first = self.errors[0] if self.errors else {}
        where = first.get("location")
        detail = f"{self.detail} {where}: {first['message']}." if where else self.detail
        return {
            "error": {"message": detail, "type": _openai_type(self.status), "param": where, "code": self.code},
        }

    def response(self, path: str, request_id: str | None = None) -> Response:
        """Return the answer to a request for `path`."""
        headers = dict(self.headers)
        if self.retry_after_s is not None:
            headers["Retry-After"] = str(max(1, math.ceil(self.retry_after_s)))
        is_openai = path.startswith(OPENAI_ROUTES)
        content = self.to_openai() if is_openai else self.to_dict(request_id)
        media_type = "application/json" if is_openai else "application/problem+json"
        return Response(json.dumps(content).encode("ascii"), self.status, headers, media_type)


def _openai_type(status: int) -> str:
    known = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
    return known.get(status, "server_error" if status >= 500 else "invalid_request_error")


def too_late() -> Problem:
    """Return what a request is told whose time is over."""
    return Problem(504, "deadline-exceeded", "There was no answer in the time that the request had.")


def not_answered() -> Problem:
    """Return what a document is told that the model failed on."""
    return Problem(500, "not-answered", "The model failed on this document.")


def raised_at(error: Exception) -> str:
    """Return file and line where an error was raised, for a log: its message may quote a document."""
    trace, where = error.__traceback__, "?"
    while trace is not None:
        where, trace = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}", trace.tb_next
    return where
