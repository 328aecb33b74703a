"""Named cases that every model has to get right, kept in YAML next to the configuration, and how a model does on them.

A test set says how good a model is on average; a regression suite says that it never again gets *these* wrong. Each
case has a name and a reason, so that a failure needs no archaeology:

    - name: mit-is-permissive
      why: The most common licence; a customer saw it routed to Legal in March.
      text: Permission is hereby granted, free of charge, to any person …
      expect: {label: Permissive, min_probability: 0.8}
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any, Protocol

from tuneloop.errors import DataError, nearest
from tuneloop.evaluate.general.regression_files import WHERE_CASES_ARE, Case, Expectation, read_cases
from tuneloop.progress import SILENT, Progress
from tuneloop.records import Entity, Prediction

TIMED_RUNS = 3  # a case with a time limit is answered alone so many times; the median counts

__all__ = ["WHERE_CASES_ARE", "Case", "CaseResult", "Expectation", "RegressionResult", "read_cases", "run_cases"]


class Answerer(Protocol):
    """What answers documents in order: a `Predictor`, or anything like it."""

    def predict(self, texts: Sequence[str]) -> list[Prediction]:
        """Answer every document."""
        ...


@dataclass(frozen=True, slots=True)
class CaseResult:
    """How one case went: what was answered, and in what ways that is not what was expected (none: it passed)."""

    case: Case
    prediction: Prediction
    failures: tuple[str, ...]
    latency_s: float | None = None

    @property
    def is_passed(self) -> bool:
        return not self.failures


@dataclass(frozen=True)
class RegressionResult:
    """How a whole suite went. No case is worth more than another: one failure fails the suite.

    `is_calibrated`: the probabilities are those after calibration.
    """

    results: tuple[CaseResult, ...] = field(default_factory=tuple)
    is_calibrated: bool = False

    @property
    def total(self) -> int:
        return len(self.results)

    @property
    def failed(self) -> tuple[str, ...]:
        """The names of the cases that failed."""
        return tuple(result.case.name for result in self.results if not result.is_passed)

    @property
    def sentence(self) -> str:
        """What came out, in words."""
        if not self.results:
            return "There are no regression cases."
        if not self.failed:
            return f"All {self.total} regression cases pass." if self.total > 1 else "The regression case passes."
        shown = "; ".join(
            f"{result.case.name} ({', '.join(result.failures)})" for result in self.results if not result.is_passed
        )
        return f"{len(self.failed)} of {self.total} regression cases fail: {shown}."

    def to_dict(self) -> dict[str, Any]:
        """Return what came out for JSON."""
        return {
            "total": self.total,
            "failed": list(self.failed),
            "sentence": self.sentence,
            "calibrated": self.is_calibrated,
            "cases": [_as_dict(result) for result in self.results],
        }


def run_cases(
    cases: Sequence[Case],
    predictor: Answerer,
    *,
    labels: Sequence[str] | None = None,
    entity_types: Sequence[str] | None = None,
    is_calibrated: bool = False,
    progress: Progress = SILENT,
) -> RegressionResult:
    """Let a model answer every case; those with a time limit alone, the others together.

    Args: labels, entity_types: those of the task, which the cases must keep to (None: not checked); is_calibrated:
        what the result says of the probabilities.
    Raises: DataError: a case expects a label or an entity type that the task does not have.
    """
    for case in cases:
        _check(case, labels, entity_types)
    timed = [case for case in cases if case.expect.max_latency_s is not None]
    together = [case for case in cases if case.expect.max_latency_s is None]
    found: dict[str, tuple[Prediction, float | None]] = {}
    with progress.task("Regression cases", len(cases)) as advance:
        answers = predictor.predict([case.text for case in together]) if together else []
        found.update({case.name: (answer, None) for case, answer in zip(together, answers, strict=True)})
        advance(len(together))
        if timed:
            predictor.predict([timed[0].text])  # what is computed once for all documents is not this one's doing
        for case in timed:
            found[case.name] = _time(case, predictor)
            advance(1)
    return RegressionResult(tuple(_judge(case, *found[case.name]) for case in cases), is_calibrated)


def _check(case: Case, labels: Sequence[str] | None, entity_types: Sequence[str] | None) -> None:
    wanted = [("label", case.expect.label, labels), ("not_label", case.expect.not_label, labels)]
    wanted += [("entities_contain", entity.type, entity_types) for entity in case.expect.entities_contain]
    for key, word, known in wanted:
        if word is not None and known is not None and word not in known:
            there = "there are " + ", ".join(known) if known else "this task has none"
            raise DataError(
                f"case {case.name!r}: {key}: {word!r} is not of this task.{nearest(word, list(known))}",
                where=case.place,
                hint=f"Correct it ({there}), or remove the case.",
            )


def _time(case: Case, predictor: Answerer) -> tuple[Prediction, float]:
    seconds = []
    for _ in range(TIMED_RUNS):
        started = time.perf_counter()
        [answer] = predictor.predict([case.text])
        seconds.append(time.perf_counter() - started)
    return answer, median(seconds)


def _judge(case: Case, answer: Prediction, latency_s: float | None) -> CaseResult:
    expect = case.expect
    failures = []
    if expect.label is not None and answer.label != expect.label:
        failures.append(f"expected {expect.label!r}, answered {answer.label!r}")
    if expect.not_label is not None and answer.label == expect.not_label:
        failures.append(f"answered {answer.label!r}, which is ruled out")
    if expect.min_probability is not None and answer.probability < expect.min_probability:
        failures.append(f"probability {answer.probability:.3f}, expected at least {expect.min_probability:g}")
    failures += [f"{one.type} {one.text!r} not found" for one in _missing(expect, answer)]
    if expect.well_formed is not None and answer.well_formed != expect.well_formed:
        failures.append("the answer is not well-formed" if expect.well_formed else "the answer is well-formed")
    if expect.max_latency_s is not None and latency_s is not None and latency_s > expect.max_latency_s:
        failures.append(f"took {latency_s:.2f} s, at most {expect.max_latency_s:g} s are allowed")
    return CaseResult(case, answer, tuple(failures), latency_s)


def _missing(expect: Expectation, answer: Prediction) -> list[Entity]:
    found = {(entity.type, _spaces_joined(entity.text)) for entity in answer.entities or ()}
    return [one for one in expect.entities_contain if (one.type, _spaces_joined(one.text)) not in found]


def _spaces_joined(text: str) -> str:
    return " ".join(text.split())


def _as_dict(result: CaseResult) -> Mapping[str, Any]:
    case, answer = result.case, result.prediction
    return {
        "name": case.name,
        "why": case.why,
        "place": case.place,
        "is_passed": result.is_passed,
        "failures": list(result.failures),
        "label": answer.label,
        "probability": answer.probability,
        "latency_s": result.latency_s,
    }
