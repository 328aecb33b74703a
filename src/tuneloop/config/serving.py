"""The `serve` section: how a model answers over HTTP, and what protects it."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import ip_address
from typing import Annotated, Literal

from pydantic import Field, model_validator

from tuneloop.config.engines import OpenAIConfig, VllmConfig
from tuneloop.config.protection import LimitsConfig, LogConfig, QuotaConfig
from tuneloop.config.section import Positive, Seconds, Section, Word

ModelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
EngineName = Literal["transformers", "vllm", "llamacpp", "openai"]


class ServedModelConfig(Section):
    """One name under which requests find a model: a run, an export, or another name (`alias_of`)."""

    name: ModelName
    """What requests give as `model`. Letters, digits, and . _ - between them."""
    run: Word | None = None
    """The id of a run, or its beginning."""
    export: Word | None = None
    """The id of an export, or its beginning."""
    alias_of: ModelName | None = None
    """Another served name: this one always answers as that one does, also after a switch."""

    @model_validator(mode="after")
    def _names_one_thing(self) -> ServedModelConfig:
        given = [value for value in (self.run, self.export, self.alias_of) if value is not None]
        if len(given) > 1:
            raise ValueError("give one of run, export and alias_of")
        return self


class ServeConfig(Section):
    """How the service answers."""

    host: Word = "127.0.0.1"
    """The address to listen on. Anything but loopback needs API keys, and TLS from a proxy in front."""
    port: Annotated[int, Field(ge=0, le=65_535)] = 8000
    """The port to listen on; 0 takes a free one and says which."""
    engine: EngineName = "transformers"
    """What computes runs: transformers in this process, vllm (faster on a GPU, its own environment), or openai, which
    asks an address and cannot be calibrated. GGUF exports are computed by llamacpp, unless this is openai."""
    engine_url: Word | None = None
    """Where the engine `vllm` (URL, or URL#MODEL) or `openai` (URL/v1#MODEL) listens already; without it tuneloop
    starts vLLM itself."""
    vllm: VllmConfig = VllmConfig()
    openai: OpenAIConfig = OpenAIConfig()
    models: tuple[ServedModelConfig, ...] = ()
    """What is served; the first answers requests that name no model. Empty: the configuration's own run, as
    `default`. Models that do not share a base model each take its memory."""
    max_batch_documents: Positive = 64
    """Documents computed together. More is faster under load; an answer waits for the slowest of its batch."""
    max_batch_tokens: Positive = 8192
    """Tokens (estimated) computed together. More is faster under load, and takes memory and time for each batch."""
    max_waiting_documents: Positive = 1024
    """Documents that may wait for an engine; more are refused with 503 and the time after which to try again."""
    max_waiting_tokens: Positive = 524_288
    """Tokens (estimated) that may wait for an engine: bounds memory when documents are long."""
    max_documents: Positive = 256
    """Documents of one request. More saves round trips, and lets one caller hold more of the queue."""
    max_document_chars: Positive = 200_000
    """Characters of one document; a longer one is refused, not cut. What the model can read (`model.max_tokens`) is
    usually less: a document's end beyond that is not read."""
    max_new_tokens: Positive = 1024
    """Most tokens that a chat or completion request may ask for."""
    deadline_s: Seconds = 30.0
    """A request without an answer after this long gets 504. New requests are refused at once (503) when by measured
    speed they would come too late. Longer accepts more in a burst, and lets callers wait."""
    max_body_bytes: Positive = 8_388_608
    """Largest request body; more is refused with 413 before it is read."""
    max_connections: Positive = 1024
    """Open connections; more are refused with 503."""
    keep_alive_s: Seconds = 15.0
    """An idle connection is closed after this long. A proxy in front should give up idle ones earlier than this."""
    drain_s: Seconds = 60.0
    """After SIGTERM: how long accepted requests may take before they are given up."""
    drain_delay_s: Annotated[float, Field(ge=0)] = 0.0
    """After SIGTERM: how long to go on accepting while /readyz already says no, so that load balancers notice.
    Kubernetes and most proxies need 5 to 10 s."""
    allowed_hosts: tuple[Word, ...] = ()
    """Names that a request's Host header may have. Empty: on loopback localhost and its addresses (which keeps web
    pages from reaching the service through a name of theirs), elsewhere any."""
    metrics_need_key: bool = False
    """Whether /metrics needs a key with the scope admin. It tells how much is asked, never what."""
    limits: LimitsConfig = LimitsConfig()
    quotas: QuotaConfig = QuotaConfig()
    log: LogConfig = LogConfig()

    @model_validator(mode="after")
    def _names_are_unique(self) -> ServeConfig:
        names = [model.name for model in self.models]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"models: the name {repeated[0]!r} occurs twice")
        return self

    @property
    def is_loopback(self) -> bool:
        """Whether nobody but this machine can reach the service."""
        return is_loopback(self.host)


@lru_cache(maxsize=256)  # asked for every request
def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's own, reachable by nobody else."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"
