"""A child process that never outlives us, and ends with everything that it has started.

A watchdog (`infer.engines.watchdog`) stands in between and leads the child's process group. It holds one end of a pipe;
when the other end closes, whatever became of us, it ends the group. Knows nothing about what the child does.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from tuneloop.errors import StorageError
from tuneloop.infer.engines import watchdog

KILLED_S = 0.5  # for the system to take away what was killed; where nobody collects orphans they count for longer
MARGIN_S = 5.0  # for the watchdog itself, beyond what the child is given to end


class ChildProcess:
    """A running child. `id` is the process id of its watchdog, which is also the id of the process group."""

    def __init__(self, process: subprocess.Popen[bytes], pipe: BinaryIO, end_s: float) -> None:
        self.id = process.pid
        self._process, self._pipe, self._end_s = process, pipe, end_s
        self._lock, self._is_over = threading.Lock(), False

    @classmethod
    def start(
        cls, arguments: Sequence[str], environment: Mapping[str, str] | None, log: Path, *, end_s: float
    ) -> ChildProcess:
        """Start a command whose output is appended to `log` (a file that only we may read).

        Args: environment: its whole environment, None for ours; end_s: seconds from SIGTERM to SIGKILL.
        Raises: StorageError: the log cannot be written.
        """
        watched, ours = os.pipe()
        pipe = os.fdopen(ours, "wb", buffering=0)
        script = [sys.executable, "-I", "-S", watchdog.__file__, str(watched), str(end_s)]
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as output:
                process = subprocess.Popen(
                    [*script, *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env=None if environment is None else dict(environment),
                    pass_fds=(watched,),
                    start_new_session=True,  # Ctrl-C in our terminal is for us; we end the child in order
                )
        except OSError as error:
            pipe.close()
            raise StorageError(
                f"its output cannot be written: {(error.strerror or str(error)).lower()}",
                where=str(log),
                hint="Check the folder, its permissions, and the free space.",
            ) from error
        finally:
            os.close(watched)
        return cls(process, pipe, end_s)

    def is_running(self) -> bool:
        """Whether it runs still."""
        return self._process.poll() is None

    def wait(self) -> None:
        """Wait until it has ended, by itself or not."""
        self._process.wait()

    def how_it_ended(self) -> str:
        """Return in words how it ended; it must have."""
        code = self._process.returncode
        number = code - 128 if code > 128 else -code
        return f"ended with exit code {code}" if 0 <= code <= 128 else f"was ended by signal {number}"

    def end(self) -> None:
        """End it and its whole group, and wait for that; a second call does nothing, so no foreign group is hit."""
        with self._lock:
            if self._is_over:
                return
            self._pipe.close()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(self._end_s + MARGIN_S)
            deadline = time.monotonic() + KILLED_S
            with suppress(ProcessLookupError):  # nothing is left of the group, as is usual
                while time.monotonic() < deadline:
                    os.killpg(self.id, signal.SIGKILL)
                    self._process.poll()
                    time.sleep(0.005)
            self._process.wait()
            self._is_over = True
