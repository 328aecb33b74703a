"""The guard of a service with API keys. Keys are checked against memory, which a thread keeps like the store.

So a request never waits for a database; a key that was made, revoked or has changed counts within about a second. While
the store is away, keys that were good stay good for a minute, and after that nobody is let in: a revocation could not
be seen.
"""

from __future__ import annotations

import hmac
import logging
import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime

from sqlalchemy import update

from tuneloop.errors import StorageError
from tuneloop.serve.guard import Caller, Scope
from tuneloop.serve.keys import KEY, KeyFacts, list_keys, mask_keys, secret_hash
from tuneloop.serve.problems import Problem
from tuneloop.serve.quotas import Allowance, Quotas
from tuneloop.store.database import Database
from tuneloop.store.tables import ApiKey, now

REFRESH_EVERY_S = 1.0
GOOD_WITHOUT_STORE_S = 60.0
NOTE_USE_EVERY_S = 60.0
NOBODY = secret_hash("nobody")
"""Compared with where there is no such key, so that an unknown id takes as long as a wrong secret."""
LOGGERS = ("uvicorn.access", "uvicorn.error", "uvicorn.asgi", "tuneloop")


class KeyRing:
    """All keys of the store, in memory. `close` it when the service ends.

    Args: refresh_every_s: how long a change in the store may take to count; good_without_store_s: how long keys are
        believed when the store does not answer.
    Raises: StorageError: the keys cannot be read at the start.
    """

    def __init__(
        self,
        database: Database,
        *,
        refresh_every_s: float = REFRESH_EVERY_S,
        good_without_store_s: float = GOOD_WITHOUT_STORE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database, self._clock = database, clock
        self._refresh_every_s, self._good_without_store_s = refresh_every_s, good_without_store_s
        self._keys: dict[str, KeyFacts] = {}
        self._used: dict[str, datetime] = {}
        self._used_noted_at = clock()
        self.refresh()
        self._is_closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="key-ring", daemon=True)
        self._thread.start()

    def refresh(self) -> None:
        """Read all keys again. Raises: StorageError."""
        self._keys = {facts.id: facts for facts in list_keys(self._database)}
        self._read_at = self._clock()

    def find(self, id: str) -> KeyFacts | None:
        """Return what is known of a key."""
        return self._keys.get(id)

    def check(self, presented: str) -> KeyFacts:
        """Return the key that was presented, in the same time whether or not there is one of that id.

        Raises: Problem: 401: it is not known, expired or revoked; 503: that cannot be told, the store is away.
        """
        matched = KEY.fullmatch(presented)
        id, secret = matched.groups() if matched else ("", "")
        facts = self._keys.get(id)
        is_right = hmac.compare_digest(secret_hash(secret), facts.hash if facts else NOBODY)
        if not is_right or facts is None:
            raise unauthenticated("The key is not known.", error="invalid_token")
        if self._clock() - self._read_at > self._good_without_store_s:
            detail = "The store of keys does not answer, so that no key can be checked."
            raise Problem(503, "keys-unavailable", detail, retry_after_s=5)
        status = facts.status(now())
        if status != "active":
            raise unauthenticated(f"The key {facts.id} is {status}.", error="invalid_token")
        self._used[facts.id] = now()
        return facts

    def close(self) -> None:
        """Stop reading the store, and note when each key was used last."""
        self._is_closing.set()
        self._thread.join(self._refresh_every_s + 1)
        self._note_use()

    def _run(self) -> None:
        while not self._is_closing.wait(self._refresh_every_s):
            try:
                self.refresh()
            except StorageError:  # `check` says so once it lasts
                continue
            if self._clock() - self._used_noted_at >= NOTE_USE_EVERY_S:
                self._note_use()

    def _note_use(self) -> None:
        """Write when keys were used last; what cannot be written now is left for the next time."""
        used, self._used = self._used, {}
        self._used_noted_at = self._clock()
        if not used:
            return
        try:
            with self._database.writing() as session:
                for id, at in used.items():
                    session.execute(update(ApiKey).where(ApiKey.id == id).values(last_used_at=at))
        except StorageError:
            self._used = {**used, **self._used}


class KeyGuard:
    """A `Guard` that asks for a key, its scopes and its quotas. `default` counts for keys without their own."""

    def __init__(self, ring: KeyRing, default: Allowance, quotas: Quotas | None = None) -> None:
        self._ring, self._default, self._quotas = ring, default, quotas or Quotas()

    def authenticate(self, headers: Mapping[str, str]) -> Caller:
        """Return who asks. Raises: Problem: 401: no key, or not a good one; 503: the store of keys is away."""
        scheme, _, presented = headers.get("authorization", "").partition(" ")
        if not presented or scheme.lower() != "bearer":
            raise unauthenticated("This needs an API key, in the header Authorization: Bearer tl_…")
        facts = self._ring.check(presented.strip())
        return Caller(facts.id, frozenset(facts.scopes))

    def require(self, caller: Caller, scope: Scope) -> None:
        """Return if the caller's key has the scope. Raises: Problem: 403: it has not."""
        if scope not in caller.scopes:
            granted = ", ".join(sorted(caller.scopes))
            raise Problem(
                403,
                "scope-missing",
                f"This needs a key with the scope {scope}; the key {caller.id} has {granted}.",
                headers={"WWW-Authenticate": f'Bearer realm="tuneloop", error="insufficient_scope", scope="{scope}"'},
            )

    def charge(self, caller: Caller, requests: int, tokens: int) -> None:
        """Take this much from the key's quotas, or nothing. Raises: Problem: 429: not so much is left now."""
        facts = self._ring.find(caller.id)
        allowance = self._default
        if facts is not None:
            allowance = Allowance(
                facts.requests_per_minute or allowance.requests_per_minute,
                facts.tokens_per_minute or allowance.tokens_per_minute,
            )
        self._quotas.charge(caller.id, allowance, requests, tokens)

    def close(self) -> None:
        """Stop watching the store."""
        self._ring.close()


def unauthenticated(detail: str, error: str = "") -> Problem:
    """Return the refusal of someone who has not shown who they are (RFC 6750, section 3)."""
    challenge = 'Bearer realm="tuneloop"' + (f', error="{error}"' if error else "")
    return Problem(401, "unauthenticated", detail, headers={"WWW-Authenticate": challenge})


class _KeyMask(logging.Filter):
    """Takes secrets out of what is logged: someone may put a key into an address."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg = mask_keys(str(record.msg))
        if isinstance(record.args, tuple):  # uvicorn's own formatter reads them one by one
            record.args = tuple(mask_keys(value) if isinstance(value, str) else value for value in record.args)
        return True


def mask_keys_in_logs() -> None:
    """Let no log of the server show a secret. Safe to call more than once."""
    for name in LOGGERS:
        logger = logging.getLogger(name)
        if not any(isinstance(known, _KeyMask) for known in logger.filters):
            logger.addFilter(_KeyMask())
