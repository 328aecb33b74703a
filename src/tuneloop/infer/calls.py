"""One HTTP request, repeated while there is hope, and whatever ends it put into words.

Sent with httpx, which is a dependency anyway: the makers' own packages would add a second HTTP stack, and bound each
attempt but not their sum (docs/decisions/0003).
"""

from __future__ import annotations

import email.utils
import json
import random
import re
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from tuneloop.errors import ModelError, NetworkError, TuneloopError, UsageError
from tuneloop.infer.endpoints import ApiKey, Endpoint
from tuneloop.infer.wires import Refusal

PURSE_IS_EMPTY = {"insufficient_quota", "billing_error", "billing_hard_limit_reached"}
QUOTED_CHARS = 300
# llama-cpp-python's server (0.3.36) answers 500, where others answer 400, to settings that it does not take.
UNTAKEN = re.compile(r"'response_format', 'type'|logprobs is not supported")


@dataclass(frozen=True)
class Patience:
    """How long and how often one request is tried: `total_s` bounds everything, waiting included."""

    attempts: int = 8
    first_wait_s: float = 0.5
    longest_wait_s: float = 30.0
    attempt_s: float = 180.0
    total_s: float = 900.0


class RefusedRequest(Exception):
    """The API does not take the request as it stands (HTTP 400, 422 or the like); never leaves this package."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


class _TryAgain(Exception):
    """A failure that may pass. `after_s` is how long the API asks to wait, None where it does not say."""

    def __init__(self, found: str, after_s: float | None = None) -> None:
        super().__init__(found)
        self.found, self.after_s = found, after_s


class Caller:
    """Posts JSON to one URL; may be used from several threads."""

    def __init__(
        self, endpoint: Endpoint, path: str, headers: Mapping[str, str], key: ApiKey | None, patience: Patience
    ) -> None:
        self.endpoint, self.patience = endpoint, patience
        self._url, self._key = endpoint.base_url + path, key
        self._client = httpx.Client(headers={**headers, "user-agent": "tuneloop"})
        self._closed = threading.Event()

    def __repr__(self) -> str:
        return f"Caller({self._url!r})"

    def close(self) -> None:
        """Start no further attempt, and let go of the connections."""
        self._closed.set()
        self._client.close()

    def post(self, body: Mapping[str, Any]) -> tuple[dict[str, Any], float]:
        """Return the reply and the seconds that the successful attempt took.

        Raises: RefusedRequest: HTTP 400 or 422; UsageError: wrong key, unknown model; ModelError: any other refusal;
            NetworkError: no usable reply within `patience`, or the quota is used up.
        """
        deadline = time.monotonic() + self.patience.total_s
        for attempt in range(1, self.patience.attempts + 1):
            try:
                return self._attempt(body, deadline)
            except _TryAgain as failure:
                self._wait(attempt, failure, deadline)
        raise AssertionError("the last failure is raised by _wait")

    def _wait(self, attempt: int, failure: _TryAgain, deadline: float) -> None:
        """Sleep before the next attempt; raises NetworkError where there will be none."""
        doubled = min(self.patience.first_wait_s * 2 ** (attempt - 1), self.patience.longest_wait_s)
        wait_s = doubled * random.uniform(0.5, 1.0)
        if failure.after_s is not None:
            wait_s = failure.after_s + random.uniform(0.0, 0.1 * self.patience.first_wait_s)
        times = "once" if attempt == 1 else f"{attempt} times"
        asks = f"; it asks to wait {failure.after_s:.0f} s" if failure.after_s and failure.after_s >= 1 else ""
        gives_up = attempt == self.patience.attempts or time.monotonic() + wait_s > deadline
        if gives_up or self._closed.wait(wait_s):
            raise NetworkError(
                f"{failure.found} (tried {times}{asks})",
                where=self._url,
                hint="Run the same command again later: answers that have arrived are kept. "
                "Fewer requests at once (evaluate.api_concurrency) help against rate limits.",
            ) from failure

    def _attempt(self, body: Mapping[str, Any], deadline: float) -> tuple[dict[str, Any], float]:
        if self._closed.is_set():
            hint = "Connect to the model again."
            raise NetworkError("the connection to this model was closed", where=self._url, hint=hint)
        started = time.monotonic()
        until = min(deadline, started + self.patience.attempt_s)
        try:
            timeout = max(until - started, 0.001)
            with self._client.stream("POST", self._url, json=body, timeout=timeout) as response:
                content = b"".join(_until(until, response.iter_bytes()))
        except httpx.TimeoutException as error:
            raise _TryAgain(f"no answer within {until - started:.0f} s") from error
        except (httpx.TransportError, httpx.DecodingError) as error:
            raise _TryAgain(f"cannot be reached: {self._shown(str(error) or type(error).__name__)}") from error
        if not response.is_success:
            raise self._failure(response, content)
        try:
            reply = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise _TryAgain("the reply is not JSON") from error
        if not isinstance(reply, dict):
            raise _TryAgain("the reply is not a JSON object")
        return reply, time.monotonic() - started

    def _failure(self, response: httpx.Response, content: bytes) -> Exception:
        refusal = self._refusal(response.status_code, content)
        final = self._final(refusal)
        if final is not None:
            return final
        if response.status_code in {400, 422} or (response.status_code == 500 and UNTAKEN.search(refusal.message)):
            return RefusedRequest(refusal)
        advice = response.headers.get("x-should-retry")  # both makers send it where the status alone misleads
        passes = response.status_code in {408, 409, 429} or response.status_code >= 500
        if advice == "true" or (passes and advice != "false"):
            what = "too many requests" if response.status_code == 429 else f"HTTP {response.status_code}"
            return _TryAgain(f"{what}: {refusal.message}", retry_after_s(response.headers))
        return self.refused(refusal)

    def _final(self, refusal: Refusal) -> TuneloopError | None:
        """Return the error for what trying again cannot mend, None where it may or more is to be said."""
        variable = self.endpoint.variable
        match refusal.status:
            case 401 | 403:
                found = f"the key is refused (HTTP {refusal.status})" if self._key else f"{variable} is not set"
                hint = f"Set a key that may use {self.endpoint.model}: export {variable}=…"
                return UsageError(found, where=self._url, hint=hint)
            case 404:
                found = f"there is no model {self.endpoint.model!r} at this address (HTTP 404)"
                hint = f"Correct the model's name, or the address; `curl {self.endpoint.base_url}/models` lists models."
                return UsageError(found, where=self._url, hint=hint)
            case status if status == 402 or PURSE_IS_EMPTY & set(refusal.codes):
                return NetworkError(
                    f"the quota is used up: {refusal.message}",
                    where=self._url,
                    hint="Add credit or raise the limit of the account, then run the same command again: "
                    "answers that have arrived are kept.",
                )
        return None

    def refused(self, refusal: Refusal) -> ModelError:
        """Return the error for a request that the API does not take."""
        return ModelError(
            f"the API refuses the request (HTTP {refusal.status}): {refusal.message}",
            where=self._url,
            hint="Where it is too long: lower evaluate.api_max_tokens or data.max_chars, or show fewer shots; "
            "otherwise choose another model.",
        )

    def _refusal(self, status: int, content: bytes) -> Refusal:
        """Read an error body of either shape; whatever else it is (a proxy's page) is quoted."""
        text = content.decode("utf-8", "replace")
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            found = None
        error = found.get("error", found) if isinstance(found, dict) else None
        if not isinstance(error, dict):
            return Refusal(status, self._shown(str(error or text or "no message")))
        message = error.get("message") or error.get("detail") or text
        codes = tuple(str(error[name]) for name in ("code", "type") if error.get(name))
        return Refusal(status, self._shown(str(message)), str(error.get("param") or ""), codes)

    def _shown(self, text: str) -> str:
        """Return what may be shown of a foreign text: one line, not too long, without the key."""
        line = " ".join(text.split())
        line = self._key.redact(line) if self._key else line
        return line if len(line) <= QUOTED_CHARS else f"{line[:QUOTED_CHARS]}…"


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Return the seconds that `retry-after-ms` or `Retry-After` (seconds or a date, RFC 9110, 10.2.3) ask to wait."""
    for name, divisor in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) / divisor
        except ValueError:
            continue
        if 0 <= seconds < float("inf"):
            return seconds
    try:
        date = email.utils.parsedate_to_datetime(headers.get("retry-after", ""))
    except (ValueError, IndexError):
        return None
    return max(date.timestamp() - time.time(), 0.0)


def _until(deadline: float, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield what arrives; a reply that drips in for longer than allowed is a timeout too."""
    for chunk in chunks:
        if time.monotonic() > deadline:
            raise httpx.ReadTimeout("the reply came too slowly")
        yield chunk
