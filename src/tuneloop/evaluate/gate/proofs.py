"""What is known about a candidate beside its answers: what it forgot, and the regression suite it has to pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from tuneloop.artifacts import Artifact, ArtifactStore, content_id
from tuneloop.config.schema import Config
from tuneloop.dataset import DatasetVersion
from tuneloop.evaluate.gate.evidence import GeneralChange, SuiteResult
from tuneloop.evaluate.gate.record import Proofs
from tuneloop.evaluate.general.regression import Case, read_cases
from tuneloop.evaluate.general.suite import run_suite, suite_calibration
from tuneloop.evaluate.subjects.names import Subject
from tuneloop.models.prompt import TaskPrompt
from tuneloop.progress import Progress


def find_proofs(
    config: Config, candidate: Subject, version: DatasetVersion, store: ArtifactStore, progress: Progress
) -> Proofs:
    """Return what was measured of the candidate's general ability, and a way to run the regression suite.

    General ability takes long, so it is looked up and never measured here; the suite runs when the gate needs it.
    """
    found = general_artifacts(candidate.run, store)
    change = None if found is None else _change(config, *found)
    roles = {} if found is None else {"general base": found[0].id, "general tuned": found[1].id}
    can_answer = candidate.model in ("run", "base", "model") and candidate.prompt == "zero-shot"
    if config.evaluate.regression is None or config.gate.regression_cases == "ignore" or not can_answer:
        return Proofs(forgetting=change, artifacts=roles)
    cases = read_cases(config.evaluate.regression)
    run: Callable[[], SuiteResult] = partial(_run_suite, config, candidate, version, cases, store, progress)
    calibration = suite_calibration(config, candidate.run, store)
    asked = {"cases": [repr(case) for case in cases], "calibration": None if calibration is None else calibration.id}
    hashed = content_id("cases", asked)
    return Proofs(forgetting=change, artifacts=roles, cases=run, cases_hash=hashed)


def general_artifacts(run: Artifact | None, store: ArtifactStore) -> tuple[Artifact, Artifact] | None:
    """Return the newest general scores of base and run that were measured in the same way; None without a pair."""
    from tuneloop.evaluate.general.measure import KIND

    measured = [artifact for artifact in store if artifact.kind == KIND]
    for tuned in reversed(measured):
        if run is None or tuned.parents.get("run") != run.id:
            continue
        wanted = {**tuned.manifest["inputs"], "run": None}
        base = next((artifact for artifact in measured if artifact.manifest["inputs"] == wanted), None)
        if base is not None:
            return base, tuned
    return None


def _change(config: Config, base: Artifact, tuned: Artifact) -> GeneralChange:
    from tuneloop.evaluate.general.forgetting import forgetting
    from tuneloop.evaluate.general.measure import read_general

    return forgetting(read_general(base), read_general(tuned), seed=config.evaluate.seed)


def _run_suite(
    config: Config,
    candidate: Subject,
    version: DatasetVersion,
    cases: Sequence[Case],
    store: ArtifactStore,
    progress: Progress,
) -> SuiteResult:
    from tuneloop.infer.opening import open_run, open_untuned

    if candidate.run is not None:
        predictor = open_run(config, candidate.run, progress)
    else:
        task = TaskPrompt.for_dataset(config.task, version)
        predictor = open_untuned(config, task, progress, candidate.model_path)
    return run_suite(config, cases, predictor, predictor.task, candidate.run, store, progress)
