from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.train.projects import config_of, make_project, store_of, write_yaml
from tuneloop.config.schema import Config


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return make_project(tmp_path / "project", rows=60)


@contextmanager
def command(config: Config, project: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    """Start a command of the real program; it does not outlive the block."""
    yaml = write_yaml(config, project / "tuneloop.yaml")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    with subprocess.Popen(
        [sys.executable, "-m", "tuneloop", *words, "--config", str(yaml)],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


def wait_for_checkpoint(config: Config, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not list(store_of(config).root.glob("run/.checkpoints-*/step-*")):
        assert process.poll() is None, "it ended before there was a checkpoint"
        assert time.monotonic() < deadline, "no checkpoint in two minutes"
        time.sleep(0.01)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_training_can_be_gone_on_with_by_the_same_command(
    project: Path, number: signal.Signals, code: int
) -> None:
    endless = config_of(project, epochs=500.0, eval_steps=3)
    with command(endless, project, "data", "prepare") as prepare:
        assert prepare.wait(120) == 0
    with command(endless, project, "train") as training:
        wait_for_checkpoint(endless, training)
        training.send_signal(number)
        out, err = training.communicate(timeout=120)
    assert training.returncode == code
    assert out == ""
    assert "Traceback" not in err
    last = err.rstrip().splitlines()[-3:]
    assert "interrupted" in last[0] or "terminated" in last[0]
    assert "the same command again: it goes on from the last" in last[2]
    runs = store_of(endless).root / "run"
    (checkpoints,) = runs.glob(".checkpoints-*")
    assert not list(runs.glob(".building-*"))
    newest = max(json.loads(path.read_bytes())["step"] for path in checkpoints.glob("step-*/state.json"))

    with command(endless, project, "train") as again:
        assert again.stderr is not None
        told = next(line for line in again.stderr if "Going on from" in line)
        again.send_signal(number)
        _, rest = again.communicate(timeout=120)
        assert again.returncode == code, rest
    assert f"Going on from the checkpoint at step {newest} of" in told
