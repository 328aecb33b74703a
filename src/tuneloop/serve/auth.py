"""The guard of a service with API keys. Keys are checked against memory, which a thread keeps like the store.

So a request never waits for a database; a key that was made, revoked or has changed counts within about a second. While
the store is away, keys that were good stay good for a minute, and after that nobody is let in: a revocation could not
be seen. With the same rhythm processes tell each other, through the store, what each key has used.
"""

from __future__ import annotations

import hmac
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import update

from tuneloop.errors import StorageError
from tuneloop.serve.guard import Caller, Scope
from tuneloop.serve.keys import KEY, KeyFacts, list_keys, mask_keys, secret_hash
from tuneloop.serve.problems import Problem, raised_at
from tuneloop.serve.quotas import WINDOW_S, Allowance, Quotas
from tuneloop.store.database import Database
from tuneloop.store.tables import ApiKey, now

REFRESH_EVERY_S = 1.0
GOOD_WITHOUT_STORE_S = 60.0
NOBODY = secret_hash("nobody")
"""Compared with where there is no such key, so that an unknown id takes as long as a wrong secret."""
logger = logging.getLogger("tuneloop.serve")
LOGGERS = ("uvicorn.access", "uvicorn.error", "uvicorn.asgi", "tuneloop")


UsedElsewhere = Callable[[KeyFacts, int, int], None]
"""Told of a key, and the requests and tokens that other processes have let through since the last time."""


@dataclass(slots=True)
class Use:
    """How often a key was used here since that was last written, and when."""

    at: datetime
    requests: int = 0
    tokens: int = 0

    def add(self, other: Use) -> None:
        """Count another one's, too."""
        self.at, self.requests, self.tokens = (
            max(self.at, other.at),
            self.requests + other.requests,
            self.tokens + other.tokens,
        )


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
        self.on_used_elsewhere: UsedElsewhere = lambda facts, requests, tokens: None
        self._keys: dict[str, KeyFacts] = {}
        self._lock = threading.Lock()
        self._used: dict[str, Use] = {}  # not in the store yet
        self._written: dict[str, Use] = {}  # in the store since the keys were last read
        self._read_at = clock()
        self.refresh()
        self._is_closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="key-ring", daemon=True)
        self._thread.start()

    def refresh(self) -> None:
        """Read all keys again, and tell what was used of them elsewhere. Raises: StorageError."""
        known, elapsed_s = self._keys, self._clock() - self._read_at
        self._keys = {facts.id: facts for facts in list_keys(self._database)}
        self._read_at = self._clock()
        written, self._written = self._written, {}
        share = min(1.0, WINDOW_S / elapsed_s) if elapsed_s > 0 else 1.0  # the rest would have been refilled by now
        for id in known.keys() & self._keys.keys():
            mine = written.get(id, Use(now()))
            requests = self._keys[id].requests_used - known[id].requests_used - mine.requests
            tokens = self._keys[id].tokens_used - known[id].tokens_used - mine.tokens
            if requests > 0 or tokens > 0:
                self.on_used_elsewhere(self._keys[id], round(requests * share), round(tokens * share))

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
        self.note_use(facts.id, 0, 0)
        return facts

    def note_use(self, id: str, requests: int, tokens: int) -> None:
        """Count what a key has used; other processes know it within about a second."""
        with self._lock:
            _count(self._used, {id: Use(now(), requests, tokens)})

    def close(self) -> None:
        """Stop reading the store, and write what was used."""
        self._is_closing.set()
        self._thread.join(self._refresh_every_s + 1)
        try:
            self.write_use()
        except StorageError as error:
            logger.warning("what keys have used last could not be written: %s", error.message)

    def _run(self) -> None:
        while not self._is_closing.wait(self._refresh_every_s):
            for step in (self.refresh, self.write_use):  # reading comes first: writing may have to wait for a lock
                try:
                    step()
                except StorageError:  # `check` says so once it lasts, and what was used is written then
                    continue
                except Exception as error:  # without this thread nobody would be let in after a minute
                    logger.error("%s at %s while keys were kept up to date", type(error).__name__, raised_at(error))

    def write_use(self) -> None:
        """Add what keys have used here to what the store has. Raises: StorageError: then it is left for next time."""
        with self._lock:
            used, self._used = self._used, {}
        if not used:
            return
        try:
            with self._database.writing() as session:
                for id, use in sorted(used.items()):  # in one order, so that no two processes wait for each other
                    more = {"requests_used": ApiKey.requests_used + use.requests}
                    more["tokens_used"] = ApiKey.tokens_used + use.tokens
                    session.execute(update(ApiKey).where(ApiKey.id == id).values(last_used_at=use.at, **more))
        except StorageError:
            with self._lock:
                _count(self._used, used)
            raise
        _count(self._written, used)


def _count(uses: dict[str, Use], more: Mapping[str, Use]) -> None:
    for id, use in more.items():
        if (known := uses.get(id)) is None:
            uses[id] = use
        else:
            known.add(use)


class KeyGuard:
    """A `Guard` that asks for a key, its scopes and its quotas. `default` counts for keys without their own."""

    def __init__(self, ring: KeyRing, default: Allowance, quotas: Quotas | None = None) -> None:
        self._ring, self._default, self._quotas = ring, default, quotas or Quotas()
        ring.on_used_elsewhere = self._take_used_elsewhere

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
        allowance = self._default if facts is None else self._allowance(facts)
        self._quotas.charge(caller.id, allowance, requests, tokens)
        self._ring.note_use(caller.id, requests, tokens)

    def close(self) -> None:
        """Stop watching the store."""
        self._ring.close()

    def _allowance(self, facts: KeyFacts) -> Allowance:
        return Allowance(
            facts.requests_per_minute or self._default.requests_per_minute,
            facts.tokens_per_minute or self._default.tokens_per_minute,
        )

    def _take_used_elsewhere(self, facts: KeyFacts, requests: int, tokens: int) -> None:
        self._quotas.take(facts.id, self._allowance(facts), requests, tokens)


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
