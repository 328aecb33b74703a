from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from peft import PeftModel
from transformers import AutoModelForCausalLM

from tests.train.projects import Heard
from tuneloop.errors import TrainingError
from tuneloop.train.adapters import adapter_state, add_lora, trainable
from tuneloop.train.batches import Order, TokenizedExample
from tuneloop.train.loop import Fit, LoopSettings, Schedule, learning_rate_factor

schedules = st.sampled_from(["cosine", "linear", "constant"])


@dataclass
class Scripted:
    """An objective with gradients of its own making and the validation losses that it is given."""

    model: PeftModel
    validation_losses: list[float]
    train_loss: float = 1.0
    bad_step: int | None = None
    steps: int = 0
    validations: int = 0
    batches: list[list[str]] = field(default_factory=list)

    def __call__(self, batch: Sequence[TokenizedExample], *, backward: bool) -> float:
        if not backward:
            self.validations += 1
            return self.validation_losses[self.validations - 1]
        self.steps += 1
        self.batches.append([example.id for example in batch])
        for parameter in trainable(self.model):
            parameter.grad = torch.full_like(parameter, 0.1 * (self.steps % 3) + 0.01)
        return math.nan if self.steps == self.bad_step else self.train_loss


def lora(folder: Path) -> PeftModel:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return add_lora(model, r=2, alpha=4, dropout=0.0, target_modules=["q_proj"], seed=1)


def fit(
    objective: Scripted,
    folder: Path,
    *,
    heard: Heard | None = None,
    patience: int | None = None,
    steps: int = 8,
    eval_steps: int = 2,
    has_validation: bool = True,
) -> Fit:
    examples = [TokenizedExample(f"e{i}", (1, 2), (3,)) for i in range(4 * steps)]
    settings = LoopSettings(1e-2, "constant", 0.0, 0.0, 1.0, eval_steps, patience, 2)
    order = Order(len(examples), 4, 1.0, seed=5)
    validation = examples[:2] if has_validation else []
    return Fit(objective.model, objective, examples, validation, order, settings, folder, heard or Heard())


@given(st.integers(1, 300), st.floats(0, 0.99), schedules)
def test_the_learning_rate_warms_up_and_goes_down_without_losing_a_step(
    total: int, warmup_ratio: float, schedule: Schedule
) -> None:
    factors = [learning_rate_factor(step, total, warmup_ratio, schedule) for step in range(total)]
    assert all(0 < factor <= 1 for factor in factors)
    peak = factors.index(1.0)
    assert peak <= math.ceil(total * warmup_ratio)
    assert factors[: peak + 1] == sorted(factors[: peak + 1])
    assert factors[peak:] == sorted(factors[peak:], reverse=True)


def test_the_schedules_have_their_known_values() -> None:
    assert [learning_rate_factor(step, 10, 0.2, "linear") for step in (0, 1, 2, 6, 9)] == pytest.approx(
        [1 / 3, 2 / 3, 1, 0.5, 0.125]
    )
    assert learning_rate_factor(6, 10, 0.2, "cosine") == pytest.approx(0.5)
    assert learning_rate_factor(9, 10, 0.2, "cosine") == pytest.approx(0.5 * (1 + math.cos(math.pi * 7 / 8)))
    assert {learning_rate_factor(step, 10, 0.0, "constant") for step in range(10)} == {1.0}
    assert learning_rate_factor(0, 1, 0.05, "cosine") == 1.0


def test_the_adapter_of_the_best_validation_comes_out_not_the_last_one(tiny_model: Path, tmp_path: Path) -> None:
    objective = Scripted(lora(tiny_model), [3.0, 1.0, 2.0, 4.0])
    fitted = fit(objective, tmp_path / "all").run()
    assert (fitted.best_step, fitted.best_validation_loss) == (4, 1.0)
    until_best = Scripted(lora(tiny_model), [3.0, 1.0])
    shorter = fit(until_best, tmp_path / "half")
    shorter.order = Order(16, 4, 1.0, seed=5)
    expected = shorter.run().adapter
    assert all(torch.equal(fitted.adapter[name], expected[name]) for name in expected)
    last = adapter_state(objective.model)
    assert any(not torch.equal(fitted.adapter[name], last[name]) for name in last)


def test_without_validation_data_the_last_adapter_comes_out(tiny_model: Path, tmp_path: Path) -> None:
    objective = Scripted(lora(tiny_model), [])
    fitted = fit(objective, tmp_path, patience=1, has_validation=False).run()
    assert (fitted.best_step, fitted.best_validation_loss) == (8, math.inf)
    last = adapter_state(objective.model)
    assert all(torch.equal(fitted.adapter[name], last[name]) for name in last)
    assert not fitted.is_stopped_early


def test_it_stops_when_validation_has_not_improved_for_as_long_as_patience_says(
    tiny_model: Path, tmp_path: Path
) -> None:
    objective = Scripted(lora(tiny_model), [3.0, 1.0, 1.0, 2.0, 0.5])
    fitted = fit(objective, tmp_path, patience=2, steps=20).run()
    assert fitted.is_stopped_early
    assert (len(fitted.history), fitted.best_step) == (8, 4)


def test_history_has_a_line_a_step_and_losses_where_it_was_validated(tiny_model: Path, tmp_path: Path) -> None:
    fitted = fit(Scripted(lora(tiny_model), [3.0, 2.0, 1.0]), tmp_path, steps=5).run()
    assert [point.step for point in fitted.history] == [1, 2, 3, 4, 5]
    assert [point.examples for point in fitted.history] == [4, 8, 12, 16, 20]
    assert [point.validation_loss for point in fitted.history] == [None, 3.0, None, 2.0, 1.0]
    assert all(point.elapsed_s > 0 for point in fitted.history)


def test_a_loss_that_is_no_number_ends_it_with_step_and_examples_and_keeps_the_checkpoint(
    tiny_model: Path, tmp_path: Path
) -> None:
    objective = Scripted(lora(tiny_model), [3.0, 2.0], bad_step=6)
    with pytest.raises(TrainingError, match=r"loss nan .* at optimizer step 6") as caught:
        fit(objective, tmp_path).run()
    assert ", ".join(objective.batches[-1]) in caught.value.where
    assert "train.learning_rate" in caught.value.hint
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000002", "step-00000004"]


def test_a_validation_loss_that_is_no_number_ends_it_and_is_never_the_best(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="validation loss nan after optimizer step 4"):
        fit(Scripted(lora(tiny_model), [3.0, math.nan]), tmp_path).run()
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000002"]


def test_going_on_from_a_checkpoint_says_so_and_ends_the_same(tiny_model: Path, tmp_path: Path) -> None:
    losses = [3.0, 1.0, 2.0, 4.0]
    through = fit(Scripted(lora(tiny_model), losses), tmp_path / "through").run()
    with pytest.raises(TrainingError):
        fit(Scripted(lora(tiny_model), losses, bad_step=7), tmp_path / "halves").run()
    heard, rest = Heard(), Scripted(lora(tiny_model), losses, steps=6, validations=3)
    resumed = fit(rest, tmp_path / "halves", heard=heard).run()
    assert heard.lines[0] == "Going on from the checkpoint at step 6 of 8."
    assert len(rest.batches) == 2
    assert (resumed.is_resumed, through.is_resumed) == (True, False)
    assert all(torch.equal(resumed.adapter[name], through.adapter[name]) for name in through.adapter)
    assert (resumed.best_step, resumed.best_validation_loss) == (4, 1.0)
    assert [(p.step, p.examples, p.grad_norm) for p in resumed.history] == [
        (p.step, p.examples, p.grad_norm) for p in through.history
    ]


def test_training_leaves_the_callers_random_state_as_it_was(tiny_model: Path, tmp_path: Path) -> None:
    objective = Scripted(lora(tiny_model), [3.0] * 4)
    state = torch.get_rng_state()
    fit(objective, tmp_path).run()
    assert torch.equal(torch.get_rng_state(), state)
