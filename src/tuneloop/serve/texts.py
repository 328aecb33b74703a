"""A document as the model reads it, and where its parts are in the document as the caller sent it."""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from tuneloop.formats import normalize

HANGUL_VOWELS_AND_FINALS = range(0x1160, 0x1200)  # join the letter before them, though they are letters themselves


@dataclass(frozen=True)
class ReadText:
    """A document: `sent` by the caller, and the `text` that the model reads (NFC, \\n line ends, trimmed)."""

    sent: str
    text: str

    @classmethod
    def of(cls, sent: str) -> ReadText:
        """Return a document as training saw its documents."""
        return cls(sent, normalize(sent))

    def span_in_sent(self, start: int, end: int) -> tuple[int, int]:
        """Return where `text[start:end]` is in `sent`. A letter that was joined or changed counts as a whole."""
        if self.sent == self.text:
            return start, end
        shift, starts, sent_starts = self._segments
        first = bisect_right(starts, start + shift) - 1
        last = bisect_right(starts, end + shift - 1) - 1
        return sent_starts[first], sent_starts[last + 1]

    def occurrences(self, value: str) -> list[tuple[int, int]]:
        """Return where a value occurs in `sent`, from the first on, none overlapping the one before."""
        found, start = [], self.text.find(value)
        while value and start >= 0:
            found.append(self.span_in_sent(start, start + len(value)))
            start = self.text.find(value, start + len(value))
        return found

    @cached_property
    def _segments(self) -> tuple[int, list[int], list[int]]:
        """Return what was trimmed before `text`, and where each segment starts: normalized, and as it was sent."""
        starts, sent_starts = [0], [0]
        for segment in _stable_segments(self.sent):
            starts.append(starts[-1] + len(_rewritten(segment)))
            sent_starts.append(sent_starts[-1] + len(segment))
        rewritten = _rewritten(self.sent)
        if starts[-1] != len(rewritten):  # a letter that Unicode joins and this rule does not know
            starts, sent_starts = [0, len(rewritten)], [0, len(self.sent)]
        return len(rewritten) - len(rewritten.lstrip()), starts, sent_starts


def _rewritten(text: str) -> str:
    """Return the text normalized but not trimmed."""
    return unicodedata.normalize("NFC", text).replace("\r\n", "\n").replace("\r", "\n")


def _stable_segments(text: str) -> Iterator[str]:
    """Yield pieces that normalization changes each by itself: a letter with its marks, a line end, a character."""
    start = 0
    for place in range(1, len(text)):
        if not _joins(text[place - 1], text[place]):
            yield text[start:place]
            start = place
    yield text[start:]


def _joins(before: str, character: str) -> bool:
    if character < "\x80":
        return before == "\r" and character == "\n"
    return unicodedata.category(character).startswith("M") or ord(character) in HANGUL_VOWELS_AND_FINALS
