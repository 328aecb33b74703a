from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.serve.keyword_engine import POISON, KeywordEngine
from tests.serve.running import DEFAULT, Running, running
from tuneloop.config.serving import ServedModelConfig
from tuneloop.infer.engines.protocol import Piece

HELLO: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Tell me a story."}]
ALIAS = ServedModelConfig(name="stories", alias_of="default")


@pytest.fixture(scope="module")
def engine() -> KeywordEngine:
    return KeywordEngine()


@pytest.fixture(scope="module")
def served(engine: KeywordEngine) -> Iterator[Running]:
    with running(engine, (DEFAULT, ALIAS), max_new_tokens=50) as service:
        yield service


@pytest.fixture(scope="module")
def client(served: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0) as client:
        yield client


def test_the_official_client_gets_a_chat_answer_with_usage(client: openai.OpenAI, engine: KeywordEngine) -> None:
    answer = client.chat.completions.create(model="default", messages=HELLO)
    assert answer.choices[0].message.content == "once upon a time"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (6, 5, 11)
    assert (answer.model, answer.system_fingerprint) == ("default", "v1")
    assert [(one.role, one.content) for one in engine.messages] == [(one["role"], one["content"]) for one in HELLO]


def test_a_stream_brings_the_pieces_the_reason_of_the_end_and_the_usage_last(client: openai.OpenAI) -> None:
    stream = client.chat.completions.create(
        model="default", messages=HELLO, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert [chunk.choices[0].delta.content for chunk in chunks[:-1]] == ["once", " upon", " a", " time", ""]
    assert [chunk.choices[0].finish_reason for chunk in chunks[:-1]] == [None] * 4 + ["stop"]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 5
    assert len({chunk.id for chunk in chunks}) == 1


def test_a_stream_without_the_option_has_no_usage(client: openai.OpenAI) -> None:
    chunks = list(client.chat.completions.create(model="default", messages=HELLO, stream=True))
    assert all(chunk.usage is None for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_the_async_client_streams_too(served: Running) -> None:
    async def ask() -> list[str | None]:
        async with openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0) as client:
            stream = await client.chat.completions.create(model="stories", messages=HELLO, stream=True)
            return [chunk.choices[0].delta.content async for chunk in stream]

    assert asyncio.run(ask()) == ["once", " upon", " a", " time", ""]


def test_plain_completions_and_the_list_of_models(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="default", prompt="Long ago", max_tokens=2)
    assert (answer.choices[0].text, answer.choices[0].finish_reason) == ("once upon", "length")
    assert [chunk.choices[0].text for chunk in client.completions.create(model="default", prompt="x", stream=True)] == [
        "once", " upon", " a", " time", "",
    ]  # fmt: skip
    assert [model.id for model in client.models.list()] == ["default", "stories"]
    assert client.models.retrieve("stories").id == "stories"


def test_limits_and_stops_are_obeyed(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="default", messages=HELLO, max_completion_tokens=1, max_tokens=40)
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("once", "length")
    answer = client.chat.completions.create(model="default", messages=HELLO, stop=["a"])
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("once upon", "stop")


def test_parts_of_text_and_the_role_developer_are_understood(client: openai.OpenAI, engine: KeywordEngine) -> None:
    parts = [{"type": "text", "text": "Tell "}, {"type": "text", "text": "me"}]
    messages: Any = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": parts}]
    client.chat.completions.create(model="default", messages=messages)
    assert [(one.role, one.content) for one in engine.messages] == [("system", "Be brief."), ("user", "Tell me")]


@pytest.mark.parametrize(
    ("parameters", "param"),
    [
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"n": 2}, "n"),
        ({"logprobs": True}, "logprobs"),
        ({"response_format": {"type": "json_object"}}, "response_format.type"),
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"temperature": 3}, "temperature"),
        ({"extra_body": {"top_k": 5}}, "top_k"),
    ],
)
def test_what_would_not_be_obeyed_is_refused_by_name(
    client: openai.OpenAI, parameters: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model="default", messages=HELLO, **parameters)
    assert refused.value.param == param
    assert refused.value.type == "invalid_request_error"
    assert param.partition(".")[0] in refused.value.message


def test_neutral_values_of_such_parameters_are_accepted(client: openai.OpenAI) -> None:
    client.chat.completions.create(
        model="default",
        messages=HELLO,
        n=1,
        logprobs=False,
        frequency_penalty=0.0,
        presence_penalty=0,
        response_format={"type": "text"},
        user="me",
        temperature=0,
        top_p=1,
        seed=5,
    )


def test_errors_are_the_ones_that_the_client_knows(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(model="gpt-9", messages=HELLO)
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-9")
    with pytest.raises(openai.BadRequestError) as many:
        client.chat.completions.create(model="default", messages=HELLO, max_tokens=51)
    assert "50 tokens" in many.value.message
    with pytest.raises(openai.BadRequestError) as long:
        client.chat.completions.create(model="default", messages=[{"role": "user", "content": "too long"}])
    assert "8 are available" in long.value.message


def test_a_model_that_fails_before_its_first_word_gives_a_status_and_later_an_event() -> None:
    engine = KeywordEngine(words=[POISON])
    with running(engine) as served, openai.OpenAI(base_url=f"{served.url}/v1", api_key="k", max_retries=0) as client:
        with pytest.raises(openai.InternalServerError):
            client.chat.completions.create(model="default", messages=HELLO, stream=True)
        engine.words = ["once", POISON]
        stream = client.chat.completions.create(model="default", messages=HELLO, stream=True)
        with pytest.raises(openai.APIError) as failed:
            list(stream)
    assert failed.value.code == "not-answered"


def test_a_caller_that_stops_listening_ends_the_generation() -> None:
    cancelled = threading.Event()

    class Endless(KeywordEngine):
        def _pieces(self, sampling: Any, is_cancelled: Any) -> Any:
            while not is_cancelled():
                time.sleep(0.002)
                yield Piece("word", 1)
            cancelled.set()
            yield Piece("", 0, "cancelled")

    with running(Endless()) as served, openai.OpenAI(base_url=f"{served.url}/v1", api_key="k", max_retries=0) as client:
        with client.chat.completions.create(model="default", messages=HELLO, stream=True) as stream:
            next(iter(stream))
        assert cancelled.wait(10)
        until = time.monotonic() + 10
        while served.service.models.listing()[0]["requests"]:
            assert time.monotonic() < until
            time.sleep(0.01)


def test_documents_are_answered_between_two_words_of_a_long_text() -> None:
    enough = threading.Event()

    class Talkative(KeywordEngine):
        def _pieces(self, sampling: Any, is_cancelled: Any) -> Any:
            while not enough.wait(0.005):
                yield Piece("word", 1)
            yield Piece("", 0, "stop")

    with running(Talkative()) as served, served.client() as client:
        body = {"model": "default", "messages": HELLO, "stream": True}
        with client.stream("POST", "/v1/chat/completions", json=body) as stream:
            lines = stream.iter_lines()
            assert "word" in next(lines)
            assert served.predict("it sings").json()["results"][0]["label"] == "bird"
            enough.set()
            assert [line for line in lines if line][-1] == "data: [DONE]"


def test_the_deadline_ends_a_stream_with_an_error() -> None:
    class Slow(KeywordEngine):
        def _pieces(self, sampling: Any, is_cancelled: Any) -> Any:
            yield Piece("once", 1)
            self.gate.clear()
            yield from super()._pieces(sampling, is_cancelled)

    engine = Slow()
    with running(engine, deadline_s=0.3) as served, served.client() as client:
        body = {"model": "default", "messages": HELLO, "stream": True}
        with client.stream("POST", "/v1/chat/completions", json=body) as stream:
            first, *_, last = [line for line in stream.iter_lines() if line]
    assert json.loads(first.removeprefix("data: "))["choices"][0]["delta"]["content"] == "once"
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "deadline-exceeded"
