"""`tuneloop data inspect`: what is in a dataset version, and what is not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from tuneloop.cli import options
from tuneloop.errors import ArtifactError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from tuneloop.artifacts import Artifact, ArtifactStore
    from tuneloop.dataset import DatasetVersion, SplitName
    from tuneloop.records import Dropped, Example

EPILOG = options.example("tuneloop data inspect", "tuneloop data inspect 3f9a --dropped 20")
LABELS_SHOWN = 30
TEXT_SHOWN_CHARS = 100

Splits = Mapping["SplitName", Sequence["Example"]]


def inspect(
    id: Annotated[str | None, typer.Argument(metavar="ID", help="A dataset version; the newest if left out.")] = None,
    overrides: options.Overrides = None,
    config: options.ConfigPath = options.DEFAULT_CONFIG,
    sets: options.Sets = None,
    samples: Annotated[int, typer.Option("--samples", min=0, help="How many examples to show.")] = 3,
    dropped: Annotated[int, typer.Option("--dropped", min=0, help="How many dropped rows to show.")] = 5,
    as_json: options.Json = False,
) -> None:
    """Show a dataset version: splits, labels, what was dropped and why, and a few examples."""
    from tuneloop.cli.session import open_session, split_id
    from tuneloop.dataset import SPLITS, open_dataset

    id, overrides = split_id(id, overrides)
    session = open_session(config, overrides, sets, as_json=as_json, needs_file=False)
    dataset = open_dataset(_newest(session.store) if id is None else session.store.get(id))
    splits = {name: dataset.split(name) for name in SPLITS}
    left_out = dataset.dropped()
    data = {
        "id": dataset.id,
        "path": str(dataset.path),
        "kind": dataset.kind,
        "labels": list(dataset.labels),
        "entity_types": list(dataset.entity_types),
        "splits": {name: len(examples) for name, examples in splits.items()},
        "label_counts": {name: Counter(e.label for e in rows if e.label) for name, rows in splits.items()},
        "report": dict(dataset.report),
        "samples": [_described(example) for example in splits["train"][:samples]],
        "dropped": [
            {"source": d.source, "row": d.row, "reason": d.reason, "detail": d.detail} for d in left_out[:dropped]
        ],
    }
    session.finish(data, *_rendering(dataset, splits, samples, left_out, dropped))


def _newest(store: ArtifactStore) -> Artifact:
    datasets = [artifact for artifact in store if artifact.kind == "dataset"]
    if datasets:
        return datasets[-1]
    raise ArtifactError(
        "there is no dataset version yet", where=str(store.root), hint="Make one: `tuneloop data prepare`."
    )


def _described(example: Example) -> dict[str, object]:
    entities = None if example.entities is None else [{"type": e.type, "text": e.text} for e in example.entities]
    place = {"source": example.source, "row": example.row}
    return {"id": example.id, "text": example.text, "label": example.label, "entities": entities, **place}


def _rendering(
    dataset: DatasetVersion, splits: Splits, samples: int, left_out: Sequence[Dropped], dropped: int
) -> Iterator[RenderableType]:
    from tuneloop.cli.render import number, table

    sizes = ", ".join(f"{name} {number(len(examples))}" for name, examples in splits.items())
    yield f"dataset {dataset.id} ({dataset.kind}): {sizes}"
    yield f"  {dataset.path}"
    if dataset.labels:
        yield ""
        yield from _label_table(
            splits, "label", {n: Counter(e.label or "" for e in rows) for n, rows in splits.items()}
        )
    if dataset.entity_types:
        yield ""
        counts = {name: Counter(x.type for e in rows for x in e.entities or ()) for name, rows in splits.items()}
        yield from _label_table(splits, "entity type", counts)
    for example in splits["train"][:samples]:
        yield ""
        yield (
            f"{example.source}:{example.row}  label {example.label!r}"
            if example.label
            else f"{example.source}:{example.row}"
        )
        yield f"  {_clipped(example.text)}"
        for entity in example.entities or ():
            yield f"  {entity.type}: {_clipped(entity.text)}"
    reasons = Counter(row.reason for row in left_out)
    yield ""
    counted = ", ".join(f"{reason} {number(count)}" for reason, count in reasons.most_common())
    yield f"Dropped: {number(len(left_out))}{' (' + counted + ')' if counted else ''}"
    if left_out[:dropped]:
        yield table(
            ["source", "row", "reason", "detail"], [[d.source, d.row, d.reason, d.detail] for d in left_out[:dropped]]
        )


def _label_table(splits: Splits, heading: str, counts: Mapping[SplitName, Counter[str]]) -> Iterator[RenderableType]:
    from tuneloop.cli.render import number, table

    totals = sum(counts.values(), Counter[str]())
    rows = [[name, *(counts[split][name] for split in splits)] for name, _ in totals.most_common(LABELS_SHOWN)]
    yield table([heading, *splits], rows)
    if len(totals) > LABELS_SHOWN:
        yield f"and {number(len(totals) - LABELS_SHOWN)} more (--json lists all)"


def _clipped(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= TEXT_SHOWN_CHARS else flat[: TEXT_SHOWN_CHARS - 1] + "…"
