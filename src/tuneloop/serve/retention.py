"""What the log forgets: rows whose time is over are deleted, texts are removed on request.

Work is done in small transactions, so that a service that writes the same database waits only for moments. SQLite
overwrites what it deletes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from sqlalchemy import Select, delete, or_, select, text
from sqlalchemy.orm import Session

from tuneloop.serve.log_queries import LogFilter, clauses
from tuneloop.store.database import Database
from tuneloop.store.tables import Feedback, ServedPrediction, now

STEP_ROWS = 1000


def purge_step(
    database: Database, *, before: datetime | None, feedback_before: datetime | None, rows: int = STEP_ROWS
) -> int:
    """Delete up to `rows` answers older than their limit (None: no limit), with their feedback; returns how many.

    Args: before: for answers without feedback; feedback_before: for those with.
    Raises: StorageError.
    """
    has_feedback = select(Feedback.id).where(Feedback.prediction_id == ServedPrediction.id).exists()
    over = []
    if before is not None:
        over.append((ServedPrediction.created_at < before) & ~has_feedback)
    if feedback_before is not None:
        over.append((ServedPrediction.created_at < feedback_before) & has_feedback)
    if not over:
        return 0
    chosen = select(ServedPrediction.id).where(or_(*over)).order_by(ServedPrediction.id).limit(rows)
    with database.writing() as session:
        return len(_delete(session, chosen))


def purge(
    database: Database, before: datetime | None, feedback_before: datetime | None, advance: Callable[[float], None]
) -> int:
    """Delete all answers older than their limit; returns how many, and tells `advance` of each step.

    Raises: StorageError.
    """
    total = 0
    while deleted := purge_step(database, before=before, feedback_before=feedback_before):
        total += deleted
        advance(deleted)
    return total


def purger(database: Database, retention: timedelta | None, feedback_retention: timedelta | None) -> Callable[[], bool]:
    """Return the housekeeping of a log: deletes some rows whose time is over, and says whether there may be more."""

    def purge_some() -> bool:
        moment = now()
        before = None if retention is None else moment - retention
        feedback_before = None if feedback_retention is None else moment - feedback_retention
        return purge_step(database, before=before, feedback_before=feedback_before) == STEP_ROWS

    return purge_some


def remove_texts(database: Database, wanted: LogFilter) -> int:
    """Remove text and values of the answers that `wanted` describes, in feedback as well; returns how many.

    What was answered, when and to whom stays. Raises: StorageError.
    """
    total, last_id = 0, 0
    while True:
        chosen = (
            select(ServedPrediction)
            .where(*clauses(wanted), ServedPrediction.id > last_id, ServedPrediction.redaction != "drop")
            .order_by(ServedPrediction.id)
            .limit(STEP_ROWS)
        )
        with database.writing() as session:
            _overwrite_deleted(session)
            rows = list(session.scalars(chosen))
            for row in rows:
                row.text = row.text_sha256 = row.answer = None
                row.redaction, row.entities = "drop", _without_values(row.entities)
            ids = [row.id for row in rows]
            for given in session.scalars(select(Feedback).where(Feedback.prediction_id.in_(ids))):
                given.entities, given.comment = _without_values(given.entities), ""
        if not ids:
            return total
        total, last_id = total + len(ids), ids[-1]


def _delete(session: Session, chosen: Select[int]) -> Sequence[int]:
    _overwrite_deleted(session)
    ids = session.scalars(chosen.with_for_update()).all()  # feedback that comes now waits, and finds nothing
    session.execute(delete(Feedback).where(Feedback.prediction_id.in_(ids)))
    session.execute(delete(ServedPrediction).where(ServedPrediction.id.in_(ids)))
    return ids


def _overwrite_deleted(session: Session) -> None:
    if session.get_bind().dialect.name == "sqlite":
        session.execute(text("PRAGMA secure_delete=ON"))


def _without_values(entities: str | None) -> str | None:
    if entities is None:
        return None
    return json.dumps([{**entity, "text": ""} for entity in json.loads(entities)], ensure_ascii=False)
