"""What a policy does to an answer, and the reason it gives."""

from __future__ import annotations

import json
import math

import pytest

from tuneloop.infer.calibrate import Calibrator
from tuneloop.infer.conformal import Acceptance
from tuneloop.infer.policy import ReviewPolicy
from tuneloop.infer.scope import ScopeDetector
from tuneloop.records import Prediction

LABELS = ("a", "b")
SURE = Prediction(label="a", probability=0.99, label_scores=(-0.01, -5.0))
UNSURE = Prediction(label="b", probability=0.6, label_scores=(-1.0, -0.6))
ELSEWHERE = Prediction(label="a", probability=0.999, label_scores=(-9.0, -20.0))


def acceptance(above: float, labels: tuple[str, ...] | None = None) -> Acceptance:
    return Acceptance(above, 300, 200, 1, 0.02, 0.02, 0.95, labels)


def test_the_route_and_its_reason_follow_from_the_calibrated_probability() -> None:
    halved = Calibrator("platt", (0.5, 0.0))
    policy = ReviewPolicy(halved, threshold=0.9, labels=LABELS)
    found = policy.apply([SURE, UNSURE])
    assert [(one.route, one.reason) for one in found] == [("auto", ""), ("review", "unsure")]
    assert found[0].probability == pytest.approx(1 / (1 + math.exp(-4.99 / 2)))
    assert found[0].label_scores == SURE.label_scores, "what the model gave must stay readable"


def test_applying_a_policy_twice_changes_nothing_more() -> None:
    policy = ReviewPolicy(Calibrator("temperature", (3.0,)), threshold=0.7, labels=LABELS)
    once = policy.apply([SURE, UNSURE, ELSEWHERE])
    assert policy.apply(once) == once


def test_a_promise_accepts_only_above_its_own_label_s_threshold() -> None:
    groups = (acceptance(0.1, ("b",)), acceptance(math.inf))
    policy = ReviewPolicy(Calibrator(), acceptances=groups, labels=LABELS)
    assert [one.route for one in policy.apply([SURE, UNSURE])] == ["review", "auto"]
    equal = ReviewPolicy(Calibrator(), acceptances=(acceptance(4.99),), labels=LABELS)
    assert equal.apply([SURE])[0].route == "review", "the highest score left out is not accepted"


def test_a_foreign_document_goes_to_review_however_sure_the_model_is() -> None:
    policy = ReviewPolicy(Calibrator(), 0.5, scope=ScopeDetector("mass", -2.0, 0.02, 300), labels=LABELS)
    found = policy.apply([ELSEWHERE, SURE])
    assert [(one.route, one.reason) for one in found] == [("review", "out-of-scope"), ("auto", "")]


def test_a_malformed_or_invented_answer_is_never_accepted() -> None:
    answers = [
        Prediction(label="a", probability=1.0, label_scores=(0.0, -9.0), well_formed=False),
        Prediction(label="c", probability=1.0, label_scores=(0.0, -9.0), invented=True),
    ]
    found = ReviewPolicy(Calibrator(), threshold=0.0, labels=LABELS).apply(answers)
    assert [(one.route, one.reason) for one in found] == [("review", "malformed"), ("review", "invented")]


def test_answers_over_another_label_set_are_refused() -> None:
    policy = ReviewPolicy(Calibrator(), 0.5, labels=("a", "b", "c"))
    with pytest.raises(ValueError, match="3 labels, these are over 2"):
        policy.apply([SURE])
    with pytest.raises(ValueError, match="over None"):
        policy.apply([Prediction(label="a", probability=0.5)])
    assert policy.apply([]) == []


def test_a_policy_has_one_rule() -> None:
    with pytest.raises(ValueError, match="either"):
        ReviewPolicy(Calibrator())
    with pytest.raises(ValueError, match="either"):
        ReviewPolicy(Calibrator(), 0.5, (acceptance(1.0),))


@pytest.mark.parametrize(
    "policy",
    [
        ReviewPolicy(Calibrator("isotonic", knots=((-1.0, 0.2), (2.0, 0.9))), 0.85),
        ReviewPolicy(
            Calibrator("temperature", (1.5,)),
            acceptances=(acceptance(-math.inf, ("a",)), acceptance(math.inf)),
            scope=ScopeDetector("entropy", -1.0, 0.02, 90),
            labels=LABELS,
            label_scoring="sequence",
        ),
    ],
)
def test_a_policy_is_read_as_it_was_written(policy: ReviewPolicy) -> None:
    assert ReviewPolicy.from_dict(json.loads(json.dumps(policy.to_dict(), allow_nan=False))) == policy


def test_a_policy_from_before_there_was_a_choice_was_fitted_on_sequences() -> None:
    content = ReviewPolicy(Calibrator(), 0.5, labels=LABELS).to_dict()
    del content["label_scoring"]
    assert ReviewPolicy.from_dict(content).label_scoring == "sequence"
