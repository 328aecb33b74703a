"""The log as a file that `data.sources` reads: what people said is right is `label` and `entities`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from tuneloop.artifacts import fsync_folder
from tuneloop.serve.log_queries import LoggedAnswer

TEXT_COLUMNS = (
    *("text", "label", "entities", "predicted_label", "predicted_entities", "route", "reason", "model", "version"),
    *("request_id", "time", "caller", "feedback_by", "feedback_time", "comment", "redaction"),
)
NUMBER_COLUMNS = {"probability": "float64", "latency_s": "float64", "item": "int64", "tokens": "int64"}
SUFFIXES = (".jsonl", ".ndjson", ".parquet", ".pq")


class Sink(Protocol):
    """Takes rows."""

    def __call__(self, rows: list[dict[str, Any]]) -> None:
        """Write some rows."""


def export_row(answer: LoggedAnswer) -> dict[str, Any]:
    """Return a row as it is exported. `label` and `entities` are None where nobody said what they should be."""
    row = answer.row
    return {
        "text": row.text,
        "label": answer.right_label,
        "entities": answer.right_entities,
        "predicted_label": row.label,
        "predicted_entities": answer.entities,
        "probability": row.probability,
        "route": row.route,
        "reason": row.reason,
        "model": row.model,
        "version": row.version,
        "request_id": row.request_id,
        "item": row.item,
        "time": row.created_at.isoformat(),
        "caller": row.caller,
        "tokens": row.tokens,
        "latency_s": row.latency_s,
        "feedback_by": answer.feedback_by,
        "feedback_time": None if answer.feedback_at is None else answer.feedback_at.isoformat(),
        "comment": answer.comment,
        "redaction": row.redaction,
    }


@contextmanager
def open_export(path: Path) -> Iterator[Sink]:
    """Yield a function that takes rows; the file appears when the block ends, whole, or not at all.

    The suffix says which kind it is: one of `SUFFIXES`. Raises: OSError.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    opened = _parquet if path.suffix.lower() in (".parquet", ".pq") else _jsonl
    try:
        with opened(temporary) as sink:
            yield sink
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    fsync_folder(path.parent)


@contextmanager
def _jsonl(path: Path) -> Iterator[Sink]:
    with path.open("w", encoding="utf-8") as file:
        yield lambda rows: file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


@contextmanager
def _parquet(path: Path) -> Iterator[Sink]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = [(name, pa.string()) for name in TEXT_COLUMNS]
    columns += [(name, getattr(pa, kind)()) for name, kind in NUMBER_COLUMNS.items()]
    schema = pa.schema(columns)
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        yield lambda rows: writer.write_table(pa.Table.from_pylist([_flat(row) for row in rows], schema=schema))


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row with lists as JSON, which the reader of examples understands."""
    lists = {name: json.dumps(value, ensure_ascii=False) for name, value in row.items() if isinstance(value, list)}
    return row | lists
