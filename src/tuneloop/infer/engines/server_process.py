"""A server that is started and watched by us: on loopback, with a key of its own, never longer alive than we are.

Its death is noticed at once. It is then started again, after waiting longer each time, on another port and with another
key. Knows nothing about what it serves, except the address that answers 200 when it is ready.
"""

from __future__ import annotations

import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx

from tuneloop.errors import ModelError, StorageError
from tuneloop.infer.endpoints import ApiKey
from tuneloop.infer.engines.child_process import ChildProcess
from tuneloop.progress import SILENT, Advance, Progress

LOOPBACK = "127.0.0.1"
SHOWN_LINES, SHOWN_BYTES = 12, 8192
ASK_EVERY_S = 0.2


@dataclass(frozen=True)
class ServerCommand:
    """What is run: `arguments`, and its whole environment (None: ours)."""

    arguments: tuple[str, ...]
    environment: Mapping[str, str] | None = None


@dataclass(frozen=True)
class ServerPatience:
    """How long a server may take, in seconds: to start, to end after SIGTERM, and between a death and the next start.

    After `restarts` starts in a row that failed, or lasted less than `steady_s`, it is left alone.
    """

    start_s: float = 600.0
    end_s: float = 10.0
    first_wait_s: float = 0.5
    longest_wait_s: float = 30.0
    restarts: int = 5
    steady_s: float = 60.0


@dataclass(frozen=True)
class _Started:
    """One start of the server."""

    child: ChildProcess
    port: int
    key: ApiKey


class ServerProcess:
    """A child server. `start` it, then `base_url` and `key` say how to reach it; both change when it starts again.

    Args: name: of the product, for messages; command: makes the command line for a port and a key; log: a file that
        its output is appended to; health: the path that answers 200 when it is ready.
    """

    def __init__(
        self,
        name: str,
        command: Callable[[int, str], ServerCommand],
        *,
        log: Path,
        health: str = "/health",
        patience: ServerPatience | None = None,
    ) -> None:
        self.name, self.log, self.patience = name, log, patience or ServerPatience()
        self._command, self._health = command, health
        self._ready, self._closing = threading.Event(), threading.Event()
        self._now: _Started | None = None
        self._gave_up = ""
        self._watcher: threading.Thread | None = None

    @property
    def base_url(self) -> str:
        """Where it answers now. Raises: ModelError: it was not started."""
        return f"http://{LOOPBACK}:{self._started.port}"

    @property
    def key(self) -> ApiKey:
        """The key that it asks of everyone since its last start."""
        return self._started.key

    @property
    def process_id(self) -> int:
        """The id of its process group."""
        return self._started.child.id

    def start(self, progress: Progress = SILENT) -> None:
        """Start it, and return when it is ready.

        Raises: ModelError: it ended, or was not ready in time; StorageError: the log cannot be written.
        """
        try:
            self._launch()
            with progress.task(f"Starting {self.name}", self.patience.start_s) as advance:
                self._wait_until_ready(advance)
        except BaseException:
            self.close()
            raise
        self._watcher = threading.Thread(target=self._watch, name=f"watches {self.name}", daemon=True)
        self._watcher.start()

    def is_alive(self) -> bool:
        """Whether its process runs and has said that it is ready; false from the moment that it ends."""
        return self._ready.is_set() and self._started.child.is_running()

    def wait_until_alive(self, timeout_s: float) -> bool:
        """Wait for a server that is being started again; returns whether it is ready."""
        return self._ready.wait(timeout_s)

    def failure(self) -> ModelError:
        """Return the error that says why it cannot answer, with the last lines of its log."""
        if self._gave_up:
            return self._error(self._gave_up, "Mend what the log says, then run the same command again.")
        return self._error("it ended", "It is being started again: send the request again in a while.")

    def close(self) -> None:
        """End it and everything that it has started, and wait for that."""
        self._closing.set()
        self._ready.clear()
        if self._now is not None:
            self._now.child.end()
        if self._watcher is not None:
            self._watcher.join()
            self._started.child.end()  # one that was started in between

    @property
    def _started(self) -> _Started:
        if self._now is None:
            raise ModelError("it was not started", where=self.name, hint="Call start() first.")
        return self._now

    def _launch(self) -> None:
        port, key = _free_port(), ApiKey(secrets.token_urlsafe(32), f"the key of {self.name}")
        command = self._command(port, key.reveal())
        child = ChildProcess.start(command.arguments, command.environment, self.log, end_s=self.patience.end_s)
        self._now = _Started(child, port, key)

    def _wait_until_ready(self, advance: Advance) -> None:
        """Raises: ModelError: it ended, was closed, or was not ready in time; then nothing of it is left."""
        started, begin, told = self._started, time.monotonic(), 0.0
        with httpx.Client(timeout=5.0, trust_env=False) as client:
            while (waited := time.monotonic() - begin) < self.patience.start_s and not self._closing.is_set():
                if not started.child.is_running():
                    started.child.end()
                    raise self._error(f"it {started.child.how_it_ended()} while starting", self._advice)
                if self._answers(client, started):
                    advance(max(self.patience.start_s - told, 0.0))
                    self._ready.set()
                    return
                advance(waited - told)
                told = waited
                self._closing.wait(ASK_EVERY_S)
        started.child.end()
        raise self._error(f"it was not ready after {waited:.0f} s", self._advice)

    def _answers(self, client: httpx.Client, started: _Started) -> bool:
        headers = {"authorization": f"Bearer {started.key.reveal()}"}
        try:
            response = client.get(f"http://{LOOPBACK}:{started.port}{self._health}", headers=headers)
        except httpx.HTTPError:  # nobody listens there yet
            return False
        return response.status_code == 200

    def _watch(self) -> None:
        """Wait for the server's end, and start it again, until it is closed or there is no hope."""
        failures = 0
        while not self._closing.is_set():
            begin = time.monotonic()
            self._started.child.wait()
            self._ready.clear()
            self._started.child.end()
            failures = 0 if time.monotonic() - begin > self.patience.steady_s else failures
            while not self._ready.is_set():
                if failures == self.patience.restarts:
                    self._gave_up = (
                        f"it {self._started.child.how_it_ended()}; {failures} starts after that did not last"
                    )
                    return
                failures += 1
                if self._closing.wait(self._wait_s(failures)):
                    return
                # The next attempt may succeed (no port was free, the disk was full); `failure` quotes the log.
                with suppress(ModelError, StorageError, OSError):
                    self._launch()
                    self._wait_until_ready(lambda seconds: None)

    def _wait_s(self, failures: int) -> float:
        return min(self.patience.first_wait_s * 2.0 ** (failures - 1), self.patience.longest_wait_s)

    @property
    def _advice(self) -> str:
        return "Read the log for the reason; allow it longer to start where it only needs time."

    def _error(self, what: str, hint: str) -> ModelError:
        return ModelError(f"{what}{self._last_lines()}", where=f"{self.name} (log: {self.log})", hint=hint)

    def _last_lines(self) -> str:
        """Return the end of the log, indented on lines of their own, without the key."""
        try:
            with self.log.open("rb") as log:
                log.seek(max(self.log.stat().st_size - SHOWN_BYTES, 0))
                lines = log.read().decode("utf-8", "replace").splitlines()[-SHOWN_LINES:]
        except OSError:  # there is none
            return ""
        text = "".join(f"\n  | {line}" for line in lines if line.strip())
        return self._now.key.redact(text) if self._now else text


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port
