from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError

from tuneloop.artifacts import MANIFEST
from tuneloop.train import checkpoint
from tuneloop.train.checkpoint import (
    FILES,
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

DAMAGES: dict[str, Callable[[Path], Any]] = {
    "missing": Path.unlink,
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "short of a byte": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "flipped": lambda path: path.write_bytes(path.read_bytes()[:-2] + bytes([path.read_bytes()[-2] ^ 1, 0])),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\n "),
}


def state_at(step: int, best: int | None = None) -> TrainingState:
    return TrainingState(
        step=step,
        adapter={"a": torch.full((3, 2), float(step))},
        optimizer={"a/exp_avg": torch.full((3, 2), step / 7)},
        random={"cpu": torch.arange(8, dtype=torch.uint8) + step},
        history=[Point(n + 1, 4 * (n + 1), 1 / (n + 1), None, 1e-3, 0.5, 0.1 * n) for n in range(step)],
        best_step=step if best is None else best,
        best_validation_loss=0.25,
    )


def steps_in(folder: Path) -> list[int]:
    return sorted(int(path.name.removeprefix("step-")) for path in folder.glob("step-*"))


def read(folder: Path) -> tuple[TrainingState | None, list[str]]:
    said: list[str] = []
    return newest_checkpoint(folder, said.append), said


def test_what_was_saved_is_read_back_exactly(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, state_at(5), keep=2)
    state, said = read(tmp_path)
    assert state is not None
    for name in ("adapter", "optimizer", "random"):
        ours, theirs = getattr(state, name), getattr(state_at(5), name)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert state.history == state_at(5).history
    assert (state.step, state.best_step, state.best_validation_loss) == (5, 5, 0.25)
    assert said == []


def test_a_state_without_validation_comes_back_with_an_infinite_best_loss(tmp_path: Path) -> None:
    state = state_at(5)
    state.best_validation_loss = math.inf
    save_checkpoint(tmp_path, state, keep=1)
    found, _ = read(tmp_path)
    assert found is not None
    assert found.best_validation_loss == math.inf
    assert "Infinity" not in (tmp_path / "step-00000005" / "state.json").read_text()


def test_a_folder_that_is_not_there_holds_no_checkpoint(tmp_path: Path) -> None:
    assert read(tmp_path / "none") == (None, [])


def test_nothing_in_a_checkpoint_is_pickled(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, state_at(5), keep=1)
    names = {path.name for path in (tmp_path / "step-00000005").iterdir()}
    assert names == FILES | {MANIFEST}
    assert {name.rpartition(".")[2] for name in names} == {"safetensors", "json"}


def test_the_newest_and_the_best_are_kept(tmp_path: Path) -> None:
    for step, best in ((1, 1), (2, 2), (3, 2), (4, 2), (5, 2)):
        save_checkpoint(tmp_path, state_at(step, best), keep=2)
    assert steps_in(tmp_path) == [2, 4, 5]
    save_checkpoint(tmp_path, state_at(6, 6), keep=2)
    assert steps_in(tmp_path) == [2, 5, 6], "step 5 would end with the adapter of step 2"
    save_checkpoint(tmp_path, state_at(7, 6), keep=2)
    assert steps_in(tmp_path) == [6, 7]


@settings(max_examples=25)
@given(st.lists(st.booleans(), min_size=1, max_size=12), st.integers(1, 4))
def test_every_kept_checkpoint_can_be_gone_back_to(
    tmp_path_factory: pytest.TempPathFactory, is_best: list[bool], keep: int
) -> None:
    folder, best = tmp_path_factory.mktemp("checkpoints"), 1
    for step, is_better in enumerate(is_best, start=1):
        best = step if is_better or step == 1 else best
        save_checkpoint(folder, state_at(step, best), keep=keep)
    for step in sorted(range(max(len(is_best) - keep, 0) + 1, len(is_best) + 1), reverse=True):
        state, said = read(folder)
        assert state is not None
        assert (state.step, said) == (step, [])
        assert best_adapter(folder, state)["a"][0, 0] == state.best_step
        shutil.rmtree(folder / f"step-{step:08d}")


@pytest.mark.parametrize("name", sorted(FILES | {MANIFEST}))
@pytest.mark.parametrize("damage", sorted(DAMAGES))
def test_a_damaged_file_is_recognised_and_the_checkpoint_before_it_used(tmp_path: Path, name: str, damage: str) -> None:
    save_checkpoint(tmp_path, state_at(4), keep=2)
    save_checkpoint(tmp_path, state_at(8), keep=2)
    path = tmp_path / "step-00000008" / name
    before = path.read_bytes()
    DAMAGES[damage](path)
    if name == MANIFEST and damage == "longer":  # still the same JSON
        path.write_bytes(before[:-1])
    state, said = read(tmp_path)
    assert state is not None
    assert state.step == 4
    assert len(said) == 1
    assert "Checkpoint step-00000008 is damaged" in said[0]
    assert ("manifest" if name == MANIFEST else name) in said[0]
    assert "looking at the one before it" in said[0]
    assert steps_in(tmp_path) == [4]


@pytest.mark.parametrize("content", ["{}", "[]", "null", '{"state.json": {}}', '{"adapter.safetensors": 3}'])
def test_json_that_is_no_manifest_is_a_damage_like_any_other(tmp_path: Path, content: str) -> None:
    save_checkpoint(tmp_path, state_at(4), keep=2)
    (tmp_path / "step-00000004" / MANIFEST).write_text(content)
    state, said = read(tmp_path)
    assert state is None
    assert "manifest" in said[0]


def test_when_all_are_damaged_it_says_that_training_starts_anew(tmp_path: Path) -> None:
    for step in (4, 8):
        save_checkpoint(tmp_path, state_at(step), keep=2)
        (tmp_path / f"step-{step:08d}" / "optimizer.safetensors").unlink()
    state, said = read(tmp_path)
    assert state is None
    assert len(said) == 2
    assert "training starts anew" in said[1]
    assert steps_in(tmp_path) == []


def test_a_checkpoint_is_of_no_use_without_the_best_one_it_ends_with(tmp_path: Path) -> None:
    for step, best in ((1, 1), (2, 2), (3, 2)):
        save_checkpoint(tmp_path, state_at(step, best), keep=3)
    DAMAGES["cut"](tmp_path / "step-00000002" / "adapter.safetensors")
    state, said = read(tmp_path)
    assert state is not None
    assert state.step == 1
    assert "the best one, step 2, is not usable: adapter.safetensors has" in said[0]


def test_a_half_written_checkpoint_does_not_count_and_is_written_over(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, state_at(4), keep=2)
    (tmp_path / ".partial-step-00000008").mkdir()
    (tmp_path / ".partial-step-00000008" / "adapter.safetensors").write_bytes(b"half")
    state, said = read(tmp_path)
    assert state is not None
    assert (state.step, said) == (4, [])
    save_checkpoint(tmp_path, state_at(8), keep=2)
    assert {path.name for path in tmp_path.iterdir()} == {"step-00000004", "step-00000008"}


def test_a_disk_that_fills_up_leaves_the_checkpoint_before_and_gives_its_room_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(tmp_path, state_at(4), keep=2)

    def full(tensors: Any, path: Path) -> None:
        path.write_bytes(b"half")
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "save_file", full)
        with pytest.raises(SafetensorError):
            save_checkpoint(tmp_path, state_at(8), keep=2)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000004"]
    assert read(tmp_path)[1] == []


def test_the_random_state_goes_on_where_it_was() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(4)
        torch.rand(7)
        state = {name: tensor.clone() for name, tensor in random_state().items()}
        expected = torch.rand(5)
        torch.manual_seed(9)
        restore_random_state(state)
        assert torch.equal(torch.rand(5), expected)


def test_the_optimizer_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    gradients = [torch.randn(4, 3, generator=torch.Generator().manual_seed(n)) for n in range(6)]

    def steps(weight: torch.nn.Parameter, optimizer: torch.optim.Optimizer, numbers: range) -> None:
        for number in numbers:
            weight.grad = gradients[number].clone()
            optimizer.step()

    def fresh(start: torch.Tensor) -> tuple[torch.nn.Parameter, torch.optim.Optimizer]:
        weight = torch.nn.Parameter(start.clone())
        return weight, torch.optim.AdamW([weight], lr=0.1, weight_decay=0.01)

    through, optimizer = fresh(torch.ones(4, 3))
    steps(through, optimizer, range(6))
    first, optimizer = fresh(torch.ones(4, 3))
    steps(first, optimizer, range(3))
    state = state_at(3)
    state.optimizer = optimizer_state(optimizer, ["layer.0/odd.name"])
    save_checkpoint(tmp_path, state, keep=1)
    found, _ = read(tmp_path)
    assert found is not None
    second, optimizer = fresh(first.detach())
    restore_optimizer_state(optimizer, ["layer.0/odd.name"], found.optimizer)
    steps(second, optimizer, range(3, 6))
    assert torch.equal(second, through)


def test_the_history_in_a_checkpoint_is_strict_json(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, state_at(3), keep=1)

    def refuse(name: str) -> None:
        pytest.fail(f"{name} is not JSON")

    content = json.loads((tmp_path / "step-00000003" / "state.json").read_text(), parse_constant=refuse)
    assert len(content["history"]) == 3
