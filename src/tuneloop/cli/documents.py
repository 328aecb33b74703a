"""The documents that `tuneloop predict` is given: words on the command line, standard input, or a file.

Texts come out as training saw them (`data.validate.normalize`), each with its place.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from tuneloop.errors import DataError, UsageError, nearest

if TYPE_CHECKING:
    from tuneloop.data.validate import Rejected, Validated
    from tuneloop.formats import RawRow
    from tuneloop.progress import Progress

STDIN = "-"
OR_SKIP = "or add --skip-invalid to leave such rows out"
LINE = "line"  # what the only column of a text file is called in messages
TEXT_SUFFIXES = (".txt", ".text")
ROWS_AT_ONCE = 1000  # read and checked; Parquet is never held as a whole, other formats are
HOW_TO_GIVE_ONE = 'Give a text in quotes (tuneloop predict "…"), a file with --file, or - to read standard input.'


@dataclass(frozen=True, slots=True)
class Document:
    """One text to be answered. `row` is 1-based; 0 where the text does not come from a file."""

    text: str
    source: str
    row: int = 0


def read_documents(
    words: Sequence[str],
    file: Path | None,
    column: str | None,
    *,
    default_column: str,
    skip_invalid: bool,
    progress: Progress,
) -> list[Document]:
    """Return what was given, in order.

    Args: words: documents, `-` standing for standard input as one document; column: the one to read in `file` (None:
        `default_column`); skip_invalid: leave out and count rows of a file without a usable text.
    Raises: UsageError: nothing was given, or words and a file, or a column for something without columns;
        DataError: the file cannot be read, or a document is empty.
    """
    if (file is not None) == bool(words):
        found = "both documents and --file are given" if words else "no document is given"
        raise UsageError(found, where="tuneloop predict", hint=HOW_TO_GIVE_ONE)
    if file is not None:
        found_there = DocumentFile(file, column or default_column)
        found_there.count(skip_invalid=skip_invalid, progress=progress)
        return list(found_there)
    if column is not None:
        hint = "Leave --column out, or name a file with --file."
        raise UsageError("there is no file that could have columns", where=f"--column {column}", hint=hint)
    return list(_given(words))


def _given(words: Sequence[str]) -> Iterator[Document]:
    from tuneloop.data.validate import normalize

    for number, word in enumerate(words, start=1):
        _require_no_setting(word)
        source = "standard input" if word == STDIN else f"document {number}"
        text = normalize(_standard_input() if word == STDIN else word)
        if not text:
            raise DataError("the document is empty", where=source, hint=HOW_TO_GIVE_ONE)
        yield Document(text, source)


def _require_no_setting(word: str) -> None:
    """Refuse what elsewhere would be a setting: here it would silently become a document."""
    from tuneloop.config.problems import all_keys
    from tuneloop.config.schema import Config

    key, sign, _ = word.partition("=")
    if sign and key in set(all_keys(Config)):
        raise UsageError(
            "this reads like a setting, but the words of predict are documents",
            where=word,
            hint=f"Write --set {word}; if it is a document, pipe it in: echo '…' | tuneloop predict -",
        )


def _standard_input() -> str:
    try:
        return sys.stdin.buffer.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"byte {error.start} (0x{error.object[error.start]:02x}) is not UTF-8",
            where="standard input",
            hint="Convert it first, for example: iconv -f WINDOWS-1252 -t UTF-8 FILE | tuneloop predict -",
        ) from error


@dataclass(frozen=True)
class DocumentFile:
    """A file of documents, which can be gone through as often as needed."""

    path: Path
    column: str

    def count(self, *, skip_invalid: bool, progress: Progress) -> int:
        """Check every row, and return how many documents there are.

        Raises: UsageError: the column or the format does not exist; DataError: a row has no usable text and
            `skip_invalid` is not set, or there is no document at all.
        """
        from tuneloop.data.validate import OR_DROP, refuse

        documents = 0
        rejected: list[Rejected] = []
        for checked in self._checked():
            documents += len(checked.examples)
            rejected += checked.rejected
        if not skip_invalid:
            refuse([replace(row, hint=row.hint.replace(OR_DROP, OR_SKIP)) for row in rejected])
        elif rejected:
            reasons = Counter(row.dropped.reason for row in rejected)
            counted = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
            progress.say(f"{self.path.name}: rows without a usable text are left out ({counted}).")
        if not documents:
            hint = "Give a file with one or more."
            raise DataError("there are no documents in the file", where=str(self.path), hint=hint)
        return documents

    def __iter__(self) -> Iterator[Document]:
        """Yield the documents in order, without the rows that have no usable text."""
        for checked in self._checked():
            for example in checked.examples:
                yield Document(example.text, example.source, example.row)

    def _checked(self) -> Iterator[Validated]:
        from tuneloop.data.validate import Columns, Rules, validate_rows

        is_lines = self.path.suffix.lower() in TEXT_SUFFIXES
        rows = _lines(self.path) if is_lines else _rows(self.path, self.column)
        columns = Columns(LINE if is_lines else self.column)
        while batch := list(islice(rows, ROWS_AT_ONCE)):
            yield validate_rows(batch, columns, Rules())


def names_a_file(word: str) -> bool:
    """Say whether a word of the command line is the name of a data file and not a document."""
    from tuneloop.sources import FORMAT_OF_SUFFIX

    has_suffix = Path(word).suffix.lower() in (*FORMAT_OF_SUFFIX, *TEXT_SUFFIXES)
    return has_suffix and not any(map(str.isspace, word))


def _lines(path: Path) -> Iterator[RawRow]:
    from tuneloop.formats import RawRow, decode
    from tuneloop.sources import require_file

    require_file(path)
    for number, line in enumerate(decode(path).split("\n"), start=1):
        if line.strip():
            yield RawRow(path.name, number, number, {LINE: line})


def _rows(path: Path, column: str) -> Iterator[RawRow]:
    from tuneloop.sources import FORMAT_OF_SUFFIX, open_table

    if path.suffix.lower() not in FORMAT_OF_SUFFIX:
        known = ", ".join((*FORMAT_OF_SUFFIX, ".txt"))
        found = f"the suffix {path.suffix!r} names no format that can be read ({known})"
        raise UsageError(found, where=str(path), hint="Convert it to .txt with one document a line, .csv or .jsonl.")
    table = open_table(path)
    if column not in table.columns:
        raise UsageError(
            f"there is no column {column!r}; the file has {', '.join(map(repr, table.columns))}",
            where=str(path),
            hint=f"Name the column that holds the text with --column.{nearest(column, list(table.columns))}",
        )
    return table.rows(path.name, [column])
