"""More requests than a service can answer, from a process of its own: they come at a fixed rate, answered or not.

Reads a plan as JSON from standard input and prints one JSON object. Only services on this machine are asked.
"""

from __future__ import annotations

import asyncio
import json
import math
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx
from _load import LOOPBACK, percentile

BUSY = (429, 503)


@dataclass(frozen=True)
class Flood:
    """Whom to ask, what, `rate` requests a second for `seconds`; `labels` are the right answers to `texts`.

    `most_open` requests wait at a time at most; further ones are counted as not sent.
    """

    url: str
    rate: float
    seconds: float
    texts: list[str]
    labels: list[str]
    deadline_s: float
    most_open: int = 2000

    def __post_init__(self) -> None:
        if urlsplit(self.url).hostname not in LOOPBACK:
            raise ValueError(f"{self.url} is not on this machine")


@dataclass
class _Seen:
    statuses: Counter[str] = field(default_factory=Counter)
    answered_ms: list[float] = field(default_factory=list)
    refused_ms: list[float] = field(default_factory=list)
    wrong: int = 0
    late: int = 0
    without_retry_after: int = 0
    not_sent: int = 0


async def flood(plan: Flood) -> dict[str, Any]:
    """Send what the plan says, wait for what is under way, and return what came back."""
    seen, tasks = _Seen(), set[asyncio.Task[None]]()
    limits = httpx.Limits(max_connections=plan.most_open, max_keepalive_connections=plan.most_open)
    timeout = httpx.Timeout(plan.deadline_s + 30.0)
    async with httpx.AsyncClient(base_url=plan.url, limits=limits, timeout=timeout, trust_env=False) as http:
        started = time.perf_counter()
        for number in range(int(plan.rate * plan.seconds)):
            await asyncio.sleep(max(number / plan.rate - (time.perf_counter() - started), 0))
            if len(tasks) >= plan.most_open:
                seen.not_sent += 1
                continue
            task = asyncio.create_task(_ask(http, plan, number % len(plan.texts), seen))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)
    return _summary(seen)


async def _ask(http: httpx.AsyncClient, plan: Flood, number: int, seen: _Seen) -> None:
    started = time.perf_counter()
    try:
        response = await http.post("/v1/predict", json={"documents": plan.texts[number]})
    except httpx.HTTPError as error:
        seen.statuses[type(error).__name__] += 1
        return
    took_s = time.perf_counter() - started
    seen.statuses[str(response.status_code)] += 1
    if response.status_code == 200:
        seen.answered_ms.append(1000 * took_s)
        seen.wrong += response.json()["results"][0]["label"] != plan.labels[number]
        seen.late += took_s > plan.deadline_s
    elif response.status_code in BUSY:
        seen.refused_ms.append(1000 * took_s)
        seen.without_retry_after += not response.headers.get("retry-after", "").isdigit()


def _summary(seen: _Seen) -> dict[str, Any]:
    answered, refused = sorted(seen.answered_ms), sorted(seen.refused_ms)
    return {
        "statuses": dict(seen.statuses),
        "answered": len(answered),
        "wrong": seen.wrong,
        "late": seen.late,
        "without_retry_after": seen.without_retry_after,
        "not_sent": seen.not_sent,
        **{f"answered_p{share}_ms": _rounded(percentile(answered, share)) for share in (50, 99)},
        "refused_p99_ms": _rounded(percentile(refused, 99)),
    }


def _rounded(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 1)


def main() -> None:
    """Carry out the plan on standard input."""
    print(json.dumps(asyncio.run(flood(Flood(**json.load(sys.stdin))))))


if __name__ == "__main__":
    main()
