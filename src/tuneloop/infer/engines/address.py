"""A server that somebody else runs: where it is, and whether it can be reached, without ever making the asker wait."""

from __future__ import annotations

import threading
from urllib.parse import urlsplit

import httpx

from tuneloop.config.serving import is_loopback
from tuneloop.errors import NetworkError
from tuneloop.infer.endpoints import ApiKey

ASK_EVERY_S = 1.0
TIMEOUT_S = 2.0


class ServerAddress:
    """A server at `base_url`, asked for `health` every `every_s` seconds once `is_alive` was called.

    Any answer that is no server error counts as alive: one that asks for a key is there.
    """

    def __init__(self, base_url: str, key: ApiKey | None, *, health: str, every_s: float = ASK_EVERY_S) -> None:
        self.base_url, self.key = base_url, key
        self._health, self._every_s = health, every_s
        self._closed, self._lock = threading.Event(), threading.Lock()
        self._is_alive = False
        self._watcher: threading.Thread | None = None

    def __repr__(self) -> str:
        return f"ServerAddress({self.base_url!r})"

    def is_alive(self) -> bool:
        """Whether it answered when it was asked last. Only the first call waits for an answer."""
        with self._lock:
            if self._watcher is None and not self._closed.is_set():
                self._is_alive = self._answers()
                self._watcher = threading.Thread(target=self._watch, name="asks for health", daemon=True)
                self._watcher.start()
        return self._is_alive and not self._closed.is_set()

    def failure(self) -> NetworkError:
        """Return the error for a server that does not answer."""
        hint = "Check that it runs, and the address (serve.engine_url)."
        return NetworkError("the server does not answer", where=self.base_url, hint=hint)

    def close(self) -> None:
        """Ask no more; the server itself goes on."""
        self._closed.set()
        with self._lock:
            watcher = self._watcher
        if watcher is not None:
            watcher.join()

    def _watch(self) -> None:
        while not self._closed.wait(self._every_s):
            self._is_alive = self._answers()

    def _answers(self) -> bool:
        headers = {"authorization": f"Bearer {self.key.reveal()}"} if self.key else {}
        trust_env = not is_loopback(urlsplit(self.base_url).hostname or "")
        try:
            with httpx.Client(timeout=TIMEOUT_S, trust_env=trust_env) as client:
                return client.get(self.base_url + self._health, headers=headers).status_code < 500
        except httpx.HTTPError:
            return False
