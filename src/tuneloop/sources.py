"""Files of examples → raw rows, with an exact place for whatever is wrong.

Decides which format a file has, whether it is there, and whether it has the columns that are wanted; `formats` reads
the bytes. Knows nothing about labels or texts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from tuneloop.errors import ConfigError, DataError, nearest
from tuneloop.formats import RawRow, Table, read_csv, read_jsonl, read_parquet

Format = Literal["auto", "parquet", "csv", "jsonl"]

FORMAT_OF_SUFFIX: dict[str, Format] = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
}
WRITTEN_SUFFIXES = (".jsonl", ".ndjson", ".parquet", ".pq")  # of files of rows that tuneloop writes


def is_parquet(path: Path) -> bool:
    """Say whether a file's name asks for Parquet."""
    return FORMAT_OF_SUFFIX.get(path.suffix.lower()) == "parquet"


def read_rows(
    path: Path, *, format: Format = "auto", columns: Sequence[str] | None = None, source: str = ""
) -> Iterator[RawRow]:
    """Yield the rows of one file, each with its 1-based number (header and blank lines not counted).

    Args: columns: the columns that must be there and are read (None: all of them); source: the name that rows carry
        (default: the file's name).
    Raises: DataError: the file is missing, empty or broken; ConfigError: its format is unknown or a column is missing.
    """
    table = open_table(path, format=format)
    for column in columns or ():
        _require_column(table, column)
    yield from table.rows(source or path.name, columns)


def open_table(path: Path, *, format: Format = "auto") -> Table:
    """Return the columns of a file and a way to read its rows.

    Raises: as `read_rows`.
    """
    require_file(path)
    match _format_of(path) if format == "auto" else format:
        case "parquet":
            return read_parquet(path)
        case "csv":
            return read_csv(path)
        case _:
            return read_jsonl(path)


def source_names(paths: Sequence[Path]) -> list[str]:
    """Return a short name for each path: the file name, with as many folders before it as tell the paths apart."""
    names = [path.name for path in paths]
    longest = max((len(path.parts) for path in paths), default=1)
    for depth in range(2, longest + 1):
        names = [
            "/".join(path.parts[-depth:]) if names.count(name) > 1 else name
            for path, name in zip(paths, names, strict=True)
        ]
    return names


def require_file(path: Path) -> None:
    """Raise unless the path is a file that can be read and is not empty.

    Raises: DataError.
    """
    if not path.exists():
        raise DataError("there is no such file", where=str(path), hint=_where_to_look(path))
    if not path.is_file():
        raise DataError(
            "this is a folder, not a file",
            where=str(path),
            hint="Name a file in it; several files are several sources.",
        )
    try:
        with path.open("rb") as file:
            is_empty = not file.read(1)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        hint = "Make the file readable for the user who runs tuneloop."
        raise DataError(f"the file cannot be read: {reason}", where=str(path), hint=hint) from error
    if is_empty:
        hint = "Export the data again, or leave this file out."
        raise DataError("the file is empty", where=str(path), hint=hint)


def _where_to_look(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f"There is no folder {folder} either. Relative paths in a configuration start from its own folder."
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_file())
    if guess := nearest(path.name, names):
        return f"Correct the path.{guess}"
    readable = [name for name in names if Path(name).suffix.lower() in FORMAT_OF_SUFFIX]
    listed = ", ".join(readable[:5]) or "no data files"
    return f"Correct the path. In {folder} there is: {listed}."


def _format_of(path: Path) -> Format:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in FORMAT_OF_SUFFIX:
        return FORMAT_OF_SUFFIX[suffixes[-1]]
    known = ", ".join(FORMAT_OF_SUFFIX)
    raise ConfigError(
        f"the suffix {path.suffix!r} names no format that can be read ({known})",
        where=str(path),
        hint="Unpack or convert the file, or set `format` of this source to csv, jsonl or parquet.",
    )


def _require_column(table: Table, column: str) -> None:
    if column in table.columns:
        return
    raise ConfigError(
        f"there is no column {column!r}; the file has {', '.join(map(repr, table.columns))}",
        where=str(table.path),
        hint=f"Correct `columns` of this source in data.sources.{nearest(column, list(table.columns))}",
    )
