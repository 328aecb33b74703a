"""Served answers as rows of the store, and how rows get there: redacted, in one statement, each only once."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import StatementError

from tuneloop.records import UNSTATED_PROBABILITY, Entity
from tuneloop.serve.log import Entry, Served, ServedText
from tuneloop.serve.redaction import RedactionPolicy, text_sha256
from tuneloop.serve.spool import REFUSED, read_spool, spool, spooled
from tuneloop.store.database import Database, storable
from tuneloop.store.tables import ServedPrediction

Row = dict[str, Any]
BROKEN = ".broken"


def row_of(served: Entry, policy: RedactionPolicy) -> Row:
    """Return what is stored of an answer."""
    content = _content_of_text(served, policy) if isinstance(served, ServedText) else _content(served, policy)
    return {
        "request_id": storable(served.request_id),
        "item": served.item,
        "created_at": served.at,
        "caller": served.caller,
        "model": served.model,
        "version": served.version,
        "redaction": policy.kind,
        "latency_s": served.latency_s,
        "tokens": served.tokens,
        **content,
    }


def _content(served: Served, policy: RedactionPolicy) -> Row:
    """Return what is particular to a document. A label that the model made up is part of it as far as we know."""
    prediction = served.prediction
    redacted = policy.document(served.text, prediction.entities)
    label = prediction.label
    if label is not None and prediction.invented:
        label = policy.value(label)
    return {
        "kind": "predict",
        "text": None if redacted.text is None else storable(redacted.text),
        "text_sha256": redacted.sha256,
        "answer": None,
        "label": None if label is None else storable(label),
        "probability": prediction.probability,
        "route": prediction.route,
        "reason": prediction.reason,
        "entities": entities_as_json(redacted.entities),
    }


def _content_of_text(served: ServedText, policy: RedactionPolicy) -> Row:
    """Return what is particular to a generated text. Messages are masked one by one: masks could break their JSON."""
    mask: Callable[[str], str] = policy.remark if policy.kind == "mask" else str
    if isinstance(served.prompt, str):
        text = storable(mask(served.prompt))
    else:
        said = [{"role": turn.role, "content": storable(mask(turn.content))} for turn in served.prompt]
        text = json.dumps(said, ensure_ascii=False)
    is_kept = policy.kind in ("none", "mask")
    return {
        "kind": "completion" if isinstance(served.prompt, str) else "chat",
        "text": text if is_kept else None,
        "text_sha256": None if policy.kind == "drop" else text_sha256(text),
        "answer": storable(mask(served.answer)) if is_kept else None,
        "label": None,
        "probability": UNSTATED_PROBABILITY,
        "route": "auto",
        "reason": served.ended,
        "entities": None,
    }


def entities_as_json(entities: Sequence[Entity] | None) -> str | None:
    """Return entities as one JSON list, None where there was no search for any."""
    if entities is None:
        return None
    return json.dumps([asdict(entity) | {"text": storable(entity.text)} for entity in entities], ensure_ascii=False)


def insert_rows(database: Database, rows: Sequence[Row]) -> None:
    """Write rows in one transaction; those that are there already stay as they are. Raises: StorageError."""
    if not rows:
        return
    with database.writing() as session:
        connection = session.connection()
        dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
        connection.execute(dialect.insert(ServedPrediction).on_conflict_do_nothing(), list(rows))


def insert_each(database: Database, rows: Sequence[Row], folder: Path) -> list[str]:
    """Write rows one by one; those that the store will never take go to a file. Returns why, once for each of those.

    Raises: StorageError: the store is away, and the rows may be written again later.
    """
    refused, why = [], []
    for row in rows:
        try:
            insert_rows(database, [row])
        except StatementError as error:  # says nothing of the row's content, which is in the file
            refused.append(row)
            why.append(type(error.orig or error).__name__)
    if refused:
        spool(folder, refused, REFUSED)
    return why


def take_up(database: Database, folder: Path) -> list[str]:
    """Write the rows that earlier services left on disk, and remove their files. Returns what could not be done.

    Raises: StorageError: the store is away; the files stay for the next time.
    """
    troubles = []
    for path in spooled(folder):
        try:
            rows = read_spool(path)
        except (ValueError, KeyError, TypeError) as error:
            path.rename(path.with_suffix(BROKEN))
            troubles.append(f"{path.name} is damaged ({type(error).__name__})")
            continue
        troubles += insert_each(database, rows, folder) if _is_refused(database, rows) else []
        path.unlink(missing_ok=True)
    return troubles


def _is_refused(database: Database, rows: Sequence[Row]) -> bool:
    """Try to write all rows at once; returns whether that is impossible."""
    try:
        insert_rows(database, rows)
    except StatementError:
        return True
    return False
