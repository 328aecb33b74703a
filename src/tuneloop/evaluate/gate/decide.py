"""May the candidate replace the champion? Declared conditions, measured evidence, and a verdict in words.

Pure: `decide` takes evidence and conditions and returns a verdict. What each condition asks is in `gain`,
`harm` and `limits`, what was measured in `evidence`; `record` keeps the verdict for good.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from tuneloop.config.schema import GateConfig
from tuneloop.evaluate.gate.conditions import Condition
from tuneloop.evaluate.gate.evidence import GateEvidence
from tuneloop.evaluate.gate.gain import judge_gain, judge_lower_bound, labels_needed
from tuneloop.evaluate.gate.harm import (
    judge_benchmarks,
    judge_labels,
    judge_perplexity,
    judge_regression,
    judge_slices,
)
from tuneloop.evaluate.gate.limits import (
    judge_calibration,
    judge_cost,
    judge_cost_ratio,
    judge_entity_f1,
    judge_invented,
    judge_latency,
    judge_latency_ratio,
)
from tuneloop.evaluate.wording import interval_words, percent, signed_points

GateOutcome = Literal["promoted", "refused", "needs more labels"]
Judge = Callable[[GateEvidence, GateConfig], Condition]
# Setting → what judges it, the weightiest first.
CONDITIONS: dict[str, Judge] = {
    "min_gain_points": judge_gain,
    "min_lower_bound_points": judge_lower_bound,
    "regression_cases": judge_regression,
    "max_class_drop_points": judge_labels,
    "max_slice_drop_points": judge_slices,
    "max_benchmark_drop_points": judge_benchmarks,
    "max_perplexity_ratio": judge_perplexity,
    "max_invented_rate": judge_invented,
    "max_entity_f1_drop_points": judge_entity_f1,
    "max_ece": judge_calibration,
    "max_latency_ratio": judge_latency_ratio,
    "max_latency_p95_s": judge_latency,
    "max_cost_per_1000_usd": judge_cost,
    "max_cost_ratio": judge_cost_ratio,
}
METRIC_WORDS = {"accuracy": "accuracy", "macro_f1": "macro-F1", "entity_f1": "entity F1"}


@dataclass(frozen=True, kw_only=True)
class GateVerdict:
    """The outcome, the sentence that says it, why (the weightiest reason first), and every condition.

    `further_labels` estimates how many more labelled documents would settle the gain; None where that is not the
    question, or no number would do.
    """

    outcome: GateOutcome
    sentence: str
    why: tuple[str, ...]
    conditions: tuple[Condition, ...]
    candidate: str
    champion: str
    n_items: int
    candidate_number: int
    alpha: float
    labels_used: int
    further_labels: int | None

    @property
    def is_promoted(self) -> bool:
        """Whether the candidate may replace the champion."""
        return self.outcome == "promoted"

    def condition(self, name: str) -> Condition:
        """Return one condition by name. Raises: KeyError: it was not declared."""
        return {condition.name: condition for condition in self.conditions}[name]

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON types."""
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {**plain, "why": list(self.why), "conditions": [one.to_dict() for one in self.conditions]}


def decide(evidence: GateEvidence, conditions: GateConfig) -> GateVerdict:
    """Return the verdict: promoted where every condition is met.

    A condition that is broken refuses, and so does one that the configuration names and nobody measured. Where nothing
    is broken and only the gain may still be chance, the verdict is that more labels are needed: not promoted either.
    """
    switched_on = [name for name in CONDITIONS if getattr(conditions, name) not in (None, "ignore")]
    judged = [CONDITIONS[name](evidence, conditions) for name in switched_on]
    broken = [one for one in judged if one.is_broken]
    open_ = [one for one in judged if one.state == "undecided"]
    outcome: GateOutcome = "refused" if broken else "needs more labels" if open_ else "promoted"
    against = [one for one in judged if one.is_broken or one.state == "undecided"]
    for_ = [one for one in judged if one.state == "passed"]
    rest = [one for one in judged if one.state == "not measured" and not one.is_declared]
    needed = labels_needed(evidence.gain, conditions, evidence.alpha) if open_ and not broken else None
    return GateVerdict(
        outcome=outcome,
        sentence=_sentence(outcome, evidence, against, for_, needed),
        why=tuple([one.sentence for one in [*against, *for_]] + _not_judged(rest)),
        conditions=tuple(judged),
        candidate=evidence.candidate,
        champion=evidence.champion,
        n_items=evidence.gain.n,
        candidate_number=evidence.candidate_number,
        alpha=evidence.alpha,
        labels_used=evidence.gain.labels_used or evidence.gain.n,
        further_labels=needed,
    )


def _not_judged(unmeasured: list[Condition]) -> list[str]:
    """Return one sentence on all that was neither measured nor asked for by name."""
    return ["Not measured, so not judged: " + "; ".join(one.sentence for one in unmeasured) + "."] if unmeasured else []


def _sentence(
    outcome: GateOutcome,
    evidence: GateEvidence,
    against: list[Condition],
    passed: list[Condition],
    needed: int | None,
) -> str:
    if outcome == "promoted":
        gain = evidence.gain
        score = f"{METRIC_WORDS[gain.metric]} {percent(gain.candidate.estimate)}"
        change = f"{signed_points(gain.difference.estimate)} points ({interval_words(gain.difference)})"
        met = f"all {len(passed)} conditions that were measured are met"
        return f"Promote {evidence.candidate}: {score} on {gain.n:,} documents, {change} on {evidence.champion}; {met}."
    others = len(against) - 1
    more = "" if not others else f" And {others} more {'reason' if others == 1 else 'reasons'}."
    if outcome == "refused":
        return f"Do not promote {evidence.candidate}. {against[0].sentence}{more}"
    enough = f" About {_round_up(needed):,} more labelled documents would probably tell." if needed else ""
    return f"Too early to promote {evidence.candidate}. {against[0].sentence}{enough}"


def _round_up(count: int) -> int:
    """Return a planning figure with two digits that mean something."""
    step: int = 10 ** max(0, len(str(count)) - 2)
    return -(-count // step) * step
