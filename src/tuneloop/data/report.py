"""What there is to say about a dataset version: counts, proportions, lengths. Plain values only, ready for JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tuneloop.dataset import SPLITS, SplitName
from tuneloop.records import Dropped, Example

PERCENTILES = (0, 25, 50, 75, 90, 99, 100)

Splits = Mapping[SplitName, Sequence[Example]]


def describe(splits: Splits, dropped: Sequence[Dropped], labels: Sequence[str]) -> dict[str, Any]:
    """Return the counts of a finished split.

    `labels` and `entities` map each name to examples (values) per split; `text_chars` maps split to length percentiles
    in characters; `labels_missing` lists the labels that a split with examples has none of.
    """
    per_label = {side: Counter(e.label for e in splits[side] if e.label is not None) for side in SPLITS}
    per_type = {side: Counter(v.type for e in splits[side] for v in e.entities or ()) for side in SPLITS}
    types = sorted({name for counts in per_type.values() for name in counts})
    totals = Counter({name: sum(per_label[side][name] for side in SPLITS) for name in labels})
    kept = sum(len(splits[side]) for side in SPLITS)
    return {
        "examples": kept,
        "splits": {side: len(splits[side]) for side in SPLITS},
        "dropped": dict(sorted(Counter(row.reason for row in dropped).items())),
        "labels": {name: {side: per_label[side][name] for side in SPLITS} for name in labels},
        "labels_missing": {side: _missing(per_label[side], labels) for side in SPLITS if splits[side]},
        "largest_labels": dict(totals.most_common(3)),
        "largest_labels_share": round(sum(n for _, n in totals.most_common(3)) / kept, 4) if kept else 0.0,
        "entities": {name: {side: per_type[side][name] for side in SPLITS} for name in types},
        "text_chars": {side: _percentiles(len(e.text) for e in splits[side]) for side in SPLITS if splits[side]},
    }


def _missing(counts: Counter[str], labels: Sequence[str]) -> list[str]:
    return [name for name in labels if not counts[name]]


def _percentiles(lengths: Iterable[int]) -> dict[str, int]:
    values = np.percentile(np.fromiter(lengths, np.int64), PERCENTILES, method="nearest")
    return {f"p{percentile}": int(value) for percentile, value in zip(PERCENTILES, values, strict=True)}
