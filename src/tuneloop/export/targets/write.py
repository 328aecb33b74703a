"""One function for all targets: which files a form needs there, and writing them.

The same form and settings give the same bytes. Nothing that stands in the folder already is overwritten with something
else: people edit such files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal, get_args

from tuneloop.artifacts import write_durably
from tuneloop.errors import UsageError, nearest
from tuneloop.export.targets import compose, docker, hub, kubernetes, modal, ollama, systemd, vllm
from tuneloop.export.targets.settings import TargetSettings
from tuneloop.forms import ExportedForm

TargetName = Literal["hub", "ollama", "kubernetes", "docker", "compose", "modal", "systemd", "vllm"]
TARGETS: tuple[TargetName, ...] = get_args(TargetName)
EXECUTABLE = ".sh"
Files = Callable[[ExportedForm, TargetSettings], Mapping[str, str]]
FILES: dict[str, Files] = {
    "ollama": ollama.files,
    "kubernetes": kubernetes.files,
    "docker": docker.files,
    "compose": compose.files,
    "modal": modal.files,
    "systemd": systemd.files,
    "vllm": vllm.files,
}


def takes(target: str, form: ExportedForm) -> bool:
    """Whether a target can do with this form without anything else: no base model to be fetched, the right engine."""
    if target == "ollama":
        return form.engine == "llamacpp"
    if target == "vllm":
        return form.engine == "transformers" and form.name != "adapter"
    return form.name != "adapter"


def plan(target: str, form: ExportedForm, settings: TargetSettings) -> dict[str, int]:
    """Return the name and size in bytes of every file that `write` would write, or upload for the Hub.

    Raises: UsageError: there is no such target, or it cannot take this form or these settings.
    """
    if target == "hub":
        return hub.listing(form)
    return {name: len(text.encode()) for name, text in _files(target, form, settings).items()}


def write(target: str, form: ExportedForm, settings: TargetSettings, folder: Path) -> list[Path]:
    """Write what a target needs into `folder` (for `hub`: upload the form, and write what was uploaded).

    Returns: the written files.
    Raises: UsageError: there is no such target, it cannot take this form or these settings, or a file of that name
        with other content is there already; NetworkError: the Hub cannot be reached; StorageError: no room.
    """
    if target == "hub":
        _require_free(folder, [hub.RECORD])
        texts = hub.files(form, settings)
    else:
        texts = dict(_files(target, form, settings))
        _require_same(folder, texts)
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        path = folder / name
        write_durably(path, text.encode())
        path.chmod(0o755 if path.suffix == EXECUTABLE else 0o644)
    return [folder / name for name in texts]


def _files(target: str, form: ExportedForm, settings: TargetSettings) -> Mapping[str, str]:
    if target not in FILES:
        hint = f"There are {', '.join(TARGETS)}.{nearest(target, list(TARGETS))}"
        raise UsageError(f"there is no target {target!r}", where="tuneloop deploy", hint=hint)
    return FILES[target](form, settings)


def _require_same(folder: Path, texts: Mapping[str, str]) -> None:
    if folder.exists() and not folder.is_dir():
        raise UsageError("this is a file", where=str(folder), hint="Name a folder; it is made where it is not there.")
    _require_free(folder, [n for n, text in texts.items() if not _holds(folder / n, text)])


def _require_free(folder: Path, names: list[str]) -> None:
    taken = next((folder / name for name in names if (folder / name).exists()), None)
    if taken is not None:
        raise UsageError(
            "a file of this name with other content is there already",
            where=str(taken),
            hint="Name another folder, or remove the file; what you changed in it would be lost.",
        )


def _holds(path: Path, text: str) -> bool:
    return path.is_file() and path.read_bytes() == text.encode()
