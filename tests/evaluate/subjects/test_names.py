from __future__ import annotations

from pathlib import Path

import pytest

from tuneloop.artifacts import Artifact, ArtifactStore
from tuneloop.errors import ArtifactError, UsageError
from tuneloop.evaluate.subjects.names import Subject, parse_subject


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    store = ArtifactStore(tmp_path)
    for kind, id in (("run", "abc123def4567890"), ("run", "abd5"), ("dataset", "fe01")):
        with store.build(kind, id, parents={}, inputs={}):
            pass
    return store


def parsed(text: str, store: ArtifactStore) -> Subject:
    def tuned() -> Artifact:
        return store.get("abd5")

    return parse_subject(text, store, tuned)


def test_the_base_model_is_asked_in_three_ways(store: ArtifactStore) -> None:
    for text, prompt in (("base", "zero-shot"), ("zero-shot", "zero-shot"), ("few-shot", "few-shot")):
        subject = parsed(text, store)
        assert (subject.name, subject.model, subject.prompt) == (prompt, "base", prompt)
    assert parsed("retrieved", store).title == "Base model, retrieved few-shot"


def test_runs_are_named_by_the_configuration_or_by_the_beginning_of_their_id(store: ArtifactStore) -> None:
    assert parsed("tuned", store).run == store.get("abd5")
    subject = parsed("run:abc", store)
    assert subject.name == "run:abc123de" and subject.run is not None and subject.run.id == "abc123def4567890"


def test_a_run_is_the_same_subject_however_few_digits_name_it(store: ArtifactStore) -> None:
    assert parsed("run:abc", store) == parsed("run:abc123def", store)


def test_models_apis_and_files_may_have_a_way_of_asking_before_them(store: ArtifactStore) -> None:
    assert parsed("model:out/merged/", store).title == "merged"
    api = parsed("few-shot@api:http://127.0.0.1:8000/v1#my-model", store)
    assert api.endpoint is not None
    assert (api.endpoint.base_url, api.endpoint.model, api.prompt) == (
        "http://127.0.0.1:8000/v1", "my-model", "few-shot",
    )  # fmt: skip
    assert api.title == "my-model, few-shot"
    assert parsed("file:a b.jsonl", store).file == Path("a b.jsonl")
    assert parsed("retrieved@model:x", store).prompt == "retrieved"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("tunned", "names nothing that can answer"),
        ("fewshot", "Did you mean 'few-shot'?"),
        ("few-shot@tuned", "not asked in another way"),
        ("retrieved@file:x.csv", "not asked in another way"),
        ("run:", "names nothing"),
        ("run:fe01", "is an artifact of kind 'dataset', not a run"),
        ("api:nobody/model", "names no model behind an API"),
    ],
)
def test_what_names_nothing_is_refused_with_the_forms_that_do(text: str, says: str, store: ArtifactStore) -> None:
    with pytest.raises(UsageError, match="^.*" + says.replace("?", r"\?")) as caught:
        parsed(text, store)
    assert caught.value.hint


def test_an_id_of_no_run_is_refused(store: ArtifactStore) -> None:
    with pytest.raises(ArtifactError, match="id begins with"):
        parsed("run:999", store)
