"""What an exported form's folder looks like: an artifact of kind `export`, one for each form of a tuned model.

    form.json     what it is, from which run, and how like the original it answers
    task.json     what it may be asked (`TaskPrompt.from_dict`)
    policy.json   how its answers are calibrated and routed (`ReviewPolicy.from_dict`); absent where the run is not
    README.md     the model card
    adapter/ or model/ or model.gguf

Knows nothing about how a form is made or answers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from tuneloop.artifacts import Artifact
from tuneloop.errors import ArtifactError

FormName = Literal["adapter", "merged", "int8", "gptq-4bit", "awq-4bit", "gguf-f16", "gguf-q8_0", "gguf-q4_k_m"]
EngineName = Literal["transformers", "llamacpp"]

KIND = "export"
SCHEMA = 1
FORMS: tuple[FormName, ...] = get_args(FormName)
FORM, TASK, POLICY, CARD = "form.json", "task.json", "policy.json", "README.md"
ADAPTER, MODEL, GGUF = "adapter", "model", "model.gguf"


@dataclass(frozen=True)
class ExportedForm:
    """One form of a tuned model, ready for an engine.

    `path` is the folder or file that the engine loads. `base_model` names what was tuned and `base_model_fingerprint`
    is its hash (an adapter answers rightly on nothing else). `made` is what the maker of its weights noted. `parity` is
    what the comparison with the original found, and `is_allowed_beyond` whether it was exported although that is beyond
    its tolerance.
    """

    name: FormName
    path: Path
    engine: EngineName
    run_id: str
    base_model_fingerprint: str
    task: dict[str, Any]
    base_model: str = ""
    made: Mapping[str, Any] = field(default_factory=dict, repr=False)
    parity: Mapping[str, Any] = field(default_factory=dict, repr=False)
    is_allowed_beyond: bool = False

    @property
    def folder(self) -> Path:
        """The folder with everything that belongs to the form."""
        return self.path.parent

    @property
    def policy(self) -> dict[str, Any] | None:
        """How its answers are calibrated and routed, as `ReviewPolicy.from_dict` reads it; None where they are not."""
        path = self.folder / POLICY
        if not path.exists():
            return None
        content: dict[str, Any] = json.loads(path.read_bytes())
        return content


def part_of(name: FormName) -> str:
    """Return the name of the folder or file in which a form's weights are."""
    if name == "adapter":
        return ADAPTER
    return GGUF if name.startswith("gguf") else MODEL


def engine_of(name: FormName) -> EngineName:
    """Return which engine loads a form in this process."""
    return "llamacpp" if name.startswith("gguf") else "transformers"


def read_form(artifact: Artifact) -> ExportedForm:
    """Return the form that an artifact holds.

    Raises: ArtifactError: it is an artifact of another kind, or its form.json cannot be read.
    """
    if artifact.kind != KIND:
        raise ArtifactError(
            f"{artifact.id} is an artifact of kind {artifact.kind!r}, not an exported form",
            where=str(artifact.path),
            hint="`tuneloop export` makes one; `tuneloop export --list` lists those that are there.",
        )
    return form_in(artifact.path)


def form_in(folder: Path) -> ExportedForm:
    """Return the form in a folder: an artifact's, or one that was unpacked from a bundle.

    Raises: ArtifactError: form.json or task.json is missing or cannot be read, or the weights are not there.
    """
    try:
        content, task = (json.loads((folder / name).read_bytes()) for name in (FORM, TASK))
        form = ExportedForm(
            name=content["form"],
            path=folder / part_of(content["form"]),
            engine=engine_of(content["form"]),
            run_id=content["run"],
            base_model_fingerprint=content["base_model"]["fingerprint"],
            task=task,
            base_model=content["base_model"]["name"],
            made=content.get("made", {}),
            parity=content["parity"],
            is_allowed_beyond=content["allowed_beyond_tolerance"],
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _unreadable(folder, f"{FORM} or {TASK} cannot be read ({type(error).__name__}: {error})") from error
    if form.name not in FORMS:
        raise _unreadable(folder, f"{form.name!r} is no form that this version knows")
    if not form.path.exists():
        raise _unreadable(folder, f"{form.path.name} is missing")
    return form


def _unreadable(folder: Path, found: str) -> ArtifactError:
    return ArtifactError(
        f"this is not an exported form: {found}",
        where=str(folder),
        hint="Run `tuneloop export` again, or unpack the bundle again.",
    )
