"""Entity scores count values, not places, and agree with a count by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuneloop.metrics import entities, entity_counts, entity_scores_from
from tuneloop.records import Entity, Example, Prediction

TEXT = "Acme Corp and Acme Corp Ltd signed on 2024-01-02; see https://acme.example."
TYPES = ["date", "party"]


def document(*found: tuple[str, str], text: str = TEXT) -> Example:
    return Example(id="0", text=text, entities=tuple(Entity(type_, value) for type_, value in found))


def answer(*found: tuple[str, str], rejected: int = 0) -> Prediction:
    given_ = tuple(Entity(type_, value) for type_, value in found)
    return Prediction(
        label=None, probability=1, entities=given_, rejected_entities=(Entity("date", "never"),) * rejected
    )


def counts(truth: Example, given_: Prediction) -> dict[str, tuple[float, ...]]:
    """Return type → (exact, partial, wanted, given)."""
    matrix = entity_counts([truth], [given_], TYPES).reshape(4, len(TYPES))
    return {type_: tuple(matrix[:, column]) for column, type_ in enumerate(TYPES)}


def test_an_equal_value_is_an_exact_match() -> None:
    found = counts(document(("date", "2024-01-02")), answer(("date", "2024-01-02")))
    assert found == {"date": (1, 1, 1, 1), "party": (0, 0, 0, 0)}


def test_an_overlapping_value_earns_half_by_partial_matching_only() -> None:
    found = counts(document(("party", "Acme Corp")), answer(("party", "Acme")))
    assert found["party"] == (0, 0.5, 1, 1)


def test_a_neighbouring_value_does_not_overlap() -> None:
    found = counts(document(("party", "Acme")), answer(("party", " Corp")))
    assert found["party"] == (0, 0, 1, 1)


def test_the_right_value_of_the_wrong_type_is_wrong_for_both_types() -> None:
    found = counts(document(("party", "Acme Corp")), answer(("date", "Acme Corp")))
    assert found == {"date": (0, 0, 0, 1), "party": (0, 0, 1, 0)}


def test_a_repeated_value_counts_once() -> None:
    found = counts(document(("party", "Acme Corp"), ("party", "Acme Corp")), answer(("party", "Acme Corp")))
    assert found["party"] == (1, 1, 1, 1)


def test_offsets_are_not_consulted() -> None:
    truth = Example(id="0", text=TEXT, entities=(Entity("party", "Acme Corp", 14, 23),))
    assert counts(truth, answer(("party", "Acme Corp")))["party"] == (1, 1, 1, 1)


def test_an_exact_answer_is_not_robbed_of_its_match_by_an_overlapping_one() -> None:
    truth = document(("party", "Acme Corp Ltd"))
    for order in (("Acme Corp", "Acme Corp Ltd"), ("Acme Corp Ltd", "Acme Corp")):
        found = counts(truth, answer(*(("party", value) for value in order)))
        assert found["party"] == (1, 1, 1, 2)


def test_a_value_that_is_not_in_the_document_matches_only_its_equal() -> None:
    truth = document(("date", "2 January 2024"))
    assert counts(truth, answer(("date", "2 January 2024")))["date"] == (1, 1, 1, 1)
    assert counts(truth, answer(("date", "2 January")))["date"] == (0, 0, 1, 1)
    assert counts(truth, answer(("date", "")))["date"] == (0, 0, 1, 1)


def test_values_that_the_model_made_up_are_counted_whether_rejected_or_not() -> None:
    truths = [document(("date", "2024-01-02"))] * 2
    answers = [answer(("date", "2024-01-02"), rejected=2), answer(("date", "1999-09-09"), ("colour", "Acme"))]
    scores = entities(truths, answers, TYPES, resamples=20)
    assert (scores.absent_values, scores.values_written, scores.unknown_type) == (3, 5, 1)
    assert scores.absent.estimate == 0.6
    assert scores.exact.precision.estimate == 0.5


def test_no_entity_anywhere_gives_no_figure() -> None:
    scores = entities([document()], [answer()], TYPES, resamples=20)
    assert math.isnan(scores.exact.micro_f1.estimate)
    assert math.isnan(scores.per_type[0].f1.estimate)
    assert (scores.absent.low, scores.absent.high) == (0, 1)


def test_no_document_gives_no_figure() -> None:
    scores = entities([], [], TYPES, resamples=20)
    assert scores.n == 0
    assert math.isnan(scores.partial.macro_f1.estimate)


def test_an_answer_without_entities_misses_all() -> None:
    scores = entities([document(("date", "2024-01-02"))], [Prediction(label=None, probability=1)], TYPES, resamples=20)
    assert scores.exact.recall.estimate == scores.exact.micro_f1.estimate == 0
    assert math.isnan(scores.exact.precision.estimate)


def test_macro_f1_is_the_mean_over_types_that_occur() -> None:
    truths = [document(("date", "2024-01-02"), ("party", "Acme Corp"))]
    scores = entities(truths, [answer(("date", "2024-01-02"))], [*TYPES, "url"], resamples=20)
    assert scores.exact.macro_f1.estimate == 0.5
    assert scores.exact.micro_f1.estimate == pytest.approx(2 / 3)


VALUES = st.sets(
    st.tuples(st.sampled_from(TYPES), st.sampled_from(["Acme", "Acme Corp", "Corp", "2024-01-02", "Ltd", "gone"]))
)


@settings(max_examples=60)
@given(st.lists(st.tuples(VALUES, VALUES), min_size=1, max_size=6))
def test_exact_scores_are_those_of_set_intersections(documents: list[tuple[set[tuple[str, str]], ...]]) -> None:
    truths, answers = [document(*wanted) for wanted, _ in documents], [answer(*found) for _, found in documents]
    hits = sum(len(wanted & found) for wanted, found in documents)
    wanted_total, given_total = (sum(len(pair[side]) for pair in documents) for side in (0, 1))
    sums = entity_counts(truths, answers, TYPES).sum(axis=0, keepdims=True)
    precision, recall, f1 = entity_scores_from(sums)[0, :3]
    assert precision == pytest.approx(hits / given_total if given_total else np.nan, nan_ok=True)
    assert recall == pytest.approx(hits / wanted_total if wanted_total else np.nan, nan_ok=True)
    both = wanted_total + given_total
    assert f1 == pytest.approx(2 * hits / both if both else np.nan, nan_ok=True)


@settings(max_examples=60)
@given(VALUES, VALUES)
def test_partial_credit_lies_between_exact_matches_and_what_there_is_to_match(
    wanted: set[tuple[str, str]], found: set[tuple[str, str]]
) -> None:
    for exact, partial, to_find, given_ in counts(document(*wanted), answer(*found)).values():
        assert exact <= partial <= min(to_find, given_)
