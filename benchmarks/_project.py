"""A Banking77 project to serve: two quickly trained runs on one base model, and one of them in the peers' forms."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from _measure import SHORT_INSTRUCTION

from tuneloop.artifacts import Artifact, ArtifactStore
from tuneloop.forms import KIND, FormName, read_form
from tuneloop.models.prompt import TaskPrompt
from tuneloop.runs import task_of

MAX_TOKENS = 2048


@dataclass(frozen=True)
class Project:
    """What is served: a configuration, two runs, the task, and where the peers' forms are."""

    config: Path
    runs: tuple[str, str]
    task: TaskPrompt
    merged: Path
    gguf: Path | None


def make_project(folder: Path, data: Path, base_model: str, examples: int, *, needs_gguf: bool) -> Project:
    """Prepare, train twice and export below `folder`; what is there from before is found again.

    Few examples are enough: how fast a model answers does not depend on how well it does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "tuneloop.yaml"
    config.write_text(yaml.safe_dump(_config(data, base_model, examples), sort_keys=False), encoding="utf-8")
    _tuneloop(config, "data", "prepare")
    first = str(_tuneloop(config, "train")["id"])
    second = str(_tuneloop(config, "train", "train.seed=14")["id"])
    forms: list[FormName] = ["merged", *(["gguf-q8_0"] if needs_gguf else [])]  # type: ignore[list-item]
    allowed = [word for form in forms for word in ("--allow-beyond-tolerance", form)]
    _tuneloop(config, "export", *forms, *allowed, "--run", first)
    store = ArtifactStore(folder / ".tuneloop" / "artifacts")
    return Project(
        config,
        (first, second),
        TaskPrompt.from_dict(task_of(store.get(first))),
        _form(store, first, "merged"),
        _form(store, first, "gguf-q8_0") if needs_gguf else None,
    )


def _config(data: Path, base_model: str, examples: int) -> dict[str, Any]:
    columns = {"text": "text", "label": "category"}
    return {
        "task": {"instruction": SHORT_INSTRUCTION},
        "data": {
            "sources": [{"path": str((data / "train.csv").absolute()), "columns": columns}],
            "near_duplicates": {"enabled": False},
            "on_invalid": "drop",
        },
        "model": {"base_model": base_model, "dtype": "float32", "max_tokens": MAX_TOKENS},
        "train": {"max_examples": examples, "epochs": 1, "learning_rate": 0.001, "batch_size": 8},
        "export": {"parity_examples": 8},
        "store": {"root": ".tuneloop"},
    }


def _tuneloop(config: Path, *words: str) -> dict[str, Any]:
    """Run a command of ours; returns its JSON. Raises: SystemExit: it failed, with what it said on stderr."""
    command: Sequence[str] = [sys.executable, "-m", "tuneloop", *words, "--config", str(config), "--json"]
    print(f"  tuneloop {' '.join(words)}", file=sys.stderr)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"tuneloop {' '.join(words)} ended with exit code {done.returncode}")
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def _form(store: ArtifactStore, run: str, name: FormName) -> Path:
    exports: list[Artifact] = [artifact for artifact in store if artifact.kind == KIND]
    forms = [read_form(artifact) for artifact in exports]
    return next(form.path for form in reversed(forms) if (form.run_id, form.name) == (run, name)).absolute()
