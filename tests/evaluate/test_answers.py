from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.train.projects import Heard, config_of, make_project, prepared, store_of
from tuneloop.artifacts import Artifact
from tuneloop.dataset import open_dataset
from tuneloop.evaluate import answers
from tuneloop.evaluate.answers import Subject, ask, choose_shots, frozen_items, read_answers
from tuneloop.records import Entity, Example, Prediction

anything = st.text(st.characters())  # line separators, control characters and lone surrogates among them
entities = st.builds(Entity, type=anything, text=anything, start=st.integers(-1, 9), end=st.integers(-1, 9))
predictions = st.builds(
    Prediction,
    label=st.none() | anything,
    probability=st.floats(0, 1),
    entities=st.none() | st.lists(entities, max_size=3).map(tuple),
    rejected_entities=st.lists(entities, max_size=3).map(tuple),
    raw_text=anything,
    invented=st.booleans(),
    well_formed=st.booleans(),
    route=st.sampled_from(["auto", "review"]),
)
HOSTILE = "a\u2028b\u2029c\x85d\x0be\x0cf\x1cg\rh\ni\ud800j"


@given(st.lists(predictions, max_size=4))
def test_predictions_are_read_as_they_were_written(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Prediction]
) -> None:
    path = tmp_path_factory.mktemp("answers") / "closed.jsonl"
    answers._write(path, rows)
    assert answers._read(path) == rows


def test_line_separators_and_half_surrogates_of_a_model_stay_in_their_line(tmp_path: Path) -> None:
    rows = [Prediction(label=HOSTILE, probability=0.5, raw_text=HOSTILE), Prediction(label=None, probability=1.0)]
    answers._write(tmp_path / "x.jsonl", rows)
    assert len((tmp_path / "x.jsonl").read_bytes().split(b"\n")) == 3
    assert answers._read(tmp_path / "x.jsonl") == rows


def examples_of(counts: dict[str, int]) -> list[Example]:
    rows = [(label, n) for label, count in counts.items() for n in range(count)]
    return [Example(id=f"{label}{n}", text=f"{label} says {'so ' * (n % 7)}{n}", label=label) for label, n in rows]


@given(st.dictionaries(st.sampled_from("abcdef"), st.integers(4, 40), min_size=1), st.integers(0, 12), st.integers())
def test_shots_are_spread_over_the_labels_as_far_as_they_go(counts: dict[str, int], count: int, seed: int) -> None:
    pool = examples_of(counts)
    shots = choose_shots(pool, count, seed)
    assert len({shot.id for shot in shots}) == len(shots) <= count
    assert shots == choose_shots(list(reversed(pool)), count, seed), "the order of the pool must not matter"
    shown = Counter(shot.label for shot in shots)
    short = Counter(e.label for e in pool if len(e.text) <= sorted(len(e.text) for e in pool)[len(pool) // 2])
    for label, number in short.items():
        assert shown[label] >= min(number, max(shown.values(), default=0) - 1)


def test_shots_are_short_examples(project_dataset: Artifact) -> None:
    pool = open_dataset(project_dataset).split("train")
    median = sorted(len(example.text) for example in pool)[len(pool) // 2]
    assert all(len(shot.text) <= median for shot in choose_shots(pool, 6, 1))


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_project(tmp_path_factory.mktemp("answers") / "project", rows=60)


@pytest.fixture(scope="module")
def project_dataset(project: Path) -> Artifact:
    return prepared(config_of(project))


def test_few_shot_prompts_show_training_rows_only_and_zero_shot_ones_none(
    project: Path, project_dataset: Artifact
) -> None:
    config = config_of(project)
    version = open_dataset(project_dataset)
    shown = Subject("few-shot", project_dataset).task(config).shots
    assert len(shown) == config.evaluate.shots
    assert {shot.id for shot in shown} <= {example.id for example in version.split("train")}
    assert len({shot.label for shot in shown}) == 3
    assert Subject("zero-shot", project_dataset).task(config).shots == ()


def test_frozen_items_are_test_rows_in_one_order(project: Path, project_dataset: Artifact) -> None:
    version = open_dataset(project_dataset)
    test, train = ({example.id for example in version.split(name)} for name in ("test", "train"))
    all_items = frozen_items(config_of(project), project_dataset)
    assert {item.id for item in all_items} == test
    assert not test & train
    few = config_of(project, evaluate={"max_examples": 4})
    assert [i.id for i in frozen_items(few, project_dataset)] == [i.id for i in frozen_items(few, project_dataset)]
    assert {item.id for item in frozen_items(few, project_dataset)} < test


def test_a_subject_is_asked_once_and_its_answers_are_read_back(project: Path, project_dataset: Artifact) -> None:
    config, heard = config_of(project, evaluate={"max_examples": 5}), Heard()
    subject = Subject("zero-shot", project_dataset)
    artifact = ask(subject, config, store_of(config), heard)
    assert heard.lines == []
    again = ask(subject, config, store_of(config), heard)
    assert again.id == artifact.id
    assert heard.lines == [f"Base model, zero-shot: answered already ({artifact.id})."]
    read = read_answers(artifact)
    assert (read.name, len(read.closed), len(read.free or ()), len(read.latency_s)) == ("zero-shot", 5, 3, 5)
    assert {answer.label for answer in read.closed} <= {"cat", "dog", "cow"}
    assert all(0 <= answer.probability <= 1 for answer in read.closed)
    assert json.loads((artifact.path / "latency.json").read_text()) == list(read.latency_s)


def test_other_shots_ask_the_few_shot_subject_again_and_no_other(project: Path, project_dataset: Artifact) -> None:
    configs = [config_of(project, evaluate={"max_examples": 2, "shots": shots}) for shots in (1, 2)]
    ids = {
        name: {ask(Subject(name, project_dataset), config, store_of(config), Heard()).id for config in configs}
        for name in ("zero-shot", "few-shot")
    }
    assert (len(ids["zero-shot"]), len(ids["few-shot"])) == (1, 2)


def test_without_free_generation_none_is_read(project: Path, project_dataset: Artifact) -> None:
    config = config_of(project, evaluate={"max_examples": 2, "free_generation_examples": None})
    artifact = ask(Subject("zero-shot", project_dataset), config, store_of(config), Heard())
    assert read_answers(artifact).free is None
