"""What a parity check found, its verdict, and its form as JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tuneloop.errors import GateRefused
from tuneloop.export.parity.asked import Speed
from tuneloop.export.parity.figures import AccuracyParity, EntityParity, LabelParity, speed_figures
from tuneloop.export.parity.prompts import PromptParity
from tuneloop.export.parity.scores import Differences
from tuneloop.export.parity.tolerance import Tolerance
from tuneloop.export.parity.words import sentence_of
from tuneloop.stats import Interval

SCHEMA = 1


@dataclass(frozen=True)
class ParityResult:
    """How another form of a model answers the items that the reference answered.

    `beyond` says in words where the tolerance is exceeded (empty: it answers as the reference does), `causes` why that
    is likely so, `notes` what was seen and is not judged. `labels` is None for a task without labels, `entities` for
    one without entities, `accuracy` where no item's label is known, `scores` where an engine tells none.
    """

    reference: str
    other: str
    n: int
    tolerance: Tolerance
    prompts: PromptParity
    labels: LabelParity | None
    scores: Differences | None
    probabilities: Differences | None
    accuracy: AccuracyParity | None
    entities: EntityParity | None
    reference_speed: Speed
    other_speed: Speed
    beyond: tuple[str, ...] = ()
    causes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def is_within(self) -> bool:
        """Whether nothing is beyond the tolerance."""
        return not self.beyond

    @property
    def sentence(self) -> str:
        """The verdict in one sentence, for someone who has to decide on it."""
        return sentence_of(self)

    def refusal(self) -> GateRefused:
        """Return the error that refuses this form (exit code 4)."""
        first, *others = self.causes or ("",)
        cause = f"Likely cause: {first}. " if first else ""
        cause += "".join(f"Known beside that: {other}. " for other in others)
        hint = "Export it again, or declare another tolerance in the section export if this loss is acceptable."
        return GateRefused(self.sentence, where=f"parity of {self.other} with {self.reference}", hint=cause + hint)

    def to_dict(self) -> dict[str, Any]:
        """Return everything for JSON (finite numbers or null)."""
        return {
            "schema": SCHEMA,
            "reference": self.reference,
            "other": self.other,
            "items": self.n,
            "within_tolerance": self.is_within,
            "verdict": self.sentence,
            "beyond": list(self.beyond),
            "likely_causes": list(self.causes),
            "notes": list(self.notes),
            "tolerance": self.tolerance.to_dict(),
            "prompts": self.prompts.to_dict(),
            "labels": None if self.labels is None else _labels(self.labels),
            "score_difference_nats": None if self.scores is None else self.scores.to_dict(),
            "probability_difference": None if self.probabilities is None else self.probabilities.to_dict(),
            "accuracy": _intervals(self.accuracy, "reference", "other", "difference"),
            "entities": _intervals(self.entities, "same_items", "agreement_f1", "reference_f1", "other_f1"),
            "speed": {"reference": speed_figures(self.reference_speed), "other": speed_figures(self.other_speed)},
        }


def _labels(labels: LabelParity) -> dict[str, Any]:
    return {
        "same": labels.same,
        "agreement": labels.agreement.to_dict(),
        "first_disagreement": None if labels.first is None else labels.first.to_dict(),
    }


def _intervals(figures: AccuracyParity | EntityParity | None, *names: str) -> dict[str, Any] | None:
    if figures is None:
        return None
    found: dict[str, Interval | None] = {name: getattr(figures, name) for name in names}
    content: dict[str, Any] = {name: None if value is None else value.to_dict() for name, value in found.items()}
    return content | ({"n": figures.n} if isinstance(figures, AccuracyParity) else {})
