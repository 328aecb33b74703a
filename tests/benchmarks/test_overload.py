"""The flood comes at its rate whatever is answered, and counts what a service may not do."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.conftest import REPOSITORY


@pytest.fixture
def flood(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The flood's module."""
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))
    import _flood

    return _flood


Answer = tuple[int, str, str]  # status, label, Retry-After


async def _serve(answers: list[Answer], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while await reader.readuntil(b"\r\n\r\n"):
        await reader.readuntil(b"}")
        status, label, after = answers.pop(0)
        content = json.dumps({"results": [{"label": label}]}).encode()
        head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(content)}\r\n{after}Connection: close\r\n\r\n"
        writer.write(head.encode() + content)
        await writer.drain()
        break
    writer.close()
    await writer.wait_closed()


def flooded(flood: Any, answers: list[Answer], **plan: Any) -> dict[str, Any]:
    async def main() -> dict[str, Any]:
        waiting = list(answers)
        async with await asyncio.start_server(lambda r, w: _serve(waiting, r, w), "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            settings = {"rate": 100.0, "seconds": len(answers) / 100, "texts": ["t"], "labels": ["a"], **plan}
            found: dict[str, Any] = await flood.flood(
                flood.Flood(url=f"http://127.0.0.1:{port}", **{"deadline_s": 5.0, **settings})
            )
            return found

    return asyncio.run(main())


def test_every_kind_of_answer_is_counted(flood: Any) -> None:
    answers = [(200, "a", ""), (200, "b", ""), (503, "", "Retry-After: 2\r\n"), (429, "", ""), (500, "", "")]
    found = flooded(flood, answers)
    assert found["statuses"] == {"200": 2, "503": 1, "429": 1, "500": 1}
    assert (found["answered"], found["wrong"], found["without_retry_after"], found["not_sent"]) == (2, 1, 1, 0)


def test_answers_after_the_deadline_are_late(flood: Any) -> None:
    assert flooded(flood, [(200, "a", "")], deadline_s=0.0)["late"] == 1


def test_a_service_that_is_not_there_is_an_error_and_no_answer(flood: Any) -> None:
    plan = flood.Flood(url="http://127.0.0.1:9", rate=100, seconds=0.02, texts=["t"], labels=["a"], deadline_s=1)
    found = asyncio.run(flood.flood(plan))
    assert found["statuses"] == {"ConnectError": 2} and found["answered"] == 0


def test_only_this_machine_is_flooded(flood: Any) -> None:
    with pytest.raises(ValueError, match="not on this machine"):
        flood.Flood(url="http://192.0.2.1:80", rate=1, seconds=1, texts=["t"], labels=["a"], deadline_s=1)
