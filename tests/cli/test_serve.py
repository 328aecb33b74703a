from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import Run, animal_rows, refusal_of
from tests.models.tiny import make_tiny_model
from tuneloop.artifacts import ArtifactStore
from tuneloop.config.load import load_config
from tuneloop.config.serving import ServedModelConfig
from tuneloop.loop import stages
from tuneloop.loop.serving import DEFAULT_MODEL, open_service
from tuneloop.progress import SILENT

CONFIG = """
data: {sources: [{path: animals.csv, columns: {text: text, label: label}}]}
model: {base_model: ./model}
train: {epochs: 1}
evaluate: {max_new_tokens: 8}
"""
TEXTS = ["It purrs.", "The old one barks at noon.", "Number 3 sings on the roof, and then flies away.", "?"] * 6


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose run is finished."""
    folder = tmp_path_factory.mktemp("served")
    make_tiny_model(folder / "model")
    (folder / "animals.csv").write_text("\n".join(["text,label", *animal_rows()]) + "\n", encoding="utf-8")
    (folder / "tuneloop.yaml").write_text(CONFIG)
    config = load_config(folder / "tuneloop.yaml")
    store = ArtifactStore(config.store.root / "artifacts")
    stages.prepare(config, store, SILENT)
    stages.train(config, store, SILENT)
    return folder


@pytest.fixture(autouse=True)
def _in_the_project(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)


@contextmanager
def serving(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    """Run `tuneloop serve` in a process of its own; yields it and what it said when it was ready."""
    command = [sys.executable, "-m", "tuneloop", "serve", "--port", "0", "--json", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            assert process.stdout is not None
            yield process, json.loads(process.stdout.readline())
        finally:
            process.kill()


def test_a_served_run_answers_as_predict_does_logs_everything_and_ends_with_0_on_sigterm(tuneloop: Run) -> None:
    expected = json.loads(tuneloop("predict", *TEXTS[:4], "--json").out)
    with serving() as (process, ready), httpx.Client(base_url=ready["url"], timeout=60, trust_env=False) as client:
        together = client.post("/v1/predict", json={"documents": TEXTS}).json()
        alone = [client.post("/v1/predict", json={"documents": text}).json()["results"][0] for text in TEXTS[:4]]
        said = client.post(
            "/v1/chat/completions",
            json={"model": "default", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4},
        ).json()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    assert together["version"] == expected["run"]
    assert ready["models"][0]["version"] == expected["run"]
    for one, other, answer in zip(together["results"], alone, expected["predictions"], strict=False):
        assert (one["label"], one["route"]) == (other["label"], other["route"]) == (answer["label"], answer["route"])
        assert one["probability"] == pytest.approx(other["probability"], abs=2e-6)
        assert one["probability"] == pytest.approx(answer["probability"], abs=2e-6)
    assert said["usage"]["completion_tokens"] >= 1
    assert "/v1/predict" in ready["curl"]
    logged = json.loads(tuneloop("requests", "list", "--limit", "100", "--json").out)["requests"]
    assert [one["kind"] for one in logged].count("predict") == len(TEXTS) + 4
    (chat,) = json.loads(tuneloop("requests", "list", "--kind", "chat", "--json").out)["requests"]
    assert json.loads(chat["text"]) == [{"role": "user", "content": "Hello"}]
    assert chat["answer"] == said["choices"][0]["message"]["content"]
    assert "chat" in tuneloop("requests", "list", "--kind", "chat").out


def test_what_was_switched_is_opened_at_the_next_start_until_it_is_forgotten(project: Path) -> None:
    config = load_config(project / "tuneloop.yaml")
    store = ArtifactStore(config.store.root / "artifacts")

    def opened_by(*told: ServedModelConfig, as_configured: bool = False) -> tuple[list[ServedModelConfig], list[str]]:
        with open_service(config, store, SILENT) as opened:
            if as_configured:
                opened.forget_switches()
            chosen, notes = opened.choose_models(told, is_explicit=False)
            own = next(source.run for source in chosen if source.name == "default")
            opened.service.remember_switch(ServedModelConfig(name="added", run=own), "key1")
            return chosen, notes

    first, notes = opened_by(DEFAULT_MODEL)
    assert (len(first), len(first[0].run or ""), notes) == (1, 16, [])
    second, notes = opened_by(DEFAULT_MODEL)
    assert [source.name for source in second] == ["default", "added"]
    assert "added was added as run" in notes[0]
    assert opened_by(DEFAULT_MODEL, as_configured=True) == (first, [])


def test_the_address_of_others_is_refused_without_a_key_before_anything_is_loaded(tuneloop: Run) -> None:
    refused = refusal_of(tuneloop("serve", "--host", "0.0.0.0", "--port", "0"))
    assert refused.code == 2
    assert "no API key" in refused.what
    assert "tuneloop keys create" in refused.do


def test_a_dry_run_says_what_would_be_served(tuneloop: Run) -> None:
    told = json.loads(tuneloop("serve", "--dry-run", "--json", "--port", "9001", "--engine", "vllm").out)
    assert (told["port"], told["models"]) == (9001, [{"name": "default"}])


def test_what_cannot_be_served_is_explained(tuneloop: Run) -> None:
    assert refusal_of(tuneloop("serve", "--run", "a", "--export", "b")).code == 2
    missing = refusal_of(tuneloop("serve", "--run", "0000", "--port", "0"), after_progress=True)
    assert "0000" in missing.what
    assert refusal_of(tuneloop("serve", "--engine", "abacus")).code == 2
