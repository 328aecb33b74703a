from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import pytest

from tests.serve.keyword_engine import POISON, KeywordEngine
from tests.serve.running import DEFAULT
from tuneloop.records import Prediction
from tuneloop.serve.batching import BatchLimits, Lane
from tuneloop.serve.models import OpenedModel, ServedModel
from tuneloop.serve.problems import Problem
from tuneloop.serve.speed import Speed
from tuneloop.serve.work import DocumentWork


def model_of(engine: KeywordEngine, lane: Lane) -> ServedModel:
    return ServedModel("default", DEFAULT, OpenedModel(engine, "v1"), lane)


def works(model: ServedModel, texts: Sequence[str], caller: str = "x", deadline_s: float = 20) -> list[DocumentWork]:
    loop, deadline = asyncio.get_running_loop(), time.monotonic() + deadline_s
    return [DocumentWork(model, caller, len(text), deadline, text, loop.create_future()) for text in texts]


async def answers(asked: Sequence[DocumentWork]) -> list[Prediction | Problem]:
    return list(await asyncio.wait_for(asyncio.gather(*(work.answer for work in asked)), 20))


def labels(found: Sequence[Prediction | Problem]) -> list[str | None]:
    return [outcome.code if isinstance(outcome, Problem) else outcome.label for outcome in found]


def test_what_waits_while_a_batch_is_computed_becomes_the_next_batch() -> None:
    async def ask() -> None:
        engine, lane = KeywordEngine(hold=True), Lane(BatchLimits(max_batch_documents=3))
        model = model_of(engine, lane)
        first = works(model, ["it purrs"])
        lane.submit(first)
        assert await asyncio.to_thread(engine.entered.wait, 20)
        rest = works(model, [f"it barks {n}" for n in range(7)])
        lane.submit(rest)
        engine.gate.set()
        assert labels(await answers([*first, *rest])) == ["cat", *["dog"] * 7]
        assert [len(batch) for batch in engine.batches] == [1, 3, 3, 1]
        lane.close()

    asyncio.run(ask())


def test_a_document_that_breaks_the_model_does_not_take_others_with_it() -> None:
    async def ask() -> None:
        engine, lane = KeywordEngine(hold=True), Lane(BatchLimits())
        asked = works(model_of(engine, lane), ["it purrs", POISON, "it sings"])
        lane.submit(asked)
        engine.gate.set()
        assert labels(await answers(asked)) == ["cat", "not-answered", "bird"]
        lane.close()

    asyncio.run(ask())


def test_what_is_cancelled_before_its_turn_is_never_computed_and_frees_its_place() -> None:
    async def ask() -> None:
        engine, lane = KeywordEngine(hold=True), Lane(BatchLimits())
        model = model_of(engine, lane)
        first, rest = works(model, ["it purrs"]), works(model, ["it barks", "it sings"])
        lane.submit(first)
        assert await asyncio.to_thread(engine.entered.wait, 20)
        lane.submit(rest)
        assert lane.waiting_documents == 2
        lane.cancel(rest[:1])
        assert (lane.waiting_documents, lane.waiting_tokens) == (1, len("it sings"))
        engine.gate.set()
        assert labels(await answers([*first, rest[1]])) == ["cat", "bird"]
        assert ["it barks"] not in engine.batches
        assert engine.batches == [["it purrs"], ["it sings"]]
        lane.close()

    asyncio.run(ask())


def test_what_is_late_already_is_not_computed() -> None:
    async def ask() -> None:
        engine, lane = KeywordEngine(), Lane(BatchLimits())
        asked = works(model_of(engine, lane), ["it purrs"], deadline_s=-1)
        lane.submit(asked)
        assert labels(await answers(asked)) == ["deadline-exceeded"]
        assert engine.batches == []
        lane.close()

    asyncio.run(ask())


def test_a_full_queue_refuses_with_the_time_that_it_needs() -> None:
    async def ask() -> None:
        engine, lane = KeywordEngine(hold=True), Lane(BatchLimits(max_waiting_documents=2))
        model = model_of(engine, lane)
        asked = works(model, ["a"])
        lane.submit(asked)
        assert await asyncio.to_thread(engine.entered.wait, 20)
        lane.speeds["document"].add(1, 10.0)
        more = works(model, ["a", "a"])
        lane.submit(more)
        with pytest.raises(Problem) as refused:
            lane.require_room("document", 1, 1, 1000)
        assert (refused.value.status, refused.value.code) == (503, "queue-full")
        assert refused.value.retry_after_s == pytest.approx(15)
        engine.gate.set()
        await answers([*asked, *more])
        lane.require_room("document", 2, 2, 1000)
        lane.close()

    asyncio.run(ask())


def test_what_would_come_too_late_is_refused_at_once_but_an_idle_engine_is_always_asked() -> None:
    async def ask() -> None:
        engine, lane = KeywordEngine(hold=True), Lane(BatchLimits())
        lane.speeds["document"].add(1, 1.0)
        lane.require_room("document", 1, 100, 10)
        asked = works(model_of(engine, lane), ["twelve chars"])
        lane.submit(asked)
        with pytest.raises(Problem) as refused:
            lane.require_room("document", 1, 1, 10)
        assert refused.value.code == "too-busy"
        assert refused.value.retry_after_s == pytest.approx(12 + 1 - 8)
        engine.gate.set()
        await answers(asked)
        lane.close()

    asyncio.run(ask())


def test_a_request_larger_than_the_whole_queue_is_told_so() -> None:
    lane = Lane(BatchLimits(max_waiting_tokens=10))
    with pytest.raises(Problem) as refused:
        lane.require_room("document", 1, 11, 10)
    assert refused.value.status == 413
    lane.close()


def test_closing_refuses_what_waits_and_takes_nothing_more() -> None:
    async def ask() -> None:
        engine, lane = KeywordEngine(hold=True), Lane(BatchLimits())
        model = model_of(engine, lane)
        computed, waiting = works(model, ["it purrs"]), works(model, ["it barks"])
        lane.submit(computed)
        assert await asyncio.to_thread(engine.entered.wait, 20)
        lane.submit(waiting)
        closing = asyncio.create_task(asyncio.to_thread(lane.close))
        assert labels(await answers(waiting)) == ["closing"]
        engine.gate.set()
        assert labels(await answers(computed)) == ["cat"]
        await closing
        with pytest.raises(Problem):
            lane.submit(works(model, ["it sings"]))

    asyncio.run(ask())


def test_speed_follows_the_last_batches() -> None:
    speed = Speed()
    assert speed.seconds_for(1000) == 0
    for _ in range(50):
        speed.add(100, 1.0)
    assert speed.seconds_for(1000) == pytest.approx(10)
    for _ in range(50):
        speed.add(100, 0.1)
    assert speed.seconds_for(1000) == pytest.approx(1, rel=0.1)
