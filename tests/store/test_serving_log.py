"""What the service keeps: keys, answers and feedback, on both kinds of database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config as AlembicConfig
from sqlalchemy import select, text

from tests.serve.served import answer
from tuneloop.config.schema import StoreConfig
from tuneloop.errors import UsageError
from tuneloop.records import Entity
from tuneloop.serve.feedback_book import FeedbackBook, RightAnswer
from tuneloop.serve.keys import create_key, find_key, list_keys, revoke_key, rotate_key
from tuneloop.serve.log import NoLog, Served
from tuneloop.serve.log_queries import LogFilter, count_log, newest, read_log
from tuneloop.serve.log_rows import insert_rows, row_of
from tuneloop.serve.log_writer import StoreLog
from tuneloop.serve.redaction import RedactionPolicy
from tuneloop.serve.retention import purge_step, remove_texts
from tuneloop.store.database import MIGRATIONS, Database, find_or_add, open_database
from tuneloop.store.tables import HEAD, Rater

OLD = datetime(2026, 1, 1, tzinfo=UTC)
KEEP_ALL = RedactionPolicy()


def put(database: Database, *answers: Served) -> None:
    insert_rows(database, [row_of(one, KEEP_ALL) for one in answers])


def say(database: Database, request_id: str, label: str | None, *entities: Entity, caller: str = "ann") -> bool:
    book = FeedbackBook(database, NoLog(), KEEP_ALL)
    answered = book.find(request_id, 0)
    assert answered is not None
    kept = book.add(answered, RightAnswer(label=label, entities=entities or None, caller=caller))
    assert kept is not None
    return kept[1]


def test_a_store_from_before_the_service_is_brought_up_to_date_with_what_it_has(store_config: StoreConfig) -> None:
    with open_database(store_config) as database, database.writing() as session:
        find_or_add(session, Rater, {"kind": "person", "name": "Ann", "prompt_version": ""}, {})
        config = AlembicConfig()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.attributes["connection"] = session.connection()
        command.downgrade(config, "0001")
    with open_database(store_config) as database:
        with database.reading() as session:
            assert session.scalar(text("SELECT version_num FROM alembic_version")) == HEAD
            assert list(session.scalars(select(Rater.name))) == ["Ann"]
        put(database, answer("r1", 0))
        assert count_log(database, LogFilter()) == 1


def test_a_key_lives_is_replaced_and_ends(store_config: StoreConfig) -> None:
    with open_database(store_config) as database:
        ends = datetime.now(UTC) + timedelta(days=90)
        first = create_key(database, "billing", ["predict", "feedback"], expires_at=ends, tokens_per_minute=5)
        second = rotate_key(database, "billing", overlap=timedelta(hours=1))
        old, new = list_keys(database)
        assert (old.id, new.id, new.replaces) == (first.facts.id, second.facts.id, first.facts.id)
        assert (new.scopes, new.tokens_per_minute) == (("predict", "feedback"), 5)
        assert old.expires_at is not None
        assert new.expires_at is not None
        assert old.expires_at < datetime.now(UTC) + timedelta(hours=1)
        assert abs(new.expires_at - datetime.now(UTC) - timedelta(days=90)) < timedelta(minutes=1)
        assert old.status(datetime.now(UTC)) == new.status(datetime.now(UTC)) == "active"
        revoke_key(database, old.id[:5])
        assert find_key(database, old.id).status(datetime.now(UTC)) == "revoked"
        assert find_key(database, "billing").id == new.id  # the only good one of that name
        with pytest.raises(UsageError, match="is revoked"):
            rotate_key(database, old.id, overlap=timedelta(0))


def test_nothing_of_a_secret_is_in_the_store(store_config: StoreConfig) -> None:
    with open_database(store_config) as database:
        made = create_key(database, "x", ["predict"])
        secret = made.secret.split("_")[2]
        assert secret not in repr(list_keys(database)) + repr(made)
        assert all(secret not in str(vars(key)) for key in list_keys(database))


def test_rows_come_back_as_they_were_answered_and_each_only_once(store_config: StoreConfig) -> None:
    odd = answer("r1", 0, text="nul \x00 half \ud800 é 🎉", entities=(Entity("date", "é", 13, 14),))
    with open_database(store_config) as database:
        put(database, odd, answer("r1", 1))
        put(database, answer("r1", 1, label="other"))
        (page,) = read_log(database, LogFilter())
        assert [(one.row.request_id, one.row.item, one.row.label) for one in page] == [
            ("r1", 0, "cat"),
            ("r1", 1, "cat"),
        ]
        assert page[0].row.text == "nul � half ? é 🎉"
        assert page[0].entities == [{"type": "date", "text": "é", "start": 13, "end": 14}]
        assert page[0].row.created_at == odd.at


def test_feedback_is_only_added_and_what_is_said_last_counts(store_config: StoreConfig) -> None:
    with open_database(store_config) as database:
        put(database, answer("r1", 0, text="Paid on 1 May"))
        assert say(database, "r1", "dog")
        assert not say(database, "r1", "dog")
        assert say(database, "r1", None, Entity("date", "1 May"))
        assert say(database, "r1", "bird", caller="bob")
        assert say(database, "r1", "dog")
        (one,) = newest(database, LogFilter(has_feedback=True), 10)
        assert (one.right_label, one.feedback_by) == ("dog", "ann")
        assert one.right_entities == [{"type": "date", "text": "1 May", "start": 8, "end": 13}]


def test_filters_find_what_they_say(store_config: StoreConfig) -> None:
    with open_database(store_config) as database:
        put(
            database,
            answer("a", 0, at=OLD),
            answer("b", 0, route="review", text="100% of_it"),
            answer("c", 0, model="x"),
        )
        say(database, "a", "dog")
        found = {
            "since": count_log(database, LogFilter(since=OLD + timedelta(days=1))),
            "until": count_log(database, LogFilter(until=OLD + timedelta(days=1))),
            "route": count_log(database, LogFilter(route="review")),
            "model": count_log(database, LogFilter(model="x")),
            "ids": count_log(database, LogFilter(request_ids=("a", "c"))),
            "percent is no wildcard": count_log(database, LogFilter(containing="0%o")),
            "text": count_log(database, LogFilter(containing="100% of_i")),
            "feedback": count_log(database, LogFilter(has_feedback=True)),
        }
        assert list(found.values()) == [2, 1, 1, 1, 2, 0, 1, 1], found
        assert [one.row.request_id for one in newest(database, LogFilter(), 2)] == ["c", "b"]


def test_rows_whose_time_is_over_are_deleted_in_steps_and_corrected_ones_later(store_config: StoreConfig) -> None:
    with open_database(store_config) as database:
        put(database, *(answer(f"old{number}", 0, at=OLD) for number in range(5)), answer("new", 0))
        say(database, "old0", "dog")
        soon, later = OLD + timedelta(days=1), OLD - timedelta(days=1)
        steps = [purge_step(database, before=soon, feedback_before=later, rows=3) for _ in range(3)]
        assert steps == [3, 1, 0]
        assert {one.row.request_id for one in newest(database, LogFilter(), 9)} == {"old0", "new"}
        assert purge_step(database, before=None, feedback_before=soon) == 1
        assert purge_step(database, before=None, feedback_before=None) == 0
        assert count_log(database, LogFilter()) == 1


def test_a_text_is_removed_everywhere_and_the_figures_stay(store_config: StoreConfig) -> None:
    with open_database(store_config) as database:
        put(database, answer("r1", 0, text="Ann Lee", entities=(Entity("name", "Ann", 0, 3),)), answer("r2", 0))
        say(database, "r1", "dog", Entity("name", "Ann Lee"))
        assert remove_texts(database, LogFilter(containing="Ann")) == 1
        first, second = (one for page in read_log(database, LogFilter()) for one in page)
        assert (first.row.text, first.row.text_sha256, first.row.redaction) == (None, None, "drop")
        assert (first.right_label, second.row.text) == ("dog", "a document")
        assert "Ann" not in repr([first.entities, first.right_entities, first.comment])
        assert remove_texts(database, LogFilter(request_ids=("r1",))) == 0


def test_ten_thousand_rows_are_all_there_when_the_log_is_closed(store_config: StoreConfig, tmp_path: Path) -> None:
    with open_database(store_config) as database:
        log = StoreLog(database, KEEP_ALL, tmp_path / "spool")
        for number in range(1000):
            log.record([answer(f"r{number}", item) for item in range(10)])
        state = log.close(60)
        assert (state.written, state.waiting, state.spooled, state.dropped, state.trouble) == (10_000, 0, 0, 0, "")
        assert count_log(database, LogFilter()) == 10_000
        assert list((tmp_path / "spool").glob("*")) == []
