"""The regression suite is one and the same for `tuneloop evaluate` and for the gate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.train.projects import config_of, make_project, store_of, trained
from tuneloop.artifacts import Artifact
from tuneloop.config.schema import Config
from tuneloop.dataset import open_dataset
from tuneloop.errors import DataError
from tuneloop.evaluate import run as evaluation
from tuneloop.evaluate.gate.proofs import find_proofs
from tuneloop.evaluate.general.regression import RegressionResult
from tuneloop.evaluate.subjects.names import Subject
from tuneloop.loop import stages
from tuneloop.progress import SILENT

CASES = [
    {"name": "cat", "why": "w", "text": "It meows and purrs.", "expect": {"min_probability": 0.001}},
    {"name": "dog", "why": "w", "text": "It barks and wags.", "expect": {"not_label": "cow"}},
]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Artifact]:
    """A project with a finished run and two cases."""
    folder = tmp_path_factory.mktemp("suite")
    (folder / "cases").mkdir()
    (folder / "cases" / "all.yaml").write_text(yaml.safe_dump(CASES))
    config = config_of(make_project(folder / "p", rows=90), epochs=0.3, evaluate={"regression": folder / "cases"})
    return config, trained(config)


def gate_suite(config: Config, run: Artifact) -> Any:
    version = open_dataset(stages.find_dataset(config, store_of(config)))
    subject = Subject("tuned", "Tuned model", "run", run=run)
    return find_proofs(config, subject, version, store_of(config), SILENT)


def probabilities(result: RegressionResult) -> list[float]:
    return [one.prediction.probability for one in result.results]


def test_the_gate_and_evaluate_see_the_same_probabilities_before_and_after_calibrating(
    project: tuple[Config, Artifact],
) -> None:
    config, run = project
    before = stages.regression(config, store_of(config), SILENT)
    proofs = gate_suite(config, run)
    assert before is not None and proofs.cases is not None
    assert probabilities(proofs.cases()) == probabilities(before)
    assert not before.is_calibrated and before.to_dict()["calibrated"] is False
    stages.calibrate(config, store_of(config), SILENT)
    after, again = stages.regression(config, store_of(config), SILENT), gate_suite(config, run)
    assert after is not None and after.is_calibrated and again.cases().is_calibrated
    assert probabilities(after) == probabilities(again.cases())
    policy = stages.find_policy(config, run, store_of(config))
    assert policy is not None
    raw = stages.open_predictor(config, store_of(config), SILENT).predict([str(case["text"]) for case in CASES])
    assert probabilities(after) == [one.probability for one in policy.apply(raw)]
    assert proofs.cases_hash != again.cases_hash  # a verdict on other probabilities is another verdict


def test_a_case_is_held_to_the_labels_that_the_run_was_trained_with(
    project: tuple[Config, Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, run = project
    (tmp_path / "all.yaml").write_text(yaml.safe_dump([{**CASES[0], "expect": {"label": "newt"}}]))
    config = config.model_copy(update={"evaluate": config.evaluate.model_copy(update={"regression": tmp_path})})
    version = open_dataset(stages.find_dataset(config, store_of(config)))
    wider = type(version)(version.id, version.path, version.kind, (*version.labels, "newt"), ())
    subject = Subject("tuned", "Tuned model", "run", run=run)
    proofs = find_proofs(config, subject, wider, store_of(config), SILENT)
    assert proofs.cases is not None
    with pytest.raises(DataError, match="'newt' is not of this task"):
        proofs.cases()


def test_whether_there_is_a_validation_split_is_known_without_reading_it(
    project: tuple[Config, Artifact], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config, run = project
    none_held_back = config_of(make_project(tmp_path / "p", rows=60), epochs=0.3, data={"validation": 0.0})
    other = trained(none_held_back)
    monkeypatch.setattr("tuneloop.dataset.DatasetVersion.split", None)
    assert evaluation._has_validation(store_of(config), run)
    assert not evaluation._has_validation(store_of(none_held_back), other)
