"""How long work says that it is going on, without knowing who listens.

Rooms take a `Progress` and never print. The command line passes one that draws bars; tests and libraries pass `SILENT`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

Advance = Callable[[float], None]


class Progress(Protocol):
    """Something that can show tasks and say short messages."""

    def task(self, description: str, total: float) -> AbstractContextManager[Advance]:
        """Show one task of `total` units; the block calls what it gets with the units that are newly done."""
        ...

    def say(self, message: str) -> None:
        """Show one line that the user should see now (a stage skipped, a checkpoint ignored)."""
        ...


class _Silent:
    @contextmanager
    def task(self, description: str, total: float) -> Iterator[Advance]:
        yield lambda units: None

    def say(self, message: str) -> None:
        return


SILENT: Progress = _Silent()
