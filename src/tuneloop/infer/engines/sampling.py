"""Choosing the next token from logits: greedily, or at random by temperature and nucleus.

Shapes: V vocabulary.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tuneloop.infer.engines.protocol import Sampling


class TokenChooser:
    """Chooses token after token of one answer; with a seed the same logits give the same tokens.

    Raises: ValueError: a negative temperature, or a top_p outside (0, 1].
    """

    def __init__(self, sampling: Sampling) -> None:
        if not (sampling.temperature >= 0 and 0 < sampling.top_p <= 1):
            raise ValueError(f"temperature {sampling.temperature} must be at least 0, top_p {sampling.top_p} in (0, 1]")
        self._temperature, self._top_p = sampling.temperature, sampling.top_p
        self._random = np.random.default_rng(sampling.seed)

    def choose(self, logits: NDArray[np.float32]) -> int:
        """Return the next token for logits (V,)."""
        if self._temperature == 0:
            return int(logits.argmax())
        # The best logit is taken away first: a small temperature must not make it overflow.
        weights = np.exp((logits.astype(np.float64) - float(logits.max())) / self._temperature)
        order = np.argsort(-weights, kind="stable")
        reached = np.cumsum(weights[order])
        # The nucleus (Holtzman et al. 2020) is the fewest tokens that hold top_p together.
        size = int(np.searchsorted(reached, self._top_p * reached[-1])) + 1
        drawn = self._random.random() * reached[min(size, len(reached)) - 1]
        return int(order[np.searchsorted(reached, drawn, side="right")])
