"""The log of predictions as the service sees it: what a row is, and what a log promises.

`record` never waits, never raises and never refuses: what was answered is written. The bound is kept at the door
instead: a service whose log `is_full` refuses new requests (503) before they cost anything. Knows no database.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from tuneloop.records import Message, Prediction


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """One document that was answered: `item` is its place in the request (0-based), `caller` the id of the key.

    `model` and `version` are as in the answer; `latency_s` is the whole request's, from its last byte in to its first
    byte out; `tokens` are those of this document's prompt and answer.
    """

    request_id: str
    item: int
    at: datetime
    caller: str
    model: str
    version: str
    text: str
    prediction: Prediction
    latency_s: float
    tokens: int

    @property
    def is_for_a_person(self) -> bool:
        """Whether it is kept whatever the sample says."""
        return self.prediction.route == "review"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedText:
    """One text that was generated, after a conversation or a plain prompt; otherwise as `Served`.

    `ended` says why it is not longer: `stop`, `length`, or `cut-off` where the caller left or the model failed.
    """

    request_id: str
    at: datetime
    caller: str
    model: str
    version: str
    prompt: Sequence[Message] | str
    answer: str
    ended: str
    latency_s: float
    tokens: int
    item: int = 0
    is_for_a_person: bool = False


Entry = Served | ServedText


@dataclass(frozen=True, slots=True)
class LogState:
    """How a log is doing, for `/metrics` and `/readyz`: counts of rows since the start, and what went wrong last.

    `waiting` rows are in memory, `spooled` on disk because the store could not take them, `dropped` are lost (only
    where `serve.log.when_full` is `drop`).
    """

    waiting: int = 0
    written: int = 0
    spooled: int = 0
    dropped: int = 0
    trouble: str = ""


class PredictionLog(Protocol):
    """Keeps what was answered. All methods may be called by any thread."""

    @property
    def is_full(self) -> bool:
        """Whether new requests have to be refused until the store has caught up."""

    @property
    def state(self) -> LogState:
        """How the log is doing."""

    def record(self, entries: Sequence[Entry]) -> None:
        """Keep these rows; returns at once, without having written them."""

    def flush(self, timeout_s: float) -> bool:
        """Wait until all that was recorded before is in the store; False where that took too long."""

    def close(self, timeout_s: float) -> LogState:
        """Write everything that is waiting, to the store or else to disk, and stop. Safe to call twice."""


class NoLog:
    """Keeps nothing."""

    is_full = False
    state = LogState()

    def record(self, entries: Sequence[Entry]) -> None:
        """Forget them."""

    def flush(self, timeout_s: float) -> bool:
        """Return True: nothing waits."""
        return True

    def close(self, timeout_s: float) -> LogState:
        """Return that nothing was kept."""
        return self.state
