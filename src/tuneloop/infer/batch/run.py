"""A long stream of documents, answered chunk by chunk: memory stays that of a chunk, and a finished one is never lost.

The same documents fall into the same chunks every time, so an interrupted batch ends in the same bytes as one that was
let run.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from tuneloop.infer.batch.journal import Journal, open_journal, remove_journal
from tuneloop.infer.batch.output import join_chunks
from tuneloop.progress import Advance, Progress

SECONDS_BETWEEN_RATES = 30.0
T = TypeVar("T")
Answer = Callable[[Sequence[T], Advance], list[dict[str, Any]]]


@dataclass(frozen=True)
class BatchResult:
    """A finished batch: documents in all, those of an earlier attempt among them, routes, and this attempt's time."""

    documents: int
    resumed: int
    routes: Mapping[str, int]
    seconds: float

    @property
    def docs_per_s(self) -> float:
        """How many documents a second this attempt answered."""
        return (self.documents - self.resumed) / self.seconds if self.seconds > 0 else 0.0


def run_batch(
    documents: Iterable[T],
    total: int,
    answer: Answer[T],
    output: Path,
    about: Mapping[str, Any],
    *,
    chunk_size: int,
    progress: Progress,
    restart: bool = False,
    clock: Callable[[], float] = time.monotonic,
) -> BatchResult:
    """Answer all documents in order and write `output`, going on where an earlier attempt was interrupted.

    Args: answer: chunk, advance → one row each, with a `route`; about: everything that determines the answers, ready
        for JSON (see `open_journal`); restart: forget an earlier attempt.
    Raises: UsageError: an earlier attempt answered something else, or otherwise; StorageError: another process writes
        the same output.
    """
    started = clock()
    with open_journal(output, {**about, "chunk_size": chunk_size}, restart=restart) as journal:
        resumed = journal.rows
        if resumed:
            progress.say(f"{resumed:,} of {total:,} documents were answered before; going on from there.")
        with progress.task("Answering", total) as advance:
            _answer_missing(documents, answer, journal, chunk_size, _Rate(total, resumed, progress, clock), advance)
        join_chunks(journal.files(), output)
        result = BatchResult(journal.rows, resumed, journal.routes, clock() - started)
        remove_journal(output)
    return result


def _answer_missing(
    documents: Iterable[T], answer: Answer[T], journal: Journal, size: int, rate: _Rate, advance: Advance
) -> None:
    for number, chunk in enumerate(_chunks(documents, size)):
        if (there := journal.finished(number)) is not None:
            advance(there.rows)
            continue
        journal.keep(number, answer(chunk, advance))
        rate.answered(len(chunk))


def _chunks(documents: Iterable[T], size: int) -> Iterator[list[T]]:
    stream = iter(documents)
    while chunk := list(islice(stream, size)):
        yield chunk


class _Rate:
    """Says now and then how fast it goes, counting what this attempt has answered."""

    def __init__(self, total: int, resumed: int, progress: Progress, clock: Callable[[], float]) -> None:
        self._total, self._resumed, self._progress, self._clock = total, resumed, progress, clock
        self._started = self._last_said = clock()
        self._done = 0

    def answered(self, count: int) -> None:
        self._done += count
        now = self._clock()
        if now - self._last_said < SECONDS_BETWEEN_RATES:
            return
        self._last_said = now
        rate = self._done / (now - self._started)
        done = self._resumed + self._done
        minutes = (self._total - done) / rate / 60
        self._progress.say(f"{done:,} of {self._total:,} documents, {rate:.3g} a second, about {minutes:.0f} min left")
