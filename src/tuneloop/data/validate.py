"""Raw rows → examples, one row at a time; a row that breaks a rule is kept aside with the reason and the remedy.

Texts come out in Unicode NFC, with `\\n` line ends and without outer white space. Rules about the whole set
(duplicates, conflicting or rare labels) are in `clean`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tuneloop.errors import DataError, nearest
from tuneloop.formats import RawRow
from tuneloop.formats import normalize as normalize
from tuneloop.records import Dropped, Entity, Example, example_id

TOO_LONG, TOO_SHORT = "too-long", "too-short"
OR_DROP = "or set data.on_invalid: drop to leave such rows out"


@dataclass(frozen=True, slots=True)
class Columns:
    """Which column holds what; None where the task has no such thing. `entities` and `keep` as in the configuration."""

    text: str
    label: str | None = None
    entities: str | Mapping[str, str] | None = None
    group: str | None = None
    keep: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        """Every column that is read, each once."""
        entities = [self.entities] if isinstance(self.entities, str) else list((self.entities or {}).values())
        named = [self.text, self.label, *entities, self.group, *self.keep]
        return list(dict.fromkeys(name for name in named if name is not None))


@dataclass(frozen=True, slots=True)
class Rules:
    """What a row has to fulfil. `labels` and `entity_types` are None where any will do."""

    labels: tuple[str, ...] | None = None
    entity_types: tuple[str, ...] | None = None
    min_chars: int = 1
    max_chars: int | None = None


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that broke a rule: what would be listed as dropped, where exactly it is, and how to mend it."""

    dropped: Dropped
    place: str
    hint: str


@dataclass(frozen=True, slots=True)
class Validated:
    """The outcome of row validation: examples, rows that broke a rule, rows that are only too short or too long."""

    examples: tuple[Example, ...]
    rejected: tuple[Rejected, ...]
    wrong_length: tuple[Dropped, ...]


class _Invalid(Exception):
    """A rule that one row breaks; never leaves this module."""

    def __init__(self, reason: str, detail: str, hint: str) -> None:
        super().__init__(detail)
        self.reason, self.detail, self.hint = reason, detail, hint


def validate_rows(rows: Iterable[RawRow], columns: Columns, rules: Rules) -> Validated:
    """Check every row; nothing is raised for a bad one."""
    examples: list[Example] = []
    rejected: list[Rejected] = []
    wrong_length: list[Dropped] = []
    for raw in rows:
        try:
            example = _example(raw, columns, rules)
        except _Invalid as invalid:
            rejected.append(_rejected(raw, columns, invalid))
            continue
        misfit = _misfit(example, rules)
        if misfit is None:
            examples.append(example)
        else:
            wrong_length.append(misfit)
    return Validated(tuple(examples), tuple(rejected), tuple(wrong_length))


def _misfit(example: Example, rules: Rules) -> Dropped | None:
    """Return why the length of an example rules it out, or None."""
    length = len(example.text)
    if rules.max_chars is not None and length > rules.max_chars:
        reason, detail = TOO_LONG, f"{length} characters, data.max_chars is {rules.max_chars}"
    elif length < rules.min_chars:
        reason, detail = TOO_SHORT, f"{length} characters, data.min_chars is {rules.min_chars}"
    else:
        return None
    return Dropped(id=example.id, reason=reason, detail=detail, source=example.source, row=example.row)


def refuse(rejected: Sequence[Rejected]) -> None:
    """Raise for the first rejected row, and say how many more there are.

    Raises: DataError: `rejected` is not empty.
    """
    if not rejected:
        return
    first, others = rejected[0], Counter(row.dropped.reason for row in rejected[1:])
    counted = ", ".join(f"{count} {reason}" for reason, count in sorted(others.items()))
    rows = "1 more row is" if others.total() == 1 else f"{others.total()} more rows are"
    more = f" ({rows} invalid: {counted})" if others else ""
    raise DataError(first.dropped.detail + more, where=first.place, hint=first.hint)


def _example(raw: RawRow, columns: Columns, rules: Rules) -> Example:
    text = _text(raw.values[columns.text], columns.text)
    label = None if columns.label is None else _label(raw.values[columns.label], columns.label, rules.labels)
    entities = None if columns.entities is None else _entities(raw, columns.entities, text, rules.entity_types)
    group = None if columns.group is None else _scalar(raw.values[columns.group], columns.group, "bad-group") or None
    return Example(
        id=example_id(text, label, entities),
        text=text,
        label=label,
        entities=entities,
        group=group,
        source=raw.source,
        row=raw.row,
        kept=tuple((name, _scalar(raw.values[name], name, "bad-value")) for name in columns.keep),
    )


def _text(value: Any, column: str) -> str:
    text = _scalar(value, column, "bad-text")
    if not text:
        raise _Invalid("empty-text", f"column {column!r} has no text", f"Fill in or remove the row, {OR_DROP}.")
    return text


def _label(value: Any, column: str, labels: tuple[str, ...] | None) -> str:
    label = _scalar(value, column, "bad-label")
    if not label:
        raise _Invalid("missing-label", f"column {column!r} has no label", f"Label or remove the row, {OR_DROP}.")
    if labels is not None and label not in labels:
        detail = f"label {label!r} is not in the label set of {len(labels)}"
        hint = f"{_guess(label, labels)}Correct the row, add the label to task.labels, {OR_DROP}."
        raise _Invalid("unknown-label", detail, hint)
    return label


def _scalar(value: Any, column: str, reason: str) -> str:
    """Return a value of a row as normalised text, "" where it is missing."""
    if value is None:
        return ""
    if isinstance(value, list | dict | bytes | tuple):
        detail = f"column {column!r} holds {type(value).__name__}, not text"
        raise _Invalid(reason, detail, f"Write one text or number into the column, {OR_DROP}.")
    text = normalize(str(value).lower() if isinstance(value, bool) else str(value))
    if not _is_unicode(text):
        detail = f"column {column!r} holds half of a UTF-16 surrogate pair, which is no character"
        raise _Invalid("broken-unicode", detail, f"Export the row again as UTF-8, {OR_DROP}.")
    return text


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text) if not text.isascii() else True


def _entities(
    raw: RawRow, columns: str | Mapping[str, str], text: str, types: tuple[str, ...] | None
) -> tuple[Entity, ...]:
    """Return each (type, value) once, in the order of the text, at its first occurrence."""
    if isinstance(columns, str):
        values = _values_by_type(_parsed(raw.values[columns], columns), columns)
    else:
        cells = ((type_, _parsed_list(raw.values[column]), column) for type_, column in columns.items())
        values = [(type_, value) for type_, cell, column in cells for value in _value_list(cell, column)]
    found = dict.fromkeys((normalize(type_), normalize(value)) for type_, value in values)
    entities = [_located(type_, value, text, types) for type_, value in found if value]
    return tuple(sorted(entities, key=lambda e: (e.start, e.end, e.type)))


def _located(type_: str, value: str, text: str, types: tuple[str, ...] | None) -> Entity:
    if types is not None and type_ not in types:
        detail = f"entity type {type_!r} is not one of {', '.join(types)}"
        hint = f"{_guess(type_, types)}Correct the row, add the type to task.entities, {OR_DROP}."
        raise _Invalid("unknown-entity-type", detail, hint)
    start = text.find(value)
    if start < 0:
        detail = f"the {type_} {value[:80]!r} does not occur in the text"
        hint = f"Write the value exactly as it stands in the text (case, spaces, punctuation), {OR_DROP}."
        raise _Invalid("entity-not-in-text", detail, hint)
    return Entity(type_, value, start, start + len(value))


def _parsed(value: Any, column: str) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise _malformed(column, f"is not JSON ({error})") from error


def _parsed_list(value: Any) -> Any:
    """Read a cell of a column per type: a JSON list where it is one, else the value as it stands."""
    if not isinstance(value, str) or not value.lstrip().startswith("["):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value  # a value that begins with a bracket, such as "[2024] EWHC 12"


def _values_by_type(parsed: Any, column: str) -> list[tuple[str, str]]:
    match parsed:
        case None:
            return []
        case dict():  # {"type": ["value"]}; a Parquet struct gives None for a type that is not there
            return [(str(type_), value) for type_, cell in parsed.items() for value in _value_list(cell, column)]
        case list():
            return [_typed_value(item, column) for item in parsed if item is not None]
        case _:
            raise _malformed(column, f"holds {type(parsed).__name__}")


def _typed_value(item: Any, column: str) -> tuple[str, str]:
    match item:
        case {"type": str(type_), "text": str(value)} if _is_unicode(type_ + value):
            return type_, value
        case _:
            raise _malformed(column, f"has the item {json.dumps(item, default=str)[:80]}")


def _value_list(cell: Any, column: str) -> list[str]:
    values = cell if isinstance(cell, list) else [cell]
    texts = [value if isinstance(value, str) else str(value) for value in values if value is not None]
    if any(isinstance(value, list | dict | bytes) for value in values) or not all(map(_is_unicode, texts)):
        raise _malformed(column, f"has the value {str(cell)[:80]!r}")
    return texts


def _malformed(column: str, found: str) -> _Invalid:
    expected = '[{"type": "…", "text": "…"}] or {"type": ["value"]}'
    return _Invalid("malformed-entities", f"column {column!r} {found}", f"Write {expected} into the column, {OR_DROP}.")


def _guess(word: str, choices: Sequence[str]) -> str:
    guess = nearest(word, list(choices)).strip()
    return f"{guess} " if guess else ""


def _rejected(raw: RawRow, columns: Columns, invalid: _Invalid) -> Rejected:
    text = raw.values.get(columns.text)
    id = example_id(text if isinstance(text, str) else "", None, None)
    dropped = Dropped(id=id, reason=invalid.reason, detail=invalid.detail, source=raw.source, row=raw.row)
    return Rejected(dropped, f"{raw.source}:{raw.place}", invalid.hint)
