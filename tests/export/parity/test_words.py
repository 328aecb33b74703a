"""How results read: sentences, tables and files, with ids and labels of users in them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneloop.artifacts import ArtifactStore
from tuneloop.export.parity.asked import Asked, Speed
from tuneloop.export.parity.prompts import first_difference, text_departure, token_departure
from tuneloop.export.parity.result import ParityResult
from tuneloop.export.parity.run import compare
from tuneloop.export.parity.stored import PAGE, read_parity, record_parity, write_parity
from tuneloop.export.parity.tolerance import Tolerance
from tuneloop.export.parity.words import as_markdown, table_of
from tuneloop.models.prompt import TaskPrompt
from tuneloop.records import Example, Prediction

TASK = TaskPrompt("classify", "Sort it.", ("a", "b"), ())
ITEMS = [Example(id=f"i|{number}\n<b>", text=f"text {number}", label="ab"[number % 2]) for number in range(10)]


def asked(labels: str, name: str = "one") -> Asked:
    predictions = tuple(Prediction(label=label, probability=0.9, label_scores=None) for label in labels)
    prompts = tuple(f"prompt {item.text}" for item in ITEMS)
    ids = tuple((1, number) for number in range(len(ITEMS)))
    return Asked(name, TASK, predictions, prompts, ids, "", Speed(12.5, (0.25, 0.5)))


def result(labels: str = "ababababab", **bounds: Any) -> ParityResult:
    return compare(asked("ababababab", "original"), asked(labels, "form*"), ITEMS, Tolerance(**bounds))


def test_within_reads_as_a_sentence_with_the_interval() -> None:
    assert result().sentence == (
        "form* answers as original does: 10 of 10 labels agree (100.0 %, 95 % interval 72.2 to 100.0)"
    )


def test_beyond_names_figures_bound_and_first_item() -> None:
    found = result("bbbbababab", max_accuracy_loss=0.05)
    assert found.sentence == (
        "beyond tolerance: form*: another label on 2 of 10 documents (80.0 % agree, 99.5 % required); the first is "
        "item 1 (i|0\n<b>); accuracy falls by 20.0 points, from 100.0 % to 80.0 % (5 points allowed)"
    )
    assert found.causes[0].startswith("other weights")


def test_the_table_has_a_row_for_the_reference_and_one_for_each_form() -> None:
    headings, rows = table_of([result(), result("bbbbababab")])
    assert [row[0] for row in rows] == ["original", "form*", "form*"]
    assert {len(row) for row in rows} == {len(headings)}
    assert [row[-1] for row in rows] == ["reference", "within", "BEYOND"]
    assert rows[2][headings.index("Δ points")].startswith("-20.0 (")


def test_columns_without_a_figure_are_left_out() -> None:
    headings, _ = table_of([result()])
    assert "entity F1" not in headings  # the task has none
    assert "largest Δ nats" not in headings  # no scores are told
    assert "median Δ p" in headings
    assert table_of([]) == ([], [])


def test_the_page_is_markdown_whatever_the_names_are() -> None:
    page = as_markdown([result("bbbbababab")])
    assert "form\\*" in page
    assert "<b>" not in page
    assert "i\\|0 \\<b\\>" in page


def test_what_is_written_is_read_back_and_belongs_to_the_artifact(tmp_path: Path, store: ArtifactStore) -> None:
    written = [result(), result("bbbbababab")]
    assert json.loads(write_parity(tmp_path, written).read_bytes())["results"][1]["within_tolerance"] is False
    assert read_parity(tmp_path) == [json.loads(json.dumps(one.to_dict())) for one in written]
    artifact = record_parity(written, ITEMS, {}, store, {"form*": "http://127.0.0.1:1"})
    assert read_parity(artifact.path) == read_parity(tmp_path)
    assert (artifact.path / PAGE).read_text() == as_markdown(written)
    assert artifact.summary["beyond_tolerance"] == ["form*"]
    store.verify(artifact)


@given(st.text(), st.text(), st.text())
def test_two_texts_depart_where_they_first_differ(same: str, one: str, other: str) -> None:
    mine, theirs = f"{same}{one}", f"{same}{other}"
    index = first_difference(mine, theirs)
    assert mine[:index] == theirs[:index]
    assert mine[index : index + 1] != theirs[index : index + 1] or mine == theirs
    departure = text_departure(mine, theirs, 1, "id")
    assert all(character.isprintable() for character in departure.expected + departure.found)


def test_a_window_shows_what_is_around_and_that_there_is_more() -> None:
    departure = text_departure("x" * 100 + "\n" + "y" * 100, "x" * 100 + " " + "y" * 100, 3, "id")
    assert departure.expected == "…" + "x" * 24 + "\\n" + "y" * 23 + "…"
    assert departure.index == 100
    ids = token_departure(list(range(20)), [*range(10), 99, *range(11, 20)], 3, "id")
    assert (ids.expected, ids.found) == ("… 6 7 8 9 10 11 12 13 …", "… 6 7 8 9 99 11 12 13 …")


@pytest.mark.parametrize(
    "bounds", [{"min_agreement": 1.5}, {"max_accuracy_loss": -0.1}, {"max_median_score_difference": -1}]
)
def test_a_bound_that_is_none_is_refused(bounds: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(bounds))):
        Tolerance(**bounds)


def test_probabilities_that_an_engine_does_not_tell_are_not_compared() -> None:
    silent = replace(asked("ababababab"), predictions=tuple(Prediction(label=one, probability=0.0) for one in "ab" * 5))
    assert compare(asked("ababababab"), silent, ITEMS, Tolerance()).probabilities is None
