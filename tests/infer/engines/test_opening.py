from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.models.loaded import opened, tiny_folder
from tests.models.test_adapters import make_adapter
from tuneloop.artifacts import Artifact
from tuneloop.config.schema import Config
from tuneloop.errors import ModelError, UsageError
from tuneloop.forms import ExportedForm, FormName, engine_of, part_of
from tuneloop.infer.engines.opening import open_engine
from tuneloop.infer.engines.transformers import TransformersEngine
from tuneloop.infer.predict import Predictor
from tuneloop.models.load import fingerprint, load_model
from tuneloop.models.prompt import TaskPrompt
from tuneloop.progress import SILENT

TASK = TaskPrompt("classify", "Classify the document.", ("Copyleft", "Permissive"), ())
TEXTS = ["Permission is hereby granted.", "x"]


@pytest.fixture(scope="module")
def config() -> Config:
    model = {"base_model": str(tiny_folder("llama")), "max_tokens": 300}
    return Config.model_validate({"model": model, "evaluate": {"max_new_tokens": 10}})


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Artifact]:
    root = tmp_path_factory.mktemp("runs")
    made = []
    for number in (1, 2):
        folder = root / f"run{number}"
        make_adapter(folder / "adapter", number)
        (folder / "task.json").write_text(json.dumps(TASK.to_dict()))
        manifest = {"inputs": {"base_model": fingerprint(tiny_folder("llama"))}}
        made.append(Artifact("run", f"{number}" * 16, folder, manifest))
    return made


def form(name: FormName, path: Path, base: str = "") -> ExportedForm:
    return ExportedForm(
        name=name,
        path=path / part_of(name),
        engine=engine_of(name),
        run_id="r" * 16,
        base_model_fingerprint=base,
        task=TASK.to_dict(),
    )


def test_a_run_answers_as_its_predictor_does(config: Config, runs: list[Artifact]) -> None:
    engine = open_engine(config, "transformers", run=runs[0], progress=SILENT)
    loaded = load_model(config.model, SILENT, runs[0].path / "adapter")
    expected = Predictor(loaded, TASK, max_tokens=300, max_new_tokens=10).predict(TEXTS)
    for one, other in zip(engine.predict(TEXTS), expected, strict=True):
        assert one.label == other.label and one.probability == pytest.approx(other.probability, abs=1e-5)


def test_a_second_run_shares_the_base_model_of_the_first(config: Config, runs: list[Artifact]) -> None:
    first = open_engine(config, "transformers", run=runs[0], progress=SILENT)
    before = first.predict(TEXTS)
    second = open_engine(config, "transformers", run=runs[1], progress=SILENT, beside=first)
    again = open_engine(config, "transformers", run=runs[0], progress=SILENT, beside=first)
    assert isinstance(first, TransformersEngine) and isinstance(second, TransformersEngine)
    assert second.base is first.base
    assert second.predict(TEXTS) != before and again.predict(TEXTS) == before == first.predict(TEXTS)
    first.close()
    assert again.predict(TEXTS) == before


def test_an_adapter_form_needs_the_base_model_it_was_made_for(config: Config, runs: list[Artifact]) -> None:
    right = form("adapter", runs[0].path, fingerprint(tiny_folder("llama")))
    run = open_engine(config, "transformers", run=runs[0], progress=SILENT)
    engine = open_engine(config, "transformers", form=right, progress=SILENT)
    assert engine.predict(TEXTS) == run.predict(TEXTS)
    with pytest.raises(ModelError, match="was trained on another base model"):
        open_engine(config, "transformers", form=replace(right, base_model_fingerprint="0"), progress=SILENT)


def test_a_merged_form_is_a_model_of_its_own(config: Config) -> None:
    merged = replace(form("merged", Path()), path=tiny_folder("llama"))
    other = config.model_copy(update={"model": config.model.model_copy(update={"base_model": "nowhere"})})
    engine = open_engine(other, "transformers", form=merged, progress=SILENT)
    assert isinstance(engine, TransformersEngine) and engine.adapter is None
    assert engine.prompt_ids("d") == opened("llama").chat.prompt_ids(TASK.system(), "d")


def test_a_form_is_not_opened_by_an_engine_that_cannot_load_it(config: Config, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="the form gguf-f16 is not one that transformers loads") as caught:
        open_engine(config, "transformers", form=form("gguf-f16", tmp_path), progress=SILENT)
    assert "llamacpp" in caught.value.hint
    with pytest.raises(ModelError, match="the form merged is not one that llamacpp loads"):
        open_engine(config, "llamacpp", form=form("merged", tmp_path), progress=SILENT)


def test_llama_cpp_asks_for_a_gguf_form(config: Config, runs: list[Artifact]) -> None:
    with pytest.raises(UsageError, match="has to be exported") as caught:
        open_engine(config, "llamacpp", run=runs[0], progress=SILENT)
    assert "gguf-q8_0" in caught.value.hint


def test_something_has_to_be_opened(config: Config) -> None:
    with pytest.raises(UsageError, match="no model is named"):
        open_engine(config, "transformers", progress=SILENT)
