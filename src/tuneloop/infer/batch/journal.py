"""What a batch has finished so far: a folder beside its output, from which the next attempt goes on.

`OUT.partial/` holds one file of JSON lines for every finished chunk and `journal.jsonl`: a first line with everything
that determines the answers, then a line for each chunk with its checksum. A chunk without its line, or with another
checksum, does not count. Knows nothing about models.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from tuneloop.artifacts import fsync_folder, sha256_of, write_durably
from tuneloop.errors import StorageError, UsageError

SCHEMA = 1
JOURNAL, LOCK = "journal.jsonl", ".lock"


@dataclass(frozen=True)
class Chunk:
    """A finished chunk: its place in the order, how many rows it has, and how many of each route."""

    number: int
    rows: int
    routes: Mapping[str, int]
    sha256: str


class Journal:
    """The finished chunks of one batch. Made by `open_journal`, which also sees that nobody else writes here."""

    def __init__(self, folder: Path, chunks: Mapping[int, Chunk]) -> None:
        self.folder = folder
        self._chunks = dict(chunks)

    def finished(self, number: int) -> Chunk | None:
        """Return a chunk that is there, or None where it has to be made."""
        return self._chunks.get(number)

    @property
    def rows(self) -> int:
        """How many rows are finished."""
        return sum(chunk.rows for chunk in self._chunks.values())

    @property
    def routes(self) -> Counter[str]:
        """How many finished rows have each route."""
        return sum((Counter(chunk.routes) for chunk in self._chunks.values()), Counter())

    def keep(self, number: int, rows: Sequence[Mapping[str, Any]]) -> Chunk:
        """Write a chunk so that neither a kill nor a power cut loses it."""
        path = self._path(number)
        write_durably(path, as_lines(rows))
        routes = Counter(str(row["route"]) for row in rows)
        chunk = Chunk(number, len(rows), dict(routes), sha256_of(path))
        _append(self.folder / JOURNAL, {"chunk": number, "rows": chunk.rows, "routes": routes, "sha256": chunk.sha256})
        self._chunks[number] = chunk
        return chunk

    def files(self) -> list[Path]:
        """Return the files of all chunks, in order. Raises: ValueError: one of them is not finished."""
        numbers = sorted(self._chunks)
        if numbers != list(range(len(numbers))):
            raise ValueError("not every chunk is finished")
        return [self._path(number) for number in numbers]

    def _path(self, number: int) -> Path:
        return self.folder / f"chunk-{number:08d}.jsonl"


@contextmanager
def open_journal(output: Path, about: Mapping[str, Any], *, restart: bool = False) -> Iterator[Journal]:
    """Yield the journal of an output; once the output exists, `remove_journal` puts it away.

    Args: about: everything that determines the answers, ready for JSON; restart: forget what is finished.
    Raises: UsageError: what is finished was made from something else; StorageError: another process writes here.
    """
    folder = journal_folder(output)
    folder.mkdir(exist_ok=True)
    try:
        with FileLock(folder / LOCK, timeout=0):
            if restart:
                _empty(folder)
            yield Journal(folder, _resumed(folder, output, about))
    except Timeout as timeout:
        raise StorageError(
            f"another process is answering into {output.name}",
            where=str(folder),
            hint="Wait for it to finish or end it, or give another --output.",
        ) from timeout


def journal_folder(output: Path) -> Path:
    """Return where the finished chunks of an output are kept."""
    return output.with_name(f"{output.name}.partial")


def remove_journal(output: Path) -> None:
    """Forget the chunks of an output that is there as a whole."""
    shutil.rmtree(journal_folder(output), ignore_errors=True)


def as_lines(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Return rows as JSON lines."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def _resumed(folder: Path, output: Path, about: Mapping[str, Any]) -> dict[int, Chunk]:
    """Return the chunks that are finished, in a folder whose journal says `about`; begins one where there is none."""
    path, header = folder / JOURNAL, {"schema": SCHEMA, **about}
    entries = _read(path)
    if len(entries) < 2:  # nothing is finished, so nothing can be mixed
        _empty(folder)
        write_durably(path, (json.dumps(header) + "\n").encode())
        return {}
    _require_same(entries[0], json.loads(json.dumps(header)), output)
    chunks = {}
    for entry in entries[1:]:
        chunk = Chunk(entry["chunk"], entry["rows"], entry["routes"], entry["sha256"])
        file = folder / f"chunk-{chunk.number:08d}.jsonl"
        if file.is_file() and sha256_of(file) == chunk.sha256:
            chunks[chunk.number] = chunk
    return chunks


def _read(path: Path) -> list[dict[str, Any]]:
    """Return the journal's entries; a last line that was cut short by a kill is taken off the file."""
    if not path.exists():
        return []
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        write_durably(path, whole)
    return [json.loads(line) for line in whole.splitlines()]


def _require_same(before: Mapping[str, Any], now: Mapping[str, Any], output: Path) -> None:
    changed = [key for key in (*before, *(key for key in now if key not in before)) if before.get(key) != now.get(key)]
    if not changed:
        return
    said = "; ".join(f"{key} was {_brief(before.get(key))}, now {_brief(now.get(key))}" for key in changed)
    raise UsageError(
        f"the unfinished answers there were made otherwise, and would be mixed with other ones ({said})",
        where=str(journal_folder(output)),
        hint="Run it as before to go on, add --restart to begin again, or give another --output.",
    )


def _brief(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 40 else f"{text[:37]}…"


def _append(path: Path, entry: Mapping[str, Any]) -> None:
    with path.open("ab") as file:
        file.write((json.dumps(entry) + "\n").encode())
        file.flush()
        os.fsync(file.fileno())


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.name != LOCK:
            path.unlink()
    fsync_folder(folder)
