"""What sequences have in common. Knows nothing about what their tokens mean."""

from __future__ import annotations

from collections.abc import Sequence


def common_prefix(sequences: Sequence[Sequence[int]]) -> int:
    """Return how many first tokens all sequences share, leaving at least one token to each."""
    if not sequences:
        return 0
    first, last = min(map(tuple, sequences)), max(map(tuple, sequences))  # in dictionary order, these differ first
    limit = max(min(map(len, sequences)) - 1, 0)
    return next((i for i in range(limit) if first[i] != last[i]), limit)
