"""Checkpoints that survive anything: adapter, optimizer, random state, position and history, written atomically.

A checkpoint is a folder `step-00000050/` of safetensors files and `state.json`; `manifest.json` with every checksum is
written last and the folder renamed into place, so a half-written or truncated one is recognised and passed over.
Nothing in it is pickled.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tuneloop.artifacts import MANIFEST, fsync_folder, seal, sha256_of, write_durably

TENSOR_FILES = ("adapter", "optimizer", "random")
FACTS = "state.json"
FILES = {FACTS, *(f"{name}.safetensors" for name in TENSOR_FILES)}


@dataclass(frozen=True)
class Point:
    """One line of a run's history: after optimizer step `step`, `examples` have been seen.

    `validation_loss` is None between validations. `elapsed_s` counts training time, over interruptions.
    """

    step: int
    examples: int
    train_loss: float
    validation_loss: float | None
    learning_rate: float
    grad_norm: float
    elapsed_s: float


@dataclass
class TrainingState:
    """Everything that training needs to go on as if it had never stopped.

    `best_validation_loss` is infinite where there is no validation data; then the newest adapter is the best.
    """

    step: int
    adapter: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    random: dict[str, Tensor]
    history: list[Point]
    best_step: int
    best_validation_loss: float


def save_checkpoint(folder: Path, state: TrainingState, *, keep: int) -> None:
    """Write the state as a new checkpoint below `folder`; keep the `keep` newest, and the best one of each of them."""
    final = _path_of(folder, state.step)
    partial = folder / f".partial-{final.name}"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        _write(partial, state)
        shutil.rmtree(final, ignore_errors=True)
        partial.rename(final)
    except BaseException:  # on a full disk, what was written so far is in the way
        shutil.rmtree(partial, ignore_errors=True)
        raise
    fsync_folder(folder)
    _forget_old(folder, keep)


def newest_checkpoint(folder: Path, say: Callable[[str], None]) -> TrainingState | None:
    """Return the newest valid checkpoint below `folder`, saying which ones were passed over, or None.

    A checkpoint whose best one is damaged is of no use either: what it would end with is lost. Those passed over are
    removed.
    """
    paths = sorted(folder.glob("step-*/"), reverse=True)
    for path in paths:
        problem = _problem(path)
        if problem is None:
            state = read_checkpoint(path)
            problem = _problem(_path_of(folder, state.best_step))
            if problem is None:
                return state
            problem = f"the best one, step {state.best_step}, is not usable: {problem}"
        is_last = path == paths[-1]
        instead = "there is none before it, so training starts anew" if is_last else "looking at the one before it"
        say(f"Checkpoint {path.name} is damaged ({problem}); {instead}.")
        shutil.rmtree(path)
    return None


def best_adapter(folder: Path, state: TrainingState) -> dict[str, Tensor]:
    """Return the adapter of the best checkpoint that `state` knows of."""
    return load_file(_path_of(folder, state.best_step) / "adapter.safetensors")


def read_checkpoint(path: Path) -> TrainingState:
    """Read a checkpoint folder that is known to be valid."""
    facts = json.loads((path / FACTS).read_bytes())
    tensors = {name: load_file(path / f"{name}.safetensors") for name in TENSOR_FILES}
    best_loss = facts["best_validation_loss"]
    return TrainingState(
        step=facts["step"],
        history=[Point(**point) for point in facts["history"]],
        best_step=facts["best_step"],
        best_validation_loss=math.inf if best_loss is None else best_loss,
        **tensors,
    )


def random_state() -> dict[str, Tensor]:
    """Return torch's random state on every device that has one."""
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states |= {f"cuda:{i}": state for i, state in enumerate(torch.cuda.get_rng_state_all())}
    return states


def restore_random_state(states: dict[str, Tensor]) -> None:
    """Put back what `random_state` returned."""
    torch.set_rng_state(states["cpu"])
    for name, state in states.items():
        if name.startswith("cuda:") and torch.cuda.is_available():
            torch.cuda.set_rng_state(state, name)


def optimizer_state(optimizer: torch.optim.Optimizer, names: Sequence[str]) -> dict[str, Tensor]:
    """Return the optimizer's state as `parameter name/key` → tensor; `names` in the order of its parameters."""
    state = optimizer.state_dict()["state"]
    return {
        f"{names[index]}/{key}": torch.as_tensor(value).detach().cpu().contiguous()
        for index, entries in state.items()
        for key, value in entries.items()
    }


def restore_optimizer_state(optimizer: torch.optim.Optimizer, names: Sequence[str], tensors: dict[str, Tensor]) -> None:
    """Put back what `optimizer_state` returned."""
    entries: dict[int, dict[str, Any]] = {}
    for name, tensor in tensors.items():
        parameter, _, key = name.rpartition("/")
        entries.setdefault(names.index(parameter), {})[key] = tensor
    content = optimizer.state_dict()
    optimizer.load_state_dict({**content, "state": entries})


def _path_of(folder: Path, step: int) -> Path:
    return folder / f"step-{step:08d}"


def _write(folder: Path, state: TrainingState) -> None:
    for name in TENSOR_FILES:
        save_file(getattr(state, name), folder / f"{name}.safetensors")
    facts = {
        "step": state.step,
        "best_step": state.best_step,
        "best_validation_loss": state.best_validation_loss if math.isfinite(state.best_validation_loss) else None,
        "history": [asdict(point) for point in state.history],
    }
    (folder / FACTS).write_text(json.dumps(facts, allow_nan=False))
    write_durably(folder / MANIFEST, json.dumps(seal(folder)).encode())


def _problem(path: Path) -> str | None:
    """Say what is wrong with a checkpoint folder, or None."""
    try:
        files = json.loads((path / MANIFEST).read_bytes())
        expected = {name: (files[name]["size"], files[name]["sha256"]) for name in sorted(FILES)}
    except (OSError, ValueError, KeyError, TypeError):
        return "its manifest is missing, cut off or altered"
    for name, (size, checksum) in expected.items():
        if not (path / name).is_file():
            return f"{name} is missing"
        if (path / name).stat().st_size != size:
            return f"{name} has {(path / name).stat().st_size} bytes instead of {size}"
        if sha256_of(path / name) != checksum:
            return f"{name} was altered"
    return None


def _forget_old(folder: Path, keep: int) -> None:
    """Remove all but the `keep` newest checkpoints and those that one of them ends with: each can be gone back to."""
    paths = sorted(folder.glob("step-*/"))
    needed = {*paths[-keep:], *(_best_of(folder, path) for path in paths[-keep:])}
    for path in paths:
        if path not in needed:
            shutil.rmtree(path)


def _best_of(folder: Path, path: Path) -> Path | None:
    try:
        return _path_of(folder, json.loads((path / FACTS).read_bytes())["best_step"])
    except (OSError, ValueError, KeyError, TypeError):  # damaged: it will be passed over when it is looked at
        return None
