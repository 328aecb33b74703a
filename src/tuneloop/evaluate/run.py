"""A run put to the test: every subject answers the same frozen items, and a report says what that comes to."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tuneloop.artifacts import Artifact, ArtifactStore, Build, StageResult, content_id
from tuneloop.config.schema import Config
from tuneloop.dataset import open_dataset
from tuneloop.errors import DataError
from tuneloop.evaluate.answers import Subject, ask, frozen_items, read_answers
from tuneloop.evaluate.compare import Comparison, SubjectAnswers, compare
from tuneloop.evaluate.report import write_report
from tuneloop.progress import Progress

KIND = "evaluation"
STAGE_VERSION = 1  # raise it when the same answers would give another report


def evaluate(config: Config, dataset: Artifact, run: Artifact, store: ArtifactStore, progress: Progress) -> StageResult:
    """Ask every subject, compare them, write results.json, report.html and report.md; or find it all done.

    Raises: ModelError, NetworkError: the base model cannot be had; DataError: there is nothing to evaluate on.
    """
    settings = config.evaluate
    if not frozen_items(config, dataset):
        raise DataError(
            "the test split is empty, so there is nothing to evaluate on",
            where=str(dataset.path),
            hint="Set data.test above 0 or add rows, then run `tuneloop data prepare` and `tuneloop train` again.",
        )
    subjects = [Subject(name, dataset, run if name == "tuned" else None) for name in settings.subjects]
    asked = {subject.name: ask(subject, config, store, progress) for subject in subjects}
    parents = {"dataset": dataset.id, "run": run.id, **{f"answers {name}": a.id for name, a in asked.items()}}
    inputs = {"stage_version": STAGE_VERSION, "parents": parents, "resamples": settings.bootstrap_resamples}
    id = content_id(KIND, inputs)
    if (artifact := store.find(KIND, id)) is not None:
        return StageResult(artifact, is_skipped=True)
    with store.build(KIND, id, parents=parents, inputs=inputs, seed=settings.seed) as build:
        answers: dict[str, SubjectAnswers] = {name: read_answers(artifact) for name, artifact in asked.items()}
        lineage = [one.manifest for one in (dataset, run, *asked.values())]
        _make(config, dataset, run, answers, lineage, build)
    return StageResult(store.get(id), is_skipped=False)


def _make(
    config: Config,
    dataset: Artifact,
    run: Artifact,
    answers: Mapping[str, SubjectAnswers],
    lineage: Sequence[Mapping[str, Any]],
    build: Build,
) -> None:
    version, items = open_dataset(dataset), frozen_items(config, dataset)
    comparison = compare(
        items,
        answers,
        labels=version.labels if version.kind != "extract" else (),
        entity_types=version.entity_types if version.kind != "classify" else (),
        resamples=config.evaluate.bootstrap_resamples,
        seed=config.evaluate.seed,
    )
    results = json.dumps(comparison.to_dict(), indent=1, ensure_ascii=False, allow_nan=False)
    (build.path / "results.json").write_text(results + "\n", encoding="utf-8")
    history = [json.loads(line) for line in (run.path / "history.jsonl").read_text().splitlines()]
    write_report(
        build.path,
        comparison,
        items=items,
        answers=answers,
        history=history,
        dataset_report=version.report,
        lineage=lineage,
    )
    build.summary.update(_summary(comparison))


def _summary(comparison: Comparison) -> dict[str, Any]:
    summary: dict[str, Any] = {"verdict": comparison.verdict.sentence, "items": comparison.n_items}
    for subject in comparison.subjects:
        if subject.closed is not None:
            accuracy = subject.closed.accuracy
            summary[f"accuracy {subject.name}"] = [
                round(x, 4) for x in (accuracy.estimate, accuracy.low, accuracy.high)
            ]
    return summary
