"""vLLM's HTTP interface: what is asked of it and how its replies are read, with many requests under way at once.

Closed label sets are scored by `logprob_token_ids`: one computed token a prompt, with the exact log-probabilities of
up to 128 tokens that we name. (`prompt_logprobs` would score whole labels at once, but makes vLLM skip its prefix
cache, so that every label would cost the whole prompt; `logprobs` tells only the likeliest tokens.)

Checked against vLLM 0.32. Knows nothing about tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ParamSpec, Protocol, TypeVar
from urllib.parse import urlsplit

import httpx

from tuneloop.config.serving import is_loopback
from tuneloop.errors import ModelError, NetworkError, TuneloopError, UsageError
from tuneloop.infer.answering import Generated
from tuneloop.infer.endpoints import ApiKey
from tuneloop.infer.engines.api_stream import error_message
from tuneloop.infer.engines.vllm_command import TOLD_TOKENS
from tuneloop.infer.parallel import in_parallel

T = TypeVar("T")
P = ParamSpec("P")
REQUEST_S = 600.0
# A model's own defaults for these would make answers differ from those of the same weights elsewhere.
PLAIN: Mapping[str, Any] = {"repetition_penalty": 1.0, "top_k": 0, "min_p": 0.0}
EXACT: Mapping[str, Any] = {**PLAIN, "temperature": 0.0, "return_tokens_as_token_ids": True, "return_token_ids": True}


class Server(Protocol):
    """Where vLLM is: a process of ours, which moves when it is started again, or an address."""

    @property
    def base_url(self) -> str: ...

    @property
    def key(self) -> ApiKey | None: ...

    def is_alive(self) -> bool: ...

    def failure(self) -> TuneloopError: ...

    def close(self) -> None: ...


@dataclass
class _Group:
    """Sequences (by number) that are asked about in one request, and all tokens that one of them wants."""

    members: list[int] = field(default_factory=list)
    tokens: dict[int, None] = field(default_factory=dict)


class VllmServer:
    """One model (or adapter) of a vLLM server. `concurrency` is how many sequences are under way at once."""

    def __init__(self, server: Server, model: str, *, concurrency: int = 32) -> None:
        self.server, self.model, self.concurrency = server, model, concurrency
        self._per_request = max(concurrency // 4, 1)
        limits = httpx.Limits(max_connections=concurrency + 4, max_keepalive_connections=concurrency + 4)
        self.trust_env = not is_loopback(urlsplit(server.base_url).hostname or "")  # no proxy to ourselves
        timeout = httpx.Timeout(REQUEST_S, connect=10.0)
        self._client = httpx.Client(timeout=timeout, limits=limits, trust_env=self.trust_env)

    def close(self) -> None:
        """Let go of the connections, and of the server."""
        self._client.close()
        self.server.close()

    def next_log_probabilities(
        self, sequences: Sequence[Sequence[int]], wanted: Sequence[Sequence[int]]
    ) -> list[Mapping[int, float]]:
        """Return, for each sequence of token ids, the log-probabilities of (at least) its wanted tokens.

        Raises: ModelError: the server refuses the request, or is older than what it is asked for; NetworkError.
        """
        found: list[dict[int, float]] = [{} for _ in sequences]

        def ask(group: _Group) -> None:
            body = {
                "prompt": [list(sequences[member]) for member in group.members],
                "max_tokens": 1,
                "logprobs": len(group.tokens),
                "logprob_token_ids": list(group.tokens),
            }
            for member, choice in zip(group.members, self._choices(body, len(group.members)), strict=True):
                found[member] |= self._read(_told, choice, group.tokens)

        groups = _grouped(wanted, self._per_request)
        self._all(ask, groups, self.concurrency // self._per_request)
        return list(found)

    def generate(
        self, prompts: Sequence[Sequence[int]], *, end_id: int, max_new_tokens: int, choices: Sequence[str] = ()
    ) -> list[Generated]:
        """Generate greedily after prompts (token ids) until `end_id`.

        Args: choices: texts of which the answer has to be one; a grammar holds it to them, token by token.
        """
        generated: dict[int, Generated] = {}
        ending: dict[str, Any] = {"ignore_eos": True, "stop_token_ids": [end_id]}
        if choices:  # the grammar ends with the tokenizer's own end
            ending = {"stop_token_ids": [end_id], "structured_outputs": {"choice": list(choices)}}

        def ask(number: int) -> None:
            body = {"prompt": list(prompts[number]), "max_tokens": max_new_tokens, "logprobs": 0, **ending}
            (choice,) = self._choices(body, 1)
            generated[number] = self._read(_generated, choice, end_id)

        self._all(ask, range(len(prompts)), self.concurrency)
        return [generated[number] for number in range(len(prompts))]

    def prompt_ids(self, turns: Sequence[Mapping[str, str]]) -> list[int]:
        """Return what the server's own chat template and tokenizer make of a conversation."""
        body = {"messages": [dict(turn) for turn in turns], "add_generation_prompt": True}
        return self._read(lambda: [int(token) for token in self._post("/tokenize", body)["tokens"]])

    def text_of(self, ids: Sequence[int]) -> str:
        """Return the text of token ids, control tokens included, as the server's tokenizer spells it."""
        body = {"tokens": list(ids)}
        return self._read(lambda: str(self._post("/detokenize", body)["prompt"]))

    def models(self) -> list[str]:
        """Return the names that it serves."""
        try:
            response = self._client.get(f"{self.server.base_url}/v1/models", headers=self.headers())
        except httpx.HTTPError as error:
            raise self.lost(error) from error
        if response.status_code != 200:
            raise self.refused(response.status_code, response.content)
        return self._read(lambda: [str(model["id"]) for model in response.json()["data"]])

    def headers(self) -> dict[str, str]:
        """Return the headers of a request: the key, if there is one."""
        key = self.server.key
        return {"authorization": f"Bearer {key.reveal()}"} if key else {}

    def lost(self, error: Exception) -> TuneloopError:
        """Return the error for a connection that broke: what became of the server, where that is known."""
        if not self.server.is_alive():
            return self.server.failure()
        found = str(error) or type(error).__name__
        hint = "Send the request again; ask for fewer at once (serve.vllm.concurrency) if it stays so."
        return NetworkError(f"the connection broke: {found}", where=self.server.base_url, hint=hint)

    def refused(self, status: int, content: bytes) -> TuneloopError:
        """Return the error for a reply with a status other than 200."""
        where, message = self.server.base_url, error_message(content, self.server.key)
        if status in {401, 403}:
            hint = "Set the server's key in TUNELOOP_API_KEY."
            return UsageError(f"it refuses the key (HTTP {status})", where=where, hint=hint)
        if status == 404:
            hint = f"`curl {where}/v1/models` lists what it serves; is this vLLM?"
            return UsageError(f"it has no model {self.model!r}: {message}", where=where, hint=hint)
        if status in {429, 503}:
            return NetworkError(f"it is busy (HTTP {status}): {message}", where=where, hint="Try again in a while.")
        if status >= 500:
            return NetworkError(f"HTTP {status}: {message}", where=where, hint="Its log says more; try again.")
        hint = "Where it is too long: lower data.max_chars or model.max_tokens; vLLM has to be 0.28 or newer."
        return ModelError(f"it refuses the request (HTTP {status}): {message}", where=where, hint=hint)

    def refused_prompt(self, status: int, content: bytes) -> TuneloopError:
        """Return the error for a conversation or prompt of a caller's own, where the caller can mend it."""
        if status in {400, 422}:
            hint = "Shorten or correct the request."
            return UsageError(error_message(content, self.server.key), where="messages or prompt", hint=hint)
        return self.refused(status, content)

    def _all(self, work: Callable[[T], None], items: Sequence[T], at_once: int) -> None:
        for _ in in_parallel(work, items, max(at_once, 1)):
            continue

    def _choices(self, body: Mapping[str, Any], count: int) -> list[Mapping[str, Any]]:
        """Return the choices of a completion request in the order of its prompts."""

        def read() -> list[Mapping[str, Any]]:
            choices = sorted(self._post("/v1/completions", {**EXACT, **body})["choices"], key=lambda one: one["index"])
            if len(choices) != count:
                raise ValueError(f"{len(choices)} answers to {count} prompts")
            return choices

        return self._read(read)

    def _post(self, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
        try:
            response = self._client.post(
                self.server.base_url + path, json={"model": self.model, **body}, headers=self.headers()
            )
        except httpx.HTTPError as error:
            raise self.lost(error) from error
        if response.status_code != 200:
            raise self.refused(response.status_code, response.content)
        content: dict[str, Any] = response.json()
        return content

    def _read(self, read: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        try:
            return read(*arguments, **named)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise ModelError(
                f"its reply does not have vLLM's form ({type(error).__name__}: {error})",
                where=self.server.base_url,
                hint="vLLM has to be 0.28 or newer; other servers are asked with the engine `openai`.",
            ) from error


def _grouped(wanted: Sequence[Sequence[int]], at_most: int) -> list[_Group]:
    """Put sequences together that share a request: few enough, and wanting few enough tokens together."""
    groups: list[_Group] = []
    for number, tokens in enumerate(wanted):
        for part in (tokens[start : start + TOLD_TOKENS] for start in range(0, len(tokens), TOLD_TOKENS)):
            fits = groups and len(groups[-1].members) < at_most
            if not fits or len(groups[-1].tokens | dict.fromkeys(part)) > TOLD_TOKENS:
                groups.append(_Group())
            groups[-1].members.append(number)
            groups[-1].tokens |= dict.fromkeys(part)
    return groups


def _told(choice: Mapping[str, Any], wanted: Iterable[int]) -> dict[int, float]:
    """Return token → log-probability for the first token of a choice. Raises: KeyError: a wanted token is missing."""
    told = {name.removeprefix("token_id:"): value for name, value in choice["logprobs"]["top_logprobs"][0].items()}
    return {token: float(told[str(token)]) for token in wanted}


def _generated(choice: Mapping[str, Any], end_id: int) -> Generated:
    ids, log_probabilities = list(choice["token_ids"]), tuple(map(float, choice["logprobs"]["token_logprobs"]))
    is_finished = choice["finish_reason"] == "stop"
    return Generated(tuple(ids[:-1] if ids and ids[-1] == end_id else ids), log_probabilities, is_finished)
