"""The parts of the `serve` section that protect the service and decide what it remembers."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator

from tuneloop.config.section import Positive, Seconds, Section, Word

SPOOL = "log-spool"  # in the store, where the service keeps rows that the database could not take; writable

Share = Annotated[float, Field(ge=0.0, le=1.0)]


class LimitsConfig(Section):
    """How slow, deep and long-winded a request may be. What is over a limit is refused before a model sees it."""

    max_held_bytes: Positive = 256 * 1024 * 1024
    """Bodies of all requests under way together; more are refused with 503. Bounds memory under many slow clients."""
    body_timeout_s: Seconds = 20.0
    """From the end of the headers to the end of the body. Lower frees a slow client's place sooner, and cuts off
    honest ones on slow lines."""
    header_timeout_s: Seconds = 10.0
    """From the first byte of a request (or the opening of a connection) to the end of its headers."""
    max_header_bytes: Annotated[int, Field(ge=1024)] = 16 * 1024
    """Request line and headers together."""
    max_json_depth: Annotated[int, Field(ge=4, le=500)] = 32
    """How deep arrays and objects of a body may be nested. Requests of this service need 6."""
    max_json_values: Positive = 50_000
    """Strings, commas, colons and brackets of a body. A few megabytes of `[],[],…` would otherwise become
    a hundred times as much memory. A request with 1,000 documents has about 2,000."""


class QuotaConfig(Section):
    """What one key may ask for in a minute; a key made with its own quotas keeps those.

    A quota is a bucket that fills steadily: what was not used for a minute may be used at once. Processes that share
    the store share the quotas, a second late: what they granted too much in that second is missing afterwards.
    """

    requests_per_minute: Positive | None = 1_200
    """None: as many as the service can answer."""
    tokens_per_minute: Positive | None = 2_000_000
    """Tokens of prompts and answers; the shared instruction counts once for each request. None: no limit."""


class LogConfig(Section):
    """What the service remembers of its answers. Rows are in the store; `tuneloop requests` lists and exports them."""

    sample: Share = 1.0
    """Share of requests that are logged, chosen by request id: documents, chats and completions. What is not logged
    can take no feedback. 0 without `keep_review` logs nothing."""
    keep_review: bool = True
    """Answers that go to a person are logged whatever the sample says: they are tomorrow's training data."""
    redact: Literal["none", "mask", "hash", "drop"] = "none"
    """What becomes of a document, prompt or generated text before it is stored. `none` keeps it: needed to train on it
    later. `mask` replaces personal data that patterns find (e-mail, phone, IBAN, card, IP address), in entities as
    well. `hash` keeps only a SHA-256, `drop` nothing: neither can become training data."""
    mask_patterns: dict[Word, Word] = {}
    """Further patterns for `mask`, as NAME: regular expression; what matches becomes `[NAME]`. A slow expression slows
    the log's writer, not the answers."""
    retention_days: Positive | None = 30
    """Rows without feedback are deleted after this many days. None keeps them for ever."""
    feedback_retention_days: Positive | None = 365
    """Rows with feedback, which are worth training on, are deleted after this many days. None keeps them for ever."""
    max_waiting_rows: Positive = 20_000
    """Rows that may wait in memory for the store; about 1 KB each, and the text."""
    when_full: Literal["refuse", "drop"] = "refuse"
    """When the store is too slow or away and that many rows wait: `refuse` new requests with 503 (no row is lost), or
    go on answering and `drop` rows (counted in /metrics)."""
    write_every_s: Seconds = 0.2
    """Rows are written in batches this often. A process that is killed with SIGKILL loses what is younger."""

    @field_validator("mask_patterns")
    @classmethod
    def _compiles(cls, patterns: dict[str, str]) -> dict[str, str]:
        for name, pattern in patterns.items():
            try:
                compiled = re.compile(pattern)
            except re.error as error:
                raise ValueError(f"the pattern {name!r} is not a regular expression: {error}") from error
            if compiled.match(""):
                raise ValueError(f"the pattern {name!r} matches nothing at all, and so everywhere")
        return patterns
