"""Trains once undisturbed and once with many SIGKILLs: `python -m tests.train.killing FOLDER` (from `make_project`).

Everything is imported once; every attempt is a fork. An attempt is killed at its n-th file operation (their order is
always the same), at the first operation of a kind, or a moment after it has got on by itself. The last attempt is left
alone. Prints one JSON object: the kills as [how, what was left lying], how the last attempt ended and what it left.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import peft  # noqa: F401  # imported before the first fork, to pay for it once
import torch
import transformers.models.llama.modeling_llama  # noqa: F401

import tuneloop.data.prepare
import tuneloop.train.run  # noqa: F401
from tests.train.projects import config_of, store_of
from tuneloop.config.schema import Config, StoreConfig
from tuneloop.hardware import measure
from tuneloop.loop import stages
from tuneloop.progress import SILENT

FILE_OPERATIONS = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree"}
IN_THE_MAKING = (".checkpoints-", ".building-")
LAST_MOMENTS = (("open", "/adapter_config.json"), ("os.rename", ".building-"), ("shutil.rmtree", ".checkpoints-"))
COUNTED_KILLS, TIMED_KILLS = 10, 5
Trigger = Callable[[str, str], bool]


def configuration(folder: Path, store: str) -> Config:
    """Return the configuration of one of the two runs: they differ in where they keep things, and in nothing else."""
    config = config_of(
        folder, batch_size=4, epochs=3.0, eval_steps=3, keep_checkpoints=2, lora={"dropout": 0.1}, learning_rate=5e-3
    )
    return config.model_copy(update={"store": StoreConfig(root=folder / store)})


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    measure()  # kept for the forks
    undisturbed, disturbed = configuration(folder, "undisturbed"), configuration(folder, "disturbed")
    for config in (undisturbed, disturbed):
        assert attempt(partial(stages.prepare, config, store_of(config), SILENT)) == 0

    train_disturbed = partial(stages.train, disturbed, store_of(disturbed), SILENT)
    assert attempt(partial(stages.train, undisturbed, store_of(undisturbed), SILENT)) == 0
    kills: list[tuple[str, list[str]]] = []

    def note(how: str, status: int) -> None:
        if status == -signal.SIGKILL:
            kills.append((how, left_lying(disturbed)))

    chance = random.Random(7)
    for _ in range(COUNTED_KILLS):
        number = chance.randint(2, 60)
        note(f"operation {number}", attempt(train_disturbed, trigger=at_operation(number)))
    for _ in range(TIMED_KILLS):
        note(
            "time",
            attempt(train_disturbed, gets_on=other_than(disturbed, left_lying(disturbed)), s=chance.random() / 20),
        )
    for event, path in LAST_MOMENTS:
        note(f"{event} {path}", attempt(train_disturbed, trigger=at_first(event, path)))
    told = {"kills": kills, "last_status": attempt(train_disturbed), "left": left_lying(disturbed)}
    sys.stdout.write(json.dumps(told) + "\n")


def attempt(
    work: Callable[[], Any],
    *,
    trigger: Trigger | None = None,
    gets_on: Callable[[], bool] | None = None,
    s: float = 0.0,
) -> int:
    """Do the work in a fork; returns its exit code, or minus the signal that ended it.

    It kills itself when `trigger` says so, or is killed `s` seconds after `gets_on` has become true.
    """
    child = os.fork()
    if child == 0:
        code = 1
        try:
            if trigger is not None:
                sys.addaudithook(lambda event, arguments: _maybe_die(trigger, event, arguments))
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    if gets_on is not None:
        deadline = time.monotonic() + 60
        while not gets_on() and time.monotonic() < deadline:
            time.sleep(0.001)
        time.sleep(s)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def at_operation(number: int) -> Trigger:
    """Fire at the n-th operation on what is in the making."""
    seen = 0

    def fire(event: str, path: str) -> bool:
        nonlocal seen
        seen += any(name in path for name in IN_THE_MAKING) or event in ("os.remove", "os.rmdir")
        return seen >= number

    return fire


def at_first(event: str, part: str) -> Trigger:
    """Fire at the first such event on such a path in the making."""
    return lambda happened, path: happened == event and part in path and any(name in path for name in IN_THE_MAKING)


def other_than(config: Config, before: list[str]) -> Callable[[], bool]:
    """Return a question: is something else lying there now?"""
    return lambda: left_lying(config) != before


def left_lying(config: Config) -> list[str]:
    """Return the names of what is there of runs, `/`-separated, but for what is inside of checkpoints."""
    runs = store_of(config).root / "run"
    return sorted(
        path.relative_to(runs).as_posix()
        for pattern in ("*", ".checkpoints-*/*")
        for path in runs.glob(pattern)
        if not path.name.startswith(".lock")
    )


def _maybe_die(trigger: Trigger, event: str, arguments: tuple[Any, ...]) -> None:
    if event in FILE_OPERATIONS and trigger(event, str(arguments[0])):
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
