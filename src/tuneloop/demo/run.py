"""The demo, as one readable page: open licence documents in, a proven model out.

It does nothing that a user could not do with the same commands: it writes a data file and a configuration into a
folder, then runs the stages on them.
"""

from __future__ import annotations

import shutil
from importlib.resources import as_file, files
from pathlib import Path

from tuneloop.artifacts import ArtifactStore, StageResult
from tuneloop.config.load import load_config
from tuneloop.demo.licences import DIFFERENT_CATEGORIES, LicenceTable, build_licence_table
from tuneloop.loop import stages
from tuneloop.progress import Progress

CONFIG, DATA = "tuneloop.yaml", "licences.parquet"


def run_demo(folder: Path, progress: Progress) -> dict[str, StageResult]:
    """Run the demo in `folder`, going on where an earlier run stopped; an edited configuration there is respected.

    Returns: stage → result, in order.
    Raises: NetworkError: base model or data have to be fetched and cannot be; what the stages raise.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _lay_out_data(folder, progress)
    if not (folder / CONFIG).exists():
        with as_file(files("tuneloop.demo") / CONFIG) as template:
            shutil.copyfile(template, folder / CONFIG)
    config = load_config(folder / CONFIG, [])
    store = ArtifactStore(config.store.root / "artifacts")
    results = {}
    for name, stage in (("prepare", stages.prepare), ("train", stages.train), ("evaluate", stages.evaluate)):
        results[name] = stage(config, store, progress)
        if results[name].is_skipped:
            progress.say(f"{name}: done already ({results[name].artifact.kind} {results[name].artifact.id}).")
    return results


def _lay_out_data(folder: Path, progress: Progress) -> None:
    if (folder / DATA).exists():
        progress.say(f"data: laid out already ({folder / DATA}).")
        return
    table = build_licence_table(progress, folder)
    progress.say(_told(table))


def _told(table: LicenceTable) -> str:
    counts = table.counts
    return (
        f"{counts.kept:,} labelled licence documents of {counts.read:,} (ScanCode LicenseDB, CC-BY-4.0); left out: "
        f"{counts.dropped[DIFFERENT_CATEGORIES]:,} that join licences of different categories "
        f"({counts.expressions_of_different_categories:,} expressions), "
        f"{sum(counts.dropped.values()) - counts.dropped[DIFFERENT_CATEGORIES]:,} for other reasons."
    )
