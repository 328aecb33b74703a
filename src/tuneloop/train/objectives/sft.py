"""Supervised fine-tuning: cross-entropy on the answer tokens, with the common prefix computed once per optimizer step.

One step reads the prefix, then row after row of what is left of each example against the prefix's keys and values,
collecting gradients there, and at the end continues the backward pass through the prefix. The gradient is that of one
large batch, whatever the number of rows; memory is that of the prefix and one row.

Shapes: T tokens of a row, M answer tokens of a row, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from tuneloop.models import prefix
from tuneloop.models.prefix import ExamplesPass, KeyValues, PrefixPass
from tuneloop.models.rows import PlannedRow, plan_rows, row_tensors
from tuneloop.train.batches import TokenizedExample

Normalization = Literal["example", "token"]
PADDING_WASTE = 0.05  # examples of a block may differ this much in length: fewer, larger attention calls


class Objective(Protocol):
    """A loss over a batch of examples."""

    def __call__(self, batch: Sequence[TokenizedExample], *, backward: bool) -> float:
        """Return the loss of the batch; with `backward`, add its gradient to the parameters' `.grad`."""
        ...


@dataclass(frozen=True)
class SharedPrefixLoss:
    """The loss by shared-prefix passes. All prompts begin with `prefix_ids`, which may be empty (packing alone)."""

    model: PreTrainedModel
    prefix_ids: tuple[int, ...]
    tokens_per_row: int
    normalization: Normalization = "example"

    def __call__(self, batch: Sequence[TokenizedExample], *, backward: bool) -> float:
        prefix.install(self.model)
        shared = len(self.prefix_ids)
        rests = [example.ids[shared:] for example in batch]
        weights = _token_weights(batch, self.normalization)
        with nullcontext() if backward else torch.no_grad():
            states = self._read_prefix()
            leaves = states.detached() if states and backward else states
            total = torch.zeros((), device=self.model.device)
            for row in plan_rows([len(rest) for rest in rests], self.tokens_per_row, waste=PADDING_WASTE):
                loss = self._row_loss(row, batch, rests, weights, leaves)
                total += loss.detach()
                if backward:
                    loss.backward()  # type: ignore[no-untyped-call]
            if states and leaves and backward:
                states.backward_from(leaves)
        return float(total)

    def _read_prefix(self) -> KeyValues | None:
        if not self.prefix_ids:
            return None
        reading = PrefixPass()
        ids = torch.tensor([self.prefix_ids], device=self.model.device)
        positions = torch.arange(len(self.prefix_ids), device=self.model.device)[None]
        self.model(input_ids=ids, position_ids=positions, use_cache=False, shared_prefix=reading, logits_to_keep=1)
        return reading.remembered

    def _row_loss(
        self,
        row: PlannedRow,
        batch: Sequence[TokenizedExample],
        rests: Sequence[tuple[int, ...]],
        weights: Sequence[float],
        states: KeyValues | None,
    ) -> Tensor:
        shared, device = len(self.prefix_ids), self.model.device
        ids, positions = row_tensors(rests, row, shared, device)
        kept: list[int] = []
        targets: list[int] = []
        scale: list[float] = []
        for member, start in zip(row.members, row.starts(), strict=True):
            example = batch[member]
            before_answer = start + len(example.prompt) - shared - 1
            kept += range(before_answer, before_answer + len(example.answer))
            targets += example.answer
            scale += [weights[member]] * len(example.answer)
        reading = ExamplesPass(row.blocks, states)
        keep = torch.tensor(kept, device=device)
        logits = self.model(
            input_ids=ids, position_ids=positions, use_cache=False, shared_prefix=reading, logits_to_keep=keep
        ).logits[0]
        losses = functional.cross_entropy(logits.float(), torch.tensor(targets, device=device), reduction="none")
        return (losses * torch.tensor(scale, device=device)).sum()


@dataclass(frozen=True)
class PaddedLoss:
    """The same loss with transformers' own attention and padded rows, for models that cannot share a prefix."""

    model: PreTrainedModel
    pad_id: int
    tokens_per_row: int
    normalization: Normalization = "example"

    def __call__(self, batch: Sequence[TokenizedExample], *, backward: bool) -> float:
        prefix.uninstall(self.model)
        weights = _token_weights(batch, self.normalization)
        order = sorted(range(len(batch)), key=lambda i: -len(batch[i].ids))
        total, at = torch.zeros((), device=self.model.device), 0
        with nullcontext() if backward else torch.no_grad():
            while at < len(order):
                row = order[at : at + max(self.tokens_per_row // len(batch[order[at]].ids), 1)]
                at += len(row)
                loss = self._row_loss([batch[i] for i in row], [weights[i] for i in row])
                total += loss.detach()
                if backward:
                    loss.backward()  # type: ignore[no-untyped-call]
        return float(total)

    def _row_loss(self, row: Sequence[TokenizedExample], weights: Sequence[float]) -> Tensor:
        longest = max(len(example.ids) for example in row)
        shape = (len(row), longest)
        ids, mask = torch.full(shape, self.pad_id), torch.zeros(shape, dtype=torch.long)
        scale = torch.zeros(shape)
        for place, (example, weight) in enumerate(zip(row, weights, strict=True)):
            ids[place, : len(example.ids)] = torch.tensor(example.ids)
            mask[place, : len(example.ids)] = 1
            scale[place, len(example.prompt) : len(example.ids)] = weight
        ids, mask, scale = (part.to(self.model.device) for part in (ids, mask, scale))
        logits = self.model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1].float()
        losses = functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
        return (losses * scale[:, 1:].flatten()).sum()


def _token_weights(batch: Sequence[TokenizedExample], normalization: Normalization) -> list[float]:
    """Return what one answer token of each example weighs, so that the weights of a batch add up to one."""
    if normalization == "token":
        return [1 / sum(len(example.answer) for example in batch)] * len(batch)
    return [1 / (len(batch) * len(example.answer)) for example in batch]
