"""Which calibrator to use: compared by cross-validation.

Rule: the smooth method (none, temperature, Platt) with the lowest out-of-fold negative log-likelihood of "this answer
is right" is taken; they have two parameters at most, so that little can be fitted to chance. Isotonic regression, which
can fit anything, has to be better than that by more than one standard error of the paired difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuneloop.infer.calibrate import METHODS, Bools, Calibrator, Confidences, Method, fit_calibrator, methods_for
from tuneloop.metrics import expected_calibration_error
from tuneloop.stats import Floats

FREE: Method = "isotonic"  # the one that can fit anything
FEWEST_DOCUMENTS = 30
FEWEST_OF_A_KIND = 5  # right answers, and wrong ones: fewer show no curve


@dataclass(frozen=True)
class MethodScore:
    """One method out of fold: mean negative log-likelihood (nats), how much that is above the best smooth method's
    (`excess`, negative where it is lower, with its standard error), and the expected calibration error over equal-mass
    bins.
    """

    method: Method
    nll: float
    excess: float
    excess_error: float
    ece: float

    def to_dict(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class CalibratorChoice:
    """The chosen calibrator, fitted on all documents; `out_of_fold` (N,) are probabilities of documents that the
    calibrator behind each had not seen, which is what an honest validation figure is computed from.
    """

    calibrator: Calibrator
    table: tuple[MethodScore, ...]
    reason: str
    out_of_fold: Floats

    def score(self, method: Method) -> MethodScore:
        """Return one row of the table. Raises: KeyError: the method was not compared."""
        return {row.method: row for row in self.table}[method]


def choose_calibrator(
    confidences: Confidences,
    correct: Bools,
    truth: NDArray[np.int64] | None = None,
    *,
    method: Method | None = None,
    folds: int = 5,
    seed: int = 13,
) -> CalibratorChoice:
    """Compare the methods by cross-validation and fit the chosen one on everything.

    Args: correct (N,); truth (N,) indices of true labels, None where the task has no label set; method: take this one
        whatever the comparison says (None: choose).
    Raises: ValueError: `method` cannot be fitted to these answers.
    """
    possible = [m for m in methods_for(confidences) if m != "temperature" or truth is not None]
    if method is not None and method not in possible:
        raise ValueError(f"{method!r} needs the scores of a label set")
    right, n = int(correct.sum()), len(correct)
    if n < FEWEST_DOCUMENTS or min(right, n - right) < FEWEST_OF_A_KIND:
        return _without_fitting(confidences, correct, method)
    fold_of = _folds(correct, folds, seed)
    held_out = {m: _out_of_fold(m, confidences, correct, truth, fold_of) for m in possible}
    table = _table(held_out, correct)
    chosen = method or _best(table)
    reason = "chosen in the configuration" if method else _reason(table, chosen)
    return CalibratorChoice(fit_calibrator(chosen, confidences, correct, truth), table, reason, held_out[chosen])


def _without_fitting(confidences: Confidences, correct: Bools, method: Method | None) -> CalibratorChoice:
    right, n = int(correct.sum()), len(correct)
    table = _table({"none": confidences.probability}, correct) if n else ()
    reason = (
        f"not fitted: {right} right and {n - right} wrong answers are too few; "
        f"it takes {FEWEST_DOCUMENTS} documents and {FEWEST_OF_A_KIND} of each kind"
    )
    if method == "none":
        reason = "chosen in the configuration"
    return CalibratorChoice(Calibrator(), table, reason, confidences.probability)


def _folds(correct: Bools, folds: int, seed: int) -> NDArray[np.int64]:
    """Return a fold number (N,) each, right and wrong answers spread evenly."""
    rng = np.random.default_rng(seed)
    order = np.lexsort((rng.random(len(correct)), correct))
    fold_of = np.empty(len(correct), dtype=np.int64)
    fold_of[order] = np.arange(len(correct)) % folds
    return fold_of


def _out_of_fold(
    method: Method,
    confidences: Confidences,
    correct: Bools,
    truth: NDArray[np.int64] | None,
    fold_of: NDArray[np.int64],
) -> Floats:
    probability = np.empty(len(correct))
    for fold in np.unique(fold_of):
        rest, mine = fold_of != fold, fold_of == fold
        labels = None if truth is None else truth[rest]
        fitted = fit_calibrator(method, confidences.take(rest), correct[rest], labels)
        probability[mine] = fitted.probability(confidences.take(mine))
    return probability


def _table(held_out: dict[Method, Floats], correct: Bools) -> tuple[MethodScore, ...]:
    losses = {method: _losses(probability, correct) for method, probability in held_out.items()}
    best = min((m for m in losses if m != FREE), key=lambda m: (losses[m].mean(), METHODS.index(m)))
    rows = []
    for method, loss in losses.items():
        excess = loss - losses[best]
        error = float(excess.std(ddof=1) / np.sqrt(len(excess))) if len(excess) > 1 else float("inf")
        ece = expected_calibration_error(held_out[method], correct)
        rows.append(MethodScore(method, float(loss.mean()), float(excess.mean()), error, ece))
    return tuple(rows)


def _losses(probability: Floats, correct: Bools) -> Floats:
    inside = np.clip(probability, 1e-12, 1 - 1e-12)
    return -np.log(np.where(correct, inside, 1 - inside))


def _best(table: Sequence[MethodScore]) -> Method:
    clearly_better = [row.method for row in table if row.method == FREE and row.excess < -row.excess_error]
    return clearly_better[0] if clearly_better else min(table, key=_smooth_excess).method


def _smooth_excess(row: MethodScore) -> float:
    return float("inf") if row.method == FREE else row.excess


def _reason(table: Sequence[MethodScore], chosen: Method) -> str:
    if chosen == FREE:
        return "the lowest cross-validated negative log-likelihood, by more than one standard error"
    if min(table, key=lambda row: row.excess).method == FREE:
        return f"the lowest cross-validated negative log-likelihood but for {FREE}, which is not clearly better"
    return "the lowest cross-validated negative log-likelihood"
