"""How far another form may depart from the model that was evaluated.

The configuration declares bounds for each class of form (`export.tolerances`); here they are plain numbers.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """Bounds on what two engines may answer differently to the same items; None leaves a figure unjudged.

    All but one are shares in [0, 1]. `min_agreement`: of labels that are equal. `max_accuracy_loss`: by how much the
    accuracy may be lower. `max_median_probability_difference`: of the probabilities of the answers, by which they are
    routed. `max_median_score_difference`: of an item's label log-scores, in nats: a defect shows there before answers
    change. `min_entity_agreement`: micro-F1 of the entities with the reference's as truth. `same_prompts`: the rendered
    chat template and the token ids of every item are equal; an engine that cannot tell them is not refused for that.
    """

    min_agreement: float = 0.995
    max_accuracy_loss: float | None = None
    max_median_probability_difference: float | None = None
    max_median_score_difference: float | None = None
    min_entity_agreement: float | None = None
    same_prompts: bool = True

    def __post_init__(self) -> None:
        for name, value in self.to_dict().items():
            is_share = name != "max_median_score_difference"
            if value is not None and not 0 <= value <= (1 if is_share else math.inf):
                raise ValueError(f"{name} is {value}, {'a share is between 0 and 1' if is_share else 'less than 0'}")

    def to_dict(self) -> dict[str, Any]:
        """Return the bounds for JSON."""
        return asdict(self)
