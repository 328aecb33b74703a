from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.export.exporting import make_adapter
from tests.infer.engines.fake_vllm import KEY, serving_vllm
from tests.infer.engines.test_server_process import comes_true
from tests.models.loaded import fresh
from tests.models.tiny import make_tiny_model
from tuneloop.artifacts import Artifact
from tuneloop.cache import CACHE_VARIABLE
from tuneloop.config.schema import Config
from tuneloop.errors import ModelError, NetworkError, UsageError
from tuneloop.forms import ExportedForm, FormName
from tuneloop.infer.endpoints import OTHER_VARIABLE
from tuneloop.infer.engines.opening import open_engine
from tuneloop.infer.engines.protocol import Engine
from tuneloop.infer.engines.vllm import VllmEngine
from tuneloop.models.load import fingerprint
from tuneloop.models.prompt import TaskPrompt
from tuneloop.progress import SILENT

REPOSITORY = Path(__file__).resolve().parents[3]
CLASSIFY = TaskPrompt("classify", "Classify the document.", ("Copyleft", "Permissive", "Public Domain"), ())
DOCUMENTS = ["Permission is hereby granted, free of charge.", "The transfer has not arrived yet."]


def config_of(base: Path, python: Path | None = None, **serve: Any) -> Config:
    environments = {"environments": {"vllm_cpu": str(python)}} if python else {}
    content = {"model": {"base_model": str(base), "max_tokens": 300, "dtype": "float32"}, "serve": serve}
    return Config.model_validate(content | environments)


def form_of(path: Path, name: FormName = "merged", base: str = "") -> ExportedForm:
    engine: Any = "llamacpp" if name.startswith("gguf") else "transformers"
    return ExportedForm(name, path, engine, "run-1", base, CLASSIFY.to_dict())


@pytest.fixture
def python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An interpreter with a package vllm that is our fake, as the environment of vLLM."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    package = tmp_path / "site" / "vllm" / "entrypoints" / "cli"
    package.mkdir(parents=True)
    for folder in (package, package.parent, package.parent.parent):
        (folder / "__init__.py").touch()
    (package / "main.py").write_text("from tests.infer.engines.fake_vllm_main import main\nmain()\n")
    interpreter = tmp_path / "environment" / "bin" / "python"
    interpreter.parent.mkdir(parents=True)
    paths = f"{tmp_path / 'site'}{os.pathsep}{REPOSITORY}"
    interpreter.write_text(f'#!/bin/sh\nPYTHONPATH={paths} exec {sys.executable} "$@"\n')
    interpreter.chmod(0o755)
    return interpreter


def started(folder: Path) -> dict[str, Any]:
    (path,) = (folder / "cache" / "servers").glob("*/started.json")
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def scores(engine: Engine) -> list[Any]:
    return [[round(score, 3) for score in one.label_scores or ()] for one in engine.predict(DOCUMENTS, "labels")]


def test_a_run_is_served_by_a_vllm_of_our_own_and_its_death_is_told(tmp_path: Path, python: Path) -> None:
    base = make_tiny_model(tmp_path / "base")
    run = Artifact("run", "run-1", tmp_path / "run", {"inputs": {"base_model": fingerprint(base)}})
    make_adapter(run.path / "adapter", base)
    (run.path / "task.json").write_text(json.dumps(CLASSIFY.to_dict()))
    config = config_of(base, python)
    here = open_engine(config, "transformers", run=run, progress=SILENT)
    engine = open_engine(config, "vllm", run=run, progress=SILENT)
    try:
        assert isinstance(engine, VllmEngine) and engine.is_alive() and engine.writes_alike
        assert scores(engine) == scores(here)
        assert engine.prompt_ids("x") == here.prompt_ids("x")
        assert engine.rendered_prompt("x") == here.rendered_prompt("x")
        told = started(tmp_path)
        assert "--enable-lora" in told["arguments"] and "--enforce-eager" in told["arguments"]
        assert told["variables"]["HF_HUB_OFFLINE"] == "1"
        assert told["variables"]["VLLM_API_KEY"] not in str(told["arguments"])
        process: Any = engine.server.server
        os.kill(process.process.process_id, signal.SIGKILL)
        assert comes_true(lambda: not engine.is_alive(), within_s=1.0)
        with pytest.raises(ModelError, match="it ended"):
            engine.predict(["x"])
    finally:
        engine.close()
    assert not engine.is_alive()
    assert list((tmp_path / "cache" / "servers").glob("*/vllm.log"))  # of a server that did not end in order it stays


def test_an_environment_that_is_not_there_is_told_with_the_command_that_makes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    folder = make_tiny_model(tmp_path / "model")
    with pytest.raises(UsageError) as caught:
        open_engine(config_of(folder), "vllm", form=form_of(folder), progress=SILENT)
    assert "tuneloop environment create vllm-cpu" in caught.value.hint


@pytest.mark.parametrize(("suffix", "ending"), [("", ""), ("/v1", ""), ("/v1/", "#tuneloop")])
def test_a_server_that_runs_already_is_asked_with_the_key_from_the_environment(
    suffix: str, ending: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(OTHER_VARIABLE, KEY)
    folder = make_tiny_model(tmp_path / "model")
    with serving_vllm(fresh("llama")) as fake:
        url = f"{fake.url}{suffix}{ending}"
        engine = open_engine(config_of(folder), "vllm", form=form_of(folder), url=url, progress=SILENT)
        assert engine.predict(["x"])[0].label in CLASSIFY.labels and engine.task == CLASSIFY
        engine.close()
        configured = open_engine(config_of(folder, engine_url=url), "vllm", form=form_of(folder), progress=SILENT)
        assert configured.is_alive()
        configured.close()


def test_of_several_served_models_one_has_to_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(OTHER_VARIABLE, KEY)
    folder = make_tiny_model(tmp_path / "model")
    with serving_vllm(fresh("llama"), served=("a", "b")) as fake, pytest.raises(UsageError, match="2 models") as caught:
        open_engine(config_of(folder), "vllm", form=form_of(folder), url=fake.url, progress=SILENT)
    assert f"{fake.url}#a" in caught.value.hint


@pytest.mark.parametrize(
    ("url", "kind"),
    [("127.0.0.1:8000", UsageError), ("http://u:p@127.0.0.1", UsageError), ("http://127.0.0.1:9", NetworkError)],
)
def test_an_address_that_cannot_be_used_is_refused(url: str, kind: type[Exception], tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "model")
    with pytest.raises(kind) as caught:
        open_engine(config_of(folder), "vllm", form=form_of(folder), url=url, progress=SILENT)
    assert "u:p" not in str(caught.value)


def test_forms_of_another_engine_and_adapters_of_another_base_are_refused(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "model")
    with pytest.raises(ModelError, match="gguf-q8_0 is not one that vllm loads"):
        open_engine(config_of(folder), "vllm", form=form_of(folder, "gguf-q8_0"), progress=SILENT)
    with pytest.raises(ModelError, match="trained on another base model"):
        open_engine(config_of(folder), "vllm", form=form_of(tmp_path, "adapter", "0" * 16), progress=SILENT)


def test_the_engine_openai_needs_an_address_and_takes_the_configured_one(tmp_path: Path) -> None:
    folder = make_tiny_model(tmp_path / "model")
    with pytest.raises(UsageError, match="needs an address"):
        open_engine(config_of(folder), "openai", form=form_of(folder), progress=SILENT)
    config = config_of(folder, engine_url="http://127.0.0.1:9/v1#m")
    engine = open_engine(config, "openai", form=form_of(folder), progress=SILENT)
    assert engine.name == "openai" and engine.task == CLASSIFY
    engine.close()
