"""Reading the log: which rows, each with what was said about it last."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.orm import Session

from tuneloop.records import Route
from tuneloop.store.database import Database
from tuneloop.store.tables import Feedback, RequestKind, ServedPrediction

PAGE_ROWS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class LogFilter:
    """Which rows are meant: those that fit everything that is said.

    `containing` is looked for in documents, prompts and generated texts as they are stored.
    """

    since: datetime | None = None
    until: datetime | None = None
    request_ids: tuple[str, ...] = ()
    route: Route | None = None
    kind: RequestKind | None = None
    model: str | None = None
    containing: str | None = None
    has_feedback: bool = False


@dataclass(frozen=True, slots=True)
class LoggedAnswer:
    """A row of the log. `right_label` and `right_entities` are what was said last; None: nothing was."""

    row: ServedPrediction
    right_label: str | None
    right_entities: list[dict[str, Any]] | None
    feedback_by: str | None
    feedback_at: datetime | None
    comment: str

    @property
    def entities(self) -> list[dict[str, Any]] | None:
        """What the model found; None where it did not look."""
        return None if self.row.entities is None else json.loads(self.row.entities)

    @property
    def has_feedback(self) -> bool:
        """Whether anybody said what is right."""
        return self.right_label is not None or self.right_entities is not None


def clauses(wanted: LogFilter) -> list[ColumnElement[bool]]:
    """Return the conditions on `ServedPrediction` that a filter means."""
    row = ServedPrediction
    found: list[ColumnElement[bool]] = []
    if wanted.since is not None:
        found.append(row.created_at >= wanted.since)
    if wanted.until is not None:
        found.append(row.created_at < wanted.until)
    if wanted.request_ids:
        found.append(row.request_id.in_(wanted.request_ids))
    if wanted.route is not None:
        found.append(row.route == wanted.route)
    if wanted.kind is not None:
        found.append(row.kind == wanted.kind)
    if wanted.model is not None:
        found.append(row.model == wanted.model)
    if wanted.containing is not None:
        in_json = json.dumps(wanted.containing, ensure_ascii=False)[1:-1]  # as it stands in the messages of a chat
        places = ((row.text, wanted.containing), (row.text, in_json), (row.answer, wanted.containing))
        found.append(or_(*(column.contains(value, autoescape=True) for column, value in places)))
    if wanted.has_feedback:
        found.append(select(Feedback.id).where(Feedback.prediction_id == row.id).exists())
    return found


def count_log(database: Database, wanted: LogFilter) -> int:
    """Return how many rows there are. Raises: StorageError."""
    with database.reading() as session:
        return session.scalar(select(func.count()).select_from(ServedPrediction).where(*clauses(wanted))) or 0


def newest(database: Database, wanted: LogFilter, limit: int) -> list[LoggedAnswer]:
    """Return the newest rows, newest first. Raises: StorageError."""
    chosen = select(ServedPrediction).where(*clauses(wanted)).order_by(ServedPrediction.id.desc()).limit(limit)
    with database.reading() as session:
        return _with_feedback(session, session.scalars(chosen).all())


def read_log(database: Database, wanted: LogFilter) -> Iterator[list[LoggedAnswer]]:
    """Yield all rows, oldest first, a page at a time, so that writers need not wait. Raises: StorageError."""
    last_id = 0
    while True:
        chosen = select(ServedPrediction).where(*clauses(wanted), ServedPrediction.id > last_id)
        with database.reading() as session:
            rows = session.scalars(chosen.order_by(ServedPrediction.id).limit(PAGE_ROWS)).all()
            page = _with_feedback(session, rows)
        if not page:
            return
        yield page
        last_id = page[-1].row.id


def _with_feedback(session: Session, rows: Sequence[ServedPrediction]) -> list[LoggedAnswer]:
    of_these = select(Feedback).where(Feedback.prediction_id.in_([row.id for row in rows])).order_by(Feedback.id)
    given: dict[int, list[Feedback]] = {row.id: [] for row in rows}
    for feedback in session.scalars(of_these):
        given[feedback.prediction_id].append(feedback)
    return [_logged(row, given[row.id]) for row in rows]


def _logged(row: ServedPrediction, given: Sequence[Feedback]) -> LoggedAnswer:
    label = next((one.label for one in reversed(given) if one.label is not None), None)
    entities = next((one.entities for one in reversed(given) if one.entities is not None), None)
    last = given[-1] if given else None
    return LoggedAnswer(
        row,
        label,
        None if entities is None else json.loads(entities),
        last.caller if last else None,
        last.created_at if last else None,
        last.comment if last else "",
    )
