"""Who may ask what, and how much: the protocol that the routes use, and the guard of a service without keys.

All methods run on the event loop for every request, so they answer from memory; a store is read in the background.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, get_args

Scope = Literal["predict", "feedback", "review", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
LOCAL = "local"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. `id` is the key's id (never its secret), or `local` where the service has no keys."""

    id: str
    scopes: frozenset[Scope]


class Guard(Protocol):
    """Decides about requests. Everything that it refuses is a `serve.problems.Problem`."""

    def authenticate(self, headers: Mapping[str, str]) -> Caller:
        """Return who asks, from the request's headers (`Authorization: Bearer tl_…`; names are looked up in any case).

        Raises: Problem: 401, with WWW-Authenticate: there is no key, or not a valid one.
        """

    def require(self, caller: Caller, scope: Scope) -> None:
        """Return if the caller has the scope. Raises: Problem: 403: it has not."""

    def charge(self, caller: Caller, requests: int, tokens: int) -> None:
        """Take this much from the caller's quotas, or nothing.

        Raises: Problem: 429, with `retry_after_s`: that much is not left now.
        """


class OpenGuard:
    """Lets everybody do everything: only for a service that nobody but this machine can reach."""

    def authenticate(self, headers: Mapping[str, str]) -> Caller:
        """Return the local caller, whatever the headers say."""
        return Caller(LOCAL, frozenset(SCOPES))

    def require(self, caller: Caller, scope: Scope) -> None:
        """Allow it."""

    def charge(self, caller: Caller, requests: int, tokens: int) -> None:
        """Charge nothing."""
