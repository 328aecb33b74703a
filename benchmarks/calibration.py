"""Are probabilities honest on test documents, and is the promise about accepted answers kept?

With --store: on the newest calibration of a tuned model in that artifact store, and the model's answers to the test
documents. Without: on a made-up model with known probabilities, two and a half times too sure, which takes seconds.

Ours: the calibrator and the promise ("at most TARGET of accepted answers wrong, 95 % confidence, among as many
documents as the test half has") over random halves of validation and test documents together. Peers on the same halves:
the threshold with the best coverage among those whose observed error is within the target, and a fixed 0.85.

An error that is measured on few documents is mostly noise: `ece_of_perfect_share` is what answers would show that are
right exactly as often as they say, on halves of the same size.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
from _measure import machine, show
from scipy.special import log_softmax, softmax

from tuneloop.artifacts import Artifact, ArtifactStore
from tuneloop.config.schema import ReviewConfig
from tuneloop.dataset import open_dataset, stratified_subset
from tuneloop.evaluate.calibration.figures import CalibrationFigures, Rule, calibration_figures
from tuneloop.evaluate.calibration.policy_fit import answered_rightly, fit_policy
from tuneloop.evaluate.calibration.stage import KIND as CALIBRATION
from tuneloop.evaluate.calibration.stage import open_policy
from tuneloop.evaluate.calibration.validation_answers import read_validation_answers
from tuneloop.infer.calibrate import Confidences, fit_calibrator
from tuneloop.infer.policy import ReviewPolicy
from tuneloop.infer.predictions import read_predictions
from tuneloop.metrics import expected_calibration_error
from tuneloop.records import Example, Prediction

Answered = tuple[list[Example], list[Prediction]]
MADE_UP_LABELS = 12
LARGEST_ECE = 0.03
LEAST_KEPT = 0.95


def main() -> None:
    """Run the benchmark."""
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--json", action="store_true", help="print the result as one JSON object and nothing else")
    made.add_argument("--store", type=Path, help="an artifact store, for example .tuneloop/artifacts")
    made.add_argument("--target", type=float, default=0.02, help="largest share of wrong answers among accepted ones")
    made.add_argument("--splits", type=int, default=100, help="random halves")
    given = made.parse_args()
    policy, test, validation = _made_up(given.target) if given.store is None else _from_store(given.store)
    figures = calibration_figures(policy, test, validation, target=given.target, splits=given.splits)
    result = _result(figures, policy, len(test[0]), len(validation[0]))
    result["ours"] |= _errors_over_halves(policy, test, validation, given.splits)
    show(result, as_json=given.json)


def _result(figures: CalibrationFigures, policy: ReviewPolicy, n_test: int, n_validation: int) -> dict[str, Any]:
    splits, before, after = figures.splits, figures.before.ece, figures.after.ece
    return {
        "name": "calibration",
        "machine": machine(),
        "data": {"test_documents": n_test, "validation_documents": n_validation, "splits": splits.splits},
        "calibrator": policy.calibrator.method,
        "ours": {"ece_share": _rounded(after.estimate), **_shares(splits.ours)},
        "long_run_promise": _shares(splits.long_run),
        "peer": {
            "ece_uncalibrated_share": _rounded(before.estimate),
            "observed_error": _shares(splits.observed),
            "fixed_085": _shares(splits.fixed),
        },
        "ratio": {"ece": _rounded(before.estimate / after.estimate if after.estimate else float("inf"))},
        "checks": {
            "ece_at_most_0.03": after.estimate <= LARGEST_ECE,
            "ece_interval_share": [_rounded(after.low), _rounded(after.high)],
            "target_kept_in_95_of_100_splits": splits.ours.kept >= LEAST_KEPT,
            "target_error_share": splits.target,
        },
    }


def _shares(rule: Rule) -> dict[str, float | None]:
    return {
        "splits_kept_share": rule.kept,
        "splits_promised_share": rule.promised,
        "coverage_share": _rounded(rule.coverage),
        "accepted_error_share": _rounded(rule.error),
    }


def _errors_over_halves(policy: ReviewPolicy, test: Answered, validation: Answered, splits: int) -> dict[str, float]:
    """Return medians over random halves of all documents: fitted to one half, tried on the other."""
    items, answers = [*validation[0], *test[0]], [*validation[1], *test[1]]
    confidences, correct = Confidences.of(answers), answered_rightly(items, answers)
    places = {label: place for place, label in enumerate(policy.labels or ())}
    truth = np.array([places[item.label or ""] for item in items]) if places else None
    rng = np.random.default_rng(0)
    found: dict[str, list[float]] = {"ece_over_halves_share": [], "ece_of_perfect_share": []}
    for _ in range(splits):
        fit, tried = np.array_split(rng.permutation(len(items)), 2)
        known = None if truth is None else truth[fit]
        fitted = fit_calibrator(policy.calibrator.method, confidences.take(fit), correct[fit], known)
        probability = fitted.probability(confidences.take(tried))
        found["ece_over_halves_share"].append(expected_calibration_error(probability, correct[tried]))
        honest = rng.random(len(tried)) < probability
        found["ece_of_perfect_share"].append(expected_calibration_error(probability, honest))
    return {name: round(float(np.median(values)), 4) for name, values in found.items()}


def _rounded(value: float) -> float | None:
    return round(value, 4) if np.isfinite(value) else None


def _from_store(root: Path) -> tuple[ReviewPolicy, Answered, Answered]:
    store = ArtifactStore(root)
    found = [artifact for artifact in store if artifact.kind == CALIBRATION]
    if not found:
        sys.exit(f"{root}: no calibration there. Run `tuneloop calibrate` and `tuneloop evaluate` first.")
    calibration = found[-1]
    answers = [a for a in store if a.kind == "answers" and a.parents.get("run") == calibration.parents["run"]]
    if not answers:
        sys.exit(f"{root}: run {calibration.parents['run']} has no test answers. Run `tuneloop evaluate` first.")
    seen = read_validation_answers(store.get(calibration.parents["answers"]))
    return open_policy(calibration), _test(store, answers[-1]), (seen.items, seen.answers)


def _test(store: ArtifactStore, answers: Artifact) -> Answered:
    settings = answers.manifest["inputs"]["items"]
    split = open_dataset(store.get(answers.parents["dataset"])).split("test")
    items = stratified_subset(split, settings["max_examples"], settings["seed"])
    return items, read_predictions(answers.path / "closed.jsonl")


def _made_up(target: float) -> tuple[ReviewPolicy, Answered, Answered]:
    validation, test = (_answers_of_a_made_up_model(2_000, seed) for seed in (1, 2))
    foreign = _answers_of_a_made_up_model(60, 3, sharpness=0.5)[1]
    labels = [str(number) for number in range(MADE_UP_LABELS)]
    review = ReviewConfig(target_error=target)
    return fit_policy(*validation, foreign, labels=labels, review=review).policy, test, validation


def _answers_of_a_made_up_model(n: int, seed: int, sharpness: float = 10.0) -> Answered:
    rng = np.random.default_rng(seed)
    logits = sharpness * rng.standard_normal((n, MADE_UP_LABELS))
    truth = (softmax(logits, axis=1).cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)
    scores = log_softmax(2.5 * logits, axis=1)
    items = [Example(id=str(row), text="", label=str(label)) for row, label in enumerate(truth)]
    answers = [
        Prediction(label=str(row.argmax()), probability=float(np.exp(row.max())), label_scores=tuple(map(float, row)))
        for row in scores
    ]
    return items, answers


if __name__ == "__main__":
    main()
