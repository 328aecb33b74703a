"""Reading CSV, JSON Lines and Parquet strictly: what cannot be read exactly is an error that names its place.

Every reader returns a `Table`. Missing values are None whatever the format calls them (empty field, null, NaN).
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import math
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuneloop.errors import DataError

DELIMITERS = (",", ";", "\t", "|")
ROWS_AT_ONCE = 1024  # decoded from Parquet: documents may be long
LONGEST_FIELD = 2**31 - 1  # the csv module's own limit is 128 KiB, shorter than many documents


def normalize(text: str) -> str:
    """Return the text in NFC, with `\\n` line ends, without white space at both ends: as every model sees texts."""
    return unicodedata.normalize("NFC", text).replace("\r\n", "\n").replace("\r", "\n").strip()


@dataclass(frozen=True, slots=True)
class RawRow:
    """One row as the file has it. `row` is 1-based; `line` is where it starts in a text file, 0 in a binary one."""

    source: str
    row: int
    line: int
    values: Mapping[str, Any]

    @property
    def place(self) -> str:
        """`row 3 (line 5)`, or `row 3` in a file without lines."""
        return f"row {self.row}" + (f" (line {self.line})" if self.line else "")


@dataclass(frozen=True)
class Table:
    """A file that was opened: its column names, and a function (source name, columns or None for all) → rows."""

    path: Path
    columns: tuple[str, ...]
    rows: Callable[[str, Sequence[str] | None], Iterator[RawRow]]


def read_csv(path: Path) -> Table:
    """Open a comma-separated file (also semicolon, tab or bar: whichever the header has) with one header row.

    Raises: DataError: not UTF-8, no header, doubled column names; while reading rows: a broken quote, or a row with
        another number of fields than the header.
    """
    text = decode(path)
    delimiter = _delimiter(path, text)
    records = _csv_records(path, text, delimiter)
    _, header = next(records, (0, []))
    columns = tuple(name.strip() for name in header)
    doubled = sorted({name for name in columns if columns.count(name) > 1})
    if doubled or not any(columns):
        found = f"two columns are called {doubled[0]!r}" if doubled else "there is no header row"
        raise DataError(found, where=f"{path}:line 1", hint="The first row has to give each column a name of its own.")

    def rows(source: str, wanted: Sequence[str] | None) -> Iterator[RawRow]:
        keep = columns if wanted is None else tuple(wanted)
        data = _csv_records(path, text, delimiter)
        next(data)
        for number, (line, fields) in enumerate(data, start=1):
            if len(fields) != len(columns):
                raise DataError(
                    f"the row has {len(fields)} fields, the header has {len(columns)}",
                    where=f"{path}:row {number} (line {line})",
                    hint=f'Put fields that contain {delimiter!r} or line breaks in double quotes ("…"), '
                    'and write a quote inside as "".',
                )
            values = dict(zip(columns, fields, strict=True))
            yield RawRow(source, number, line, {name: values[name] or None for name in keep})

    return Table(path, columns, rows)


def _csv_records(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield (line on which the record starts, fields) for every record that is not blank."""
    csv.field_size_limit(LONGEST_FIELD)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    while True:
        line = reader.line_num + 1
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            ends = f", and fails in line {reader.line_num}" if reader.line_num > line else ""
            raise DataError(
                f"a quote is broken: {error} (the row begins here{ends})",
                where=f"{path}:line {line}",
                hint='Close the quote, and write a quote inside a quoted field as "".',
            ) from error
        if fields:
            yield line, fields


def _delimiter(path: Path, text: str) -> str:
    if path.suffix.lower() == ".tsv":
        return "\t"
    header = text.lstrip("\r\n").split("\n", 1)[0]
    return max(DELIMITERS, key=header.count)  # the comma where none occurs, or several do equally often


def read_jsonl(path: Path) -> Table:
    """Open a file with one JSON object a line, or one JSON array of objects.

    Raises: DataError: not UTF-8, a line that is not JSON or not an object, no objects at all.
    """
    text = decode(path)
    objects = list(_json_array(path, text) if text.lstrip().startswith("[") else _json_lines(path, text))
    if not objects:
        hint = "Write one JSON object a line: one for each example."
        raise DataError("there are no objects in the file", where=str(path), hint=hint)
    columns = tuple(dict.fromkeys(key for _, values in objects for key in values))

    def rows(source: str, wanted: Sequence[str] | None) -> Iterator[RawRow]:
        keep = columns if wanted is None else tuple(wanted)
        for number, (line, values) in enumerate(objects, start=1):
            yield RawRow(source, number, line, {name: _missing_as_none(values.get(name)) for name in keep})

    return Table(path, columns, rows)


def _json_lines(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, content in enumerate(text.split("\n"), start=1):  # not splitlines: U+2028 may stand in a string
        if content.strip():
            yield line, _json_object(_parse_json(path, content, line), path, line)


def _json_array(path: Path, text: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for item in _parse_json(path, text, 1):
        yield 0, _json_object(item, path, 1)


def _parse_json(path: Path, content: str, line: int) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        at = f"{error.msg} at column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
        extra = error.lineno - 1 if isinstance(error, json.JSONDecodeError) else 0
        shown = content.strip().split("\n")[0][:60]
        raise DataError(
            f"invalid JSON: {at}; the text begins with {shown!r}",
            where=f"{path}:line {line + extra}",
            hint="Correct or remove this line; every line has to be one whole JSON object.",
        ) from error


def _json_object(value: Any, path: Path, line: int) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    raise DataError(
        f"expected a JSON object, found {type(value).__name__}",
        where=f"{path}:line {line}",
        hint='Every line has to be an object that names its fields, as {"text": "…", "label": "…"}.',
    )


def read_parquet(path: Path) -> Table:
    """Open a Parquet file.

    Raises: DataError: truncated, damaged, or not Parquet at all; no columns.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            columns = tuple(file.schema_arrow.names)
    except (OSError, pa.ArrowException) as error:
        raise _damaged_parquet(path, error) from error

    def rows(source: str, wanted: Sequence[str] | None) -> Iterator[RawRow]:
        number = 0
        try:
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(ROWS_AT_ONCE, columns=None if wanted is None else list(wanted)):
                    for values in batch.to_pylist():
                        number += 1
                        yield RawRow(source, number, 0, {k: _missing_as_none(v) for k, v in values.items()})
        except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
            raise _damaged_parquet(path, error, after_row=number) from error

    return Table(path, columns, rows)


def _damaged_parquet(path: Path, error: Exception, after_row: int = 0) -> DataError:
    place = f"{path}:after row {after_row}" if after_row else str(path)
    first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
    hint = "The file is truncated, damaged or of another format: copy or export it again."
    return DataError(f"not a readable Parquet file: {first_line}", where=place, hint=hint)


def _missing_as_none(value: Any) -> Any:
    return None if value == "" or (isinstance(value, float) and math.isnan(value)) else value


def decode(path: Path) -> str:
    """Return the text of a UTF-8 file, without a byte order mark.

    Raises: DataError: naming the first byte that is not UTF-8, and its line.
    """
    content = path.read_bytes()
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise _wrong_encoding(path, "UTF-16", "the file begins with a UTF-16 byte order mark", "line 1")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        start = error.start + (len(codecs.BOM_UTF8) if content.startswith(codecs.BOM_UTF8) else 0)
        line = content.count(b"\n", 0, start) + 1
        column = start - content.rfind(b"\n", 0, start)
        found = f"byte 0x{content[start]:02x} is not UTF-8 (byte {column} of the line, offset {start} in the file)"
        raise _wrong_encoding(path, "WINDOWS-1252", found, f"line {line}") from error


def _wrong_encoding(path: Path, encoding: str, found: str, place: str) -> DataError:
    command = f"iconv -f {encoding} -t UTF-8 {path.name} > {path.stem}.utf8{path.suffix}"
    hint = f"Convert the file, for example `{command}`, and use the new file."
    return DataError(found, where=f"{path}:{place}", hint=hint)
