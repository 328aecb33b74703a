"""How an environment is made: `python -m venv`, then the user's own pip settings fetch exactly the pinned packages.

torch comes first and with what it needs, which differs between its builds (the CPU's needs little, CUDA's needs
gigabytes); everything else is installed as pinned and without looking at its dependencies. That is how vLLM does
without torchvision, torchaudio and torchcodec, which it names and a text model never loads: they do not load beside
the CPU build of torch, and vLLM takes their being absent in good part.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from tempfile import mkdtemp

from tuneloop.artifacts import write_durably
from tuneloop.environments.places import (
    MARKER,
    Environment,
    discard,
    environment_places,
    environments_folder,
    making_lock,
    python_below,
)
from tuneloop.environments.recipes import Recipe, recipe_for
from tuneloop.errors import NetworkError, StorageError, TuneloopError
from tuneloop.progress import Advance, Progress

MEBIBYTE = 1 << 20
POLL_S = 0.5
LONGEST_MESSAGE = 300  # characters
NOT_FOR_PIP = ("PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PYTHONPATH", "PYTHONHOME")


def create_environment(name: str, progress: Progress) -> Environment:
    """Return the environment `name`, made first (minutes, and gigabytes for CUDA) if it is not there.

    Two processes may ask at once: the second waits and finds what the first has made. What a killed process left is
    cleared away and made anew.

    Raises: UsageError: no environment has this name; NetworkError: pip could not fetch or install the packages;
        StorageError: there is no room; TuneloopError: the packages are there and do not load.
    """
    recipe = recipe_for(name)
    _require_pip()
    with making_lock(name, progress):
        places = environment_places(name)
        ready = next((place for place in places if place.state == "ready"), None)
        if ready is not None:
            return ready.environment
        for place in places:
            if place.state == "unfinished":
                discard(place.folder)
        _require_room(recipe)
        folder = Path(mkdtemp(prefix=f"{name}-{recipe.id}-", dir=environments_folder()))
        try:
            return _make(recipe, folder, progress)
        except BaseException:
            discard(folder)
            raise


def _make(recipe: Recipe, folder: Path, progress: Progress) -> Environment:
    environment = Environment(recipe.name, folder, python_below(folder))
    pins, log = recipe.requirements, folder / "pip.log"
    with progress.task(f"Making the environment {recipe.name} (steps)", 2 * len(pins)) as advance:
        _run([sys.executable, "-m", "venv", "--without-pip", str(folder)], folder, log, None)
        watch = _Watch(folder, log, len(pins), advance)
        install = [sys.executable, "-m", "pip", "--python", str(environment.python), "install", "--no-input"]
        install += ["--disable-pip-version-check", "--no-warn-script-location", "--progress-bar=off"]
        for torch in (pin for pin in pins if pin.startswith("torch==")):
            _run([*install, "-c", str(recipe.pins), torch], folder, log, watch)
        _run([*install, "--no-deps", "-r", str(recipe.pins)], folder, log, watch)
    write_aliases(recipe, folder)
    progress.say(f"Checking that {recipe.module} loads in {folder}.")
    _require_loadable(environment, recipe)
    marker = {"name": recipe.name, "pins": pins, "python": sys.version, "made_at": datetime.now(UTC).isoformat()}
    write_durably(folder / MARKER, json.dumps(marker, indent=1).encode())
    return environment


def write_aliases(recipe: Recipe, folder: Path) -> None:
    """Let packages be found by the names in `recipe.aliases`, too, when something asks which version is installed."""
    for packages in folder.glob("lib/python3*/site-packages"):
        for name, version in recipe.aliases.items():
            about = packages / f"{name.replace('-', '_')}-{version}.dist-info"
            about.mkdir(exist_ok=True)
            content = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
            (about / "METADATA").write_text(content, encoding="utf-8")


class _Watch:
    """Tells how far pip is: each pinned package counts once when it is collected, and once when it is installed."""

    def __init__(self, folder: Path, log: Path, packages: int, advance: Advance) -> None:
        self.folder, self.log, self.packages, self.advance = folder, log, packages, advance
        self.shown = 0

    def look(self) -> None:
        collected = self.log.read_bytes().count(b"\nCollecting ")
        installed = sum(1 for _ in self.folder.glob("lib/python3*/site-packages/*.dist-info"))
        done = min(collected, self.packages) + min(installed, self.packages)
        if done > self.shown:
            self.advance(done - self.shown)
            self.shown = done


def _run(command: Sequence[str], folder: Path, log: Path, watch: _Watch | None) -> None:
    """Run a command to its end, its output added to `log`. Raises: NetworkError, StorageError: it failed."""
    scratch = folder / ".pip"  # on the right disk, unlike /tmp, which may be small
    scratch.mkdir(exist_ok=True)
    variables = {name: value for name, value in os.environ.items() if name not in NOT_FOR_PIP}
    variables = {"PIP_RETRIES": "2", **variables, "TMPDIR": str(scratch)}
    with log.open("ab") as output:
        output.write(f"$ {' '.join(command)}\n".encode())
        output.flush()
        begin = output.tell()
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=variables
        ) as process:
            try:
                while process.poll() is None:
                    time.sleep(POLL_S)
                    if watch is not None:
                        watch.look()
            finally:
                process.kill()  # only has an effect when the watching was interrupted
    shutil.rmtree(scratch, ignore_errors=True)
    if process.returncode != 0:
        raise _explained(command, log.read_bytes()[begin:].decode(errors="replace"))


def _explained(command: Sequence[str], output: str) -> NetworkError | StorageError:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    complaints = [line for line in lines if line.upper().startswith("ERROR")] or lines[-1:] or ["no message"]
    if "No space left" in output:
        return _no_room(f"no space left while running {command[2]}")
    return NetworkError(
        f"{command[2]} failed ({complaints[-1][:LONGEST_MESSAGE]})",
        where=" ".join(command[:3]),
        hint="Check the network and `pip config list`, and run the same command again; only pip's cache was kept.",
    )


def _require_pip() -> None:
    if importlib.util.find_spec("pip") is None:
        raise NetworkError(
            "this Python has no pip, which is needed to fetch the packages",
            where=sys.executable,
            hint=f"Run `{sys.executable} -m ensurepip` (or `uv pip install pip`) and the same command again.",
        )


def _require_room(recipe: Recipe) -> None:
    root = environments_folder()
    root.mkdir(parents=True, exist_ok=True)
    free_mib = shutil.disk_usage(root).free // MEBIBYTE
    needed_mib = recipe.disk_mib + recipe.fetches_mib
    if free_mib < needed_mib:
        raise _no_room(f"the environment {recipe.name} needs {needed_mib:,} MiB of disk; {free_mib:,} MiB are free")


def _no_room(message: str) -> StorageError:
    return StorageError(
        message,
        where=str(environments_folder()),
        hint="Free some space (or point $TUNELOOP_CACHE at another disk) and run the same command again.",
    )


def _require_loadable(environment: Environment, recipe: Recipe) -> None:
    command = [str(environment.python), "-c", f"import {recipe.module}"]
    done = subprocess.run(command, env=environment.env(), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        last = next(iter(done.stderr.strip().splitlines()[-1:]), "no message")
        raise TuneloopError(
            f"{recipe.module} was installed and does not load ({last[:LONGEST_MESSAGE]})",
            where=f"the environment {recipe.name}",
            hint="Nothing was kept. Its packages may not fit this system or Python; make an environment of your own "
            f"and name its interpreter as environments.{recipe.name.replace('-', '_')}.",
        )
