"""How much a key may ask for: two token buckets, one of requests and one of tokens, that fill steadily.

A request that asks for more than a whole bucket is let through when the bucket is full, and leaves a debt: otherwise
no patience would ever get it an answer. What other processes have let through is taken afterwards (`take`), and may
leave a debt as well: several copies of a service can grant more for a second, and less after that.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from tuneloop.serve.problems import Problem

WINDOW_S = 60


@dataclass(frozen=True, slots=True)
class Allowance:
    """What may be asked for in a minute; None is any amount."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None


@dataclass(slots=True)
class Bucket:
    """Holds up to `capacity`, and is refilled by as much in a minute. `level` is what was left at `at` (seconds)."""

    capacity: int
    level: float
    at: float

    def refill(self, at: float) -> None:
        """Add what has flowed in since the last time."""
        self.level = min(self.capacity, self.level + max(0.0, at - self.at) * self.capacity / WINDOW_S)
        self.at = at

    def wait_s(self, cost: int) -> float:
        """Return after how many seconds so much may be taken; 0 where it may now."""
        return max(0.0, min(cost, self.capacity) - self.level) * WINDOW_S / self.capacity

    def full_in_s(self) -> float:
        """Return after how many seconds it is full again."""
        return (self.capacity - self.level) * WINDOW_S / self.capacity


class Quotas:
    """The buckets of all callers. `clock` gives seconds that only grow."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._buckets: dict[tuple[str, str], Bucket] = {}
        self._lock = threading.Lock()

    def charge(self, caller: str, allowance: Allowance, requests: int, tokens: int) -> None:
        """Take this much of a caller's quotas, or nothing at all.

        Raises: Problem: 429, with the seconds after which it would be granted and RateLimit fields
            (draft-ietf-httpapi-ratelimit-headers-10).
        """
        with self._lock:
            asked = self._asked(caller, allowance, requests, tokens)
            waits = {name: wait for name, bucket, cost in asked if (wait := bucket.wait_s(cost)) > 0}
            if waits:
                raise _used_up(max(waits, key=lambda name: waits[name]), max(waits.values()), asked)
            for _, bucket, cost in asked:
                bucket.level -= cost

    def take(self, caller: str, allowance: Allowance, requests: int, tokens: int) -> None:
        """Take this much of a caller's quotas, whatever is left: it was granted elsewhere."""
        with self._lock:
            for _, bucket, cost in self._asked(caller, allowance, requests, tokens):
                bucket.level -= cost

    def _asked(self, caller: str, allowance: Allowance, requests: int, tokens: int) -> list[tuple[str, Bucket, int]]:
        """Return every quota that the caller has: its name, its bucket, and what is to be taken from it."""
        limits = (
            ("requests", allowance.requests_per_minute, requests),
            ("tokens", allowance.tokens_per_minute, tokens),
        )
        return [(name, self._bucket(caller, name, limit), cost) for name, limit, cost in limits if limit]

    def _bucket(self, caller: str, name: str, limit: int) -> Bucket:
        """Return a caller's bucket as it is now; a limit that has changed starts a new one."""
        at = self._clock()
        bucket = self._buckets.get((caller, name))
        if bucket is None or bucket.capacity != limit:
            bucket = self._buckets[caller, name] = Bucket(limit, limit, at)
        bucket.refill(at)
        return bucket


def _used_up(name: str, wait_s: float, asked: list[tuple[str, Bucket, int]]) -> Problem:
    policy = ", ".join(f'"{name}";q={bucket.capacity};w={WINDOW_S}' for name, bucket, _ in asked)
    left = ", ".join(
        f'"{name}";r={max(0, math.floor(bucket.level))};t={math.ceil(bucket.full_in_s())}' for name, bucket, _ in asked
    )
    capacity = next(bucket.capacity for other, bucket, _ in asked if other == name)
    detail = f"The key's quota of {capacity:,} {name} a minute is used up. Try again in {max(1, math.ceil(wait_s))} s."
    headers = {"RateLimit-Policy": policy, "RateLimit": left}
    return Problem(429, "quota-used-up", detail, retry_after_s=wait_s, headers=headers)
