from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.infer.api_server import Answer, FakeApi, Received, Reply, openai_error, openai_reply, serving
from tuneloop.errors import ModelError, NetworkError, UsageError
from tuneloop.infer.calls import Patience
from tuneloop.infer.endpoints import OTHER_VARIABLE, Endpoint
from tuneloop.infer.engines.openai import OpenAIEngine
from tuneloop.infer.engines.protocol import Engine, Piece, Sampling
from tuneloop.models.prompt import TaskPrompt
from tuneloop.records import Message

LABELS = ("Copyleft", "Permissive")
CLASSIFY = TaskPrompt("classify", "Classify the document.", LABELS, ())
BOTH = TaskPrompt("classify+extract", "Do both.", LABELS, ("holder",))
QUICK = Patience(attempts=1, first_wait_s=0.01, attempt_s=5.0, total_s=5.0)
SETTINGS = Sampling(max_new_tokens=9, temperature=0.5, top_p=0.9, stop=("\n",), seed=4)
HELLO = [Message("user", "Hi")]


@contextmanager
def engine_of(answer: Answer, task: TaskPrompt = CLASSIFY) -> Iterator[tuple[OpenAIEngine, FakeApi]]:
    with serving(answer) as api:
        engine = OpenAIEngine(api.openai, task, patience=QUICK)
        try:
            yield engine, api
        finally:
            engine.close()


def never() -> bool:
    return False


def events(*chunks: dict[str, Any] | str) -> Reply:
    """Return a stream of server-sent events; texts are sent as they are."""
    lines = [chunk if isinstance(chunk, str) else json.dumps(chunk) for chunk in chunks]
    return Reply("".join(f"data: {line}\n\n" for line in lines).encode())


def delta(text: str | None, reason: str | None = None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": reason}]}


USAGE = {"choices": [], "usage": {"completion_tokens": 7}}


def test_documents_are_answered_in_the_label_set_with_the_probability_that_is_told() -> None:
    reply = openai_reply('{"label": "Copyleft"}', logprobs=[('{"label": "Copyleft"', -0.1), ("}", -3.0)])
    with engine_of(lambda _: reply) as (engine, api):
        assert isinstance(engine, Engine) and engine.name == "openai" and engine.task == CLASSIFY
        (found,) = engine.predict(["x"])
    assert (found.label, found.route) == ("Copyleft", "auto") and found.probability == pytest.approx(0.9048, abs=1e-3)
    assert "response_format" in api.received[0].body


def test_labels_alone_are_held_to_the_label_set_too_and_have_no_entities() -> None:
    reply = openai_reply('{"label": "Copyleft", "entities": {"holder": ["x"]}}')
    with engine_of(lambda _: reply, BOTH) as (engine, api):
        (labels,), (closed,), (free,) = (engine.predict(["x"], mode) for mode in ("labels", "closed", "free"))
    assert labels.label == "Copyleft" and labels.entities is None and not labels.states_probability
    assert closed.entities is not None and free.entities is not None
    assert ["response_format" in one.body for one in api.received] == [True, True, False]


def test_what_an_api_does_not_tell_is_refused_with_an_explanation() -> None:
    with engine_of(lambda _: openai_reply("x")) as (engine, _):
        with pytest.raises(ModelError, match="does not tell its prompt"):
            engine.rendered_prompt("x")
        with pytest.raises(ModelError, match="does not tell its token ids") as caught:
            engine.prompt_ids("x")
    assert "vLLM" in caught.value.hint


def test_a_conversation_is_streamed_and_its_tokens_counted_by_the_usage() -> None:
    reply = events(delta(None), delta("Hel"), delta("lo"), delta("", "stop"), USAGE, "[DONE]")
    with engine_of(lambda _: reply) as (engine, api):
        pieces = list(engine.stream(HELLO, SETTINGS, never))
    assert pieces == [Piece("Hel", 1), Piece("lo", 1), Piece("", 5, "stop")]
    assert api.received[0].path == "/v1/chat/completions"
    assert api.received[0].body == {
        "model": "some-model", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 9, "temperature": 0.5,
        "top_p": 0.9, "stop": ["\n"], "seed": 4, "stream": True, "stream_options": {"include_usage": True},
    }  # fmt: skip


def test_a_plain_prompt_is_streamed_from_the_other_route() -> None:
    last = {"choices": [{"index": 0, "text": " upon", "finish_reason": "length"}]}
    reply = events({"choices": [{"index": 0, "text": "Once"}]}, last, "[DONE]")
    with engine_of(lambda _: reply) as (engine, api):
        pieces = list(engine.stream_completion("In the beginning", SETTINGS, never))
    assert pieces == [Piece("Once", 1), Piece(" upon", 1, "length")]
    assert api.received[0].path == "/v1/completions" and api.received[0].body["prompt"] == "In the beginning"


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        (events(delta("Hel")), "broke off"),
        (events(delta("Hel"), "[DONE]"), "broke off"),
        (events("{no json"), "not JSON"),
        (events("[]"), "not a JSON object"),
        (events({"error": {"message": "out of memory"}}), "out of memory"),
        (events({"error": "out of memory"}), "out of memory"),
    ],
)
def test_a_stream_that_cannot_be_used_says_what_is_wrong_with_it(reply: Reply, found: str) -> None:
    with engine_of(lambda _: reply) as (engine, _), pytest.raises(NetworkError, match=found):
        list(engine.stream(HELLO, SETTINGS, never))


@pytest.mark.parametrize(
    ("reply", "kind", "found"),
    [
        (openai_error(400, "maximum context length"), UsageError, "maximum context length"),
        (openai_error(401, "no"), UsageError, "HTTP 401"),
        (openai_error(429, "slow down"), NetworkError, "slow down"),
        (openai_error(500, "oh no"), NetworkError, "oh no"),
        (Reply(b"<html>" * 200, status=502), NetworkError, "<html>"),
        (Reply(b"", breaks=True), NetworkError, "connection broke"),
    ],
)
def test_a_refused_stream_is_told_apart_by_whose_fault_it_is(reply: Reply, kind: type[Exception], found: str) -> None:
    with engine_of(lambda _: reply) as (engine, _), pytest.raises(kind, match=found) as caught:
        list(engine.stream(HELLO, SETTINGS, never))
    assert len(str(caught.value)) < 700


def test_no_error_shows_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(OTHER_VARIABLE, "sk-secret")

    def tells(request: Received) -> Reply:
        return openai_error(400, f"bad key {request.headers['authorization']}")

    with engine_of(tells) as (engine, api), pytest.raises(UsageError) as caught:
        list(engine.stream(HELLO, SETTINGS, never))
    assert api.received[0].headers["authorization"] == "Bearer sk-secret"
    assert "sk-secret" not in str(caught.value) + repr(engine)


def test_an_address_is_alive_while_it_answers_and_the_engine_is_open() -> None:
    with engine_of(lambda _: openai_reply("x")) as (engine, _):
        assert not engine.is_alive()  # this server knows no GET: 501
    nobody = OpenAIEngine(Endpoint("openai", "http://127.0.0.1:9/v1", "m"), CLASSIFY)
    assert not nobody.is_alive()
    nobody.close()


def test_a_makers_own_api_is_taken_to_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-x")
    engine = OpenAIEngine(Endpoint.parse("openai/gpt-x"), CLASSIFY)
    assert engine.is_alive()
    engine.close()
    assert not engine.is_alive()


def test_anthropics_streams_are_refused_in_words() -> None:
    engine = OpenAIEngine(Endpoint("anthropic", "http://127.0.0.1:9", "m"), CLASSIFY)
    with pytest.raises(UsageError, match="not read"):
        engine.stream(HELLO, SETTINGS, never)
    engine.close()
