"""Where environments are, and which of them can be used: those made by `making`, or a user's own interpreter.

An environment is `<cache>/environments/<name>-<id>-<random>/`. Its marker is written last: a folder without one was
being made when its process was killed, and is nobody's. The random part keeps what a killed process' pip may still be
writing apart from the next try; a finished environment is never moved, since its scripts name their own path.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sysconfig
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tuneloop.cache import cache_folder, waiting_lock
from tuneloop.environments.recipes import RECIPES, Recipe, recipe_for
from tuneloop.errors import ConfigError, UsageError
from tuneloop.progress import Progress

MARKER = "environment.json"
NOT_INHERITED = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")
IS_THERE = "import importlib.util, sys; sys.exit(importlib.util.find_spec(sys.argv[1]) is None)"
ASKING_S = 60.0


@dataclass(frozen=True)
class Environment:
    """An interpreter with the packages of the recipe `name`, below `folder`."""

    name: str
    folder: Path
    python: Path

    def env(self) -> dict[str, str]:
        """Return the environment variables for a process in it: this process' own, without what would lead astray."""
        recipe = recipe_for(self.name)
        variables = {name: value for name, value in os.environ.items() if name not in NOT_INHERITED}
        variables["PATH"] = os.pathsep.join([str(self.python.parent), *filter(None, [variables.get("PATH")])])
        variables |= {"VIRTUAL_ENV": str(self.folder), "PYTHONNOUSERSITE": "1", **recipe.variables}
        if preloaded := self._preloaded(recipe):
            variables["LD_PRELOAD"] = ":".join([*map(str, preloaded), *filter(None, [variables.get("LD_PRELOAD")])])
        return variables

    def _preloaded(self, recipe: Recipe) -> list[Path]:
        return [path for pattern in recipe.preloads for path in sorted(self.folder.glob(pattern))]


@dataclass(frozen=True)
class Place:
    """A folder in the cache that holds, or held, an environment.

    `outdated`: of other pins or another Python than today's; `unfinished`: its making was interrupted.
    """

    name: str
    folder: Path
    state: Literal["ready", "outdated", "unfinished"]

    @property
    def environment(self) -> Environment:
        """The environment there."""
        return Environment(self.name, self.folder, python_below(self.folder))

    def size_bytes(self) -> int:
        """Return the bytes of all files below; links are not followed."""
        files = (Path(parent) / name for parent, _, names in os.walk(self.folder) for name in names)
        return sum(file.lstat().st_size for file in files)


def environments_folder() -> Path:
    """Return the folder of all environments; it may not exist yet."""
    return cache_folder() / "environments"


def python_below(folder: Path) -> Path:
    """Return the interpreter of a virtual environment."""
    schemes = sysconfig.get_path("scripts", scheme="venv", vars={"base": str(folder), "installed_base": str(folder)})
    return Path(schemes) / "python"


def find_environment(name: str, own: Path | None = None) -> Environment:
    """Return the environment `name`: the interpreter `own` if given, else the one in the cache. Fetches nothing.

    Raises:
        UsageError: it was not made yet; the hint is the command that makes it, with the size that it fetches.
        ConfigError: `own` is no interpreter, or one without the packages.
    """
    recipe = recipe_for(name)
    if own is not None:
        return _own(recipe, own)
    ready = next((place for place in environment_places(name) if place.state == "ready"), None)
    if ready is None:
        key = f"environments.{name.replace('-', '_')}"
        raise UsageError(
            f"the environment {name} is not here" + (", only an outdated one" if environment_places(name) else ""),
            where=str(environments_folder()),
            hint=f"Make it with {recipe.create_command}, or name an interpreter that has {recipe.module} as {key}.",
        )
    return ready.environment


def environment_places(name: str) -> list[Place]:
    """Return every folder of the environment `name` in the cache, ready ones first, newest first."""
    current = f"{name}-{recipe_for(name).id}-"
    places = [_place(name, folder, folder.name.startswith(current)) for folder in _folders(name)]
    order = ("ready", "outdated", "unfinished")
    return sorted(places, key=lambda place: (order.index(place.state), -place.folder.stat().st_mtime))


def remove_environment(name: str, progress: Progress) -> list[Path]:
    """Remove every folder of the environment `name`; returns them. One that is being made is waited for first."""
    recipe_for(name)
    with making_lock(name, progress):
        places = environment_places(name)
        for place in places:
            discard(place.folder)
    return [place.folder for place in places]


def making_lock(name: str, progress: Progress) -> AbstractContextManager[None]:
    """Return a lock that one process at a time holds while it makes or removes the environment `name`."""
    return waiting_lock(environments_folder() / f".lock-{name}", what=f"the environment {name}", progress=progress)


def discard(folder: Path) -> None:
    """Remove an environment; the marker goes first, so that half of one is never taken for a whole."""
    (folder / MARKER).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def _folders(name: str) -> Iterator[Path]:
    """Yield the folders of `name`, and none of another environment whose name begins with it (vllm, vllm-cpu)."""
    root = environments_folder()
    longer = tuple(f"{other}-" for other in RECIPES if other.startswith(f"{name}-"))
    for folder in root.glob(f"{name}-*") if root.is_dir() else ():
        if folder.is_dir() and not folder.name.startswith(longer):
            yield folder


def _place(name: str, folder: Path, is_current: bool) -> Place:
    try:
        made = json.loads((folder / MARKER).read_bytes())["name"]
    except (OSError, ValueError, KeyError, TypeError):  # no marker yet, or half of one
        made = None
    if made != name or not python_below(folder).exists():
        return Place(name, folder, "unfinished")
    return Place(name, folder, "ready" if is_current else "outdated")


def _own(recipe: Recipe, python: Path) -> Environment:
    where = f"environments.{recipe.name.replace('-', '_')}: {python}"
    hint = f"Give the path of a python that has {recipe.module}, or leave the key out and run {recipe.create_command}."
    if not (python.is_file() and os.access(python, os.X_OK)):
        raise ConfigError("this is not an interpreter", where=where, hint=hint)
    environment = Environment(recipe.name, python.absolute().parent.parent, python.absolute())
    if not _has(environment, recipe.module):
        raise ConfigError(f"this interpreter has no {recipe.module}", where=where, hint=hint)
    return environment


def _has(environment: Environment, module: str) -> bool:
    command: Sequence[str] = [str(environment.python), "-c", IS_THERE, module]
    try:
        done = subprocess.run(command, env=environment.env(), capture_output=True, timeout=ASKING_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0
