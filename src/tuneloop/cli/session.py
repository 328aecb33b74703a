"""What every command starts from: the checked configuration, the artifact store, and a place to show things."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneloop.cli.options import DEFAULT_CONFIG

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tuneloop.artifacts import Artifact, ArtifactStore
    from tuneloop.config.schema import Config
    from tuneloop.progress import Progress

# Where a traceback goes if the command crashes: known only once a configuration is loaded.
STORE_ROOT: ContextVar[Path] = ContextVar("store_root", default=Path(".tuneloop"))


@dataclass(frozen=True)
class Session:
    """One command at work. `finish` prints its result, as JSON or for a person."""

    config: Config
    config_path: Path
    store: ArtifactStore
    progress: Progress
    as_json: bool
    settings: tuple[str, ...] = ()  # the overrides, as given

    def finish(self, data: Mapping[str, Any], *rendering: RenderableType) -> None:
        """Print the result on stdout: `data` as one JSON object, or else `rendering` part by part."""
        from tuneloop.cli.render import print_result

        print_result(data, rendering, as_json=self.as_json)


def open_session(
    config: Path,
    overrides: Sequence[str] | None,
    sets: Sequence[str] | None,
    *,
    as_json: bool,
    needs_file: bool = True,
) -> Session:
    """Return a session for the configuration at `config` with all overrides on top.

    With `needs_file=False` the defaults stand in where there is no `tuneloop.yaml`, unless `config` names another file.

    Raises: ConfigError: everything that is wrong with the configuration; the store cannot be a folder.
    """
    from tuneloop.artifacts import ArtifactStore
    from tuneloop.cli.render import progress_on
    from tuneloop.config.load import load_config

    is_optional = not needs_file and config == DEFAULT_CONFIG and not config.exists()
    settings = (*(sets or []), *(overrides or []))
    loaded = load_config(None if is_optional else config, settings)
    _require_folder(loaded.store.root)
    STORE_ROOT.set(loaded.store.root)
    store = ArtifactStore(loaded.store.root / "artifacts")
    return Session(loaded, config, store, progress_on(sys.stderr), as_json, settings)


def require_place(path: Path, where: str) -> None:
    """Return if a file can be written there. Raises: UsageError: a folder has that name, or its folder is missing."""
    from tuneloop.errors import UsageError

    if path.is_dir() or not path.parent.is_dir():
        found = "this is a folder" if path.is_dir() else f"there is no folder {path.parent}"
        raise UsageError(found, where=where, hint="Name a file in a folder that exists.")


def _require_folder(root: Path) -> None:
    """Refuse a store that lies on or below a file."""
    from tuneloop.errors import ConfigError

    there = next((path for path in (root, *root.parents) if path.exists()), root)
    if there.exists() and not there.is_dir():
        hint = "Name a folder (it is made where it is not there), for example --set store.root=.tuneloop"
        raise ConfigError(f"{there} is a file, the store is a folder", where=f"store.root: {root}", hint=hint)


def split_id(word: str | None, overrides: list[str] | None) -> tuple[str | None, list[str]]:
    """Return (id, overrides) where the optional id's place may have been taken by the first `key=value`."""
    if word is not None and "=" in word:
        return None, [word, *(overrides or [])]
    return word, overrides or []


def chosen_run(session: Session, id: str | None) -> Artifact:
    """Return the run whose id begins with `id`, or without one the run that the configuration describes.

    Raises: ArtifactError: it is not there; UsageError: the id is that of something else.
    """
    from tuneloop.loop import stages
    from tuneloop.runs import run_with

    if id is None:
        dataset = stages.find_dataset(session.config, session.store)
        return stages.find_run(session.config, dataset, session.store, session.progress)
    return run_with(session.store, id, f"--run {id}")
