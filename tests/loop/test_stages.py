from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Finished
from tests.train.projects import config_of, make_project, prepared, store_of, trained, write_yaml
from tuneloop.errors import ArtifactError, ModelError
from tuneloop.loop import stages
from tuneloop.progress import SILENT


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return make_project(tmp_path / "project", rows=60)


def test_training_before_preparing_says_which_command_comes_first(project: Path) -> None:
    config = config_of(project)
    with pytest.raises(ArtifactError, match="there is no dataset for this configuration yet") as caught:
        stages.train(config, store_of(config), SILENT)
    assert "`tuneloop data prepare`" in caught.value.hint
    prepared(config)
    assert not stages.train(config, store_of(config), SILENT).is_skipped


def test_evaluating_before_training_ends_in_three_lines_that_name_the_command(
    project: Path, tuneloop: Callable[..., Finished]
) -> None:
    config = config_of(project)
    prepared(config)
    done = tuneloop("evaluate", "--config", write_yaml(config, project / "tuneloop.yaml"))
    assert done.code == 1
    assert "there is no run for" in done.err
    assert "`tuneloop train`" in done.err
    assert "Traceback" not in done.err


def test_a_run_of_other_settings_is_not_taken_for_this_one(project: Path) -> None:
    trained(config_of(project, epochs=0.3))
    other = config_of(project, epochs=0.2)
    with pytest.raises(ArtifactError, match=r"there is no run for .* other .*settings"):
        stages.evaluate(other, store_of(other), SILENT)


def test_a_predictor_answers_with_the_adapter_and_the_prompt_of_its_run(project: Path) -> None:
    config = config_of(project, epochs=6.0, learning_rate=1e-2)
    run = trained(config)
    predictor = stages.open_predictor(config, store_of(config), SILENT)
    texts = ["Bo5 is number 1 and meows and purrs.", "Bo6 is number 2 and barks and wags."]
    assert [answer.label for answer in predictor.predict(texts)] == ["cat", "dog"]
    reworded = config_of(project, instruction="Something else altogether.")
    named = stages.open_predictor(reworded, store_of(config), SILENT, run)
    assert named.task.instruction == config.task.instruction


def test_a_run_on_another_base_model_is_refused(project: Path, tmp_path: Path) -> None:
    from tests.models.tiny import make_tiny_model

    config = config_of(project, epochs=0.3)
    run = trained(config)
    other = make_tiny_model(tmp_path / "other", "qwen2")
    moved = config_of(project, epochs=0.3, model={"base_model": str(other)})
    with pytest.raises(ModelError, match="trained on another base model"):
        stages.open_predictor(moved, store_of(config), SILENT, run)
