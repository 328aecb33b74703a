"""Load on one service from a process of its own: clients that each wait for an answer before they ask again.

Reads a plan as JSON from standard input and prints one JSON object. Only services on this machine are asked; the load
ends after `seconds`, or when SIGUSR1 comes, and what is under way then is waited for at most `drain_s`, so that nothing
of it is left for whoever is measured next.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Literal
from urllib.parse import urlsplit

import httpx

Kind = Literal["tuneloop", "generate", "vllm", "llamacpp"]
NEW_TOKENS = 24  # the longest of Banking77's labels has fewer
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Plan:
    """Whom to ask, what, and for how long.

    `models` are names that requests give in turn; `first` is the number of the first text that is asked about, and
    `most` how many are asked about at most (None: as many as there is time for).
    """

    url: str
    kind: Kind
    clients: int
    seconds: float
    texts: list[str]
    labels: list[str]
    system: str
    models: list[str] = field(default_factory=lambda: [""])
    first: int = 0
    most: int | None = None
    drain_s: float = 300.0

    def __post_init__(self) -> None:
        if urlsplit(self.url).hostname not in LOOPBACK:
            raise ValueError(f"{self.url} is not on this machine")


@dataclass(frozen=True)
class Answered:
    """One answer: when it came (seconds from the start), how long it took, the text's number, and the label."""

    at_s: float
    took_s: float
    number: int
    label: str


async def measure(plan: Plan) -> dict[str, Any]:
    """Ask until the time is over, and return documents per second, latencies and what went wrong."""
    answered: list[Answered] = []
    errors: Counter[str] = Counter()
    numbers = iter(count(plan.first) if plan.most is None else range(plan.first, plan.first + plan.most))
    started, stop = time.perf_counter(), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, stop.set)
    limits = httpx.Limits(max_connections=plan.clients, max_keepalive_connections=plan.clients)
    timeout = httpx.Timeout(plan.seconds + plan.drain_s)
    async with httpx.AsyncClient(base_url=plan.url, limits=limits, timeout=timeout, trust_env=False) as http:
        asking = (_client(http, plan, numbers, started, stop, answered, errors) for _ in range(plan.clients))
        await asyncio.gather(*asking)
    return summary(plan, answered, errors)


def summary(plan: Plan, answered: Sequence[Answered], errors: Counter[str]) -> dict[str, Any]:
    """Return the figures: the rate counts what came within the time, latencies also what was under way at its end."""
    within = sum(one.at_s <= plan.seconds for one in answered)
    taken = sorted(1000 * one.took_s for one in answered)
    return {
        "docs_per_s": within / plan.seconds,
        **{f"p{share}_ms": percentile(taken, share) for share in (50, 95, 99)},
        "answered": len(answered),
        "errors": dict(errors),
        "outside_label_set": sum(one.label not in plan.labels for one in answered),
        "labels": {str(one.number % len(plan.texts)): one.label for one in answered},
    }


def percentile(ordered: Sequence[float], share: int) -> float:
    """Return the nearest-rank percentile of sorted values; NaN of none."""
    if not ordered:
        return float("nan")
    return ordered[max(-(-share * len(ordered) // 100) - 1, 0)]


async def _client(
    http: httpx.AsyncClient,
    plan: Plan,
    numbers: Iterator[int],
    started: float,
    stop: asyncio.Event,
    answered: list[Answered],
    errors: Counter[str],
) -> None:
    for number in numbers:
        if (now := time.perf_counter()) - started >= plan.seconds or stop.is_set():
            return
        path, body = request_of(plan, plan.texts[number % len(plan.texts)], plan.models[number % len(plan.models)])
        try:
            response = await http.post(path, json=body)
        except httpx.HTTPError as error:
            errors[type(error).__name__] += 1
            await asyncio.sleep(0.05)
            continue
        if response.status_code != 200:
            errors[str(response.status_code)] += 1
            await asyncio.sleep(0.05)
            continue
        ended = time.perf_counter()
        answered.append(Answered(ended - started, ended - now, number, label_of(plan.kind, response.json())))


def request_of(plan: Plan, text: str, model: str) -> tuple[str, dict[str, Any]]:
    """Return path and body of the request that asks a kind of service for the label of one text."""
    if plan.kind == "tuneloop":
        return "/v1/predict", {"documents": text, **({"model": model} if model else {})}
    if plan.kind == "generate":
        return "/predict", {"text": text}
    chat = {
        "model": model,
        "messages": [{"role": "system", "content": plan.system}, {"role": "user", "content": text}],
        "max_tokens": NEW_TOKENS,
        "temperature": 0.0,
    }
    if plan.kind == "vllm":
        return "/v1/chat/completions", {**chat, "structured_outputs": {"choice": plan.labels}}
    return "/v1/chat/completions", {**chat, "grammar": grammar(plan.labels)}


def grammar(labels: Sequence[str]) -> str:
    """Return llama.cpp's grammar of a closed label set."""
    return "root ::= " + " | ".join(json.dumps(label) for label in labels)


def label_of(kind: Kind, content: Any) -> str:
    """Return the label in an answer."""
    if kind == "tuneloop":
        return str(content["results"][0]["label"])
    if kind == "generate":
        return str(content["label"])
    return str(content["choices"][0]["message"]["content"]).strip()


def main() -> None:
    """Carry out the plan on standard input."""
    print(json.dumps(asyncio.run(measure(Plan(**json.load(sys.stdin))))))


if __name__ == "__main__":
    main()
