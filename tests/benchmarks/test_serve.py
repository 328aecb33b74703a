"""The load generator counts what it says, and the peer answers as its tutorial would."""

from __future__ import annotations

import asyncio
import json
import math
from typing import Any

import httpx
import pytest

from tests.conftest import REPOSITORY
from tests.models.loaded import tiny_folder

LABELS = ["card_arrival", "refund"]


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The load generator's module."""
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))
    import _load

    return _load


class Service:
    """Answers like our service, one request at a time, every `fails_every`-th with 503."""

    def __init__(self, delay_s: float = 0.0, fails_every: int = 0) -> None:
        self.delay_s, self.fails_every = delay_s, fails_every
        self.asked: list[dict[str, Any]] = []
        self.most_at_once = self._now = 0
        self.connections: list[asyncio.Task[None]] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if (task := asyncio.current_task()) is not None:
            self.connections.append(task)
        while head := await reader.read(1 << 16):
            body = head.partition(b"\r\n\r\n")[2]
            length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length"))
            body += await reader.readexactly(length - len(body))
            self.asked.append(json.loads(body))
            number = len(self.asked)
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
            await asyncio.sleep(self.delay_s)
            self._now -= 1
            is_failing = self.fails_every and number % self.fails_every == 0
            label = LABELS[number % 2] if number % 5 else "made up"
            content = json.dumps({"results": [{"label": label}]}).encode()
            status = b"503 Busy" if is_failing else b"200 OK"
            writer.write(b"HTTP/1.1 " + status + b"\r\nContent-Length: %d\r\n\r\n" % len(content) + content)
            await writer.drain()
        writer.close()
        await writer.wait_closed()


def loaded(load: Any, service: Service, **plan: Any) -> dict[str, Any]:
    async def main() -> dict[str, Any]:
        async with await asyncio.start_server(service, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            settings = {"clients": 4, "seconds": 60, "texts": [f"t{n}" for n in range(50)], "labels": LABELS, **plan}
            found: dict[str, Any] = await load.measure(
                load.Plan(url=f"http://127.0.0.1:{port}", kind="tuneloop", system="s", **settings)
            )
            await asyncio.gather(*service.connections)
            return found

    return asyncio.run(main())


def test_every_client_waits_for_its_answer_and_every_answer_is_counted_once(load: Any) -> None:
    service = Service(delay_s=0.02)
    found = loaded(load, service, most=40)
    assert service.most_at_once == 4
    assert found["answered"] == len(service.asked) == 40
    assert found["docs_per_s"] == pytest.approx(40 / 60)
    assert 20 <= found["p50_ms"] <= found["p95_ms"] <= found["p99_ms"]
    assert found["outside_label_set"] == 8
    assert not found["errors"]


def test_refusals_are_counted_apart_and_texts_begin_where_they_are_told_to(load: Any) -> None:
    service = Service(fails_every=3)
    found = loaded(load, service, clients=1, first=48, most=10, models=["a", "b"])
    assert found["errors"] == {"503": 3}
    assert found["answered"] == 7
    assert [one["documents"] for one in service.asked[:4]] == ["t48", "t49", "t0", "t1"]
    assert [one["model"] for one in service.asked[:4]] == ["a", "b", "a", "b"]


def test_the_load_ends_when_its_time_is_over_and_waits_for_what_is_under_way(load: Any) -> None:
    service = Service(delay_s=0.05)
    found = loaded(load, service, seconds=0.2)
    assert found["answered"] == len(service.asked)
    assert found["docs_per_s"] * 0.2 <= found["answered"]


def test_answers_after_the_time_count_for_latency_and_not_for_the_rate(load: Any) -> None:
    plan = load.Plan(
        url="http://localhost:1", kind="tuneloop", clients=2, seconds=2, texts=["a"], labels=LABELS, system=""
    )
    answered = [load.Answered(1.0, 0.1, 0, "refund"), load.Answered(2.5, 1.5, 1, "refund")]
    found = load.summary(plan, answered, {})
    assert (found["docs_per_s"], found["answered"], found["p50_ms"], found["p95_ms"]) == (0.5, 2, 100, 1500)


def test_load_goes_to_this_machine_only(load: Any) -> None:
    with pytest.raises(ValueError, match="not on this machine"):
        load.Plan(url="http://192.0.2.1:80", kind="vllm", clients=1, seconds=1, texts=[], labels=[], system="")


def test_percentiles_are_nearest_ranks(load: Any) -> None:
    values = [float(n) for n in range(1, 101)]
    assert [load.percentile(values, share) for share in (50, 95, 99)] == [50, 95, 99]
    assert load.percentile([7.0], 99) == 7 and math.isnan(load.percentile([], 50))


def test_every_kind_of_service_is_asked_and_read_in_its_own_words(load: Any) -> None:
    base = {"url": "http://localhost:1", "clients": 1, "seconds": 1, "texts": ["d"], "labels": LABELS, "system": "s"}
    chat = {"choices": [{"message": {"content": " refund\n"}}]}
    for kind, key, reply in [
        ("generate", "text", {"label": "refund"}),
        ("vllm", "structured_outputs", chat),
        ("llamacpp", "grammar", chat),
        ("tuneloop", "documents", {"results": [{"label": "refund"}]}),
    ]:
        path, body = load.request_of(load.Plan(kind=kind, **base), "d", "m")
        assert key in body and path.startswith("/")
        assert load.label_of(kind, reply) == "refund"
    assert load.grammar(['a"b', "c"]) == 'root ::= "a\\"b" | "c"'


def test_the_generate_service_answers_with_what_the_model_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))
    from peers import generate_service

    app = generate_service.create_app(tiny_folder("llama"), "Classify.")

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            assert (await client.get("/healthz")).json() == {"status": "ok"}
            return await client.post("/predict", json={"text": "My card has not arrived."})

    response = asyncio.run(ask())
    assert response.status_code == 200
    assert isinstance(response.json()["label"], str)


def test_ratios_compare_capacities_and_are_none_where_a_peer_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(REPOSITORY / "benchmarks"))
    import serve

    figures = {
        "tuneloop": {"docs_per_s_1": 10.0, "docs_per_s_8": 30.0, "p50_ms_1": 5.0},
        "generate": {"docs_per_s_1": 2.0, "docs_per_s_8": 1.5, "p50_ms_1": 500.0},
    }
    ratios = serve._ratios(figures)
    assert ratios["docs_per_s_vs_generate_service"] == 15.0
    assert ratios["docs_per_s_vs_generate_service_at_8_clients"] == 20.0
    assert ratios["docs_per_s_vs_vllm"] is None and ratios["docs_per_s_vs_llamacpp"] is None
