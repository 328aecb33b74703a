"""A parity result in sentences, and several as a table: for a terminal, and as Markdown."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tuneloop.export.parity.prompts import PromptParity
from tuneloop.export.parity.scores import Differences
from tuneloop.stats import Interval

if TYPE_CHECKING:
    from tuneloop.export.parity.result import ParityResult

NONE = "–"
HEADINGS = (
    "form",
    "prompts equal",
    "labels agree (%)",
    "median Δ p",
    "largest Δ nats",
    "accuracy (%)",
    "Δ points",
    "entity F1",
    "docs/s",
    "verdict",
)
MARKDOWN_SIGNS = re.compile(r"([\\`*_{}\[\]()<>#+!|~-])")


def sentence_of(result: ParityResult) -> str:
    """Return the verdict: what a manager has to know about this form."""
    if result.beyond:
        return f"beyond tolerance: {result.other}: {'; '.join(result.beyond)}"
    if result.labels is None:
        return f"{result.other} answers as {result.reference} does on {result.n:,} documents"
    agreement = result.labels.agreement
    return (
        f"{result.other} answers as {result.reference} does: {result.labels.same:,} of {result.n:,} labels agree "
        f"({percent(agreement.estimate)}, {100 * agreement.confidence:.0f} % interval {_range(agreement)})"
    )


def departure_words(prompts: PromptParity) -> str:
    """Return where the prompts depart first, with both sides of the place."""
    first = prompts.first
    if first is None:
        return "equal prompts"
    same, unit = (prompts.same_text, "character") if first.what == "template" else (prompts.same_tokens, "token")
    what = "another prompt text" if first.what == "template" else "other tokens for the same prompt text"
    return (
        f"{what} on {prompts.n - same:,} of {prompts.n:,} documents: item {first.item} ({first.item_id}) departs at "
        f"{unit} {first.index}, where the reference has [{first.expected}] and this one [{first.found}]"
    )


def table_of(results: Sequence[ParityResult]) -> tuple[list[str], list[list[str]]]:
    """Return headings, and one row per form, that of the reference first; columns that nobody has a figure in are left
    out.

    Δ p is the difference of the answers' probabilities, Δ nats that of label log-scores, Δ points that of accuracy;
    entity F1 is that with the reference's entities as truth.
    """
    rows = [*([_reference_row(results[0])] if results else []), *map(_row, results)]
    shown = [column for column in range(len(HEADINGS)) if any(row[column] not in ("", NONE) for row in rows)]
    return [HEADINGS[column] for column in shown], [[row[column] for column in shown] for row in rows]


def as_markdown(results: Sequence[ParityResult]) -> str:
    """Return a page: the table, and below it every verdict with its likely causes."""
    headings, rows = table_of(results)
    lines = ["# Parity", "", f"| {' | '.join(headings)} |", f"|---|{'---:|' * (len(headings) - 1)}"]
    lines += [f"| {' | '.join(map(_markdown, row))} |" for row in rows]
    for result in results:
        lines += ["", f"**{_markdown(result.other)}**: {_markdown(result.sentence)}."]
        lines += [f"Likely cause: {_markdown(cause)}." for cause in result.causes]
        lines += [f"Note: {_markdown(note)}." for note in result.notes]
    return "\n".join([*lines, ""])


def percent(share: float) -> str:
    """Return 0.9947 as "99.5 %"; a dash for NaN."""
    return NONE if math.isnan(share) else f"{100 * share:.1f} %"


def _reference_row(result: ParityResult) -> list[str]:
    accuracy = NONE if result.accuracy is None else _points(result.accuracy.reference)
    entity = NONE if result.entities is None else "1.000"
    speed = f"{result.reference_speed.documents_per_s:,.1f}"
    return [result.reference, "", "", "", "", accuracy, "", entity, speed, "reference"]


def _row(result: ParityResult) -> list[str]:
    prompts, labels, accuracy = result.prompts, result.labels, result.accuracy
    return [
        result.other,
        f"{prompts.same_tokens:,} of {prompts.n:,}" if prompts.is_known else "not told",
        NONE if labels is None else _points(labels.agreement),
        _figure(result.probabilities, "median", 4),
        _figure(result.scores, "largest", 3),
        NONE if accuracy is None else _points(accuracy.other),
        NONE if accuracy is None else _points(accuracy.difference, sign="+"),
        NONE if result.entities is None else f"{result.entities.agreement_f1.estimate:.3f}",
        f"{result.other_speed.documents_per_s:,.1f}",
        "within" if result.is_within else "BEYOND",
    ]


def _points(interval: Interval, sign: str = "") -> str:
    """Return "84.0 (79.4 to 87.7)", in percent or points."""
    return f"{100 * interval.estimate:{sign}.1f} ({_range(interval, sign)})"


def _range(interval: Interval, sign: str = "") -> str:
    return f"{100 * interval.low:{sign}.1f} to {100 * interval.high:{sign}.1f}"


def _figure(differences: Differences | None, name: str, digits: int) -> str:
    return NONE if differences is None else f"{getattr(differences, name):.{digits}f}"


def _markdown(text: str) -> str:
    """Return text in one line that means nothing to Markdown or HTML: ids and labels come from users' files."""
    return MARKDOWN_SIGNS.sub(r"\\\1", " ".join(text.split())).replace("&", "&amp;")
