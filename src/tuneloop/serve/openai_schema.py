"""The part of OpenAI's API that is served: what a request may say, and what it is told."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from tuneloop.infer.engines.protocol import Sampling
from tuneloop.records import Message
from tuneloop.serve.schema import UnicodeText

DEFAULT_NEW_TOKENS = 256


def _whole(value: Any) -> Any:
    """Return 5 for 5.0: JSON knows no difference."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = BeforeValidator(_whole)
Tokens = Annotated[int, Field(ge=1), Whole]
One = Annotated[Literal[1], Whole]
Stop = Annotated[UnicodeText, Field(min_length=1, max_length=200)]


class Asked(BaseModel):
    """Base of requests: what is not known is refused instead of ignored."""

    model_config = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True, allow_inf_nan=False)


class StreamOptions(Asked):
    """What a stream tells besides the text."""

    include_usage: bool = False
    """Send a last chunk with the tokens used."""


class Generation(Asked):
    """What both kinds of request may say. Parameters with one allowed value are there for clients that send them."""

    model: Annotated[str, Field(max_length=200)]
    """The served name of a model (see /v1/models)."""
    stream: bool = False
    """Send the text piece by piece, as server-sent events."""
    stream_options: StreamOptions | None = None
    max_tokens: Tokens | None = None
    """Most tokens of the answer; null is 256, or the service's limit where that is lower."""
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    """0, the default here, always takes the likeliest token."""
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    """Choose among the likeliest tokens that have this share together."""
    stop: Stop | Annotated[list[Stop], Field(max_length=4)] | None = None
    """Texts that end the answer, and are not part of it."""
    seed: Annotated[int, Field(ge=0, lt=2**32), Whole] | None = None
    """Makes sampling repeatable."""
    user: Annotated[str, Field(max_length=200)] | None = None
    """Allowed and not used."""
    n: One | None = None
    frequency_penalty: Annotated[float, Field(ge=0, le=0)] | None = None
    presence_penalty: Annotated[float, Field(ge=0, le=0)] | None = None

    def sampling(self, limit: int) -> Sampling:
        """Return how to generate at most `limit` tokens."""
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        return Sampling(
            max_new_tokens=min(self.tokens_asked() or DEFAULT_NEW_TOKENS, limit),
            temperature=self.temperature or 0.0,
            top_p=1.0 if self.top_p is None else self.top_p,
            stop=stop,
            seed=self.seed,
        )

    def tokens_asked(self) -> int | None:
        """Return how many tokens the answer may have, None where the request does not say."""
        return self.max_tokens


class TextPart(Asked):
    """A part of a message."""

    type: Literal["text"]
    text: UnicodeText


class ChatMessage(Asked):
    """A turn of the conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    """`developer` is taken as system."""
    content: UnicodeText | Annotated[list[TextPart], Field(min_length=1)]

    def message(self) -> Message:
        """Return it as engines take it."""
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return Message("system" if self.role == "developer" else self.role, text)


class ResponseFormat(Asked):
    """Only plain text."""

    type: Literal["text"]


class ChatRequest(Generation):
    """`POST /v1/chat/completions`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"model": "default", "messages": [{"role": "user", "content": "My card has not arrived."}]}]
        }
    )
    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=1000)]
    max_completion_tokens: Tokens | None = None
    """The newer name of max_tokens, which it goes before."""
    logprobs: Literal[False] | None = None
    response_format: ResponseFormat | None = None

    def tokens_asked(self) -> int | None:
        """Return how many tokens the answer may have, None where the request does not say."""
        return self.max_completion_tokens or self.max_tokens


class CompletionRequest(Generation):
    """`POST /v1/completions`: text goes on after a plain prompt, without a chat template."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"model": "default", "prompt": "Once upon a time"}]})
    prompt: Annotated[UnicodeText, Field(min_length=1)]
    best_of: One | None = None
    echo: Literal[False] | None = None
    logprobs: None = None


class Usage(BaseModel):
    """Tokens used."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class AnswerMessage(BaseModel):
    """What the model said."""

    role: Literal["assistant"]
    content: str


class ChatChoice(BaseModel):
    """The answer."""

    index: int
    message: AnswerMessage
    finish_reason: Literal["stop", "length"]
    logprobs: None = None


class ChatCompletion(BaseModel):
    """An answer to a conversation. `system_fingerprint` is the version that answered."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    usage: Usage


class TextChoice(BaseModel):
    """The text that goes on."""

    index: int
    text: str
    finish_reason: Literal["stop", "length"]
    logprobs: None = None


class TextCompletion(BaseModel):
    """Text after a prompt."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[TextChoice]
    usage: Usage


class ModelCard(BaseModel):
    """A name that requests may give as `model`."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    version: str
    """The id of the run or export that answers."""


class ModelCards(BaseModel):
    """All names."""

    object: Literal["list"]
    data: list[ModelCard]


class ErrorObject(BaseModel):
    """What went wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorAnswer(BaseModel):
    """OpenAI's error object."""

    error: ErrorObject


ERROR_RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorAnswer, "description": description}
    for status, description in {
        400: "The request is malformed, or asks for something that is not offered.",
        401: "There is no key, or not a valid one.",
        403: "The key has not the scope that this needs.",
        404: "There is no such model.",
        408: "The request came too slowly.",
        413: "The request is too large.",
        415: "The body is not JSON by its Content-Type.",
        429: "The key's quota is used up; Retry-After says when to try again.",
        500: "The model failed.",
        503: "Too much waits, or the service is not ready; Retry-After says when to try again.",
        504: "There was no answer before the deadline.",
    }.items()
}
