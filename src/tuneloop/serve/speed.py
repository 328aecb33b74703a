"""How fast an engine has been lately."""

from __future__ import annotations

OLD_BATCHES_KEEP = 0.9  # of their weight, with every new batch


class Speed:
    """Seconds per token, measured over the last batches."""

    def __init__(self) -> None:
        self._tokens = self._seconds = 0.0

    def add(self, tokens: int, seconds: float) -> None:
        """Take one more batch into account."""
        self._tokens = self._tokens * OLD_BATCHES_KEEP + max(tokens, 1)
        self._seconds = self._seconds * OLD_BATCHES_KEEP + seconds

    def seconds_for(self, tokens: int) -> float:
        """Return how long so many tokens take; 0 where nothing was measured yet."""
        return tokens * self._seconds / self._tokens if self._tokens else 0.0
