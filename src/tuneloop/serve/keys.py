"""API keys in the store: made, listed, rotated and revoked. The secret is shown once and stored nowhere.

A key reads `tl_<id>_<secret>`: the id is public (it is in the log and in every list), the secret has 256 random bits.
Its SHA-256 is what the store keeps: nothing slower is needed where nothing can be guessed.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal, cast

from sqlalchemy import select
from sqlalchemy.orm import Session

from tuneloop.errors import UsageError
from tuneloop.serve.guard import SCOPES, Scope
from tuneloop.store.database import Database, storable
from tuneloop.store.tables import ApiKey, now

KEY = re.compile(r"tl_([a-z2-7]{8})_([a-z2-7]{52})")
ID_BYTES, SECRET_BYTES = 5, 32
LIST = "`tuneloop keys list` shows all keys with their ids."


@dataclass(frozen=True)
class KeyFacts:
    """What is known of a key. Moments are in UTC; quotas are per minute, None is the configuration's.

    `requests_used` and `tokens_used` count what was charged since the key was made.
    """

    id: str
    name: str
    scopes: tuple[Scope, ...]
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None
    replaces: str | None
    requests_per_minute: int | None
    tokens_per_minute: int | None
    requests_used: int
    tokens_used: int
    hash: str = field(repr=False)

    def status(self, at: datetime) -> Literal["active", "expired", "revoked"]:
        """Return whether the key is good at that moment."""
        if self.revoked_at is not None and self.revoked_at <= at:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= at else "active"


@dataclass(frozen=True)
class NewKey:
    """A key that was just made: `secret` is the whole text that its holder sends, and nobody sees again."""

    facts: KeyFacts
    secret: str = field(repr=False)


def create_key(
    database: Database,
    name: str,
    scopes: Iterable[Scope],
    *,
    expires_at: datetime | None = None,
    requests_per_minute: int | None = None,
    tokens_per_minute: int | None = None,
) -> NewKey:
    """Make a key and return it with its secret.

    Raises: UsageError: no scope, an empty name, or an end in the past; StorageError.
    """
    chosen = [scope for scope in SCOPES if scope in set(scopes)]
    if not chosen or not name.strip():
        raise UsageError(
            "a key needs a name and at least one scope",
            where=f"tuneloop keys create {name!r}",
            hint=f"Say what it is for and what it may do: --scope {'|'.join(SCOPES)} (several times for several).",
        )
    row = ApiKey(
        name=storable(name.strip()),
        scopes=" ".join(chosen),
        expires_at=expires_at,
        requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
    )
    _require_future(expires_at)
    with database.writing() as session:
        return _add(session, row)


def rotate_key(database: Database, word: str, *, overlap: timedelta, expires_at: datetime | None = None) -> NewKey:
    """Make a key with the name, scopes and quotas of another one, which stays good for `overlap` and then expires.

    Without `expires_at` the new key lives as long as the old one was made for.
    Raises: UsageError: there is no such key, or it is not good any more; StorageError.
    """
    _require_future(expires_at)
    with database.writing() as session:
        old, moment = _find(session, word), now()
        status = facts_of(old).status(moment)
        if status != "active":
            hint = "Make a new one with `tuneloop keys create`."
            raise UsageError(
                f"the key {old.id} ({old.name}) is {status}", where=f"tuneloop keys rotate {word}", hint=hint
            )
        if expires_at is None and old.expires_at is not None:
            expires_at = moment + (old.expires_at - old.created_at)
        row = ApiKey(
            name=old.name,
            scopes=old.scopes,
            expires_at=expires_at,
            replaces=old.id,
            requests_per_minute=old.requests_per_minute,
            tokens_per_minute=old.tokens_per_minute,
        )
        ends = moment + overlap
        old.expires_at = ends if old.expires_at is None else min(old.expires_at, ends)
        return _add(session, row)


def revoke_key(database: Database, word: str) -> KeyFacts:
    """End a key now; a running service refuses it within seconds. Revoking it again changes nothing.

    Raises: UsageError: there is no such key; StorageError.
    """
    with database.writing() as session:
        row = _find(session, word)
        row.revoked_at = row.revoked_at or now()
        session.flush()
        return facts_of(row)


def list_keys(database: Database) -> list[KeyFacts]:
    """Return all keys, oldest first. Raises: StorageError."""
    with database.reading() as session:
        return [facts_of(row) for row in session.scalars(select(ApiKey).order_by(ApiKey.created_at, ApiKey.id))]


def find_key(database: Database, word: str) -> KeyFacts:
    """Return the key with this id, beginning of an id, or name. Raises: UsageError: none, or several; StorageError."""
    with database.reading() as session:
        return facts_of(_find(session, word))


def secret_hash(secret: str) -> str:
    """Return what the store keeps of a secret."""
    return hashlib.sha256(secret.encode("ascii")).hexdigest()


def mask_keys(text: str) -> str:
    """Return a text with the secret of every key in it made invisible."""
    return KEY.sub(r"tl_\1_***", text)


def facts_of(row: ApiKey) -> KeyFacts:
    """Return what a row says."""
    return KeyFacts(
        row.id,
        row.name,
        tuple(cast("Scope", scope) for scope in row.scopes.split()),
        row.created_at,
        row.expires_at,
        row.revoked_at,
        row.last_used_at,
        row.replaces,
        row.requests_per_minute,
        row.tokens_per_minute,
        row.requests_used,
        row.tokens_used,
        row.hash,
    )


def _add(session: Session, row: ApiKey) -> NewKey:
    row.id = _random(ID_BYTES)
    while session.get(ApiKey, row.id) is not None:
        row.id = _random(ID_BYTES)
    secret = _random(SECRET_BYTES)
    row.hash = secret_hash(secret)
    row.created_at = now()
    session.add(row)
    session.flush()
    return NewKey(facts_of(row), f"tl_{row.id}_{secret}")


def _find(session: Session, word: str) -> ApiKey:
    """Return the one key that a word means: by id, by the beginning of an id, or by the name of a key that is good."""
    rows, moment = list(session.scalars(select(ApiKey).order_by(ApiKey.created_at))), now()
    by_id = [row for row in rows if word and row.id.startswith(word)]
    by_name = [row for row in rows if row.name == word]
    good = [row for row in by_name if facts_of(row).status(moment) == "active"]
    found = [row for row in by_id if row.id == word] or good or by_name or by_id
    if len(found) == 1:
        return found[0]
    what = f"{len(found)} keys are called {word!r}" if found else f"there is no key {word!r}"
    hint = f"Name one by its id. {LIST}" if found else LIST
    raise UsageError(what, where=f"tuneloop keys: {word}", hint=hint)


def _require_future(expires_at: datetime | None) -> None:
    if expires_at is not None and expires_at <= now():
        hint = "Give a time from now, as --expires 90d, or a day to come, as --expires 2030-12-31."
        raise UsageError("the key would be expired from the start", where=f"--expires {expires_at:%Y-%m-%d}", hint=hint)


def _random(size: int) -> str:
    """Return so many random bytes in letters that a double click selects together (RFC 4648 base32, lower case)."""
    return base64.b32encode(secrets.token_bytes(size)).decode("ascii").rstrip("=").lower()
