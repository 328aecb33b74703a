"""The log of predictions in the store, written by one thread so that no answer waits for a disk.

Rows wait in memory for a fraction of a second and are written in batches. While the store is away they go on waiting,
and the thread tries again. When the service stops, what waits is first written to a spool file on local disk, then to
the store, and then the file is removed: a stop that is cut short leaves the file, and the next service takes it up.
"""

from __future__ import annotations

import atexit
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from sqlalchemy.exc import StatementError

from tuneloop.errors import StorageError
from tuneloop.serve.log import Entry, LogState
from tuneloop.serve.log_rows import Row, insert_each, insert_rows, row_of, take_up
from tuneloop.serve.redaction import RedactionPolicy
from tuneloop.serve.spool import spool
from tuneloop.store.database import Database

BATCH_ROWS = 1000
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 5.0  # between two attempts while the store is away
HOUSEKEEPING_S = 3600.0
EXIT_TIMEOUT_S = 5.0


class StoreLog:
    """A `PredictionLog` in the store. `housekeeping` deletes some old rows and says whether there are more.

    Args: spool_folder: on local disk; sample: share of requests that are kept, by request id; keep_review: keep answers
        for a person in any case; max_waiting_rows, when_full, write_every_s: see the configuration.
    """

    def __init__(
        self,
        database: Database,
        policy: RedactionPolicy,
        spool_folder: Path,
        *,
        sample: float = 1.0,
        keep_review: bool = True,
        max_waiting_rows: int = 20_000,
        when_full: Literal["refuse", "drop"] = "refuse",
        write_every_s: float = 0.2,
        housekeeping: Callable[[], bool] = lambda: False,
    ) -> None:
        self._database, self._policy, self._spool_folder = database, policy, spool_folder
        self._sample, self._keep_review = sample, keep_review
        self._max_waiting_rows, self._drops = max_waiting_rows, when_full == "drop"
        self._write_every_s, self._housekeeping = write_every_s, housekeeping
        self._housekeeping_at = time.monotonic()
        self._changed = threading.Condition()
        self._waiting: deque[Entry] = deque()
        self._batch: list[Entry] = []  # taken from the queue, not yet in the store
        self._recorded = self._settled = 0  # rows that came in, and those of them that need no further attempt
        self._written = self._spooled = self._dropped = 0
        self._trouble = ""
        self._is_hurried = self._is_closing = self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="prediction-log", daemon=True)
        self._thread.start()
        atexit.register(self.close, EXIT_TIMEOUT_S)

    @property
    def is_full(self) -> bool:
        """Whether new requests have to be refused until the store has caught up."""
        return not self._drops and self._waiting_rows >= self._max_waiting_rows

    @property
    def state(self) -> LogState:
        """How the log is doing."""
        return LogState(self._waiting_rows, self._written, self._spooled, self._dropped, self._trouble)

    def record(self, entries: Sequence[Entry]) -> None:
        """Keep these rows; returns at once, without having written them (after `close`: they go to the spool)."""
        kept = [entry for entry in entries if self._is_kept(entry)]
        with self._changed:
            if self._drops:
                room = max(0, self._max_waiting_rows - self._waiting_rows)
                self._dropped += len(kept[room:])
                kept = kept[:room]
            if not self._is_closed:
                is_first = not self._waiting
                self._waiting.extend(kept)
                self._recorded += len(kept)
                if is_first or len(self._waiting) >= BATCH_ROWS:  # the writer need not wake for every row
                    self._changed.notify_all()
                return
        self._count_unwritten(kept, self._to_disk(kept))

    def flush(self, timeout_s: float) -> bool:
        """Wait until all that was recorded before is in the store; False where that took too long."""
        with self._changed:
            wanted = self._recorded
            self._is_hurried = True
            self._changed.notify_all()
            return self._changed.wait_for(lambda: self._settled >= wanted, timeout_s)

    def close(self, timeout_s: float) -> LogState:
        """Write everything that is waiting, to the store or else to disk, and stop. Safe to call twice.

        After `timeout_s` the thread is left behind, and what it had not written stays on disk.
        """
        with self._changed:
            if self._is_closing:
                return self.state
            self._is_closing = True
            at_first = [*self._batch, *self._waiting]
            self._changed.notify_all()
        atexit.unregister(self.close)
        path = self._to_disk(at_first)
        self._thread.join(timeout_s)
        with self._changed:
            self._is_closed = True
            left = [*self._batch, *self._waiting]
            self._batch, self._waiting = [], deque()
        if not left:
            if path is not None:
                path.unlink(missing_ok=True)
            return self.state
        on_disk = {id(entry) for entry in at_first} if path else set()
        late = [entry for entry in left if id(entry) not in on_disk]
        self._count_unwritten(left, path if not late else self._to_disk(late))
        return self.state

    @property
    def _waiting_rows(self) -> int:
        return len(self._waiting) + len(self._batch)

    def _is_kept(self, entry: Entry) -> bool:
        if self._keep_review and entry.is_for_a_person:
            return True
        return zlib.crc32(entry.request_id.encode("utf-8", "replace")) < self._sample * 2**32

    def _to_disk(self, entries: Sequence[Entry]) -> Path | None:
        """Spool rows; returns the file, or None where there is nothing to spool or no way to do it."""
        if not entries:
            return None
        try:
            return spool(self._spool_folder, [row_of(entry, self._policy) for entry in entries])
        except OSError as error:
            self._trouble = f"{self._spool_folder}: {error.strerror or error}"
            return None

    def _count_unwritten(self, entries: Sequence[Entry], path: Path | None) -> None:
        if path is None:
            self._dropped += len(entries)
        else:
            self._spooled += len(entries)

    def _run(self) -> None:
        """Write until the log is closed and nothing waits, or the store does not take the last rows."""
        self._attempt(lambda: take_up(self._database, self._spool_folder))
        while self._take_batch():
            if self._batch and not self._settle_batch():
                return
            if not self._is_closing and time.monotonic() >= self._housekeeping_at:
                self._attempt(self._keep_house)

    def _take_batch(self) -> bool:
        """Wait for rows, and a moment longer for more of them; False where the log is closed and nothing waits."""
        with self._changed:
            until_housekeeping = max(0.0, self._housekeeping_at - time.monotonic())
            self._changed.wait_for(lambda: self._waiting or self._is_closing, until_housekeeping)
            if self._waiting:
                self._changed.wait_for(self._is_due, self._write_every_s)
            self._is_hurried = False
            while self._waiting and len(self._batch) < BATCH_ROWS:
                self._batch.append(self._waiting.popleft())
            return bool(self._batch) or not self._is_closing

    def _is_due(self) -> bool:
        return self._is_hurried or self._is_closing or len(self._waiting) >= BATCH_ROWS

    def _settle_batch(self) -> bool:
        """Write the batch, however often that needs trying; False where the log is closing and the store away."""
        rows = [row_of(entry, self._policy) for entry in self._batch]
        pause_s = FIRST_PAUSE_S
        while (refused := self._attempt(lambda: self._write(rows))) is None:
            if self._is_closing:
                return False
            with self._changed:
                self._changed.wait_for(lambda: self._is_closing, pause_s)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        with self._changed:
            self._trouble = f"the store refuses rows: {refused[0]}" if refused else ""
            self._written += len(rows) - len(refused)
            self._spooled += len(refused)
            self._settled += len(rows)
            self._batch = []
            self._changed.notify_all()
        return True

    def _write(self, rows: Sequence[Row]) -> list[str]:
        """Write rows; returns why the store will never take some of them. Raises: StorageError: it is away."""
        try:
            insert_rows(self._database, rows)
        except StatementError:
            return insert_each(self._database, rows, self._spool_folder)
        return []

    def _attempt(self, work: Callable[[], list[str]]) -> list[str] | None:
        """Return what `work` finds wrong, or None where it failed; the thread lives on, and `state` says why."""
        try:
            troubles = work()
        except StorageError as error:
            self._trouble = error.message
        except Exception as error:
            self._trouble = f"{type(error).__name__} in the log's writer: {error}"
        else:
            self._trouble = troubles[0] if troubles else self._trouble
            return troubles
        return None

    def _keep_house(self) -> list[str]:
        has_more = self._housekeeping()
        self._housekeeping_at = time.monotonic() + (0.0 if has_more else HOUSEKEEPING_S)
        return []
