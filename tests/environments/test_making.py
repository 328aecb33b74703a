"""Real virtual environments, made by the user's own pip from a folder of tiny wheels (no network)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.environments.wheels import NAME, use_recipe, write_wheel
from tests.test_wheels import Listener
from tuneloop.environments import create_environment, environment_places, find_environment
from tuneloop.environments.places import MARKER
from tuneloop.errors import NetworkError, StorageError, TuneloopError, UsageError
from tuneloop.progress import SILENT

PINS = ("torch==1.0", "engine==1.0")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package index with `torch`, which needs `kernels`, and `engine`, which needs things that do not exist."""
    index = tmp_path / "index"
    write_wheel(index, "kernels")
    write_wheel(index, "torch", requires=["kernels"])
    write_wheel(index, "engine", requires=["torch", "torchvision"], code="import torch")
    use_recipe(monkeypatch, tmp_path, PINS)
    return index


def imports(python: Path, module: str) -> bool:
    return subprocess.run([python, "-c", f"import {module}"], capture_output=True, check=False).returncode == 0


def left(tmp_path: Path) -> list[str]:
    folder = tmp_path / "cache" / "environments"
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith(".lock-"))


def test_an_environment_has_its_pins_torchs_own_needs_and_nothing_that_others_merely_name(index: Path) -> None:
    listener = Listener()
    with pytest.raises(UsageError):
        find_environment(NAME)
    made = create_environment(NAME, listener)
    assert all(imports(made.python, module) for module in ("engine", "torch", "kernels"))
    assert not imports(made.python, "torchvision")
    ask = "import importlib.metadata as m; print(m.version('engine-by-another-name'))"
    assert subprocess.run([made.python, "-c", ask], capture_output=True, text=True, check=True).stdout == "1.0+cpu\n"
    assert find_environment(NAME) == made == create_environment(NAME, SILENT)
    ((total, *steps),) = listener.tasks.values()
    assert 0 < sum(steps) <= -total == 4
    assert json.loads((made.folder / MARKER).read_bytes())["pins"] == list(PINS)


def test_what_pip_cannot_find_is_said_in_its_words_and_leaves_nothing(index: Path, tmp_path: Path) -> None:
    (index / "engine-1.0-py3-none-any.whl").unlink()
    with pytest.raises(NetworkError) as caught:
        create_environment(NAME, SILENT)
    assert "ERROR: No matching distribution found for engine==1.0" in caught.value.message
    assert "pip" in caught.value.where and "pip config list" in caught.value.hint
    assert left(tmp_path) == []


def test_packages_that_do_not_load_are_found_out_at_once(index: Path, tmp_path: Path) -> None:
    write_wheel(index, "engine", code="import nowhere_to_be_found")
    with pytest.raises(TuneloopError) as caught:
        create_environment(NAME, SILENT)
    assert "does not load (ModuleNotFoundError: No module named 'nowhere_to_be_found')" in caught.value.message
    assert f"environments.{NAME}" in caught.value.hint
    assert left(tmp_path) == []


def test_too_little_disk_is_said_before_anything_is_fetched(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1 << 20))
    with pytest.raises(StorageError, match="needs 2 MiB of disk; 1 MiB are free"):
        create_environment(NAME, SILENT)


def maker(tmp_path: Path) -> subprocess.Popen[str]:
    repository = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-m", "tests.environments.making_slowly", str(tmp_path), *PINS]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=repository, start_new_session=True)


def test_two_processes_make_it_once_and_one_killed_half_way_is_started_anew(index: Path, tmp_path: Path) -> None:
    killed = maker(tmp_path)
    environments = tmp_path / "cache" / "environments"
    deadline = time.monotonic() + 60
    while not list(environments.glob(f"{NAME}-*/pip.log")) and time.monotonic() < deadline:
        time.sleep(0.01)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    assert [place.state for place in environment_places(NAME)] == ["unfinished"]
    (half,) = left(tmp_path)
    with pytest.raises(UsageError):
        find_environment(NAME)

    printed = [process.communicate(timeout=120)[0].strip() for process in (maker(tmp_path), maker(tmp_path))]
    assert printed[0] == printed[1] == str(find_environment(NAME).folder)
    assert left(tmp_path) == [Path(printed[0]).name] != [half]
