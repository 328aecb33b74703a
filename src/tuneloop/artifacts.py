"""Immutable artifact folders: what a stage made, from what, and proof that it is whole.

An artifact is `<root>/<kind>/<id>/`. It is built in `.building-<id>` beside its final name; every file is fsynced,
`manifest.json` is written last, and the folder is renamed into place. A folder without a valid manifest does not
exist for anyone. The id is a hash of everything that determines the content, so a stage can ask whether its work is
done before it starts.

Knows nothing about what the folders hold.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout

from tuneloop.errors import ArtifactError, StorageError

MANIFEST = "manifest.json"
RECORDED_PACKAGES = ("tuneloop", "torch", "transformers", "peft", "tokenizers", "pyarrow", "numpy")
MANIFEST_KEYS = {"kind", "id", "parents", "inputs", "summary", "files", "packages", "machine", "finished_at"}
NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EROFS}


@dataclass(frozen=True)
class Artifact:
    """A finished, valid artifact folder. `manifest` is its parsed manifest.json."""

    kind: str
    id: str
    path: Path
    manifest: Mapping[str, Any] = field(repr=False)

    @property
    def parents(self) -> Mapping[str, str]:
        """Role → id of the artifacts this one was made from."""
        parents: Mapping[str, str] = self.manifest["parents"]
        return parents

    @property
    def summary(self) -> Mapping[str, Any]:
        """The few figures that the stage wanted shown wherever the artifact is named."""
        summary: Mapping[str, Any] = self.manifest["summary"]
        return summary


@dataclass(frozen=True)
class StageResult:
    """What a stage made, or found made already (`is_skipped`)."""

    artifact: Artifact
    is_skipped: bool


@dataclass
class Build:
    """An artifact in the making: write files under `path`, figures into `summary`."""

    path: Path
    summary: dict[str, Any] = field(default_factory=dict)


def content_id(kind: str, inputs: Mapping[str, Any]) -> str:
    """Return the 16-hex-digit id of the artifact of `kind` that these JSON-able inputs determine."""
    canonical = json.dumps([kind, inputs], sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class ArtifactStore:
    """The artifacts below one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __repr__(self) -> str:
        return f"ArtifactStore({str(self.root)!r})"

    def find(self, kind: str, id: str) -> Artifact | None:
        """Return the artifact if it is there and its manifest matches the files' names and sizes, else None."""
        path = self.root / kind / id
        if not path.is_dir():
            return None
        try:
            manifest = json.loads((path / MANIFEST).read_bytes())
            is_ours = (manifest["kind"], manifest["id"]) == (kind, id) and manifest.keys() >= MANIFEST_KEYS
            is_whole = all((path / name).stat().st_size == entry["size"] for name, entry in manifest["files"].items())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):  # cut short, or not a manifest at all
            return None
        return Artifact(kind, id, path, manifest) if is_ours and is_whole else None

    def get(self, id_prefix: str) -> Artifact:
        """Return the one artifact, of any kind, whose id starts with `id_prefix`.

        Raises: ArtifactError: none or several match.
        """
        matches = [artifact for artifact in self if artifact.id.startswith(id_prefix)]
        if len(matches) == 1:
            return matches[0]
        if not matches:
            raise ArtifactError(
                f"no artifact's id begins with {id_prefix!r}",
                where=str(self.root),
                hint="`tuneloop lineage` without an id lists all artifacts.",
            )
        found = ", ".join(f"{match.kind}/{match.id}" for match in matches)
        raise ArtifactError(
            f"{id_prefix!r} is the beginning of several ids ({found})",
            where=str(self.root),
            hint="Give more digits of the id.",
        )

    def __iter__(self) -> Iterator[Artifact]:
        """Yield every valid artifact, oldest first."""
        if not self.root.is_dir():
            return
        folders = (path for path in self.root.glob("*/*") if path.is_dir() and not path.name.startswith("."))
        found = (self.find(path.parent.name, path.name) for path in folders)
        yield from sorted((a for a in found if a is not None), key=lambda a: str(a.manifest["finished_at"]))

    def verify(self, artifact: Artifact) -> None:
        """Recompute every checksum.

        Raises: ArtifactError: a file was altered since the artifact was finished.
        """
        for name, entry in artifact.manifest["files"].items():
            if sha256_of(artifact.path / name) != entry["sha256"]:
                raise ArtifactError(
                    "the file was changed after the artifact was finished",
                    where=str(artifact.path / name),
                    hint=f"Artifacts are immutable. Remove {artifact.path} and run the stage again.",
                )

    def partial_path(self, kind: str, id: str) -> Path:
        """Return where the artifact is being built (it may not exist)."""
        return self.root / kind / f".building-{id}"

    @contextmanager
    def build(
        self,
        kind: str,
        id: str,
        *,
        parents: Mapping[str, str],
        inputs: Mapping[str, Any],
        seed: int | None = None,
        scratch: Path | None = None,
    ) -> Iterator[Build]:
        """Make an artifact: yields a `Build`, and finishes the folder when the block ends without an error.

        The block starts with an empty folder, and leaves nothing behind when it fails. What it wants to find again
        after an interruption belongs into the folder `scratch`, which is removed once the artifact is there.

        Raises: StorageError: another process is building it, or the disk is full.
        """
        partial = self.partial_path(kind, id)
        with ExitStack() as stack:
            stack.enter_context(_no_room_explained(self.root))
            partial.parent.mkdir(parents=True, exist_ok=True)
            stack.enter_context(_exclusive(partial.with_name(f".lock-{id}"), what=f"{kind} {id}"))
            shutil.rmtree(partial, ignore_errors=True)
            started, clock = datetime.now(UTC), time.monotonic()
            try:
                partial.mkdir()
                build = Build(partial)
                yield build
                manifest = {
                    "kind": kind,
                    "id": id,
                    "parents": dict(parents),
                    "inputs": dict(inputs),
                    "seed": seed,
                    "summary": build.summary,
                    "files": seal(partial),
                    "packages": _package_versions(),
                    "machine": {"platform": platform.platform(), "cpus": os.cpu_count(), "python": sys.version},
                    "started_at": started.isoformat(),
                    "finished_at": datetime.now(UTC).isoformat(),
                    "wall_time_s": round(time.monotonic() - clock, 3),
                }
                write_durably(partial / MANIFEST, json.dumps(manifest, indent=1, sort_keys=True).encode())
                self._publish(kind, id)
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                raise
            if scratch is not None:
                shutil.rmtree(scratch, ignore_errors=True)

    def _publish(self, kind: str, id: str) -> None:
        partial, final = self.partial_path(kind, id), self.root / kind / id
        if self.find(kind, id) is not None:  # finished by another process after ours had looked, and maybe in use
            shutil.rmtree(partial)
            return
        if final.exists():
            shutil.rmtree(final)
        partial.rename(final)
        fsync_folder(final.parent)


def write_durably(path: Path, content: bytes) -> None:
    """Write a file so that after a crash there is either the old content or the new one."""
    with durable_file(path) as file:
        file.write(content)


@contextmanager
def durable_file(path: Path) -> Iterator[IO[bytes]]:
    """Yield a file that takes the place of `path` when the block ends, whole and on disk; not if the block fails."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_folder(path.parent)


def fsync_folder(path: Path) -> None:
    """Make the names in a folder survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def seal(folder: Path) -> dict[str, dict[str, Any]]:
    """Fsync everything below `folder`, without what `write_durably` left when it was killed; return name → checksum."""
    files = {}
    for leftover in folder.rglob(".*.tmp"):
        leftover.unlink()
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p != folder / MANIFEST):
        with path.open("rb") as file:
            os.fsync(file.fileno())
        files[path.relative_to(folder).as_posix()] = {"size": path.stat().st_size, "sha256": sha256_of(path)}
    for path in (p for p in folder.rglob("*") if p.is_dir()):
        fsync_folder(path)
    return files


def _package_versions() -> dict[str, str]:
    versions = {}
    for name in RECORDED_PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    return versions


@contextmanager
def _exclusive(lock_path: Path, what: str) -> Iterator[None]:
    try:
        with FileLock(lock_path, timeout=0):
            yield
    except Timeout as timeout:
        raise StorageError(
            f"another process is building {what}",
            where=str(lock_path),
            hint="Wait for it to finish, or end it; the lock goes with its process.",
        ) from timeout


@contextmanager
def _no_room_explained(where: Path) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        reason = _no_room_reason(error)
        if reason is None:
            raise
        raise StorageError(
            f"cannot write: {reason}",
            where=str(getattr(error, "filename", None) or where),
            hint="Free some space (or point `store.root` at another disk) and run the same command again; "
            "what was finished before is kept.",
        ) from error


def _no_room_reason(error: Exception) -> str | None:
    """Return why the disk refused, or None for any other error; Rust libraries only say it in their message."""
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        return os.strerror(error.errno).lower()
    full = os.strerror(errno.ENOSPC)
    return full.lower() if full in str(error) and not isinstance(error, StorageError) else None
