from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import update

from tuneloop.config.schema import StoreConfig
from tuneloop.errors import StorageError, UsageError
from tuneloop.serve import auth
from tuneloop.serve.auth import KeyGuard, KeyRing, mask_keys_in_logs
from tuneloop.serve.guard import Caller
from tuneloop.serve.keys import create_key, list_keys, mask_keys, revoke_key, rotate_key
from tuneloop.serve.problems import Problem
from tuneloop.serve.quotas import Allowance, Quotas
from tuneloop.store.database import Database, open_database
from tuneloop.store.tables import ApiKey


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with open_database(StoreConfig(root=tmp_path)) as opened:
        yield opened


@pytest.fixture
def ring(database: Database) -> Iterator[KeyRing]:
    """A ring that looks at the store every 20 ms."""
    opened = KeyRing(database, refresh_every_s=0.02)
    yield opened
    opened.close()


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def status(guard: KeyGuard, headers: dict[str, str]) -> int:
    try:
        guard.authenticate(headers)
    except Problem as problem:
        return problem.status
    return 200


def until(check: Callable[[], bool]) -> None:
    ends = time.monotonic() + 20
    while not check():
        assert time.monotonic() < ends
        time.sleep(0.01)


def test_a_key_is_known_soon_after_it_was_made_and_unknown_soon_after_it_was_revoked(
    database: Database, ring: KeyRing
) -> None:
    guard = KeyGuard(ring, Allowance())
    made = create_key(database, "x", ["predict"])
    until(lambda: status(guard, bearer(made.secret)) == 200)
    assert guard.authenticate(bearer(made.secret)) == Caller(made.facts.id, frozenset({"predict"}))
    replaced = rotate_key(database, "x", overlap=timedelta(hours=1))
    until(lambda: status(guard, bearer(replaced.secret)) == 200)
    assert status(guard, bearer(made.secret)) == 200  # for an hour, both are good
    revoke_key(database, made.facts.id)
    until(lambda: status(guard, bearer(made.secret)) == 401)
    assert status(guard, bearer(replaced.secret)) == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": ""},
        {"authorization": "Bearer"},
        {"authorization": "Basic dGw6eA=="},
        {"authorization": "Bearer tl_aaaaaaaa_" + "a" * 52},
        {"authorization": "Bearer " + "x" * 100_000},
        {"authorization": "Bearer tl_é_ÿ"},
    ],
)
def test_what_is_no_key_is_refused_with_a_challenge(ring: KeyRing, headers: dict[str, str]) -> None:
    with pytest.raises(Problem) as caught:
        KeyGuard(ring, Allowance()).authenticate(headers)
    assert (caught.value.status, caught.value.code) == (401, "unauthenticated")
    assert caught.value.headers["WWW-Authenticate"].startswith("Bearer")


def test_the_right_id_with_a_wrong_secret_is_refused(database: Database) -> None:
    made, other = create_key(database, "x", ["predict"]), create_key(database, "y", ["admin"])
    ring = KeyRing(database)
    mixed = made.secret[:12] + other.secret[12:]
    with pytest.raises(Problem, match="not known"):
        ring.check(mixed)
    assert ring.check(made.secret).id == made.facts.id
    ring.close()


def test_an_expired_key_is_refused_and_says_so_only_to_who_has_its_secret(database: Database) -> None:
    made = create_key(database, "x", ["predict"], expires_at=datetime.now(UTC) + timedelta(hours=1))
    with database.writing() as session:
        session.execute(update(ApiKey).values(expires_at=datetime.now(UTC) - timedelta(seconds=1)))
    ring = KeyRing(database)
    with pytest.raises(Problem, match="is expired"):
        ring.check(made.secret)
    with pytest.raises(Problem, match="not known"):
        ring.check(made.secret[:-4] + "aaaa")
    ring.close()


def test_a_scope_that_is_missing_is_403_and_scopes_do_not_include_each_other(ring: KeyRing) -> None:
    guard = KeyGuard(ring, Allowance())
    guard.require(Caller("k", frozenset({"admin"})), "admin")
    with pytest.raises(Problem) as caught:
        guard.require(Caller("k", frozenset({"admin"})), "predict")
    assert (caught.value.status, caught.value.code) == (403, "scope-missing")
    assert 'scope="predict"' in caught.value.headers["WWW-Authenticate"]


def test_a_keys_own_quota_goes_before_the_configurations(database: Database) -> None:
    own = create_key(database, "own", ["predict"], requests_per_minute=2)
    plain = create_key(database, "plain", ["predict"])
    ring = KeyRing(database)
    guard = KeyGuard(ring, Allowance(requests_per_minute=1))
    for caller, allowed in ((own.facts.id, 2), (plain.facts.id, 1)):
        for _ in range(allowed):
            guard.charge(Caller(caller, frozenset()), 1, 0)
        with pytest.raises(Problem, match="429"):
            guard.charge(Caller(caller, frozenset()), 1, 0)
    guard.close()


def test_keys_stay_good_while_the_store_is_away_for_a_moment_but_not_for_long(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, clock = create_key(database, "x", ["predict"]), [0.0]
    ring = KeyRing(database, refresh_every_s=0.01, good_without_store_s=60, clock=lambda: clock[0])
    failed: list[int] = []

    def away(database: Database) -> list[object]:
        failed.append(1)
        raise StorageError("gone", where="x", hint="y")

    monkeypatch.setattr(auth, "list_keys", away)
    until(lambda: len(failed) > 1)
    clock[0] = 59.0
    assert ring.check(made.secret).name == "x"
    clock[0] = 61.0
    with pytest.raises(Problem, match="503 keys-unavailable"):
        ring.check(made.secret)
    monkeypatch.undo()
    until(lambda: ring._read_at == 61.0)
    assert ring.check(made.secret).name == "x"
    ring.close()


def test_the_store_learns_when_a_key_was_used(database: Database) -> None:
    made = create_key(database, "x", ["predict"])
    ring = KeyRing(database)
    ring.check(made.secret)
    ring.close()
    (key,) = list_keys(database)
    assert key.last_used_at is not None
    assert abs(key.last_used_at - datetime.now(UTC)) < timedelta(minutes=1)


def test_no_log_line_shows_a_key(database: Database, caplog: pytest.LogCaptureFixture) -> None:
    secret = create_key(database, "x", ["predict"]).secret
    mask_keys_in_logs()
    mask_keys_in_logs()
    logger = logging.getLogger("uvicorn.access")
    logger.propagate = True
    with caplog.at_level(logging.INFO, "uvicorn.access"):
        logger.info('%s - "%s %s HTTP/%s" %d', "127.0.0.1:9", "GET", f"/v1/models?key={secret}", "1.1", 401)
        logger.info(f"odd {secret}")
    assert secret.split("_")[2] not in caplog.text
    assert f"{secret[:12]}***" in caplog.text
    assert mask_keys(f"a {secret}, b") == f"a {secret[:12]}***, b"


def test_a_key_needs_a_name_a_scope_and_a_future(database: Database) -> None:
    with pytest.raises(UsageError, match="at least one scope"):
        create_key(database, "x", [])
    with pytest.raises(UsageError, match="a name"):
        create_key(database, "  ", ["predict"])
    with pytest.raises(UsageError, match="expired from the start"):
        create_key(database, "x", ["predict"], expires_at=datetime(2020, 1, 1, tzinfo=UTC))
    assert list_keys(database) == []


def test_a_word_that_means_no_key_or_several_is_refused(database: Database) -> None:
    create_key(database, "x", ["predict"])
    create_key(database, "x", ["predict"])
    for word, found in (("nothing", "no key"), ("x", "2 keys are called"), ("", "no key")):
        with pytest.raises(UsageError, match=found) as caught:
            revoke_key(database, word)
        assert "tuneloop keys list" in caught.value.hint


def test_processes_that_share_a_store_share_the_quota_of_a_key(database: Database) -> None:
    secret = create_key(database, "k", ["predict"], requests_per_minute=10, tokens_per_minute=1000).secret
    here, there = (KeyRing(database, refresh_every_s=60) for _ in range(2))
    clock = [0.0]
    guards = [KeyGuard(ring, Allowance(), Quotas(lambda: clock[0])) for ring in (here, there)]
    caller = guards[0].authenticate(bearer(secret))
    for _ in range(6):
        guards[0].charge(caller, 1, 100)
    here.write_use()
    for _ in range(2):  # nothing is taken twice
        there.refresh()
        here.refresh()
    for _ in range(4):
        guards[1].charge(caller, 1, 100)
    for guard in guards[::-1]:
        there.write_use()
        here.refresh()
        with pytest.raises(Problem) as refused:
            guard.charge(caller, 1, 100)
        assert refused.value.status == 429
        assert refused.value.retry_after_s == pytest.approx(6.0)
    clock[0] = 6.0
    guards[1].charge(caller, 1, 100)
    here.close()
    there.close()
    (facts,) = list_keys(database)
    assert (facts.requests_used, facts.tokens_used) == (11, 1100)


def test_what_was_used_while_the_store_was_away_is_written_afterwards(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = create_key(database, "k", ["predict"]).secret
    ring = KeyRing(database, refresh_every_s=60)
    guard = KeyGuard(ring, Allowance())
    caller = guard.authenticate(bearer(secret))
    guard.charge(caller, 1, 5)

    def away(self: Database) -> None:
        raise StorageError("the store is away", where="x", hint="y")

    with monkeypatch.context() as broken:
        broken.setattr(Database, "writing", away)
        with pytest.raises(StorageError):
            ring.write_use()
    guard.charge(caller, 1, 7)
    ring.close()
    (facts,) = list_keys(database)
    assert (facts.requests_used, facts.tokens_used) == (2, 12)


def test_a_mistake_while_keys_are_read_does_not_end_the_watch_over_them(
    database: Database, ring: KeyRing, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(database: Database) -> None:
        raise ValueError("secret")

    with monkeypatch.context() as patched:
        patched.setattr(auth, "list_keys", broken)
        until(lambda: "ValueError at" in caplog.text)
    secret = create_key(database, "k", ["predict"]).secret
    until(lambda: status(KeyGuard(ring, Allowance()), bearer(secret)) == 200)
    assert "secret" not in caplog.text
