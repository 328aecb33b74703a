"""Which language each document is written in, as far as its text tells.

py3langid (Lui & Baldwin 2012, "langid.py"; version 0.4's model knows 139 languages) reads bytes, needs no network and
always says the same. It is made for sentences, so nothing is said of a few words, nor where it is not sure itself;
and a language of which there are only a handful of documents is more likely a mistake than a language.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any

UNCERTAIN = "not certain"
MIN_CONFIDENCE = 0.5
MIN_LETTERS = 20  # fewer say little; scripts of one language (Thai, Greek) are then told by the script's own column
CHARS_READ = 2000
MIN_DOCUMENTS, MIN_SHARE = 5, 0.01
NO_LANGUAGE = "zxx"  # ISO 639: numbers, markup, identifiers


def languages(texts: Sequence[str]) -> tuple[str, ...]:
    """Return the ISO 639 code of each text's language, or `UNCERTAIN`."""
    found = [language(text) for text in texts]
    counts = Counter(found)
    fewest = max(MIN_DOCUMENTS, MIN_SHARE * len(texts))
    return tuple(code if counts[code] >= fewest else UNCERTAIN for code in found)


def language(text: str) -> str:
    """Return the ISO 639 code of a text's language; `UNCERTAIN` for a few words and what looks like no one language."""
    read = text[:CHARS_READ]
    if sum(map(str.isalpha, read)) < MIN_LETTERS:
        return UNCERTAIN
    code, confidence = _identifier().classify(read.encode("utf-8", "replace"))
    return UNCERTAIN if confidence < MIN_CONFIDENCE or code == NO_LANGUAGE else str(code)


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
