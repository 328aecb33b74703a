"""What is exported: a run, with everything that was found out about it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tuneloop.artifacts import Artifact, ArtifactStore
from tuneloop.config.schema import Config
from tuneloop.dataset import DatasetVersion, open_dataset
from tuneloop.errors import ModelError
from tuneloop.export.identity import BaseModel, identify
from tuneloop.forms import CARD, POLICY
from tuneloop.models.load import base_model_folder
from tuneloop.models.prompt import TaskPrompt
from tuneloop.progress import Progress
from tuneloop.runs import ADAPTER, task_of

EVALUATION = "evaluation"


@dataclass(frozen=True)
class Source:
    """A run with its base model, its calibration and its newest evaluation (None where there is none)."""

    config: Config
    run: Artifact
    dataset: DatasetVersion
    base: BaseModel
    base_folder: Path
    calibration: Artifact | None
    evaluation: Artifact | None

    @cached_property
    def task(self) -> TaskPrompt:
        """What the run was trained for."""
        return TaskPrompt.from_dict(task_of(self.run))

    @property
    def adapter(self) -> Path:
        """The folder with the run's adapter."""
        return self.run.path / ADAPTER

    @property
    def policy(self) -> dict[str, Any] | None:
        """How the run's answers are calibrated and routed, None where that was never fitted."""
        if self.calibration is None:
            return None
        content: dict[str, Any] = json.loads((self.calibration.path / POLICY).read_bytes())
        return content

    @property
    def card(self) -> str | None:
        """The model card that the evaluation wrote, None where there is none."""
        path = None if self.evaluation is None else self.evaluation.path / CARD
        return path.read_text(encoding="utf-8") if path is not None and path.exists() else None

    @property
    def parents(self) -> Mapping[str, str]:
        """Role → id of what an export of this run stands on."""
        others = {"calibration": self.calibration, "evaluation": self.evaluation}
        found = {role: artifact.id for role, artifact in others.items() if artifact is not None}
        return {"run": self.run.id, "dataset": self.dataset.id, **found}


def gather(
    config: Config, run: Artifact, calibration: Artifact | None, store: ArtifactStore, progress: Progress
) -> Source:
    """Return the run with everything an export needs to know of it.

    Raises: ModelError: the configured base model is not the run's; NetworkError: it has to be fetched and cannot be;
        ArtifactError: its dataset version is gone.
    """
    folder = base_model_folder(config.model, progress)
    base = identify(config.model, folder)
    if base.fingerprint != run.manifest["inputs"]["base_model"]:
        raise ModelError(
            f"run {run.id} was trained on another base model than {config.model.base_model!r}",
            where="model.base_model",
            hint="Give the base model that it was trained on, or train again with this one.",
        )
    evaluations = [
        artifact for artifact in store if artifact.kind == EVALUATION and artifact.parents.get("run") == run.id
    ]
    return Source(
        config=config,
        run=run,
        dataset=open_dataset(store.get(run.parents["dataset"])),
        base=base,
        base_folder=folder,
        calibration=calibration,
        evaluation=evaluations[-1] if evaluations else None,
    )
