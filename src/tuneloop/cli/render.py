"""How things look: results on stdout, progress and errors on stderr.

A terminal gets bars and colour. A file or a pipe gets plain lines, and now and then one that says how far the work is.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from tuneloop.errors import TuneloopError
from tuneloop.progress import Advance

PIPE_WIDTH = 120  # columns where nobody knows how wide the reader is
SECONDS_BETWEEN_LINES = 10.0
WORTH_MENTIONING_S = 2.0
HANGUPS = (BrokenPipeError, ConnectionResetError)


class _Console(Console):
    """A console that leaves a closed pipe to us; rich 15's own ends the process with exit code 1."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


class TerminalProgress:
    """Bars with remaining time on a terminal; a finished task leaves one line if it took over two seconds."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TaskProgressColumn(),
            TextColumn("elapsed"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._open_tasks = 0

    @contextmanager
    def task(self, description: str, total: float) -> Iterator[Advance]:
        """Show a bar while the block runs."""
        if self._open_tasks == 0:
            self._bars.start()
        self._open_tasks += 1
        started = time.monotonic()
        bar = self._bars.add_task(description, total=total)
        try:
            yield lambda units: self._bars.advance(bar, units)
        finally:
            self._bars.remove_task(bar)
            self._open_tasks -= 1
            if self._open_tasks == 0:
                self._bars.stop()
        took = time.monotonic() - started
        if took >= WORTH_MENTIONING_S:
            self._console.print(Text.assemble(description, (f"  done in {duration(took)}", "dim")), soft_wrap=True)

    def say(self, message: str) -> None:
        """Print a line above the bars."""
        self._console.print(Text(message), soft_wrap=True)


class PlainProgress:
    """One line every ten seconds, for logs. When nobody reads any more, the work goes on in silence."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream: TextIO | None = stream
        self._clock = clock

    @contextmanager
    def task(self, description: str, total: float) -> Iterator[Advance]:
        """Say now and then how far the block is, and at its end how long it took if that was over two seconds."""
        started = last_said = self._clock()
        done = 0.0
        first: tuple[float, float] | None = None  # (time, units) of the first advance: a resumed task starts far in

        def advance(units: float) -> None:
            nonlocal done, first, last_said
            done += units
            now = self._clock()
            if first is None:
                first = (now, done)
            if now - last_said < SECONDS_BETWEEN_LINES:
                return
            last_said = now
            share = f"{done / total:.0%}" if total > 0 else f"{done:g}"
            speed = (done - first[1]) / (now - first[0]) if now > first[0] else 0.0
            left = f", {duration((total - done) / speed)} left" if speed > 0 and total >= done else ""
            self.say(f"{description}: {share}{left}")

        yield advance
        took = self._clock() - started
        if took >= WORTH_MENTIONING_S:
            self.say(f"{description}: done in {duration(took)}")

    def say(self, message: str) -> None:
        """Print a line."""
        if self._stream is None:
            return
        try:
            print(message, file=self._stream, flush=True)
        except HANGUPS:
            self._stream = None


def progress_on(stream: TextIO) -> TerminalProgress | PlainProgress:
    """Return the kind of progress that suits where `stream` leads."""
    console = Console(file=stream)
    return TerminalProgress(console) if console.is_terminal else PlainProgress(stream)


def print_result(data: Mapping[str, Any], rendering: Sequence[RenderableType], *, as_json: bool) -> None:
    """Print a command's result on stdout: one JSON object, or what a person would like to read."""
    try:
        if as_json:
            print(json.dumps(data, ensure_ascii=False, default=str), flush=True)
            return
        console = _Console(highlight=False)
        if not console.is_terminal:
            console.width = PIPE_WIDTH
        for part in rendering:
            console.print(Text(part) if isinstance(part, str) else part, soft_wrap=isinstance(part, str | Text))
        sys.stdout.flush()
    except HANGUPS:
        forget_stdout()


def print_error(error: TuneloopError, *, as_json: bool) -> None:
    """Print what went wrong, where, and what to do, as three lines on stderr (and as JSON on stdout if asked)."""
    console = _Console(stderr=True, highlight=False)
    try:
        for name, text, style in (
            ("error", error.message, "bold red"),
            ("where", error.where, "dim"),
            ("do", error.hint, "bold"),
        ):
            line = text if os.environ.get("TUNELOOP_DEBUG") else " ".join(text.splitlines())
            console.print(Text.assemble((f"{name + ':':<7}", style), line), soft_wrap=True)
        if as_json:
            details = {"message": error.message, "where": error.where, "hint": error.hint, "exit_code": error.exit_code}
            print(json.dumps({"error": details}, ensure_ascii=False), flush=True)
    except HANGUPS:
        forget_stdout()


def forget_stdout() -> None:
    """Stop writing to a pipe that nobody reads, so that Python does not complain about it on its way out."""
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


def table(headings: Sequence[str] | None, rows: Sequence[Sequence[Any]]) -> Table:
    """Return a light table; columns whose every cell is a number are aligned to the right."""
    drawn = Table(box=None, pad_edge=False, header_style="dim", show_header=headings is not None)
    for index, heading in enumerate(headings or [""] * len(rows[0])):
        is_numeric = bool(rows) and all(isinstance(row[index], int | float) for row in rows)
        drawn.add_column(heading, justify="right" if is_numeric else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(number(cell) if isinstance(cell, int | float) else str(cell)) for cell in row))
    return drawn


def number(value: float) -> str:
    """Return `12,345` for a whole number, and up to four significant digits for a fraction."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


def brief(value: Any) -> str:
    """Return a figure, or a small mapping or list of figures, in one line: `train 7,002, test 1,500`."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {brief(figure)}" for name, figure in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(brief, value)) or "none"
    return number(value) if isinstance(value, int | float) else str(value)


def duration(seconds: float) -> str:
    """Return `4.2 s`, `3 min 20 s` or `2 h 5 min`."""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
