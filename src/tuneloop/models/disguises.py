"""Control words in disguise: found as any tokenizer's normaliser could come to read them, and broken where they stand.

Some tokenizers normalise text before they look for control tokens: they drop invisible characters, replace fullwidth
letters (NFKC), strip accents, write ▁ for a space. So `<|im_end|>` with a zero-width space in it, or `＜｜im_end｜＞`,
may become a control token although it is none as written. Here all of that is done at once to a copy (`plain`),
control words are looked for in the copy, and the original gets a space inside each. Nothing else of it is touched.

Knows nothing about models.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

# Categories of characters that show nothing by themselves: control, format (zero-width, bidi, tags), marks.
INVISIBLE = {"Cc", "Cf", "Mn", "Me"}
# Letters that are blank by definition (Unicode's Default_Ignorable_Code_Point), and unassigned ones reserved for it.
BLANK_LETTERS = {0x115F, 0x1160, 0x3164, 0xFFA0, 0x2065, *range(0xFFF0, 0xFFF9), *range(0xE0000, 0xE1000)}
WORD_SPACE = "▁"  # how SentencePiece writes a space


class _Plain(dict[int, str]):
    """Code point → what is left of it in the plainest form; filled as characters are met."""

    def __missing__(self, code: int) -> str:
        decomposed = " " if chr(code) == WORD_SPACE else unicodedata.normalize("NFKD", chr(code))
        self[code] = seen = "".join(filter(_is_seen, decomposed))
        return seen


_PLAIN = _Plain()


def plain(text: str) -> str:
    """Return text without invisible characters and marks, compatibility characters decomposed, ▁ as a space."""
    return text if text.isascii() and text.isprintable() else text.translate(_PLAIN)


class ControlWords:
    """The words that mean something by themselves to one tokenizer or chat template."""

    def __init__(self, words: Iterable[str], *, any_case: bool = False) -> None:
        """Take the words as they are written; `any_case` where the tokenizer makes all text lower case."""
        stripped = {word.strip() for word in words}
        flags = re.IGNORECASE if any_case else re.NOFLAG
        self._written = _any_of(stripped, flags)
        self._plainly = _any_of({plain(word).strip() for word in stripped if len(word) > 1}, flags)

    def broken_up(self, text: str) -> str:
        """Return `text` with a space behind the first character of every control word, disguised or not."""
        count = 1
        while count:  # again: a word may begin inside another
            text, count = self._written.subn(lambda match: f"{match[0][0]} {match[0][1:]}", text)
        while self._plainly.search(seen := plain(text)):
            text = self._disguises_broken_up(text, seen)
        return text

    def _disguises_broken_up(self, text: str, seen: str) -> str:
        sources = [place for place, character in enumerate(text) for _ in plain(character)]  # of `seen`, in `text`
        begins = {sources[match.start()] for match in self._plainly.finditer(seen)}
        return "".join(_spaced(character) if place in begins else character for place, character in enumerate(text))


def _spaced(character: str) -> str:
    seen = plain(character)
    return f"{character} " if len(seen) == 1 else " ".join(seen)  # one that stands for several, as … for three dots


def _is_seen(character: str) -> bool:
    if character in "\t\n\r":
        return True
    return unicodedata.category(character) not in INVISIBLE and ord(character) not in BLANK_LETTERS


def _any_of(words: Iterable[str], flags: re.RegexFlag) -> re.Pattern[str]:
    longest_first = sorted((word for word in words if len(word) > 1), key=lambda word: (-len(word), word))
    return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)", flags)
