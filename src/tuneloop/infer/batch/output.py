"""Answers as files: JSON lines, or Parquet with one fixed schema, put in place in one step."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from tuneloop.artifacts import fsync_folder
from tuneloop.infer.batch.journal import as_lines

if TYPE_CHECKING:
    import pyarrow

LINES, PARQUET = (".jsonl", ".ndjson"), (".parquet", ".pq")
ROWS_PER_GROUP = 8192  # of a Parquet file; as many are held in memory


def join_chunks(chunks: Sequence[Path], output: Path) -> None:
    """Make the output of the chunks' files (JSON lines, in order); the old file stays until the new one is whole."""
    if is_parquet(output):
        _in_one_step(output, lambda file: _write_parquet(file, _rows_of(chunks)))
    else:
        _in_one_step(output, lambda file: _copy(chunks, file))


def write_rows(output: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a few answers; the old file stays until the new one is whole."""
    if is_parquet(output):
        _in_one_step(output, lambda file: _write_parquet(file, iter(rows)))
    else:
        _in_one_step(output, lambda file: file.write(as_lines(rows)))


def is_parquet(path: Path) -> bool:
    """Say whether a file's name asks for Parquet."""
    return path.suffix.lower() in PARQUET


def _in_one_step(output: Path, write: Callable[[IO[bytes]], Any]) -> None:
    temporary = output.with_name(f".{output.name}.tmp")
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(output)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    fsync_folder(output.absolute().parent)


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
