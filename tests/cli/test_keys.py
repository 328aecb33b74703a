from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import refusal_of
from tuneloop.cli.times import time_ago, time_to_come
from tuneloop.serve.keys import KEY

Run = Callable[..., Any]


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def keys_of(tuneloop: Run) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(tuneloop("keys", "list", "--json").out)["keys"]
    return found


def test_a_key_is_shown_when_it_is_made_and_never_again(tuneloop: Run) -> None:
    made = tuneloop("keys", "create", "billing", "--scope", "predict", "--expires", "90d")
    assert made.code == 0, made.err
    secret = made.out.split("\n")[0]
    assert KEY.fullmatch(secret)
    assert "shown once" in made.out
    shown = tuneloop("keys", "list")
    assert "billing" in shown.out
    assert secret.split("_")[1] in shown.out
    assert secret.split("_")[2] not in shown.out + tuneloop("keys", "list", "--json").out
    assert all(secret.split("_")[2].encode() not in path.read_bytes() for path in Path().rglob("*") if path.is_file())
    (key,) = keys_of(tuneloop)
    assert (key["status"], key["scopes"]) == ("active", ["predict"])
    ends = datetime.fromisoformat(key["expires_at"])
    assert abs(ends - datetime.now(UTC) - timedelta(days=90)) < timedelta(minutes=5)


def test_a_key_is_rotated_and_revoked_by_its_name(tuneloop: Run) -> None:
    old = json.loads(tuneloop("keys", "create", "web", "--scope", "predict", "--scope", "feedback", "--json").out)
    new = json.loads(tuneloop("keys", "rotate", "web", "--overlap", "7d", "--json").out)
    assert (new["replaces"], new["scopes"]) == (old["id"], ["predict", "feedback"])
    assert new["key"] != old["key"]
    assert tuneloop("keys", "revoke", old["id"][:6]).code == 0
    assert [key["status"] for key in keys_of(tuneloop)] == ["revoked", "active"]
    assert f"{new['id']} (web) is revoked" in tuneloop("keys", "revoke", "web").out


def test_a_dry_run_changes_nothing(tuneloop: Run) -> None:
    assert "would be made" in tuneloop("keys", "create", "a", "--scope", "admin", "--dry-run").out
    assert keys_of(tuneloop) == []
    tuneloop("keys", "create", "a", "--scope", "admin")
    assert "would be replaced" in tuneloop("keys", "rotate", "a", "--dry-run").out
    assert "would be revoked" in tuneloop("keys", "revoke", "a", "--dry-run").out
    assert [key["status"] for key in keys_of(tuneloop)] == ["active"]


@pytest.mark.parametrize(
    ("words", "found", "advice"),
    [
        (["create", "a", "--scope", "predic"], "no scope 'predic'", "Did you mean 'predict'?"),
        (["create", "a", "--scope", "predict", "--expires", "soon"], "'soon' is not a time", "2030-12-31"),
        (["create", "a", "--scope", "predict", "--expires", "2020-01-01"], "expired from the start", "90d"),
        (["create", "a"], "Missing option '--scope'", "--help"),
        (["revoke", "nobody"], "no key 'nobody'", "tuneloop keys list"),
        (["rotate", "nobody", "--overlap", "2030-12-31"], "not a time", "24h"),
    ],
)
def test_what_cannot_be_done_is_explained(tuneloop: Run, words: list[str], found: str, advice: str) -> None:
    refusal = refusal_of(tuneloop("keys", *words))
    assert refusal.code == 2
    assert found in refusal.what
    assert advice in refusal.do


def test_times_are_spans_or_days_and_the_last_day_counts_whole() -> None:
    now = datetime.now(UTC)
    assert abs(time_to_come("2w", "--expires") - now - timedelta(days=14)) < timedelta(minutes=1)
    assert abs(now - timedelta(minutes=30) - time_ago("30m", "--since")) < timedelta(minutes=1)
    assert time_to_come("2030-12-31", "--expires") == datetime(2031, 1, 1, tzinfo=UTC)
    assert time_ago("2026-01-31", "--since") == datetime(2026, 1, 31, tzinfo=UTC)
    assert time_ago("2026-01-31T10:00+02:00", "--since") == datetime(2026, 1, 31, 8, tzinfo=UTC)
