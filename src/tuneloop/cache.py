"""What is fetched or made once per user and shared by all projects: wheels, converted models, demo data.

The folder is the platform's user cache, or `$TUNELOOP_CACHE`. Everything in it can be deleted; it is made again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from platformdirs import user_cache_path

from tuneloop.artifacts import Artifact, ArtifactStore, Build
from tuneloop.errors import StorageError
from tuneloop.progress import Progress

CACHE_VARIABLE = "TUNELOOP_CACHE"


def cache_folder() -> Path:
    """Return the folder of this user's shared files; it may not exist yet."""
    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen).expanduser().absolute() if chosen else user_cache_path("tuneloop", appauthor=False)


def make_once(
    kind: str, id: str, *, inputs: Mapping[str, Any], make: Callable[[Build], None], progress: Progress
) -> Artifact:
    """Return the cached artifact, made by `make` if it is not there; a second process waits for the first.

    Raises: StorageError: the cache cannot be written; and whatever `make` raises.
    """
    store = ArtifactStore(cache_folder())
    found = store.find(kind, id)
    if found is not None:
        return found
    with waiting_lock(store.root / kind / f".waiting-{id}", what=id, progress=progress):
        found = store.find(kind, id)
        if found is None:
            with store.build(kind, id, parents={}, inputs=inputs) as build:
                make(build)
            found = store.find(kind, id)
    if found is None:
        raise StorageError(
            f"{id} was made but cannot be read back",
            where=str(store.root / kind / id),
            hint=f"Check the disk, or point ${CACHE_VARIABLE} at another folder, and run the same command again.",
        )
    return found


@contextmanager
def waiting_lock(path: Path, *, what: str, progress: Progress) -> Iterator[None]:
    """Hold a lock between processes for the block, first waiting (and saying so) for whoever holds it.

    Raises: StorageError: the lock's folder cannot be written.
    """
    lock = FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            progress.say(f"Another process is preparing {what}; waiting for it.")
            lock.acquire()
    except OSError as error:
        raise StorageError(
            f"the cache cannot be written: {(error.strerror or str(error)).lower()}",
            where=str(path.parent),
            hint=f"Point ${CACHE_VARIABLE} at a folder that you may write, and run the same command again.",
        ) from error
    try:
        yield
    finally:
        lock.release()
