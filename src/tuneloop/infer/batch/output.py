"""Answers as files: JSON lines, or Parquet with one fixed schema, put in place in one step."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from tuneloop.artifacts import durable_file
from tuneloop.infer.batch.journal import as_lines
from tuneloop.sources import is_parquet

if TYPE_CHECKING:
    import pyarrow

ROWS_PER_GROUP = 8192  # of a Parquet file; as many are held in memory


def join_chunks(chunks: Sequence[Path], output: Path) -> None:
    """Make the output of the chunks' files (JSON lines, in order); the old file stays until the new one is whole."""
    with durable_file(output) as file:
        if is_parquet(output):
            _write_parquet(file, _rows_of(chunks))
        else:
            _copy(chunks, file)


def write_rows(output: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a few answers; the old file stays until the new one is whole."""
    with durable_file(output) as file:
        if is_parquet(output):
            _write_parquet(file, iter(rows))
        else:
            file.write(as_lines(rows))


def _copy(chunks: Sequence[Path], file: IO[bytes]) -> None:
    for path in chunks:
        with path.open("rb") as chunk:
            shutil.copyfileobj(chunk, file)


def _rows_of(chunks: Sequence[Path]) -> Iterator[dict[str, Any]]:
    for path in chunks:
        with path.open(encoding="utf-8", newline="\n") as lines:
            yield from map(json.loads, lines)


def _write_parquet(file: IO[bytes], rows: Iterator[Mapping[str, Any]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = _schema()
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        while group := list(islice(rows, ROWS_PER_GROUP)):
            writer.write_table(pa.Table.from_pylist(group, schema=schema))


def _schema() -> pyarrow.Schema:
    import pyarrow as pa

    entity = pa.struct([("type", pa.string()), ("text", pa.string()), ("start", pa.int64()), ("end", pa.int64())])
    entities = pa.list_(entity)
    return pa.schema(
        [
            ("source", pa.string()),
            ("row", pa.int64()),
            ("text", pa.string()),
            ("label", pa.string()),
            ("probability", pa.float64()),
            ("entities", entities),
            ("rejected_entities", entities),
            ("raw_text", pa.string()),
            ("invented", pa.bool_()),
            ("well_formed", pa.bool_()),
            ("route", pa.string()),
            ("label_scores", pa.list_(pa.float64())),
            ("reason", pa.string()),
        ]
    )
