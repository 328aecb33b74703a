"""Feedback in the store: what was answered to a request, and what the right answer would have been.

Rows are only added. What was said last about the label counts for the label, and likewise for the entities.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from tuneloop.records import Entity
from tuneloop.serve.log import PredictionLog
from tuneloop.serve.log_rows import entities_as_json
from tuneloop.serve.redaction import RedactionPolicy
from tuneloop.store.database import Database, storable
from tuneloop.store.tables import Feedback, RequestKind, ServedPrediction

FLUSH_S = 2.0  # an answer may be so new that its row is still waiting


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer as the log has it; `text` is the whole document, or None where only a redacted one was kept."""

    id: int
    kind: RequestKind
    model: str
    version: str
    label: str | None
    has_entities: bool
    text: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RightAnswer:
    """What someone says the answer should be. None: nothing is said about it."""

    label: str | None
    entities: tuple[Entity, ...] | None
    caller: str
    comment: str = ""


class FeedbackBook:
    """Where feedback is written. `policy` is the log's: what may not be kept of a document may not come in here."""

    def __init__(self, database: Database, log: PredictionLog, policy: RedactionPolicy) -> None:
        self._database, self._log, self._policy = database, log, policy

    def find(self, request_id: str, item: int) -> Answered | None:
        """Return what was answered, or None where the log has no such row (any more). Raises: StorageError."""
        found = self._find(request_id, item)
        if found is None and self._log.state.waiting and self._log.flush(FLUSH_S):
            found = self._find(request_id, item)
        return found

    def add(self, answered: Answered, right: RightAnswer) -> tuple[int, bool] | None:
        """Keep a right answer; returns its id and whether it is new, or None where the row has just been deleted.

        The same from the same caller as the last time is not kept again. Raises: StorageError.
        """
        row = self._row(answered, right)
        with self._database.writing() as session:
            locked = select(ServedPrediction.id).where(ServedPrediction.id == answered.id).with_for_update()
            if session.scalar(locked) is None:
                return None
            last = _last(session, answered.id)
            if last is not None and _content(last) == _content(row):
                return last.id, False
            session.add(row)
            session.flush()
            return row.id, True

    def _find(self, request_id: str, item: int) -> Answered | None:
        wanted = select(ServedPrediction).filter_by(request_id=storable(request_id), item=item)
        with self._database.reading() as session:
            row = session.scalars(wanted).one_or_none()
        if row is None:
            return None
        whole = row.text if row.redaction == "none" else None
        return Answered(row.id, row.kind, row.model, row.version, row.label, row.entities is not None, whole)

    def _row(self, answered: Answered, right: RightAnswer) -> Feedback:
        entities = None if right.entities is None else [self._stored(one, answered.text) for one in right.entities]
        return Feedback(
            prediction_id=answered.id,
            label=None if right.label is None else storable(right.label),
            entities=entities_as_json(entities),
            caller=right.caller,
            comment=storable(self._policy.remark(right.comment)),
        )

    def _stored(self, entity: Entity, text: str | None) -> Entity:
        if text is None:
            return Entity(entity.type, self._policy.value(entity.text))
        start = text.find(entity.text)
        return Entity(entity.type, entity.text, start, start + len(entity.text))


def missing_values(entities: Sequence[Entity], text: str) -> list[int]:
    """Return the places of those entities whose value does not stand in the document."""
    return [place for place, entity in enumerate(entities) if storable(entity.text) not in text]


def _last(session: Session, prediction_id: int) -> Feedback | None:
    of_this = select(Feedback).where(Feedback.prediction_id == prediction_id)
    return session.scalars(of_this.order_by(Feedback.id.desc()).limit(1)).one_or_none()


def _content(row: Feedback) -> tuple[str | None, str | None, str, str]:
    return row.label, row.entities, row.caller, row.comment
