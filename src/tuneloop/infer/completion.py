"""What a remote model was asked and what came back, whichever API it speaks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

from tuneloop.records import Message

LimitName = Literal["max_tokens", "max_completion_tokens"]
SchemaForm = Literal["json_schema", "json_object"]
FinishReason = Literal["stop", "length", "refusal", "other"]


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """One token of an answer and its log-probability. A token that is part of a character has its bytes as half
    surrogates (`surrogateescape`).
    """

    text: str
    logprob: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """One answer. `input_tokens` are all tokens of the prompt; `cached_tokens` of them were read from the API's cache
    and `cache_write_tokens` written to it. `output_tokens` include thinking that is not shown. `seconds` is how long
    the request took that was answered, without the failed ones before it. `logprobs` is None where the API tells none.
    """

    text: str
    input_tokens: int
    output_tokens: int
    seconds: float
    finish_reason: FinishReason
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    logprobs: tuple[TokenLogprob, ...] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-able form that `from_dict` reads."""
        return asdict(self) | {
            "logprobs": None if self.logprobs is None else [[t.text, t.logprob] for t in self.logprobs]
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Completion:
        """Read what `to_dict` wrote."""
        found = content["logprobs"]
        logprobs = None if found is None else tuple(TokenLogprob(text, logprob) for text, logprob in found)
        return cls(**{**content, "logprobs": logprobs})


@dataclass(frozen=True)
class Capabilities:
    """Which settings an API takes for one model. What it refuses is left out of later requests, and said.

    `schema_form` is how a schema is written: as OpenAI does, or as the `schema` of a JSON object, which is the form
    that llama-cpp-python's server knows.
    """

    temperature: bool = True
    schema: bool = True
    logprobs: bool = True
    limit_name: LimitName = "max_tokens"
    schema_form: SchemaForm = "json_schema"

    @property
    def missing(self) -> tuple[str, ...]:
        """Return one sentence for each thing that is done without."""
        said = {
            "it takes no temperature: its answers vary from run to run": self.temperature,
            "it takes no answer schema: answers outside the label set are possible": self.schema,
            "it tells no token probabilities: every answer is routed to review": self.logprobs,
        }
        return tuple(sentence for sentence, has in said.items() if not has)


class RemoteModel(Protocol):
    """A model that answers messages over a network. May be called from several threads."""

    @property
    def identity(self) -> Mapping[str, str]:
        """What tells this model from others (address and name, never a key)."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """What the API takes, as far as is known by now: complete after the first answer."""
        ...

    def complete(
        self,
        messages: Sequence[Message],
        *,
        max_tokens: int,
        temperature: float = 0,
        schema: Mapping[str, Any] | None = None,
    ) -> Completion:
        """Return the model's answer of at most `max_tokens` tokens, thinking included.

        Args: schema: a JSON Schema that the answer has to fulfil, where the API can enforce one.
        Raises: UsageError: wrong key or unknown model; ModelError: the request is refused; NetworkError: no answer in
            time, or the quota is used up.
        """
        ...
