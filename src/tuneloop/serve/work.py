"""What waits for an engine: a document to answer, text to generate, or something to do in the engine's own thread.

Made on the event loop, computed by a worker thread, and settled on the event loop again.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import time
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from tuneloop.infer.engines.protocol import Engine, Piece
from tuneloop.records import Prediction
from tuneloop.serve.problems import Problem

if TYPE_CHECKING:
    from tuneloop.serve.models import ServedModel

Kind = Literal["document", "generation", "call"]
Generate = Callable[[Engine, Callable[[], bool]], Iterator[Piece]]
BYTES_PER_TOKEN = 4  # English; other languages take up to twice as many tokens
TOKENS_AROUND = 8  # of the template's turn around a text


def estimated_tokens(text: str) -> int:
    """Return about how many tokens a text takes, without a tokenizer: engines' own work in their threads."""
    return TOKENS_AROUND + len(text.encode("utf-8", "replace")) // BYTES_PER_TOKEN


@dataclass(eq=False, slots=True)
class DocumentWork:
    """A document that waits for its answer; `answer` becomes a prediction, or the problem that it met."""

    model: ServedModel
    caller: str
    tokens: int
    deadline: float  # in time.monotonic()
    text: str
    answer: asyncio.Future[Prediction | Problem]
    kind: Kind = "document"
    is_cancelled: bool = False
    tries: int = 0

    @property
    def group(self) -> Hashable:
        """Documents of one model are computed together."""
        return self.model, self.kind


@dataclass(eq=False, slots=True)
class GenerationWork:
    """Text to generate; its pieces come through `pieces`, the last one with a finish reason, or a problem."""

    model: ServedModel
    caller: str
    tokens: int
    deadline: float  # in time.monotonic()
    generate: Generate
    loop: asyncio.AbstractEventLoop
    pieces: asyncio.Queue[Piece | Problem] = field(default_factory=asyncio.Queue)
    kind: Kind = "generation"
    is_cancelled: bool = False
    tries: int = 0

    @property
    def group(self) -> Hashable:
        """Generations of one model wait together, and are computed one by one."""
        return self.model, self.kind

    def is_over(self) -> bool:
        """Whether nobody waits for the rest."""
        return self.is_cancelled or time.monotonic() > self.deadline

    def put(self, piece: Piece | Problem) -> None:
        """Hand over a piece, from any thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: the service has ended, and nobody waits
            self.loop.call_soon_threadsafe(self.pieces.put_nowait, piece)


@dataclass(eq=False, slots=True)
class CallWork:
    """Something to do in the engine's thread; `done` becomes None, or the exception that it met."""

    function: Callable[[], None]
    done: concurrent.futures.Future[None] = field(default_factory=concurrent.futures.Future)
    kind: Kind = "call"
    caller: str = ""
    tokens: int = 0

    @property
    def group(self) -> Hashable:
        """Each by itself."""
        return self


Work = DocumentWork | GenerationWork | CallWork


def settle(outcomes: Iterable[tuple[DocumentWork, Prediction | Problem]]) -> None:
    """Hand over answers, from any thread: each loop is woken once."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[DocumentWork, Prediction | Problem]]] = {}
    for work, outcome in outcomes:
        by_loop.setdefault(work.answer.get_loop(), []).append((work, outcome))
    for loop, settled in by_loop.items():
        with contextlib.suppress(RuntimeError):  # the loop is closed: the service has ended, and nobody waits
            loop.call_soon_threadsafe(_settle, settled)


def _settle(outcomes: list[tuple[DocumentWork, Prediction | Problem]]) -> None:
    for work, outcome in outcomes:
        if not work.answer.done():
            work.answer.set_result(outcome)
