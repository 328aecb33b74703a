"""Examples as token ids, in a fixed random order, cut into batches: one batch is one optimizer step.

The order depends on seed and epoch alone, so a position (the number of finished steps) is all that resuming needs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tuneloop.errors import TrainingError
from tuneloop.models.chat import ChatFormat
from tuneloop.models.prompt import TaskPrompt
from tuneloop.models.rows import common_prefix
from tuneloop.records import Example

MIN_SAVING = 0.05  # under this share of saved tokens, reading the prefix in a pass of its own costs as much as it saves


@dataclass(frozen=True, slots=True)
class TokenizedExample:
    """One example as ids: the loss falls on `answer` only."""

    id: str
    prompt: tuple[int, ...]
    answer: tuple[int, ...]
    is_cut: bool = False

    @property
    def ids(self) -> tuple[int, ...]:
        return (*self.prompt, *self.answer)


def tokenize(
    examples: Sequence[Example], task: TaskPrompt, chat: ChatFormat, max_tokens: int
) -> list[TokenizedExample]:
    """Return the examples as ids; a document is cut at its end where prompt and answer exceed `max_tokens`.

    Raises: TrainingError: instruction and answer leave no room for a document.
    """
    system = task.system()
    tokenized = []
    for example in examples:
        answer = chat.answer_ids(task.answer(example))
        prompt, is_cut = chat.fitted_prompt_ids(system, example.text, max_tokens - len(answer))
        if len(prompt) + len(answer) > max_tokens:
            raise TrainingError(
                f"prompt and answer without any document have {len(prompt) + len(answer)} tokens; "
                f"model.max_tokens is {max_tokens}",
                where=f"task.instruction, with the answer to example {example.id}",
                hint="Raise model.max_tokens, shorten the instruction, or set task.name_labels_in_prompt: false.",
            )
        tokenized.append(TokenizedExample(example.id, tuple(prompt), tuple(answer), is_cut))
    return tokenized


def shared_prefix(examples: Sequence[TokenizedExample]) -> int:
    """Return how many first tokens all prompts share, leaving at least one of each prompt."""
    return common_prefix([example.prompt for example in examples])


def saved_share(prefix: int, examples: Sequence[TokenizedExample], batch_size: int) -> float:
    """Return the share of tokens that need not be computed when the prefix is computed once a step."""
    rest = sum(len(example.ids) - prefix for example in examples) / max(len(examples), 1)
    return prefix * (batch_size - 1) / (batch_size * (prefix + rest)) if prefix else 0.0


def pays(prefix: int, examples: Sequence[TokenizedExample], batch_size: int) -> bool:
    """Say whether computing the prefix once a step saves enough to be worth a pass of its own."""
    return saved_share(prefix, examples, min(batch_size, len(examples))) >= MIN_SAVING


@dataclass(frozen=True)
class Order:
    """The order in which examples are seen: shuffled anew every epoch, the last batch of an epoch may be smaller."""

    count: int
    batch_size: int
    epochs: float
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(self.count / self.batch_size)

    @property
    def total_steps(self) -> int:
        return max(math.ceil(round(self.steps_per_epoch * self.epochs, 6)), 1)

    def batch(self, step: int) -> list[int]:
        """Return the indices of the examples of optimizer step `step` (from 0)."""
        epoch, place = divmod(step, self.steps_per_epoch)
        permutation = np.random.default_rng([self.seed % 2**64, epoch]).permutation(self.count)
        return [int(i) for i in permutation[place * self.batch_size : (place + 1) * self.batch_size]]
