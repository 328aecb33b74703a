"""The two API shapes: OpenAI's chat completions and Anthropic's messages, as request bodies and read replies.

Checked against the sources of the packages openai 3.54 and anthropic 2.12. Knows nothing about sending.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from tuneloop.infer.completion import Capabilities, Completion, FinishReason, LimitName, SchemaForm, TokenLogprob
from tuneloop.infer.endpoints import ApiKey, Endpoint
from tuneloop.records import Message

ANTHROPIC_VERSION = "2026-10-21"  # the first that takes no temperature, from any model
SAYS_UNSUPPORTED = re.compile(
    r"unsupported|not supported|does(n't| not) support|not permitted|not allowed|unrecognized|unknown|deprecated|"
    r"only the default|invalid schema|invalid_json_schema|input should be",
    re.IGNORECASE,
)
OTHER_FORM = re.compile(
    r"response_format.*'text' or 'json_object'", re.DOTALL
)  # llama-cpp-python 0.3.36 on json_schema


@dataclass(frozen=True)
class Request:
    """What is asked, before it takes the shape of an API."""

    messages: Sequence[Message]
    max_tokens: int
    temperature: float
    schema: Mapping[str, Any] | None


@dataclass(frozen=True)
class Refusal:
    """What an API said when it refused a request: HTTP status, message, the parameter it names, its codes."""

    status: int
    message: str
    param: str = ""
    codes: tuple[str, ...] = ()


class Shape(Protocol):
    """How one API is spoken to. `read` raises KeyError, TypeError, ValueError or IndexError on a reply of no shape."""

    path: str

    def headers(self, key: ApiKey | None) -> dict[str, str]: ...

    def body(self, model: str, request: Request, can: Capabilities) -> dict[str, Any]: ...

    def read(self, reply: Mapping[str, Any], seconds: float) -> Completion: ...

    def narrowed(self, can: Capabilities, refusal: Refusal) -> Capabilities | None:
        """Return the capabilities without what a refusal says is not there; None where it is about something else."""
        ...


class OpenAIShape:
    """`POST /chat/completions`, as OpenAI, vLLM, llama.cpp's server and Ollama offer it."""

    path = "/chat/completions"

    def headers(self, key: ApiKey | None) -> dict[str, str]:
        return _bearer(key)

    def body(self, model: str, request: Request, can: Capabilities) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": model,
            "messages": [{"role": message.role, "content": message.content} for message in request.messages],
            can.limit_name: request.max_tokens,
        }
        if can.temperature:
            body["temperature"] = request.temperature
        if can.logprobs:
            body["logprobs"] = True
        if can.schema and request.schema is not None:
            body["response_format"] = _response_format(request.schema, can.schema_form)
        return body

    def read(self, reply: Mapping[str, Any], seconds: float) -> Completion:
        choice, usage = reply["choices"][0], reply.get("usage") or {}
        message = choice["message"]
        details = usage.get("prompt_tokens_details") or {}
        content = (choice.get("logprobs") or {}).get("content")
        reasons: dict[str, FinishReason] = {"stop": "stop", "length": "length", "content_filter": "refusal"}
        return Completion(
            text=_text(message.get("content")),
            input_tokens=int(usage.get("prompt_tokens") or 0),
            output_tokens=int(usage.get("completion_tokens") or 0),
            seconds=seconds,
            finish_reason="refusal" if message.get("refusal") else reasons.get(choice.get("finish_reason"), "other"),
            cached_tokens=int(details.get("cached_tokens") or 0),
            cache_write_tokens=int(details.get("cache_write_tokens") or 0),
            logprobs=tuple(map(_token, content)) if content else None,
        )

    def narrowed(self, can: Capabilities, refusal: Refusal) -> Capabilities | None:
        if not SAYS_UNSUPPORTED.search(" ".join([refusal.message, *refusal.codes])):
            return None
        named = refusal.param or refusal.message
        if re.search(r"\bmax_(completion_)?tokens\b", named):
            other: LimitName = "max_tokens" if can.limit_name == "max_completion_tokens" else "max_completion_tokens"
            return replace(can, limit_name=other)
        if can.schema and can.schema_form == "json_schema" and OTHER_FORM.search(refusal.message):
            return replace(can, schema_form="json_object")
        return _without(can, named, schema=r"response_format|json_schema")


class AnthropicShape:
    """`POST /v1/messages`. The instruction is marked for the prompt cache: it is the same in every request."""

    path = "/v1/messages"

    def headers(self, key: ApiKey | None) -> dict[str, str]:
        return {"anthropic-version": ANTHROPIC_VERSION} | _bearer(key)

    def body(self, model: str, request: Request, can: Capabilities) -> dict[str, Any]:
        said = [message for message in request.messages if message.role != "system"]
        system = "\n\n".join(message.content for message in request.messages if message.role == "system")
        body: dict[str, Any] = {
            "model": model,
            "max_tokens": request.max_tokens,
            "messages": [{"role": message.role, "content": message.content} for message in said],
        }
        if system:
            body["system"] = [{"type": "text", "text": system, "cache_control": {"type": "ephemeral"}}]
        if can.schema and request.schema is not None:
            body["output_config"] = {"format": {"type": "json_schema", "schema": dict(request.schema)}}
        return body

    def read(self, reply: Mapping[str, Any], seconds: float) -> Completion:
        usage = reply.get("usage") or {}
        cached, written = (int(usage.get(f"cache_{kind}_input_tokens") or 0) for kind in ("read", "creation"))
        reasons: dict[str, FinishReason] = {
            "end_turn": "stop", "stop_sequence": "stop", "refusal": "refusal",
            "max_tokens": "length", "model_context_window_exceeded": "length",
        }  # fmt: skip
        return Completion(
            text="".join(_text(block["text"]) for block in reply["content"] if block["type"] == "text"),
            input_tokens=int(usage.get("input_tokens") or 0) + cached + written,
            output_tokens=int(usage.get("output_tokens") or 0),
            seconds=seconds,
            finish_reason=reasons.get(reply.get("stop_reason") or "", "other"),
            cached_tokens=cached,
            cache_write_tokens=written,
        )

    def narrowed(self, can: Capabilities, refusal: Refusal) -> Capabilities | None:
        if not SAYS_UNSUPPORTED.search(refusal.message):
            return None
        return _without(can, refusal.message, schema=r"output_config|output_format|json_schema|structured outputs?")


def shape_of(endpoint: Endpoint) -> tuple[Shape, Capabilities]:
    """Return the shape that an endpoint speaks, and what it may be expected to take before it has been asked."""
    if endpoint.wire == "anthropic":
        return AnthropicShape(), Capabilities(temperature=False, logprobs=False)
    # OpenAI's reasoning models know only the newer name; many servers of the same shape know only the older one.
    limit_name: LimitName = "max_completion_tokens" if endpoint.is_official else "max_tokens"
    return OpenAIShape(), Capabilities(limit_name=limit_name)


def _response_format(schema: Mapping[str, Any], form: SchemaForm) -> dict[str, Any]:
    if form == "json_object":
        return {"type": "json_object", "schema": dict(schema)}
    return {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": dict(schema)}}


def _bearer(key: ApiKey | None) -> dict[str, str]:
    return {"authorization": f"Bearer {key.reveal()}"} if key else {}


def _without(can: Capabilities, named: str, *, schema: str) -> Capabilities | None:
    """Return `can` without the first setting in use that `named` mentions."""
    if can.temperature and re.search(r"\btemperature\b", named):
        return replace(can, temperature=False)
    if can.logprobs and re.search(r"\b(top_)?logprobs\b", named):
        return replace(can, logprobs=False)
    if can.schema and re.search(schema, named, re.IGNORECASE):
        return replace(can, schema=False)
    return None


def _text(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise TypeError("the answer is not a text")
    return value


def _token(content: Mapping[str, Any]) -> TokenLogprob:
    given = content.get("bytes")
    spelled = str(content["token"]).encode("utf-8", "replace") if given is None else bytes(given)
    return TokenLogprob(spelled.decode("utf-8", "surrogateescape"), float(content["logprob"]))
