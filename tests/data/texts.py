"""Small made-up corpora that the tests of the data room share, and the plain way to compare them."""

from __future__ import annotations

import random
import re
from itertools import combinations

WORDS = [f"word{number}" for number in range(400)]


def word_shingles(text: str, words: int) -> set[tuple[str, ...]]:
    """Return the shingles of a text as plain Python sets: the definition that the fast code has to agree with."""
    found = re.findall(r"\w+", text.lower()) or [text]
    return {tuple(found[start : start + words]) for start in range(max(len(found) - words + 1, 1))}


def brute_force_pairs(texts: list[str], threshold: float, words: int) -> dict[tuple[int, int], float]:
    """Return (i, j) → exact similarity for every pair at or above the threshold, by comparing all of them."""
    sets = [word_shingles(text, words) for text in texts]
    pairs = {}
    for (i, a), (j, b) in combinations(enumerate(sets), 2):
        if min(len(a), len(b)) < threshold * max(len(a), len(b)) - 1e-9:
            continue
        score = len(a & b) / len(a | b)
        if score >= threshold - 1e-9:
            pairs[i, j] = score
    return pairs


def corpus_with_copies(size: int, seed: int) -> list[str]:
    """Return texts of 1 to 80 words, about half of them edited copies of an earlier one."""
    random_ = random.Random(seed)
    texts: list[str] = []
    for _ in range(size):
        if texts and random_.random() < 0.5:
            words = random_.choice(texts).split()
            for _ in range(random_.randrange(4)):
                words[random_.randrange(len(words))] = random_.choice(WORDS)
            texts.append(" ".join(words))
        else:
            texts.append(" ".join(random_.choices(WORDS, k=random_.randrange(1, 80))))
    return texts
