"""Rules about the whole set of examples: one label per text, each text once, enough examples of every label.

Every function returns what it kept and what it dropped, and each dropped row says which row stands for it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from tuneloop.data.validate import OR_DROP, Rejected
from tuneloop.records import Dropped, Example

DUPLICATE = "duplicate"
CONFLICT = "conflicting-label"
RARE = "rare-label"

Kept = list[Example]


def drop_conflicts(examples: Sequence[Example]) -> tuple[Kept, list[Dropped]]:
    """Keep, for a text that comes with several labels, the rows with the label that most of its rows have.

    On a tie all of its rows are dropped: neither answer is better founded.
    """
    labels: dict[str, Counter[str]] = defaultdict(Counter)
    for example in examples:
        labels[example.text][example.label or ""] += 1
    winners = {text: _majority(counts) for text, counts in labels.items() if len(counts) > 1}
    if not winners:
        return list(examples), []
    first: dict[str, str] = {}
    for example in examples:
        if example.label == winners.get(example.text):
            first.setdefault(example.text, example.id)
    kept, dropped = [], []
    for example in examples:
        if example.text not in winners or example.label == winners[example.text]:
            kept.append(example)
        else:
            detail = f"the same text is labelled {_counted(labels[example.text])}"
            dropped.append(_drop(example, CONFLICT, detail, kept=first.get(example.text, "")))
    return kept, dropped


def drop_duplicates(examples: Sequence[Example]) -> tuple[Kept, list[Dropped]]:
    """Keep the first row of every text. Expects that no text has two labels."""
    first: dict[str, Example] = {}
    kept, dropped = [], []
    for example in examples:
        original = first.setdefault(example.text, example)
        if original is example:
            kept.append(example)
            continue
        differs = "; its entities differ" if original.entities != example.entities else ""
        detail = f"the same text as {original.source}:row {original.row}{differs}"
        dropped.append(_drop(example, DUPLICATE, detail, kept=original.id, score=1.0))
    return kept, dropped


def reject_rare_labels(examples: Sequence[Example], at_least: int) -> tuple[Kept, list[Rejected]]:
    """Reject every row of a label that has fewer than `at_least` examples."""
    counts = Counter(example.label for example in examples if example.label is not None)
    rare = {label: count for label, count in counts.items() if count < at_least}
    kept = [example for example in examples if example.label not in rare]
    rejected = []
    for example in examples:
        if example.label in rare:
            have = f"{rare[example.label]} example{'s' if rare[example.label] > 1 else ''}"
            detail = f"label {example.label!r} has {have} (duplicates not counted), data.min_per_label is {at_least}"
            hint = (
                f"Add examples of {example.label!r}, merge it into another label, lower data.min_per_label, {OR_DROP}."
            )
            rejected.append(Rejected(_drop(example, RARE, detail), f"{example.source}:row {example.row}", hint))
    return kept, rejected


def _majority(counts: Counter[str]) -> str | None:
    (label, most), (_, second) = counts.most_common(2)
    return label if most > second else None


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{label!r} ({count} times)" for label, count in sorted(counts.items()))


def _drop(example: Example, reason: str, detail: str, kept: str = "", score: float = float("nan")) -> Dropped:
    return Dropped(
        id=example.id,
        reason=reason,
        detail=detail,
        source=example.source,
        row=example.row,
        kept=kept,
        score=score,
    )
