"""The answers that were wrong, in the order in which they repay reading."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tuneloop.evaluate.compare import SubjectAnswers, entity_answers
from tuneloop.evaluate.wording import excerpt
from tuneloop.records import Example, Prediction

MAX_CHARS = 280


@dataclass(frozen=True, slots=True)
class Mistake:
    """One wrongly labelled document; `others` holds (title, answer) of the other models, `raw` an invented answer."""

    excerpt: str
    place: str
    probability: float
    others: tuple[tuple[str, str], ...]
    raw: str


@dataclass(frozen=True, slots=True)
class Confusion:
    """Documents of label `truth` that were answered `answer`: how many, and the most confident of them."""

    truth: str
    answer: str
    count: int
    mistakes: tuple[Mistake, ...]


@dataclass(frozen=True, slots=True)
class EntityMistake:
    """One document with the values that were missed and those that are wrong, as (type, value)."""

    excerpt: str
    place: str
    missed: tuple[tuple[str, str], ...]
    wrong: tuple[tuple[str, str], ...]


def confusions(
    items: Sequence[Example], subjects: Mapping[str, SubjectAnswers], name: str, *, shown_per_pair: int = 4
) -> list[Confusion]:
    """Return the confused pairs of one subject under label scoring, the most frequent first.

    Pairs that are equally frequent stand in the order of their most confident mistake.
    """
    pairs: dict[tuple[str, str], list[int]] = defaultdict(list)
    closed = subjects[name].closed
    for position, (item, answer) in enumerate(zip(items, closed, strict=True)):
        if item.label is not None and answer.label != item.label:
            pairs[item.label, _shown(answer)].append(position)
    for positions in pairs.values():
        positions.sort(key=lambda position: (-closed[position].probability, position))
    in_order = sorted(pairs.items(), key=lambda pair: (-len(pair[1]), -closed[pair[1][0]].probability, pair[0]))
    return [
        Confusion(truth, answer, len(at), tuple(_mistake(items, subjects, name, p) for p in at[:shown_per_pair]))
        for (truth, answer), at in in_order
    ]


def entity_mistakes(items: Sequence[Example], subject: SubjectAnswers, *, shown: int = 10) -> list[EntityMistake]:
    """Return the documents where the most entity values were missed or wrong (values compared exactly)."""
    found = []
    for item, answer in zip(items, entity_answers(subject), strict=False):
        wanted = {(entity.type, entity.text) for entity in item.entities or ()}
        given = {(entity.type, entity.text) for entity in answer.entities or ()}
        if wanted != given and item.entities is not None:
            missed, wrong = tuple(sorted(wanted - given)), tuple(sorted(given - wanted))
            found.append(EntityMistake(excerpt(item.text, MAX_CHARS), _place(item), missed, wrong))
    return sorted(found, key=lambda mistake: -len(mistake.missed) - len(mistake.wrong))[:shown]


def _mistake(items: Sequence[Example], subjects: Mapping[str, SubjectAnswers], name: str, position: int) -> Mistake:
    answer = subjects[name].closed[position]
    others = [(s.title, _shown(s.closed[position])) for s in subjects.values() if s.name != name]
    item = items[position]
    raw = excerpt(answer.raw_text, 120) if answer.label is None else ""
    return Mistake(excerpt(item.text, MAX_CHARS), _place(item), answer.probability, tuple(others), raw)


def _shown(answer: Prediction) -> str:
    return "(no label)" if answer.label is None else answer.label


def _place(item: Example) -> str:
    """Return where the user finds the document: file and row, or its id."""
    return f"{item.source}, row {item.row}" if item.source else item.id
