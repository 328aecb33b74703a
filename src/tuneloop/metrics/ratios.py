"""Division of summed counts where some may be zero."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tuneloop.stats import Floats


def ratio(part: Floats, whole: Floats) -> Floats:
    """Divide; NaN where there is nothing to divide by."""
    quotient: Floats = np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole > 0)
    return quotient


def mean_where(part: Floats, whole: Floats, counted: NDArray[np.bool_]) -> Floats:
    """Return the mean (S,) of part / whole over the columns where `counted` (S, K); NaN where there are none."""
    scores: Floats = np.where(counted, np.divide(part, whole, out=np.zeros(np.shape(whole)), where=whole > 0), 0.0)
    return ratio(scores.sum(axis=1), counted.sum(axis=1).astype(np.float64))
