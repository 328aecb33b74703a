"""The 300 documents of attacks.jsonl, and what any answer to them has to be."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache

from tests.serve.make_attacks import FILE
from tuneloop.models.prompt import TaskPrompt
from tuneloop.records import Entity, Prediction


@cache
def attacks() -> tuple[tuple[str, str], ...]:
    """Return (id, text) of every document."""
    lines = FILE.read_text(encoding="ascii").splitlines()
    return tuple((row["id"], row["text"]) for row in map(json.loads, lines))


def unicode_attacks() -> list[tuple[str, str]]:
    """Return those that are text: halves of surrogate pairs cannot be in a file."""
    return [(id, text) for id, text in attacks() if not any("\ud800" <= c <= "\udfff" for c in text)]


def faults(task: TaskPrompt, texts: Sequence[str], answers: Sequence[Prediction], *, is_free: bool) -> list[str]:
    """Return what about the answers should not be possible; an empty list is what a test wants."""
    found = []
    for text, answer in zip(texts, answers, strict=True):
        if task.has_label and answer.label not in task.labels and not (is_free and answer.invented):
            found.append(f"{text!r}: label {answer.label!r} is outside the label set and not called so")
        if answer.invented and answer.route != "review":
            found.append(f"{text!r}: an invented label is not reviewed")
        if not 0 <= answer.probability <= 1:
            found.append(f"{text!r}: probability {answer.probability}")
        found += [f"{text!r}: {fault}" for fault in _entity_faults(task, text, answer)]
    return found


def _entity_faults(task: TaskPrompt, text: str, answer: Prediction) -> list[str]:
    if (answer.entities is None) != (not task.has_entities):
        return [f"entities are {answer.entities}"]
    found: list[Entity] = list(answer.entities or ())
    outside = [f"entity type {one.type!r}" for one in found if one.type not in task.entity_types]
    return outside + [f"offsets of {one}" for one in found if text[one.start : one.end] != one.text or not one.text]
