"""The training loop: batch, gradient, step, now and then a validation and a checkpoint; resumable at every checkpoint.

Knows nothing about configuration files, artifacts or how the loss is computed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import torch
from peft import PeftModel

from tuneloop.errors import TrainingError
from tuneloop.progress import Progress
from tuneloop.train.adapters import adapter_state, load_adapter_state, trainable
from tuneloop.train.batches import Order, TokenizedExample
from tuneloop.train.checkpoint import (
    Point,
    TrainingState,
    best_adapter,
    newest_checkpoint,
    optimizer_state,
    random_state,
    restore_optimizer_state,
    restore_random_state,
    save_checkpoint,
)
from tuneloop.train.objectives.sft import Objective

Schedule = Literal["cosine", "linear", "constant"]


@dataclass(frozen=True)
class LoopSettings:
    """How long, how fast, how careful; the fields are those of the `train` section."""

    learning_rate: float
    schedule: Schedule
    warmup_ratio: float
    weight_decay: float
    max_grad_norm: float
    eval_steps: int
    early_stopping_patience: int | None
    keep_checkpoints: int


@dataclass(frozen=True)
class Fitted:
    """The outcome: the adapter of the best validation (of the last step, where there is no validation data)."""

    adapter: dict[str, torch.Tensor]
    best_step: int
    best_validation_loss: float
    history: list[Point]
    is_resumed: bool
    is_stopped_early: bool


def learning_rate_factor(step: int, total: int, warmup_ratio: float, schedule: Schedule) -> float:
    """Return what the learning rate is multiplied by at `step` (from 0) of `total`: linear warm-up, then the schedule.

    It is in (0, 1]: neither the first step nor the last is lost.
    """
    warmup = min(math.ceil(round(total * warmup_ratio, 6)), total - 1)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if schedule == "constant":
        return 1.0
    done = (step - warmup) / max(total - warmup, 1)
    return 0.5 * (1 + math.cos(math.pi * done)) if schedule == "cosine" else 1 - done


@dataclass
class Fit:
    """One training run on its way. `run` goes on from the newest valid checkpoint in `checkpoints`, if there is one."""

    model: PeftModel
    objective: Objective
    examples: Sequence[TokenizedExample]
    validation: Sequence[TokenizedExample]
    order: Order
    settings: LoopSettings
    checkpoints: Path
    progress: Progress
    step: int = 0
    history: list[Point] = field(default_factory=list)
    best_step: int = 0
    best_loss: float = math.inf
    best_adapter: dict[str, torch.Tensor] = field(default_factory=dict)

    def run(self) -> Fitted:
        """Train to the end. What is random on the way (dropout) depends on the order's seed alone.

        Raises: TrainingError: loss or gradient is not finite.
        """
        with torch.random.fork_rng():
            torch.manual_seed(self.order.seed)
            return self._run()

    def _run(self) -> Fitted:
        names, parameters = zip(*((n, p) for n, p in self.model.named_parameters() if p.requires_grad), strict=True)
        optimizer = torch.optim.AdamW(
            parameters, lr=self.settings.learning_rate, weight_decay=self.settings.weight_decay
        )
        is_resumed = self._resume(optimizer, names)
        total = self.order.total_steps
        sizes = [len(self.order.batch(step)) for step in range(total)]
        with self.progress.task("Training", sum(sizes)) as advance:
            advance(sum(sizes[: self.step]))
            while self.step < total and not self._should_stop():
                self._one_step(optimizer, total)
                advance(sizes[self.step - 1])
                if self.step % self.settings.eval_steps == 0 or self.step == total:
                    self._validate_and_save(optimizer, names)
        return Fitted(self.best_adapter, self.best_step, self.best_loss, self.history, is_resumed, self.step < total)

    def _one_step(self, optimizer: torch.optim.Optimizer, total: int) -> None:
        settings, started = self.settings, time.monotonic()
        rate = settings.learning_rate * learning_rate_factor(self.step, total, settings.warmup_ratio, settings.schedule)
        for group in optimizer.param_groups:
            group["lr"] = rate
        batch = [self.examples[i] for i in self.order.batch(self.step)]
        self.model.train()
        loss = self.objective(batch, backward=True)
        norm = float(torch.nn.utils.clip_grad_norm_(trainable(self.model), settings.max_grad_norm))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise _not_finite(f"loss {loss} and gradient norm {norm} at optimizer step {self.step + 1}", batch)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        before = self.history[-1] if self.history else Point(0, 0, math.nan, None, 0.0, 0.0, 0.0)
        self.step += 1
        elapsed = before.elapsed_s + time.monotonic() - started
        self.history.append(Point(self.step, before.examples + len(batch), loss, None, rate, norm, elapsed))

    def _validate_and_save(self, optimizer: torch.optim.Optimizer, names: Sequence[str]) -> None:
        self.model.eval()
        last = self.history[-1]
        loss = self.objective(self.validation, backward=False) if self.validation else None
        if loss is not None and not math.isfinite(loss):
            raise _not_finite(f"validation loss {loss} after optimizer step {self.step}", self.validation)
        self.history[-1] = replace(last, validation_loss=loss)
        adapter = adapter_state(self.model)
        if loss is None or loss < self.best_loss:
            self.best_step, self.best_loss, self.best_adapter = self.step, math.inf if loss is None else loss, adapter
        state = TrainingState(
            step=self.step,
            adapter=adapter,
            optimizer=optimizer_state(optimizer, names),
            random=random_state(),
            history=self.history,
            best_step=self.best_step,
            best_validation_loss=self.best_loss,
        )
        save_checkpoint(self.checkpoints, state, keep=self.settings.keep_checkpoints)
        shown = (
            "" if loss is None else f", validation loss {loss:.4f}{' (best)' if self.best_step == self.step else ''}"
        )
        self.progress.say(f"Step {self.step} of {self.order.total_steps}: training loss {last.train_loss:.4f}{shown}")

    def _resume(self, optimizer: torch.optim.Optimizer, names: Sequence[str]) -> bool:
        state = newest_checkpoint(self.checkpoints, self.progress.say)
        if state is None:
            return False
        self.progress.say(f"Going on from the checkpoint at step {state.step} of {self.order.total_steps}.")
        load_adapter_state(self.model, state.adapter)
        restore_optimizer_state(optimizer, names, state.optimizer)
        restore_random_state(state.random)
        self.step, self.history = state.step, state.history
        self.best_step, self.best_loss = state.best_step, state.best_validation_loss
        self.best_adapter = best_adapter(self.checkpoints, state)
        return True

    def _should_stop(self) -> bool:
        patience = self.settings.early_stopping_patience
        if patience is None or not self.validation:
            return False
        return self.step - self.best_step >= patience * self.settings.eval_steps


def _not_finite(found: str, batch: Sequence[TokenizedExample]) -> TrainingError:
    shown = ", ".join(example.id for example in batch[:4])
    return TrainingError(
        found,
        where=f"examples {shown}{', …' if len(batch) > 4 else ''}",
        hint="Lower train.learning_rate or train.max_grad_norm, and look at these examples; "
        "checkpoints from before this step are kept.",
    )
