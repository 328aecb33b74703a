"""What the log keeps of chats and completions."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.serve.keyword_engine import KeywordEngine
from tests.serve.running import Running, running
from tuneloop.config.protection import LogConfig
from tuneloop.config.schema import StoreConfig
from tuneloop.serve.log_export import export_row
from tuneloop.serve.log_queries import LogFilter, newest
from tuneloop.serve.protection import open_memory
from tuneloop.serve.retention import remove_texts
from tuneloop.store.database import Database, open_database
from tuneloop.store.tables import ServedPrediction

SAID = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": 'Write\nann@example.org "now"'}]
CHAT = {"model": "default", "messages": SAID}


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with open_database(StoreConfig(root=tmp_path)) as opened:
        yield opened


def ask(service: Running, path: str, body: dict[str, Any]) -> str:
    with service.client() as client:
        answer = client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.headers["X-Request-Id"]


def logged(database: Database, *requests: tuple[str, dict[str, Any]], **settings: Any) -> list[ServedPrediction]:
    """Return the rows of these requests, in their order."""
    memory = open_memory(LogConfig(**settings), database, Path("unused"))
    with running(KeywordEngine(words=["to", " bob@example.org"]), log=memory.log) as service:
        ids = [ask(service, path, body) for path, body in requests]
        assert memory.log.flush(20)
    rows = {one.row.request_id: one.row for one in newest(database, LogFilter(), 100)}
    return [rows[id] for id in ids if id in rows]


def test_chats_and_completions_are_logged_whole_or_streamed_alike(database: Database) -> None:
    completion = {"model": "default", "prompt": "Once", "max_tokens": 1}
    whole, streamed, plain = logged(
        database,
        ("/v1/chat/completions", CHAT),
        ("/v1/chat/completions", CHAT | {"stream": True}),
        ("/v1/completions", completion),
    )
    for row in (whole, streamed):
        assert (row.kind, json.loads(row.text or ""), row.answer) == ("chat", SAID, "to bob@example.org")
        assert (row.label, row.reason, row.caller, row.version) == (None, "stop", "local", "v1")
        assert row.tokens > 3
    assert (plain.kind, plain.text, plain.answer, plain.reason) == ("completion", "Once", "to", "length")


def test_masks_leave_the_messages_of_a_chat_readable(database: Database) -> None:
    (row,) = logged(database, ("/v1/chat/completions", CHAT), redact="mask")
    assert [turn["content"] for turn in json.loads(row.text or "")] == ["Be brief.", 'Write\n[EMAIL] "now"']
    assert row.answer == "to [EMAIL]"


@pytest.mark.parametrize(("redact", "has_hash"), [("hash", True), ("drop", False)])
def test_nothing_of_a_text_is_kept_where_the_policy_says_so(database: Database, redact: str, has_hash: bool) -> None:
    (row,) = logged(database, ("/v1/chat/completions", CHAT), redact=redact)
    assert (row.text, row.answer, row.text_sha256 is not None) == (None, None, has_hash)


def test_what_is_not_sampled_is_not_logged(database: Database) -> None:
    assert logged(database, ("/v1/chat/completions", CHAT), sample=0.0) == []


@pytest.mark.parametrize("containing", ['Write\nann@example.org "now"', "bob@example.org"])
def test_a_prompt_or_an_answer_that_somebody_wants_forgotten_is_found(database: Database, containing: str) -> None:
    logged(
        database, ("/v1/chat/completions", CHAT), ("/v1/completions", {"model": "default", "prompt": "bob@example.org"})
    )
    remove_texts(database, LogFilter(containing=containing))
    rows = newest(database, LogFilter(kind="chat"), 5)
    assert [(one.row.text, one.row.answer) for one in rows] == [(None, None)]
    assert export_row(rows[0])["probability"] is None


def test_a_text_that_its_caller_did_not_wait_for_is_logged_as_far_as_it_went(database: Database) -> None:
    memory = open_memory(LogConfig(), database, Path("unused"))
    engine = KeywordEngine()
    with running(engine, log=memory.log) as service, service.client() as client:
        engine._pieces = _held(engine)  # type: ignore[method-assign]
        with client.stream("POST", "/v1/chat/completions", json=CHAT | {"stream": True}) as stream:
            next(stream.iter_lines())
        until = time.monotonic() + 10
        while not (found := newest(database, LogFilter(), 1)):
            assert time.monotonic() < until
            time.sleep(0.02)
    assert (found[0].row.answer, found[0].row.reason) == ("once", "cut-off")


def _held(engine: KeywordEngine) -> Any:
    pieces = engine._pieces

    def one_then_wait(sampling: Any, is_cancelled: Any) -> Any:
        for piece in pieces(sampling, is_cancelled):
            yield piece
            engine.gate.clear()

    return one_then_wait
