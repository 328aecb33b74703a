from __future__ import annotations

import email.utils
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.infer.api_server import (
    FakeApi,
    Reply,
    anthropic_error,
    anthropic_reply,
    openai_error,
    openai_reply,
    serving,
)
from tuneloop.errors import ModelError, NetworkError, TuneloopError, UsageError
from tuneloop.infer.calls import Patience, retry_after_s
from tuneloop.infer.completion import Capabilities, Completion
from tuneloop.infer.endpoints import Endpoint
from tuneloop.infer.remote import RemoteChat
from tuneloop.records import Message

SECRET = "sk-very-secret-0123456789"
QUICK = Patience(attempts=4, first_wait_s=0.01, longest_wait_s=0.02, attempt_s=5.0, total_s=10.0)
MESSAGES = (Message("system", "Be brief."), Message("user", "Hello"))
SCHEMA = {"type": "object", "properties": {"label": {"type": "string", "enum": ["a"]}}, "required": ["label"]}


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNELOOP_API_KEY", SECRET)


def ask(endpoint: Endpoint, patience: Patience = QUICK, **more: Any) -> Completion:
    with RemoteChat(endpoint, patience) as model:
        return model.complete(MESSAGES, **({"max_tokens": 50} | more))


def failure(script: list[Reply], patience: Patience = QUICK) -> tuple[TuneloopError, FakeApi]:
    with serving(lambda _: openai_reply("fine"), script) as api, pytest.raises(TuneloopError) as caught:
        ask(api.openai, patience)
    return caught.value, api


def test_a_chat_completion_is_asked_for_and_read() -> None:
    with serving(lambda _: openai_reply("Hi", logprobs=[("H", -0.1), ("i", -0.2)])) as api:
        found = ask(api.openai, schema=SCHEMA)
    (request,) = api.received
    assert request.path == "/v1/chat/completions"
    assert request.headers["authorization"] == f"Bearer {SECRET}"
    assert request.body["messages"][0] == {"role": "system", "content": "Be brief."}
    assert (request.body["max_tokens"], request.body["temperature"]) == (50, 0)
    assert request.body["response_format"]["json_schema"]["schema"] == SCHEMA
    assert (found.text, found.input_tokens, found.cached_tokens, found.output_tokens) == ("Hi", 120, 100, 7)
    assert found.finish_reason == "stop" and found.seconds > 0
    assert found.logprobs is not None and [token.logprob for token in found.logprobs] == [-0.1, -0.2]


def test_a_message_is_asked_for_and_read_with_its_instruction_marked_for_the_cache() -> None:
    with serving(lambda _: anthropic_reply("Hi")) as api:
        found = ask(api.anthropic, schema=SCHEMA)
    (request,) = api.received
    assert request.path == "/v1/messages"
    assert request.headers["authorization"] == f"Bearer {SECRET}"
    assert request.headers["anthropic-version"] == "2026-10-21" and "temperature" not in request.body
    assert request.body["system"] == [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]
    assert request.body["messages"] == [{"role": "user", "content": "Hello"}]
    assert request.body["output_config"] == {"format": {"type": "json_schema", "schema": SCHEMA}}
    assert found.text == "Hi" and found.logprobs is None
    assert (found.input_tokens, found.cached_tokens, found.cache_write_tokens) == (115, 60, 40)


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (openai_reply("x", finish="length"), "length"),
        (openai_reply("", finish="content_filter"), "refusal"),
        (anthropic_reply("x", stop="max_tokens"), "length"),
        (anthropic_reply("", stop="refusal"), "refusal"),
        (anthropic_reply("", stop="something_new"), "other"),
    ],
)
def test_why_an_answer_ended_is_told_in_the_same_words(reply: Reply, reason: str) -> None:
    with serving(lambda _: reply) as api:
        endpoint = api.openai if "choices" in reply.body else api.anthropic
        assert ask(endpoint).finish_reason == reason


def test_a_server_without_usage_or_logprobs_is_understood() -> None:
    bare = Reply({"choices": [{"message": {"content": "Hi"}, "finish_reason": "stop"}]})
    with serving(lambda _: bare) as api:
        found = ask(api.openai)
    assert (found.text, found.input_tokens, found.logprobs) == ("Hi", 0, None)


@pytest.mark.parametrize(
    "bad",
    [
        openai_error(429, "slow down", headers={"retry-after": "0"}),
        openai_error(500, "oops"),
        openai_error(503, "busy", headers={"retry-after-ms": "5"}),
        anthropic_error(529, "overloaded_error", "Overloaded"),
        Reply(b"<html>bad gateway</html>", status=502),
        Reply(b'{"choices": [', status=200),
        Reply(b"[]", status=200),
        Reply(b"", breaks=True),
    ],
    ids=["429", "500", "503", "529", "502-html", "cut-json", "not-an-object", "hang-up"],
)
def test_what_may_pass_is_tried_again(bad: Reply) -> None:
    with serving(lambda _: openai_reply("fine"), [bad, bad]) as api:
        assert ask(api.openai).text == "fine"
    assert len(api.received) == 3


def test_retry_after_is_honoured() -> None:
    with serving(lambda _: openai_reply("fine"), [openai_error(429, "wait", headers={"retry-after": "0.4"})]) as api:
        ask(api.openai)
    first, second = api.received
    assert second.at - first.at >= 0.4


def test_a_wait_that_is_longer_than_the_time_limit_is_not_begun() -> None:
    error, api = failure([openai_error(429, "wait", headers={"retry-after": "3600"})])
    assert isinstance(error, NetworkError) and "asks to wait 3600 s" in error.message
    assert len(api.received) == 1


def test_attempts_are_bounded_and_the_error_tells_the_last_failure() -> None:
    error, api = failure([openai_error(500, "database on fire")] * 9)
    assert isinstance(error, NetworkError) and error.exit_code == 1
    assert "database on fire (tried 4 times)" in error.message and "kept" in error.hint
    assert len(api.received) == 4


@pytest.mark.parametrize("slow", [Reply({}, delay_s=2.0), Reply({"a": 1}, drip_s=0.2)], ids=["silent", "dripping"])
def test_a_server_that_is_too_slow_is_given_up(slow: Reply) -> None:
    patience = Patience(attempts=2, first_wait_s=0.01, attempt_s=0.3, total_s=0.5)
    started = time.monotonic()
    error, _ = failure([slow, slow, slow], patience)
    assert isinstance(error, NetworkError) and "no answer within" in error.message
    assert time.monotonic() - started < 1.9


@pytest.mark.parametrize(
    ("reply", "kind", "found", "advice"),
    [
        (
            openai_error(401, f"Incorrect API key: {SECRET}"),
            UsageError,
            "the key is refused",
            "export TUNELOOP_API_KEY",
        ),
        (anthropic_error(403, "permission_error", "no"), UsageError, "the key is refused", "some-model"),
        (openai_error(404, "no such model"), UsageError, "there is no model 'some-model'", "/models"),
        (openai_error(429, "quota", code="insufficient_quota"), NetworkError, "the quota is used up", "kept"),
        (anthropic_error(400, "billing_error", "credit balance too low"), NetworkError, "used up", "Add credit"),
        (openai_error(402, "pay"), NetworkError, "the quota is used up", "Add credit"),
        (openai_error(400, "maximum context length is 4096 tokens"), ModelError, "4096 tokens", "data.max_chars"),
        (Reply(b'{"detail": "weird"}', status=418), ModelError, "HTTP 418", "another model"),
        (Reply(b"moved", status=302, headers={"location": "http://elsewhere"}), ModelError, "HTTP 302", ""),
        (openai_error(500, "never", headers={"x-should-retry": "false"}), ModelError, "never", "another model"),
        (Reply({"no": "choices"}), NetworkError, "does not have the openai API's form", "/v1"),
        (Reply({"choices": [{"message": {"content": 5}}]}), NetworkError, "not a text", "/v1"),
    ],
)
def test_what_cannot_pass_is_said_at_once_in_three_lines(
    reply: Reply, kind: type[TuneloopError], found: str, advice: str
) -> None:
    error, api = failure([reply] * 5)
    assert type(error) is kind and found in error.message and advice in error.hint
    assert len(api.received) == 1
    assert error.where.startswith("http://127.0.0.1") and "\n" not in error.message + error.where + error.hint


def test_no_network_is_said_in_three_lines() -> None:
    with pytest.raises(NetworkError, match="cannot be reached") as caught:
        ask(Endpoint("openai", "http://127.0.0.1:9/v1", "m"))
    assert "tried 4 times" in caught.value.message and caught.value.where == "http://127.0.0.1:9/v1/chat/completions"


def test_a_host_that_wants_a_key_where_none_is_set_is_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TUNELOOP_API_KEY")
    error, api = failure([openai_error(401, "no")])
    assert "TUNELOOP_API_KEY is not set" in error.message
    assert "authorization" not in api.received[0].headers


def test_the_key_is_in_no_repr_log_or_error(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with serving(lambda _: openai_reply("fine"), [openai_error(500, f"crashed on {SECRET}")] * 4) as api:
        with RemoteChat(api.openai, QUICK) as model, pytest.raises(NetworkError) as caught:
            model.complete(MESSAGES, max_tokens=5)
        assert api.received[0].headers["authorization"].endswith(SECRET)
        shown = [repr(model), repr(vars(model)), repr(vars(model._caller)), str(caught.value), repr(caught.value)]
        causes = [repr(caught.value.__cause__), repr(caught.value.__context__), repr(model.identity)]
    assert SECRET not in "".join([*shown, *causes, caplog.text])
    assert "crashed on ****" in caught.value.message


LLAMA_SAYS = (  # llama-cpp-python 0.3.36, of response_format: {type: json_schema}
    "1 validation error:\n  {'type': 'literal_error', 'loc': ('body', 'response_format', 'type'), "
    "'msg': \"Input should be 'text' or 'json_object'\", 'input': 'json_schema'}"
)
Case = tuple[list[Reply], Callable[[FakeApi], Endpoint], Capabilities]


@pytest.mark.parametrize(
    ("script", "wire", "can"),
    [
        (
            [openai_error(400, "Unsupported value: 'temperature' does not support 0 here.", param="temperature"),
             openai_error(400, "You are not allowed to request logprobs from this model.", param="logprobs")],
            "openai", Capabilities(temperature=False, logprobs=False),
        ),
        (
            [openai_error(400, "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead.",
                          param="max_tokens", code="unsupported_parameter")],
            "openai", Capabilities(limit_name="max_completion_tokens"),
        ),
        (
            [openai_error(422, "response_format: json_schema is not supported by this server")],
            "openai", Capabilities(schema=False),
        ),
        (
            [openai_error(500, LLAMA_SAYS), openai_error(500, "logprobs is not supported for models created with x")],
            "openai", Capabilities(schema_form="json_object", logprobs=False),
        ),
        (
            [anthropic_error(400, "invalid_request_error", "output_config.format: Extra inputs are not permitted")],
            "anthropic", Capabilities(temperature=False, schema=False, logprobs=False),
        ),
    ],
    ids=["no-temperature-no-logprobs", "newer-limit-name", "no-schema", "llama-cpp-python", "anthropic"],
)  # fmt: skip
def test_what_an_api_refuses_by_name_is_left_out_and_said(script: list[Reply], wire: str, can: Capabilities) -> None:
    good = openai_reply("fine") if wire == "openai" else anthropic_reply("fine")
    with serving(lambda _: good, script) as api:
        endpoint = api.openai if wire == "openai" else api.anthropic
        with RemoteChat(endpoint, QUICK) as model:
            assert model.complete(MESSAGES, max_tokens=5, schema=SCHEMA).text == "fine"
            assert model.capabilities == can
            model.complete(MESSAGES, max_tokens=5, schema=SCHEMA)
    first, last = api.received[0].body, api.received[-1].body
    assert ("temperature" in first, "logprobs" in first) == (wire == "openai", wire == "openai")
    assert len(api.received) == len(script) + 2
    assert ("temperature" in last, "logprobs" in last) == (can.temperature, can.logprobs)
    assert can.limit_name in last
    assert any(name in last for name in ("response_format", "output_config")) == can.schema
    assert len(can.missing) == [can.temperature, can.schema, can.logprobs].count(False)


def test_a_schema_is_written_as_the_server_knows_it() -> None:
    with serving(lambda _: openai_reply("fine"), [openai_error(500, LLAMA_SAYS)]) as api:
        with RemoteChat(api.openai, QUICK) as model:
            model.complete(MESSAGES, max_tokens=5, schema=SCHEMA)
        formats = [one.body["response_format"] for one in api.received]
    assert formats[0]["json_schema"]["schema"] == SCHEMA
    assert formats[1] == {"type": "json_object", "schema": SCHEMA}


def test_after_the_first_answer_a_refusal_changes_nothing_and_is_an_error() -> None:
    refusal = openai_error(400, "temperature is not supported", param="temperature")
    with serving(lambda _: openai_reply("fine")) as api, RemoteChat(api.openai, QUICK) as model:
        model.complete(MESSAGES, max_tokens=5)
        api.script.append(refusal)
        with pytest.raises(ModelError, match="temperature is not supported"):
            model.complete(MESSAGES, max_tokens=5)
        assert model.capabilities == Capabilities()


def test_an_api_that_refuses_both_names_of_the_limit_is_an_error_and_no_endless_loop() -> None:
    error, api = failure([openai_error(400, "Unsupported parameter: max_tokens", param="max_tokens")] * 20)
    assert isinstance(error, ModelError) and len(api.received) == 2


def test_a_limit_that_is_too_large_is_not_taken_for_a_limit_that_is_unknown() -> None:
    said = "max_tokens or max_completion_tokens is too large: 4096. The maximum context length is 2048 tokens."
    error, api = failure([openai_error(400, said)])
    assert isinstance(error, ModelError) and "evaluate.api_max_tokens" in error.hint and len(api.received) == 1


def test_retry_after_is_read_in_all_its_forms() -> None:
    soon = email.utils.formatdate(time.time() + 20, usegmt=True)
    assert retry_after_s({"retry-after-ms": "1500", "retry-after": "9"}) == 1.5
    assert retry_after_s({"retry-after": "9"}) == 9
    assert 17 < (retry_after_s({"retry-after": soon}) or 0) <= 20
    assert retry_after_s({"retry-after": email.utils.formatdate(0, usegmt=True)}) == 0
    for nonsense in ("", "soon", "-5", "inf", "nan", "Mon, 99 Foo"):
        assert retry_after_s({"retry-after": nonsense}) is None
    assert retry_after_s({}) is None


def test_closing_a_model_ends_the_wait_for_another_attempt() -> None:
    patience = Patience(attempts=3, first_wait_s=60, longest_wait_s=60)
    with serving(lambda _: openai_error(500, "oops")) as api, RemoteChat(api.openai, patience) as model:
        threading.Timer(0.3, model.close).start()
        with pytest.raises(NetworkError, match="oops"):
            model.complete(MESSAGES, max_tokens=5)
        with pytest.raises(NetworkError, match="closed"):
            model.complete(MESSAGES, max_tokens=5)
    assert len(api.received) == 1
