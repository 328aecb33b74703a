"""What a constrained tree's scores have to be, computed label by label and token by token."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def constrained_scores(after: Callable[[Sequence[int]], Floats], candidates: Sequence[Sequence[int]]) -> Floats:
    """Return log-scores (K,): at each token its share among those that go on towards a candidate.

    Up to the first fork of all candidates it is the token's own probability. `after(ids)` gives the log-probabilities
    (V,) of the token that follows `ids`.
    """
    scores = np.zeros(len(candidates))
    for number, candidate in enumerate(candidates):
        for place, token in enumerate(candidate):
            begun = list(candidate[:place])
            fellows = [other for other in candidates if list(other[:place]) == begun]
            if len(fellows) == 1 and len(candidates) > 1:
                break
            allowed = sorted({other[place] for other in fellows})
            log_probabilities = after(begun)
            scores[number] += log_probabilities[token]
            if len(fellows) < len(candidates):
                scores[number] -= np.logaddexp.reduce(log_probabilities[allowed])
            if len(candidates) == 1:
                break
    return scores
