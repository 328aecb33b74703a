"""Do two models say the same after the same prompts? Their logits compared, before anything else is built on one.

Parity looks at answers, which hide small defects; logits do not. A tokenizer or chat template that differs is found
first, since no logits could be compared then.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tuneloop.errors import GateRefused

if TYPE_CHECKING:
    from torch import Tensor

    from tuneloop.models.load import LoadedModel

# Relative to the spread of the logits; rounding of float32 sums, and of 8 or 11 bits of weights through all layers.
LIMITS = {"float32": 1e-3, "float16": 0.02, "bfloat16": 0.08}


@dataclass(frozen=True)
class Spoken:
    """What a model says after some prompts: their token ids, and the logits (V,) that follow each, in float32."""

    prompts: tuple[tuple[int, ...], ...]
    logits: tuple[Tensor, ...]


@dataclass(frozen=True)
class Agreement:
    """How two models' logits compare: root mean square difference over standard deviation, the worst prompt's."""

    prompts: int
    relative_difference: float
    limit: float

    @property
    def is_within(self) -> bool:
        """Whether the difference is no more than rounding explains."""
        return self.relative_difference <= self.limit


def listen(loaded: LoadedModel, system: str, documents: Sequence[str], max_tokens: int) -> Spoken:
    """Let a model read prompts for these documents and return what it expects next."""
    import torch

    prompts, logits = [], []
    for document in documents:
        ids, _ = loaded.chat.fitted_prompt_ids(system, document, max_tokens)
        with torch.inference_mode():
            output = loaded.model(input_ids=torch.tensor([ids], device=loaded.device), use_cache=False)
        prompts.append(tuple(ids))
        logits.append(output.logits[0, -1].float().cpu())
    return Spoken(tuple(prompts), tuple(logits))


def compare(reference: Spoken, other: Spoken, dtype: str) -> Agreement:
    """Return how far the logits are apart; `dtype` is that of the other's weights.

    Raises: GateRefused: a prompt has other tokens, so that tokenizer or chat template differ.
    """
    for number, (wanted, found) in enumerate(zip(reference.prompts, other.prompts, strict=True), start=1):
        if wanted != found:
            place = next(
                (at for at, pair in enumerate(zip(wanted, found, strict=False)) if pair[0] != pair[1]),
                min(len(wanted), len(found)),
            )
            raise GateRefused(
                f"prompt {number} has other tokens from token {place} on: tokenizer or chat template differ",
                where="merged",
                hint="Compare tokenizer.json and chat_template.jinja of the base model with what was exported.",
            )
    worst = max(
        (_difference(one, two) for one, two in zip(reference.logits, other.logits, strict=True)), default=math.inf
    )
    return Agreement(len(reference.prompts), worst, LIMITS[dtype])


def _difference(wanted: Tensor, found: Tensor) -> float:
    if wanted.shape != found.shape:
        return math.inf
    difference = float((wanted - found).square().mean().sqrt() / wanted.std().clamp_min(1e-12))
    return difference if math.isfinite(difference) else math.inf
