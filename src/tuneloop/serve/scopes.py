"""Which scope a path needs: said where a route is made, so that it can be checked before a body is read.

A route that says nothing and is not listed as open is a mistake, which is found when the application is made.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from tuneloop.serve.guard import SCOPES, Scope

EXTENSION = "x-scope"  # in the description, where clients may read it, too


def needs(scope: Scope) -> dict[str, str]:
    """Return the `openapi_extra` of a route that needs this scope."""
    return {EXTENSION: scope}


class PathScopes:
    """The scopes of all paths of a service.

    Args: paths: those of the OpenAPI description; open_paths: what nobody needs a scope for.
    Raises: ValueError: a route is neither open nor says what it needs, or two methods of a path need different scopes.
    """

    def __init__(self, paths: Mapping[str, Mapping[str, Any]], open_paths: Collection[str]) -> None:
        self._plain: dict[str, Scope] = {}
        self._patterns: list[tuple[re.Pattern[str], Scope]] = []
        for path, operations in paths.items():
            if path in open_paths:
                continue
            named = {operation.get(EXTENSION) for operation in operations.values()}
            scope = next((scope for scope in SCOPES if named == {scope}), None)
            if scope is None:
                raise ValueError(f"the routes of {path} need one scope, not {named}")
            if "{" in path:
                self._patterns.append((re.compile(re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(path))), scope))
            else:
                self._plain[path] = scope

    def of(self, path: str) -> Scope | None:
        """Return the scope that a request for this path needs; None where there is no such route, or an open one."""
        scope = self._plain.get(path)
        if scope is None:
            scope = next((scope for pattern, scope in self._patterns if pattern.fullmatch(path)), None)
        return scope
