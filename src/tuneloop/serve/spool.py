"""Log rows on disk while the store cannot take them: nothing that was answered is lost when a service has to stop.

A spool file is written whole (beside its name, fsynced, renamed) and removed once its rows are in the store. Taking a
row twice does no harm: the store keeps one of each request and item. Rows are redacted before they come here.
"""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from tuneloop.artifacts import write_durably

Row = Mapping[str, Any]
SUFFIX = ".jsonl"
REFUSED = ".refused"  # rows that the store will never take: kept for a person to look at


def spool(folder: Path, rows: Sequence[Row], suffix: str = SUFFIX) -> Path:
    """Write rows to a new file in the folder and return it. Raises: OSError."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = folder / f"{os.getpid()}-{uuid.uuid4().hex}{suffix}"
    write_durably(path, "".join(json.dumps(row, default=_written) + "\n" for row in rows).encode())
    return path


def spooled(folder: Path) -> list[Path]:
    """Return the files whose rows wait for the store, oldest first."""
    files = []
    for path in folder.glob(f"*{SUFFIX}"):
        try:
            files.append((path.stat().st_mtime, path))
        except FileNotFoundError:  # the service that wrote it has just finished
            continue
    return [path for _, path in sorted(files)]


def read_spool(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a file; none where another service has just taken it.

    Raises: ValueError: the file is damaged; OSError: it cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except FileNotFoundError:
        return []
    rows = [json.loads(line) for line in lines if line]
    for row in rows:
        row["created_at"] = datetime.fromisoformat(row["created_at"])
    return rows


def _written(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} cannot be spooled")
