"""Entity scores: precision, recall and F1 per type and over all types, by exact and by partial matching."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from nervaluate.entities import Entity as Span
from nervaluate.strategies import PartialEvaluation, StrictEvaluation

from tuneloop.metrics.labels import well_formed_rate
from tuneloop.metrics.ratios import mean_where, ratio
from tuneloop.records import Entity, Example, Prediction
from tuneloop.stats import Floats, Interval, bootstrap, wilson, wilson_f1


@dataclass(frozen=True, slots=True)
class MatchScores:
    """Entity scores under one way of matching, over all types; intervals come from resampling documents."""

    precision: Interval
    recall: Interval
    micro_f1: Interval
    macro_f1: Interval


@dataclass(frozen=True, slots=True)
class TypeScores:
    """One entity type: values to find, values given, and scores with exact and with half-credit partial matching."""

    type: str
    wanted: int
    given: int
    precision: Interval
    recall: Interval
    f1: Interval
    partial_f1: Interval


@dataclass(frozen=True, slots=True)
class EntityScores:
    """How well entities were extracted.

    `absent` is the share of all values the model wrote that do not occur in the document (rejected ones included, which
    are not part of the answer and cost no precision); `unknown_type` counts values of a type that was not asked for.
    """

    n: int
    types: tuple[str, ...]
    exact: MatchScores
    partial: MatchScores
    per_type: tuple[TypeScores, ...]
    values_written: int
    absent_values: int
    absent: Interval
    unknown_type: int
    well_formed: Interval


def entities(
    truths: Sequence[Example],
    answers: Sequence[Prediction],
    types: Sequence[str],
    *,
    resamples: int = 10_000,
    seed: int = 13,
    confidence: float = 0.95,
) -> EntityScores:
    """Return how well `answers` list the entities of `truths` (same documents, same order); see `entity_counts`.

    Raises: ValueError: the two differ in length.
    """
    counts = entity_counts(truths, answers, types)
    scores = bootstrap(counts, entity_scores_from, resamples=resamples, seed=seed, confidence=confidence)
    answered = [(truth, entity) for truth, a in zip(truths, answers, strict=True) for entity in a.entities or ()]
    absent = sum(entity.text not in truth.text for truth, entity in answered)
    rejected = sum(len(answer.rejected_entities) for answer in answers)
    return EntityScores(
        n=len(truths),
        types=tuple(types),
        exact=MatchScores(*scores[:4]),
        partial=MatchScores(*scores[4:]),
        per_type=_per_type(counts, types, confidence),
        values_written=len(answered) + rejected,
        absent_values=absent + rejected,
        absent=wilson(absent + rejected, len(answered) + rejected, confidence),
        unknown_type=sum(entity.type not in types for _, entity in answered),
        well_formed=well_formed_rate(answers, confidence),
    )


def entity_counts(truths: Sequence[Example], answers: Sequence[Prediction], types: Sequence[str]) -> Floats:
    """Return (N, 4T) per document and type: exact matches, partial credit, values wanted, values given.

    A model answers with values, not places, so each distinct (type, value) counts once per document, and truth and
    answer alike stand at the first occurrence of their value; offsets are not consulted. A value that does not occur
    in the document has a place of its own: it matches an equal value and overlaps nothing. Exact is nervaluate's
    `strict` scheme, partial its `partial` scheme (SemEval-2013 task 9: an overlap earns half), each within one type.
    Types outside `types` are left out.

    Raises: ValueError: different lengths.
    """
    counts = np.zeros((len(truths), 4, len(types)))
    column_of = {type_: column for column, type_ in enumerate(types)}
    for row, (truth, answer) in enumerate(zip(truths, answers, strict=True)):
        wanted, given = _distinct(truth.entities, column_of), _distinct(answer.entities, column_of)
        if not wanted and not given:
            continue
        places = _places(truth.text, {value for _, value in wanted | given})
        for type_ in {type_ for type_, _ in wanted | given}:
            counts[row, :, column_of[type_]] = _match(type_, wanted, given, places)
    return counts.reshape(len(truths), 4 * len(types))


def entity_scores_from(sums: Floats) -> Floats:
    """Return scores (S, 8) from summed `entity_counts` (S, 4T).

    Columns: precision, recall, micro-F1, macro-F1 by exact matching, then the same four by partial matching. Macro-F1
    is the mean over the types that occur among the truths.
    """
    exact, partial, wanted, given = np.moveaxis(sums.reshape(len(sums), 4, -1), 1, 0)
    columns = []
    for hits in (exact, partial):
        total_hits, total_wanted, total_given = hits.sum(axis=1), wanted.sum(axis=1), given.sum(axis=1)
        columns += [
            ratio(total_hits, total_given),
            ratio(total_hits, total_wanted),
            ratio(2 * total_hits, total_wanted + total_given),
            mean_where(2 * hits, wanted + given, wanted > 0),
        ]
    return np.stack(columns, axis=1)


def _distinct(found: Iterable[Entity] | None, types: Mapping[str, int]) -> set[tuple[str, str]]:
    return {(entity.type, entity.text) for entity in found or () if entity.type in types}


def _places(text: str, values: set[str]) -> dict[str, tuple[int, int]]:
    """Return value → (first, last character) of its first occurrence, or a place of its own behind the text."""
    places, beyond = {}, len(text)
    for value in sorted(values):
        start = text.find(value) if value else -1
        if start < 0:
            beyond += 2
            places[value] = (beyond, beyond)
        else:
            places[value] = (start, start + len(value) - 1)
    return places


def _match(
    type_: str, wanted: set[tuple[str, str]], given: set[tuple[str, str]], places: Mapping[str, tuple[int, int]]
) -> tuple[float, float, int, int]:
    """Return exact matches, partial credit, values wanted and values given of one type in one document."""
    truths = [Span(type_, *places[value]) for kind, value in sorted(wanted) if kind == type_]
    # nervaluate matches greedily in the order of the answers: exact ones first, or an overlap would take their truth.
    in_order = sorted(given, key=lambda pair: (pair not in wanted, places[pair[1]], pair))
    answers = [Span(type_, *places[value]) for kind, value in in_order if kind == type_]
    exact, _ = StrictEvaluation().evaluate(truths, answers, [type_])
    partial, _ = PartialEvaluation().evaluate(truths, answers, [type_])
    return exact.correct, partial.correct + 0.5 * partial.partial, len(truths), len(answers)


def _per_type(counts: Floats, types: Sequence[str], confidence: float) -> tuple[TypeScores, ...]:
    totals = counts.sum(axis=0).reshape(4, len(types)).T
    return tuple(
        TypeScores(
            type_,
            int(wanted),
            int(given),
            wilson(exact, given, confidence),
            wilson(exact, wanted, confidence),
            wilson_f1(exact, given - exact, wanted - exact, confidence),
            wilson_f1(partial, given - partial, wanted - partial, confidence),
        )
        for type_, (exact, partial, wanted, given) in zip(types, totals, strict=True)
    )
