from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPOSITORY
from tests.serve.served import answer
from tuneloop.config.schema import StoreConfig
from tuneloop.errors import StorageError
from tuneloop.serve import log_writer
from tuneloop.serve.log_queries import LogFilter, count_log, read_log
from tuneloop.serve.log_rows import insert_rows, row_of
from tuneloop.serve.log_writer import StoreLog
from tuneloop.serve.redaction import RedactionPolicy
from tuneloop.serve.spool import spool, spooled
from tuneloop.store.database import Database, open_database

KEEP_ALL = RedactionPolicy()
PROCESS = Path(__file__).with_name("log_process.py")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with open_database(StoreConfig(root=tmp_path)) as opened:
        yield opened


@pytest.fixture
def store_away(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bool], None]]:
    """A switch: while it is on, no row can be written."""
    really, away = insert_rows, threading.Event()

    def insert(database: Database, rows: Sequence[Any]) -> None:
        if away.is_set():
            raise StorageError("the database cannot be used", where="x", hint="y")
        really(database, rows)

    monkeypatch.setattr(log_writer, "insert_rows", insert)
    monkeypatch.setattr(log_writer, "FIRST_PAUSE_S", 0.01)
    yield lambda is_away: away.set() if is_away else away.clear()
    away.clear()


def ids(database: Database) -> list[str]:
    return [one.row.request_id for page in read_log(database, LogFilter()) for one in page]


def until(check: Callable[[], bool]) -> None:
    ends = time.monotonic() + 20
    while not check():
        assert time.monotonic() < ends
        time.sleep(0.005)


def test_a_flush_waits_for_what_was_recorded_before(database: Database, tmp_path: Path) -> None:
    log = StoreLog(database, KEEP_ALL, tmp_path / "spool", write_every_s=30)
    log.record([answer("r1", 0), answer("r1", 1)])
    assert log.flush(20)
    assert ids(database) == ["r1", "r1"]
    assert log.flush(0)
    log.close(20)


def test_while_the_store_is_away_rows_wait_and_the_log_is_full_and_then_all_are_written(
    database: Database, tmp_path: Path, store_away: Callable[[bool], None]
) -> None:
    log = StoreLog(database, KEEP_ALL, tmp_path / "spool", max_waiting_rows=3, write_every_s=0.01)
    store_away(True)
    for number in range(5):
        log.record([answer(f"r{number}", 0)])
    until(lambda: log.state.trouble != "")
    assert log.is_full
    assert log.state.waiting == 5  # what was answered is never refused
    assert not log.flush(0.05)
    store_away(False)
    assert log.flush(20)
    assert log.state.waiting == 0
    assert ids(database) == [f"r{number}" for number in range(5)]
    assert log.close(20).trouble == ""


def test_a_log_that_may_drop_never_is_full_and_counts_what_it_drops(
    database: Database, tmp_path: Path, store_away: Callable[[bool], None]
) -> None:
    log = StoreLog(database, KEEP_ALL, tmp_path / "spool", max_waiting_rows=3, when_full="drop", write_every_s=0.01)
    store_away(True)
    log.record([answer("a", item) for item in range(5)])
    log.record([answer("b", 0)])
    assert not log.is_full
    assert (log.state.waiting, log.state.dropped) == (3, 3)
    store_away(False)
    log.close(20)
    assert ids(database) == ["a", "a", "a"]


def test_what_the_store_does_not_take_at_the_end_is_taken_up_by_the_next_service(
    database: Database, tmp_path: Path, store_away: Callable[[bool], None]
) -> None:
    folder = tmp_path / "spool"
    log = StoreLog(database, KEEP_ALL, folder)
    store_away(True)
    log.record([answer(f"r{number}", 0) for number in range(7)])
    state = log.close(20)
    assert (state.spooled, state.waiting, state.written) == (7, 0, 0)
    assert (log.close(20), len(spooled(folder))) == (state, 1)
    assert folder.stat().st_mode & 0o077 == 0
    log.record([answer("late", 0)])  # a request that ended after the log did
    assert log.state.spooled == 8
    store_away(False)
    with_next = StoreLog(database, KEEP_ALL, folder)
    until(lambda: count_log(database, LogFilter()) == 8)
    with_next.close(20)
    assert sorted(ids(database)) == ["late", *(f"r{number}" for number in range(7))]
    assert spooled(folder) == []


def test_what_was_written_and_spooled_as_well_is_there_once(database: Database, tmp_path: Path) -> None:
    log = StoreLog(database, KEEP_ALL, tmp_path / "spool")
    log.record([answer("r1", 0)])
    log.flush(20)
    spool(tmp_path / "spool", [row_of(answer("r1", 0), KEEP_ALL), row_of(answer("r2", 0), KEEP_ALL)])
    log.close(20)
    StoreLog(database, KEEP_ALL, tmp_path / "spool").close(20)
    assert ids(database) == ["r1", "r2"]


def test_a_damaged_spool_file_is_put_aside_and_stops_nothing(database: Database, tmp_path: Path) -> None:
    folder = tmp_path / "spool"
    spool(folder, [row_of(answer("r1", 0), KEEP_ALL)])
    (folder / "1-x.jsonl").write_text('{"request_id": "half')
    (folder / "2-y.jsonl").write_text('{"request_id": "no time"}\n')
    log = StoreLog(database, KEEP_ALL, folder)
    until(lambda: "damaged" in log.state.trouble)
    log.close(20)
    assert ids(database) == ["r1"]
    assert sorted(path.suffix for path in folder.iterdir()) == [".broken", ".broken"]


def test_a_row_that_the_store_will_never_take_holds_up_no_other(database: Database, tmp_path: Path) -> None:
    log = StoreLog(database, KEEP_ALL, tmp_path / "spool", write_every_s=0.01)
    log.record([answer("a", 0), answer("b", 0)])
    log.flush(20)
    bad = answer("bad", 0)
    object.__setattr__(bad, "caller", None)  # the column may not be empty
    log.record([answer("c", 0), bad, answer("d", 0)])
    assert log.flush(20)
    assert "IntegrityError" in log.state.trouble
    assert (log.state.written, log.state.spooled) == (4, 1)
    log.close(20)
    assert ids(database) == ["a", "b", "c", "d"]
    (refused,) = (tmp_path / "spool").iterdir()
    assert refused.suffix == ".refused"
    assert json.loads(refused.read_text())["request_id"] == "bad"


def test_a_share_of_requests_is_kept_whole_and_answers_for_a_person_always(database: Database, tmp_path: Path) -> None:
    log = StoreLog(database, KEEP_ALL, tmp_path / "spool", sample=0.25)
    for number in range(400):
        log.record([answer(f"r{number}", 0), answer(f"r{number}", 1)])
    log.record([answer(f"review{number}", 0, route="review") for number in range(20)])
    log.close(20)
    kept = ids(database)
    plain = [id for id in kept if not id.startswith("review")]
    assert len(kept) - len(plain) == 20
    assert len(plain) == 2 * len(set(plain))
    assert 60 < len(set(plain)) < 140


def test_rows_on_disk_are_redacted_too(database: Database, tmp_path: Path, store_away: Callable[[bool], None]) -> None:
    log = StoreLog(database, RedactionPolicy("mask"), tmp_path / "spool")
    store_away(True)
    log.record([answer("r1", 0, text="from ann@example.org")])
    log.close(20)
    (file,) = spooled(tmp_path / "spool")
    assert "ann@" not in file.read_text()
    assert "[EMAIL]" in file.read_text()


def test_housekeeping_goes_on_until_nothing_is_left_and_its_failure_stops_nothing(
    database: Database, tmp_path: Path
) -> None:
    calls: list[int] = []

    def clean() -> bool:
        calls.append(1)
        if len(calls) == 3:
            raise StorageError("gone", where="x", hint="y")
        return len(calls) < 3

    log = StoreLog(database, KEEP_ALL, tmp_path / "spool", write_every_s=0.01, housekeeping=clean)
    until(lambda: len(calls) == 4)
    log.record([answer("r1", 0)])
    assert log.flush(20)
    log.close(20)


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, str(PROCESS), str(folder), *arguments]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def test_two_processes_that_log_to_one_store_lose_nothing(tmp_path: Path) -> None:
    processes = [start(tmp_path, name, "300", end) for name, end in (("a", "close"), ("b", "leave"))]
    ended = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], ended
    with open_database(StoreConfig(root=tmp_path)) as database:
        assert set(ids(database)) == {f"{name}{number}" for name in "ab" for number in range(300)}
    assert spooled(tmp_path / "spool") == []


def test_a_process_that_is_killed_while_it_closes_the_log_loses_nothing(tmp_path: Path) -> None:
    open_database(StoreConfig(root=tmp_path)).close()
    lock = sqlite3.connect(tmp_path / "store.db", isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")  # readers get through, the log's writer waits
    killed = start(tmp_path, "k", "500", "kill")
    errors = killed.communicate(timeout=120)[1]
    assert killed.returncode == -signal.SIGKILL, errors
    lock.close()
    with open_database(StoreConfig(root=tmp_path)) as database:
        assert count_log(database, LogFilter()) == 0
        StoreLog(database, KEEP_ALL, tmp_path / "spool").close(60)
        assert set(ids(database)) == {f"k{number}" for number in range(500)}
