from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import refusal_of
from tests.serve.served import answer
from tuneloop.artifacts import ArtifactStore
from tuneloop.config.load import load_config
from tuneloop.config.schema import StoreConfig
from tuneloop.dataset import open_dataset
from tuneloop.loop import stages
from tuneloop.progress import SILENT
from tuneloop.records import Entity
from tuneloop.serve.feedback_book import FeedbackBook, RightAnswer
from tuneloop.serve.log import NoLog
from tuneloop.serve.log_rows import insert_rows, row_of
from tuneloop.serve.redaction import RedactionPolicy
from tuneloop.store.database import open_database

Run = Callable[..., Any]
KEEP_ALL = RedactionPolicy()
CONFIG = """
task: {{kind: classify+extract}}
data:
  sources: [{{path: {file}, columns: {{text: text, label: label, entities: entities}}}}]
  min_per_label: 1
  validation: 0
  test: 0
"""


@pytest.fixture(autouse=True)
def _log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log with 30 answers, of which 12 were corrected; the text of one of these was dropped."""
    monkeypatch.chdir(tmp_path)
    with open_database(StoreConfig()) as database:
        for number in range(30):
            text = f"Document {number} of ann{number}@example.org 🎉\nsecond line"
            policy = RedactionPolicy("drop") if number == 11 else KEEP_ALL
            insert_rows(database, [row_of(answer(f"r{number}", 0, text=text, route="review"), policy)])
        insert_rows(database, [row_of(answer("old", 0, at=datetime(2020, 1, 1, tzinfo=UTC)), KEEP_ALL)])
        book = FeedbackBook(database, NoLog(), KEEP_ALL)
        for number in range(12):
            answered = book.find(f"r{number}", 0)
            assert answered is not None
            entities = (Entity("mail", f"ann{number}@example.org"),)
            label = ("dog", "bird")[number % 2]
            book.add(answered, RightAnswer(label=label, entities=entities, caller="k1", comment="sure"))


def test_the_newest_answers_are_listed_with_what_was_said(tuneloop: Run) -> None:
    shown = tuneloop("requests", "list", "--limit", "3")
    assert shown.code == 0, shown.err
    assert "3 of 31 answers" in shown.out
    found = json.loads(tuneloop("requests", "list", "--with-feedback", "--json").out)
    assert (found["total"], len(found["requests"])) == (12, 12)
    assert found["requests"][-1]["label"] == "dog"
    assert json.loads(tuneloop("requests", "list", "--request", "r3", "--json").out)["total"] == 1
    assert "No answer in the log fits." in tuneloop("requests", "list", "--route", "auto", "--since", "1d").out


@pytest.mark.parametrize("file", ["reviewed.jsonl", "reviewed.parquet"])
def test_an_export_is_a_source_with_the_feedback_as_labels(tuneloop: Run, file: str) -> None:
    done = tuneloop("requests", "export", file)
    assert "11 answers are in" in done.out
    assert "1 were left out" in done.out
    Path("tuneloop.yaml").write_text(CONFIG.format(file=file))
    config = load_config(Path("tuneloop.yaml"))
    made = stages.prepare(config, ArtifactStore(config.store.root / "artifacts"), SILENT)
    examples = open_dataset(made.artifact).split("train")
    assert len(examples) == 11
    assert {example.label for example in examples} == {"dog", "bird"}
    entity = next(one for example in examples for one in example.entities or () if "Document 4 " in example.text)
    assert (entity.type, entity.text) == ("mail", "ann4@example.org")


def test_an_export_of_everything_leaves_labels_empty_where_nobody_said_one(tuneloop: Run) -> None:
    done = tuneloop("requests", "export", "all.jsonl", "--all", "--json")
    assert json.loads(done.out) == {"file": "all.jsonl", "rows": 31, "left_out": 0}
    rows = [json.loads(line) for line in Path("all.jsonl").read_text().splitlines()]
    assert sum(row["label"] is None for row in rows) == 19
    assert {row["predicted_label"] for row in rows} == {"cat"}
    assert list(Path().glob(".*.tmp")) == []


def test_a_dry_run_writes_and_deletes_nothing(tuneloop: Run) -> None:
    assert "12 answers would be written" in tuneloop("requests", "export", "x.jsonl", "--dry-run").out
    assert "1 answers are older" in tuneloop("requests", "purge", "--dry-run").out
    assert "30 answers would be removed" in tuneloop("requests", "redact", "--since", "1d", "--dry-run").out
    assert not Path("x.jsonl").exists()
    assert json.loads(tuneloop("requests", "list", "--containing", "@", "--json").out)["total"] == 29


def test_old_answers_are_deleted_and_corrected_ones_only_when_asked(tuneloop: Run) -> None:
    assert json.loads(tuneloop("requests", "purge", "--json").out) == {"deleted": 1}
    assert json.loads(tuneloop("requests", "purge", "--before", "0s", "--json").out) == {"deleted": 18}
    assert json.loads(tuneloop("requests", "purge", "--before", "0s", "--with-feedback", "--json").out) == {
        "deleted": 12
    }


def test_what_someone_asks_to_be_forgotten_is_nowhere_in_the_database_file(tuneloop: Run) -> None:
    assert b"ann7@" in Path(".tuneloop/store.db").read_bytes()
    assert "The texts of 1 answers were removed." in tuneloop("requests", "redact", "--containing", "ann7@").out
    assert b"ann7@" not in Path(".tuneloop/store.db").read_bytes()
    (row,) = json.loads(tuneloop("requests", "list", "--request", "r7", "--json").out)["requests"]
    assert (row["text"], row["label"], row["predicted_label"]) == (None, "bird", "cat")


@pytest.mark.parametrize(
    ("words", "found", "advice"),
    [
        (["redact"], "remove every text", "--containing"),
        (["export", "log.csv"], "'.csv' names no format", ".jsonl"),
        (["export", "nowhere/log.jsonl"], "no folder nowhere", "folder that exists"),
        (["list", "--route", "auot"], "no route 'auot'", "auto or review"),
        (["list", "--since", "yesterday"], "'yesterday' is not a time", "2030-12-31"),
    ],
)
def test_what_cannot_be_done_is_explained(tuneloop: Run, words: list[str], found: str, advice: str) -> None:
    refusal = refusal_of(tuneloop("requests", *words))
    assert refusal.code == 2
    assert found in refusal.what
    assert advice in refusal.do
