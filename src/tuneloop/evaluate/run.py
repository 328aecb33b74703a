"""Models put to the test: every subject answers the same frozen items, and a report says what that comes to."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tuneloop.artifacts import Artifact, ArtifactStore, Build, StageResult, content_id
from tuneloop.config.schema import Config
from tuneloop.dataset import DatasetVersion, open_dataset
from tuneloop.errors import DataError, UsageError
from tuneloop.evaluate.calibration.stage import calibrate, open_policy, read_evidence
from tuneloop.evaluate.comparison.compare import Comparison, SubjectAnswers, compare
from tuneloop.evaluate.report.card import CardFacts, write_card
from tuneloop.evaluate.report.report import Recalibration, write_report
from tuneloop.evaluate.subjects.answers import ask, frozen_items, read_answers
from tuneloop.evaluate.subjects.names import Subject, parse_subject
from tuneloop.metrics import calibration
from tuneloop.progress import Progress
from tuneloop.records import Example, Prediction
from tuneloop.runs import history_of

KIND = "evaluation"
STAGE_VERSION = 4  # raise it when the same answers would give another report


@dataclass(frozen=True)
class Asked:
    """A subject, the artifact with its answers and, for a tuned model, the one with its calibration."""

    subject: Subject
    answers: Artifact
    calibration: Artifact | None = None

    def read(self, config: Config) -> SubjectAnswers:
        """Return the answers under the subject's name, calibrated where there is a calibration."""
        policy = None if self.calibration is None else open_policy(self.calibration)
        found = read_answers(self.answers, config.evaluate, policy, config.review.uncalibrated_threshold)
        return replace(found, name=self.subject.name, title=self.subject.title)

    def recalibration(
        self, config: Config, items: Sequence[Example], after: Sequence[Prediction]
    ) -> Recalibration | None:
        """Return what the calibration did to the probabilities of these items, where there is one.

        Args: after: the calibrated closed answers, as `read` returns them.
        """
        if self.calibration is None:
            return None
        settings = {"resamples": config.evaluate.bootstrap_resamples, "seed": config.evaluate.seed}
        return Recalibration(
            before=calibration(items, read_answers(self.answers).closed, **settings),
            after=calibration(items, after, **settings),
            sentences=tuple(read_evidence(self.calibration)["sentences"]),
        )


def evaluate(config: Config, dataset: Artifact, run: Artifact, store: ArtifactStore, progress: Progress) -> StageResult:
    """Compare the configured subjects, `run` as the candidate; see `compare_subjects`."""
    subjects = [parse_subject(name, store, lambda: run) for name in config.evaluate.subjects]
    return compare_subjects(config, dataset, subjects, store, progress, candidate="tuned")


def compare_subjects(
    config: Config,
    dataset: Artifact,
    subjects: Sequence[Subject],
    store: ArtifactStore,
    progress: Progress,
    candidate: str | None = None,
) -> StageResult:
    """Ask every subject, compare them, write results.json, report.html and report.md; or find it all done.

    Raises: ModelError, NetworkError: a model cannot be had; DataError: there is nothing to evaluate on, or a file of
        answers is wrong; UsageError: a subject is named twice.
    """
    settings = config.evaluate
    items = frozen_items(config, dataset)
    if not items:
        raise DataError(
            "the test split is empty, so there is nothing to evaluate on",
            where=str(dataset.path),
            hint="Set data.test above 0 or add rows, then run `tuneloop data prepare` and `tuneloop train` again.",
        )
    asked = ask_all(config, dataset, subjects, store, progress)
    parents = _parents(dataset, asked)
    inputs = {
        "stage_version": STAGE_VERSION,
        "parents": parents,
        "candidate": candidate,
        "resamples": settings.bootstrap_resamples,
        "prices": settings.model_dump(mode="json", include={"prices", "machine_usd_per_hour"}),
        "threshold": config.review.threshold,
    }
    id = content_id(KIND, inputs)
    if (artifact := store.find(KIND, id)) is not None:
        return StageResult(artifact, is_skipped=True)
    with store.build(KIND, id, parents=parents, inputs=inputs, seed=settings.seed) as build:
        _make(config, dataset, items, asked, candidate, build)
    return StageResult(store.get(id), is_skipped=False)


def ask_all(
    config: Config, dataset: Artifact, subjects: Sequence[Subject], store: ArtifactStore, progress: Progress
) -> list[Asked]:
    """Return the answers of every subject, and the calibration of every tuned one.

    Raises: as `compare_subjects`.
    """
    names = [subject.name for subject in subjects]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(
                f"{name!r} is there twice", where="the subjects to compare", hint="Name each of them once."
            )
    return [_asked(config, dataset, subject, store, progress) for subject in subjects]


def _asked(config: Config, dataset: Artifact, subject: Subject, store: ArtifactStore, progress: Progress) -> Asked:
    answers = ask(subject, config, dataset, store, progress)
    if subject.run is None or not _has_validation(store, subject.run):
        return Asked(subject, answers)
    learnt = store.get(subject.run.parents["dataset"])
    return Asked(subject, answers, calibrate(config, learnt, subject.run, store, progress).artifact)


def _has_validation(store: ArtifactStore, run: Artifact) -> bool:
    return bool(store.get(run.parents["dataset"]).summary["splits"]["validation"])


def _parents(dataset: Artifact, asked: Sequence[Asked]) -> dict[str, str]:
    runs = {one.subject.name: one.subject.run.id for one in asked if one.subject.run is not None}
    calibrations = {one.subject.name: one.calibration.id for one in asked if one.calibration is not None}
    return {
        "dataset": dataset.id,
        **({"run": runs["tuned"]} if "tuned" in runs else {}),
        **{f"run {name}": id for name, id in runs.items() if name != "tuned"},
        **{f"answers {one.subject.name}": one.answers.id for one in asked},
        **{f"calibration {name}": id for name, id in calibrations.items()},
    }


def _make(
    config: Config,
    dataset: Artifact,
    items: Sequence[Example],
    asked: Sequence[Asked],
    candidate: str | None,
    build: Build,
) -> None:
    version = open_dataset(dataset)
    answers = {one.subject.name: one.read(config) for one in asked}
    comparison = compare(
        items,
        answers,
        labels=version.labels if version.kind != "extract" else (),
        entity_types=version.entity_types if version.kind != "classify" else (),
        candidate=candidate,
        resamples=config.evaluate.bootstrap_resamples,
        seed=config.evaluate.seed,
    )
    results = json.dumps(comparison.to_dict(), indent=1, ensure_ascii=False, allow_nan=False)
    (build.path / "results.json").write_text(results + "\n", encoding="utf-8")
    shown = next((one for one in asked if one.subject.name == comparison.reference), asked[0])
    lineage = [artifact.manifest for artifact in _lineage(dataset, asked)]
    judged = asked if version.kind != "extract" else []
    changes = {
        name: one.recalibration(config, items, answers[name].closed) for one in judged for name in [one.subject.name]
    }
    write_report(
        build.path,
        comparison,
        items=items,
        answers=answers,
        history=history_of(shown.subject.run) if shown.subject.run else [],
        dataset_report=version.report,
        lineage=lineage,
        recalibrations={name: change for name, change in changes.items() if change is not None},
    )
    if shown.subject.run is not None:
        write_card(build.path, comparison, _facts(config, version, shown.subject.run, lineage))
    build.summary.update(_summary(comparison))


def _facts(config: Config, version: DatasetVersion, run: Artifact, lineage: Sequence[Mapping[str, Any]]) -> CardFacts:
    """Return what the model card of a run says beside the figures."""
    from tuneloop.models.embedded import HUB_NAME, LICENCE

    is_embedded = config.model.base_model == "embedded"
    return CardFacts(
        name=f"{config.task.kind} {run.id[:8]}",
        base_model=HUB_NAME if is_embedded else config.model.base_model,
        task=version.kind,
        instruction=config.task.instruction,
        licence=LICENCE if is_embedded else None,
        dataset_id=version.id,
        dataset_report=version.report,
        settings=run.manifest["inputs"]["train"],
        lineage=lineage,
    )


def _lineage(dataset: Artifact, asked: Sequence[Asked]) -> list[Artifact]:
    runs = [one.subject.run for one in asked if one.subject.run is not None]
    calibrations = [one.calibration for one in asked if one.calibration is not None]
    return [dataset, *runs, *(one.answers for one in asked), *calibrations]


def _summary(comparison: Comparison) -> dict[str, Any]:
    summary: dict[str, Any] = {"verdict": comparison.verdict.sentence, "items": comparison.n_items}
    for subject in comparison.subjects:
        if subject.closed is not None:
            accuracy = subject.closed.accuracy
            summary[f"accuracy {subject.name}"] = [
                round(x, 4) for x in (accuracy.estimate, accuracy.low, accuracy.high)
            ]
    return summary
