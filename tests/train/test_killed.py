from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.train.killing import LAST_MOMENTS, configuration
from tests.train.projects import make_project, store_of
from tuneloop.artifacts import Artifact


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_project(tmp_path_factory.mktemp("killed") / "project", rows=60)


@pytest.fixture(scope="module")
def told(project: Path, repository: Path) -> Iterator[dict[str, Any]]:
    """What `tests/train/killing.py` tells about a run with many SIGKILLs."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    done = subprocess.run(
        [sys.executable, "-m", "tests.train.killing", str(project)],
        cwd=repository, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    yield json.loads(done.stdout.splitlines()[-1])


def run_in(project: Path, store: str) -> Artifact:
    (run,) = (artifact for artifact in store_of(configuration(project, store)) if artifact.kind == "run")
    return run


def history_of(run: Artifact) -> list[dict[str, Any]]:
    points = [json.loads(line) for line in (run.path / "history.jsonl").read_text().splitlines()]
    return [{name: value for name, value in point.items() if name != "elapsed_s"} for point in points]


def test_a_run_killed_again_and_again_ends_with_the_very_bytes_of_one_left_alone(
    project: Path, told: dict[str, Any]
) -> None:
    assert told["last_status"] == 0
    assert len(told["kills"]) >= 10
    quiet, killed = run_in(project, "undisturbed"), run_in(project, "disturbed")
    adapter = Path("adapter") / "adapter_model.safetensors"
    assert (killed.path / adapter).read_bytes() == (quiet.path / adapter).read_bytes()
    assert history_of(killed) == history_of(quiet)
    store_of(configuration(project, "disturbed")).verify(killed)


def test_the_kills_fell_into_all_phases_of_a_run(told: dict[str, Any]) -> None:
    left = [name for _, names in told["kills"] for name in names]
    assert any("/.partial-step-" in name for name in left), "none while a checkpoint was written"
    newest = [max((name for name in names if "/step-" in name), default="") for _, names in told["kills"]]
    assert len({name for name in newest if name}) >= 5, "the run hardly got on from kill to kill"
    assert {f"{event} {part}" for event, part in LAST_MOMENTS} <= {how for how, _ in told["kills"]}


def test_nothing_but_the_finished_run_is_left_in_the_end(told: dict[str, Any], project: Path) -> None:
    after_publishing = told["kills"][-1][1]
    assert any(".checkpoints-" in name for name in after_publishing), "the last kill came too late to leave any"
    assert told["left"] == [run_in(project, "disturbed").id]
