"""What is left of a document before it is stored: its text, its masked text, its hash, or nothing.

Masking finds personal data by patterns (and check digits, where a kind of number has them). It finds what has a fixed
form; names and addresses in prose it does not find. Entities follow: their values and offsets are those of the text
that is stored.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from tuneloop.records import Entity
from tuneloop.store.tables import Redaction

Check = Callable[[str], int]
"""What a pattern found → how many characters of it are really that; 0 if none."""


class Span(NamedTuple):
    """Characters that are masked (end exclusive), and the name of what was found there."""

    start: int
    end: int
    name: str


@dataclass(frozen=True, slots=True)
class Redacted:
    """What may be stored of a document; None where nothing may. `sha256` is that of the text it stands for."""

    text: str | None
    sha256: str | None
    entities: tuple[Entity, ...] | None


def _iban_length(found: str) -> int:
    """Return how much of it is an IBAN: the check digits are right (ISO 13616: rearranged, it is 1 modulo 97).

    What looks like a last group of four may be the next word.
    """
    while found:
        code = found.replace(" ", "")
        if int("".join(str(int(character, 36)) for character in code[4:] + code[:4])) % 97 == 1:
            return len(found)
        found = found.rpartition(" ")[0]
    return 0


def _card_length(found: str) -> int:
    """Return its length if the last digit is right (Luhn), or else 0."""
    digits = [int(character) for character in reversed(found) if character.isdigit()]
    doubled = sum(sum(divmod(2 * digit, 10)) for digit in digits[1::2])
    return len(found) if (sum(digits[0::2]) + doubled) % 10 == 0 else 0


def _ip_length(found: str) -> int:
    """Return its length if it is an address with a digit in it, or else 0 (`10:30:00`, `::`)."""
    try:
        ipaddress.ip_address(found)
    except ValueError:
        return 0
    return len(found) if any(character.isalnum() for character in found) else 0


# Every repetition is bounded and starts at a boundary, so that the time is proportional to the length of a text.
PATTERNS: Mapping[str, tuple[re.Pattern[str], Check | None]] = {
    "EMAIL": (re.compile(r"(?<![\w.%+-])[\w.%+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63}){1,8}"), None),
    "IBAN": (re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b"), _iban_length),
    "CARD": (re.compile(r"(?<![\d-])[0-9](?:[ -]?[0-9]){12,18}(?![\d-])"), _card_length),
    "IP": (
        re.compile(r"(?<![\w.:])(?:\d{1,3}(?:\.\d{1,3}){3}|(?:[0-9A-Fa-f]{0,4}:){2,8}[0-9A-Fa-f]{0,4})(?![\w:]|\.\d)"),
        _ip_length,
    ),
    "PHONE": (
        re.compile(
            r"(?<![\w.+/-])(?!\d{1,2}[-./ ]\d{1,2}[-./ ]\d{2,4}\b)"  # not a date
            r"(?:\+\d{1,3}|00\d{1,3}|\(0?\d{1,4}\)|0\d{1,4}|\d{3}(?=[- ]\d{3}[- ]\d{4}\b))"
            r"[ /-]{0,2}(?:\(0\))?(?:[ -]?\d){6,12}(?![\w-])"
        ),
        None,
    ),
}


@dataclass(frozen=True)
class RedactionPolicy:
    """How documents are redacted; `patterns` are masked besides those that are built in (name → expression)."""

    kind: Redaction = "none"
    patterns: Mapping[str, re.Pattern[str]] | None = None

    def document(self, text: str, entities: Sequence[Entity] | None) -> Redacted:
        """Return what may be stored of a document and of the entities that were found in it."""
        kept = None if entities is None else tuple(entities)
        if self.kind == "drop":
            return Redacted(None, None, _without_values(kept))
        if self.kind == "hash":
            return Redacted(None, text_sha256(text), _without_values(kept))
        if self.kind == "mask":
            text, kept = self._mask_document(text, kept)
        return Redacted(text, text_sha256(text), kept)

    def value(self, text: str) -> str:
        """Return what may be stored of a value that stands in a document: an entity of someone's feedback."""
        return "" if self.kind in ("hash", "drop") else self.remark(text)

    def remark(self, text: str) -> str:
        """Return what may be stored of a sentence about a document: with masks, unless everything is kept."""
        return text if self.kind == "none" else _masked(text, self.find(text))

    def find(self, text: str) -> list[Span]:
        """Return the personal data in a text, in order and without overlaps; of two that overlap the first names it."""
        patterns = [(name, pattern, None) for name, pattern in (self.patterns or {}).items()]
        spans = [
            Span(match.start(), match.start() + length, name)
            for name, pattern, check in (*patterns, *((name, *both) for name, both in PATTERNS.items()))
            for match in pattern.finditer(text)
            if (length := check(match.group()) if check else len(match.group()))
        ]
        merged: list[Span] = []
        for span in sorted(spans, key=lambda span: (span.start, -span.end)):
            if merged and span.start < merged[-1].end:
                merged[-1] = merged[-1]._replace(end=max(merged[-1].end, span.end))
            else:
                merged.append(span)
        return merged

    def _mask_document(self, text: str, entities: tuple[Entity, ...] | None) -> tuple[str, tuple[Entity, ...] | None]:
        spans = self.find(text)
        masked = _masked(text, spans)
        if entities is None:
            return masked, None
        return masked, tuple(self._mask_entity(entity, masked, spans) for entity in entities)

    def _mask_entity(self, entity: Entity, masked: str, spans: Sequence[Span]) -> Entity:
        if entity.start < 0:
            return replace(entity, text=self.value(entity.text))
        start = _moved(entity.start, spans, to_end=False)
        end = _moved(entity.end, spans, to_end=True)
        return replace(entity, text=masked[start:end], start=start, end=end)


def text_sha256(text: str) -> str:
    """Return the SHA-256 of a text in hexadecimal; half surrogates count as the bytes they would be."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _without_values(entities: tuple[Entity, ...] | None) -> tuple[Entity, ...] | None:
    return None if entities is None else tuple(replace(entity, text="") for entity in entities)


def _masked(text: str, spans: Sequence[Span]) -> str:
    pieces, last = [], 0
    for span in spans:
        pieces += [text[last : span.start], f"[{span.name}]"]
        last = span.end
    return "".join([*pieces, text[last:]])


def _moved(position: int, spans: Sequence[Span], *, to_end: bool) -> int:
    """Return where a character of the text is in the masked text; within a mask, at its beginning or end."""
    before = bisect_right(spans, position, key=lambda span: span.end)
    shift = sum(len(span.name) + 2 - (span.end - span.start) for span in spans[:before])
    if before < len(spans):
        span = spans[before]
        if span.start < position or (span.start == position and not to_end):
            return span.start + shift + (len(span.name) + 2 if to_end else 0)
    return position + shift
