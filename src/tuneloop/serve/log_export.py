"""The log as a file that `data.sources` reads: what people said is right is `label` and `entities`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol

from tuneloop.artifacts import durable_file
from tuneloop.serve.log_queries import LoggedAnswer
from tuneloop.sources import is_parquet

TEXT_COLUMNS = (
    *("text", "label", "entities", "predicted_label", "predicted_entities", "route", "reason", "model", "version"),
    *("request_id", "time", "caller", "feedback_by", "feedback_time", "comment", "redaction", "kind", "answer"),
)
NUMBER_COLUMNS = {"probability": "float64", "latency_s": "float64", "item": "int64", "tokens": "int64"}


class Sink(Protocol):
    """Takes rows."""

    def __call__(self, rows: list[dict[str, Any]]) -> None:
        """Write some rows."""


def export_row(answer: LoggedAnswer) -> dict[str, Any]:
    """Return a row as it is exported.

    `label` and `entities` are None where nobody said what they should be; `probability` is None of generated text.
    """
    row = answer.row
    return {
        "text": row.text,
        "label": answer.right_label,
        "entities": answer.right_entities,
        "predicted_label": row.label,
        "predicted_entities": answer.entities,
        "probability": row.probability if row.kind == "predict" else None,
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
        "kind": row.kind,
        "answer": row.answer,
    }


@contextmanager
def open_export(path: Path) -> Iterator[Sink]:
    """Yield a function that takes rows; the file appears when the block ends, whole, or not at all.

    The suffix says which kind it is: one of `sources.WRITTEN_SUFFIXES`. Raises: OSError.
    """
    opened = _parquet if is_parquet(path) else _jsonl
    with durable_file(path) as file, opened(file) as sink:
        yield sink


@contextmanager
def _jsonl(file: IO[bytes]) -> Iterator[Sink]:
    yield lambda rows: file.writelines((json.dumps(row, ensure_ascii=False) + "\n").encode() for row in rows)


@contextmanager
def _parquet(file: IO[bytes]) -> Iterator[Sink]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = [(name, pa.string()) for name in TEXT_COLUMNS]
    columns += [(name, getattr(pa, kind)()) for name, kind in NUMBER_COLUMNS.items()]
    schema = pa.schema(columns)
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        yield lambda rows: writer.write_table(pa.Table.from_pylist([_flat(row) for row in rows], schema=schema))


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row with lists as JSON, which the reader of examples understands."""
    lists = {name: json.dumps(value, ensure_ascii=False) for name, value in row.items() if isinstance(value, list)}
    return row | lists
