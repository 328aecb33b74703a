"""A project small enough to be trained in a second: a tiny model, a few dozen rows, a configuration for them."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import yaml

from tests.models.tiny import make_tiny_model
from tuneloop.artifacts import Artifact, ArtifactStore
from tuneloop.config.schema import Config
from tuneloop.loop import stages
from tuneloop.progress import SILENT
from tuneloop.records import TaskKind

SOUNDS = {"cat": "meows and purrs", "dog": "barks and wags", "cow": "moos and chews"}
NAMES = ["Ada", "Bo", "Cleo", "Dmitri", "Eve", "Finn", "Gita"]
INSTRUCTION = "Which animal is it? Look at what it does, and give its kind alone, without anything else around it."


def make_project(folder: Path, model: Path | None = None, rows: int = 90) -> Path:
    """Write `animals.csv` and a tiny base model (a copy of `model`, if given) into `folder`; returns `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    if model is None:
        make_tiny_model(folder / "model")
    else:
        shutil.copytree(model, folder / "model")
    with (folder / "animals.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label", "name"])
        for number in range(rows):
            label = list(SOUNDS)[number % len(SOUNDS)]
            name = f"{NAMES[number % len(NAMES)]}{number}"
            times = " again" * (number % 5)
            writer.writerow([f"{name} is number {number * number} and {SOUNDS[label]}{times}.", label, name])
    return folder


def config_of(
    folder: Path,
    *,
    kind: TaskKind = "classify",
    model: dict[str, Any] | None = None,
    evaluate: dict[str, Any] | None = None,
    data: dict[str, Any] | None = None,
    instruction: str = INSTRUCTION,
    **train: Any,
) -> Config:
    """Return a configuration for `make_project`; keywords go into the section `train`."""
    columns: dict[str, Any] = {"text": "text"}
    columns |= {"label": "label"} if kind != "extract" else {}
    columns |= {"entities": {"name": "name"}} if kind != "classify" else {}
    settings = {
        "task": {"kind": kind, "instruction": instruction},
        "data": {
            "sources": [{"path": folder / "animals.csv", "columns": columns}],
            "near_duplicates": {"enabled": False},
            **(data or {}),
        },
        "model": {"base_model": str(folder / "model"), "dtype": "float32", "max_tokens": 512, **(model or {})},
        "train": {
            "lora": {"r": 4, "alpha": 8, **train.pop("lora", {})},
            **{"learning_rate": 3e-3, "batch_size": 8, "epochs": 1.0, "eval_steps": 3, **train},
        },
        "evaluate": {
            **{"free_generation_examples": 3, "max_new_tokens": 8, "bootstrap_resamples": 200, "shots": 3},
            **(evaluate or {}),
        },
        "store": {"root": folder / ".tuneloop"},
    }
    return Config.model_validate(settings)


def write_yaml(config: Config, path: Path) -> Path:
    """Write a configuration as a `tuneloop.yaml`; returns `path`."""
    path.write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
    return path


def store_of(config: Config) -> ArtifactStore:
    """Return the configuration's artifact store."""
    return ArtifactStore(config.store.root / "artifacts")


def prepared(config: Config) -> Artifact:
    """Return the configuration's dataset version, made where it is not there."""
    return stages.prepare(config, store_of(config), SILENT).artifact


def trained(config: Config, *, prepare: bool = True) -> Artifact:
    """Return the configuration's run, with everything before it."""
    if prepare:
        prepared(config)
    return stages.train(config, store_of(config), SILENT).artifact


class Heard:
    """A progress that remembers what was said, and presses Ctrl-C when a line begins with `stop_at`."""

    def __init__(self, stop_at: str | None = None) -> None:
        self.lines: list[str] = []
        self.stop_at = stop_at

    def task(self, description: str, total: float) -> Any:
        return SILENT.task(description, total)

    def say(self, message: str) -> None:
        self.lines.append(message)
        if self.stop_at is not None and message.startswith(self.stop_at):
            raise KeyboardInterrupt
