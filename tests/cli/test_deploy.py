"""`tuneloop deploy` as a user calls it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Finished
from tests.export.targets.forms import make_form

Run = Callable[..., Finished]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a configuration, and an export in its store."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tuneloop.yaml").write_text("store: {root: .tuneloop}\n")
    make_form(tmp_path / ".tuneloop")
    return tmp_path


def test_the_files_of_a_target_are_written_and_listed(here: Path, tuneloop: Run) -> None:
    done = tuneloop("deploy", "docker", "a1a1", "--output", "out", "--with", "name=claims desk", "--json")
    assert done.code == 0, done.err
    assert sorted(json.loads(done.out)["files"]) == ["out/Dockerfile", "out/build.sh", "out/tuneloop.yaml"]
    assert "claims desk" in (here / "out" / "Dockerfile").read_text()


def test_a_dry_run_lists_sizes_and_writes_nothing(here: Path, tuneloop: Run) -> None:
    done = tuneloop("deploy", "hub", "a1a1", "--with", "repo=me/claims", "--dry-run")
    assert done.code == 0, done.err
    assert "model.safetensors  64 bytes" in done.out
    assert "would be uploaded (nothing was)" in done.out
    assert not (here / "deploy").exists()


@pytest.mark.parametrize(
    ("words", "where"),
    [
        (["deploy", "dockr", "a1a1"], "Did you mean 'docker'?"),
        (["deploy", "docker", "a1a1", "--with", "claims"], "--with name=claims"),
        (["deploy", "docker", "a1a1", "--with", "nam=claims"], "Did you mean 'name'?"),
        (["deploy", "ollama", "a1a1"], "Export gguf-q8_0"),
    ],
)
def test_what_cannot_be_done_says_what_can(here: Path, tuneloop: Run, words: list[str], where: str) -> None:
    done = tuneloop(*words)
    assert done.code == 2
    assert where in done.err
    assert not (here / "deploy").exists()
