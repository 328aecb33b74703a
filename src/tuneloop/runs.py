"""What a run's folder looks like: an artifact of kind `run` with the adapter, the task it was trained for, and curves.

Knows nothing about how a run is trained.
"""

from __future__ import annotations

import json
from typing import Any

from tuneloop.artifacts import Artifact, ArtifactStore
from tuneloop.errors import UsageError

KIND = "run"
ADAPTER, TASK, HISTORY = "adapter", "task.json", "history.jsonl"


def run_with(store: ArtifactStore, id: str, where: str) -> Artifact:
    """Return the run whose id begins with `id`; `where` is how the user named it, for the message.

    Raises: ArtifactError: nothing has such an id, or several things have; UsageError: it is that of something else.
    """
    artifact = store.get(id)
    if artifact.kind != KIND:
        hint = "`tuneloop lineage` lists all artifacts with their kinds; give the id of one of kind run."
        raise UsageError(f"{artifact.id} is an artifact of kind {artifact.kind!r}, not a run", where=where, hint=hint)
    return artifact


def task_of(run: Artifact) -> dict[str, Any]:
    """Return the task that a run was trained for, as `TaskPrompt.from_dict` reads it."""
    content: dict[str, Any] = json.loads((run.path / TASK).read_bytes())
    return content


def history_of(run: Artifact) -> list[dict[str, Any]]:
    """Return the points of its curves: step and any of train_loss, validation_loss, learning_rate, grad_norm."""
    return [json.loads(line) for line in (run.path / HISTORY).read_text(encoding="utf-8").splitlines()]
