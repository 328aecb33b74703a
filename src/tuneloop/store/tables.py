"""The tables. Rows are added and never changed: who changes their mind adds a row, and the latest one counts.

Three things do change: a key expires, is revoked and is used; the text of a served prediction can be removed; and rows
of the log are deleted when their time is over.

`HEAD` is the newest migration. A change here needs a new file in `migrations/versions/` and a new `HEAD`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal, get_args

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

HEAD = "0003"

LongId = BigInteger().with_variant(Integer, "sqlite")
"""Ids of a table that may see more than two thousand million rows; SQLite counts only `INTEGER` up by itself."""

RaterKind = Literal["person", "model"]
Side = Literal["a", "b"]
Choice = Literal["left", "right", "tie", "both_bad", "malformed"]
"""What was said about two answers as they were shown. `malformed`: a judge model's reply that is no verdict."""
Redaction = Literal["none", "mask", "hash", "drop"]
"""What happened to a text before it was stored, or later."""
RequestKind = Literal["predict", "chat", "completion"]
REQUEST_KINDS: tuple[RequestKind, ...] = get_args(RequestKind)
"""What was asked for: an answer to a document, to a conversation, or the text after a plain prompt."""

# Names for constraints, so that a later migration can change them on every kind of database.
CONVENTION = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class UtcTime(TypeDecorator[datetime]):
    """A moment: refuses datetimes without a time zone, and gives them back in UTC on every database."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return the moment in UTC. Raises: ValueError: it has no time zone."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value.isoformat()} has no time zone")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return the moment in UTC; SQLite has no time zones, and holds what `process_bind_param` made of it."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def now() -> datetime:
    """Return this moment in UTC."""
    return datetime.now(UTC)


class Base(DeclarativeBase):
    """Base of all tables."""

    metadata = MetaData(naming_convention=CONVENTION)
    type_annotation_map: Any = {datetime: UtcTime, str: String}  # noqa: RUF012  # a ClassVar would not be SQLAlchemy's


class Rater(Base):
    """Someone who judges: a person by name, or a model with the version of the prompt that it is asked with."""

    __tablename__ = "raters"
    __table_args__ = (
        UniqueConstraint("kind", "name", "prompt_version"),
        CheckConstraint("kind IN ('person', 'model')", name="kind"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[RaterKind] = mapped_column(String)
    name: Mapped[str]
    prompt_version: Mapped[str] = mapped_column(default="")
    created_at: Mapped[datetime] = mapped_column(default=now)


class Comparison(Base):
    """A blind study of two subjects, each by the id of its answers artifact; `id` follows from the other columns."""

    __tablename__ = "comparisons"

    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    dataset_id: Mapped[str] = mapped_column(String(16), index=True)
    subject_a: Mapped[str] = mapped_column(String(16))
    subject_b: Mapped[str] = mapped_column(String(16))
    title_a: Mapped[str]
    title_b: Mapped[str]
    seed: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(default=now)


class Pair(Base):
    """Two answers to one item as one rater sees them: `first` is the subject that stands left (or first)."""

    __tablename__ = "pairs"
    __table_args__ = (
        UniqueConstraint("comparison_id", "rater_id", "item_id", "first"),
        CheckConstraint("first IN ('a', 'b')", name="first"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    comparison_id: Mapped[str] = mapped_column(ForeignKey("comparisons.id"))
    rater_id: Mapped[int] = mapped_column(ForeignKey("raters.id"))
    item_id: Mapped[str]
    first: Mapped[Side] = mapped_column(String(1))
    created_at: Mapped[datetime] = mapped_column(default=now)


class Judgement(Base):
    """What a rater said about a pair. `comment` is a person's remark, or a model's reason or malformed reply."""

    __tablename__ = "judgements"
    __table_args__ = (
        CheckConstraint(f"choice IN {get_args(Choice)!r}", name="choice"),
        Index(None, "pair_id", "id"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    pair_id: Mapped[int] = mapped_column(ForeignKey("pairs.id"))
    choice: Mapped[Choice] = mapped_column(String)
    seconds: Mapped[float]
    comment: Mapped[str] = mapped_column(default="")
    input_tokens: Mapped[int | None]
    output_tokens: Mapped[int | None]
    cost_usd: Mapped[float | None]
    created_at: Mapped[datetime] = mapped_column(default=now)


class RatingForm(Base):
    """One filled-in rating form: what a rater thinks of one subject's answer to one item."""

    __tablename__ = "rating_forms"
    __table_args__ = (Index(None, "subject", "rater_id", "item_id", "id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    dataset_id: Mapped[str] = mapped_column(String(16))
    subject: Mapped[str] = mapped_column(String(16))
    item_id: Mapped[str]
    rater_id: Mapped[int] = mapped_column(ForeignKey("raters.id"))
    is_malformed: Mapped[bool] = mapped_column(default=False)
    seconds: Mapped[float]
    comment: Mapped[str] = mapped_column(default="")
    input_tokens: Mapped[int | None]
    output_tokens: Mapped[int | None]
    cost_usd: Mapped[float | None]
    created_at: Mapped[datetime] = mapped_column(default=now)


class Rating(Base):
    """One criterion's score on a form, 1 (worst) to 5 (best)."""

    __tablename__ = "ratings"
    __table_args__ = (
        UniqueConstraint("form_id", "criterion"),
        CheckConstraint("score BETWEEN 1 AND 5", name="score"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    form_id: Mapped[int] = mapped_column(ForeignKey("rating_forms.id"))
    criterion: Mapped[str]
    score: Mapped[int]


class ApiKey(Base):
    """A key to the service: who holds it may do what `scopes` says (words with spaces between), until it expires.

    `hash` is the SHA-256 of the secret in hexadecimal; the secret itself is nowhere. `replaces` is the key that this
    one was made from by rotation. Quotas are per minute; None is the configuration's. `requests_used` and
    `tokens_used` count everything that was charged since the key was made, by all processes of all services.
    """

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    name: Mapped[str]
    hash: Mapped[str] = mapped_column(String(64))
    scopes: Mapped[str]
    requests_per_minute: Mapped[int | None]
    tokens_per_minute: Mapped[int | None]
    requests_used: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    tokens_used: Mapped[int] = mapped_column(BigInteger, default=0, server_default="0")
    replaces: Mapped[str | None] = mapped_column(ForeignKey("api_keys.id"))
    created_at: Mapped[datetime] = mapped_column(default=now)
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]


class ServedPrediction(Base):
    """One document that the service answered, or one text that it generated (`kind`).

    `caller` is the id of a key, or `local` where none is needed. `text` is what the redaction left of the document or
    prompt, `text_sha256` identifies it (both None where it was dropped); `entities` is a JSON list of objects with
    type, text, start and end (None: not asked for). Of a chat, `text` is a JSON list of messages. Generated text is in
    `answer`, and has no label, no probability (0) and as `reason` why it ended.
    """

    __tablename__ = "served_predictions"
    __table_args__ = (
        UniqueConstraint("request_id", "item"),
        CheckConstraint(f"redaction IN {get_args(Redaction)!r}", name="redaction"),
    )

    id: Mapped[int] = mapped_column(LongId, primary_key=True)
    request_id: Mapped[str] = mapped_column(String(64))
    item: Mapped[int]
    kind: Mapped[RequestKind] = mapped_column(String, default="predict", server_default="predict")
    created_at: Mapped[datetime] = mapped_column(default=now, index=True)
    caller: Mapped[str]
    model: Mapped[str]
    version: Mapped[str]
    text: Mapped[str | None]
    text_sha256: Mapped[str | None] = mapped_column(String(64))
    redaction: Mapped[Redaction] = mapped_column(String)
    answer: Mapped[str | None]
    label: Mapped[str | None]
    probability: Mapped[float]
    route: Mapped[str]
    reason: Mapped[str]
    entities: Mapped[str | None]
    latency_s: Mapped[float]
    tokens: Mapped[int]


class Feedback(Base):
    """The right answer to one served document, as someone gave it: `label` and `entities` (JSON), or one of them.

    None means: nothing said about it. The latest row of a prediction counts.
    """

    __tablename__ = "feedback"
    __table_args__ = (Index(None, "prediction_id", "id"),)

    id: Mapped[int] = mapped_column(LongId, primary_key=True)
    prediction_id: Mapped[int] = mapped_column(LongId, ForeignKey("served_predictions.id"))
    label: Mapped[str | None]
    entities: Mapped[str | None]
    caller: Mapped[str]
    comment: Mapped[str] = mapped_column(default="")
    created_at: Mapped[datetime] = mapped_column(default=now)


class ModelSwitch(Base):
    """What a served name was switched to while the service ran; without run, export and alias: as configured again.

    `configured` is what the service had been told of that name when it started, in words.
    """

    __tablename__ = "model_switches"
    __table_args__ = (Index(None, "name", "id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    run: Mapped[str | None]
    export: Mapped[str | None]
    alias_of: Mapped[str | None]
    configured: Mapped[str]
    caller: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(default=now)
