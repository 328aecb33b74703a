"""The user's own pip fetches from a folder of wheels here (PIP_NO_INDEX and PIP_FIND_LINKS): real, without network."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from zipfile import ZipFile

import pytest

from tuneloop.artifacts import sha256_of
from tuneloop.errors import ArtifactError, NetworkError
from tuneloop.progress import SILENT, Advance
from tuneloop.wheels import MEBIBYTE, Wheel, fetch_wheel

FILENAME = "tiny_payload-1.0-py3-none-any.whl"
FETCH = """
import sys
from tests.test_wheels import Listener
from tuneloop.wheels import Wheel, fetch_wheel

listener = Listener()
path = fetch_wheel(Wheel("tiny-payload", "1.0", sys.argv[1], sys.argv[2], 0), progress=listener)
print(path.is_file(), len(listener.tasks))
"""


class Listener:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.tasks: dict[str, list[float]] = {}

    @contextmanager
    def task(self, description: str, total: float) -> Iterator[Advance]:
        self.tasks[description] = steps = [-total]
        yield steps.append

    def say(self, message: str) -> None:
        self.said.append(message)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "index"
    folder.mkdir()
    with ZipFile(folder / FILENAME, "w") as wheel:
        wheel.writestr("tiny_payload/data.txt", "payload")
        wheel.writestr(
            "tiny_payload-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-payload\nVersion: 1.0\n"
        )
        wheel.writestr("tiny_payload-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr("tiny_payload-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("TUNELOOP_CACHE", str(tmp_path / "cache"))
    return folder


@pytest.fixture
def wheel(index: Path) -> Wheel:
    path = index / FILENAME
    return Wheel("tiny-payload", "1.0", FILENAME, sha256_of(path), path.stat().st_size)


def kept_files(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "cache" / "wheels").iterdir() if not path.name.endswith(".lock"))


def test_a_wheel_is_fetched_through_pip_and_then_found_without_it(wheel: Wheel, index: Path, tmp_path: Path) -> None:
    listener = Listener()
    path = fetch_wheel(wheel, progress=listener)
    assert path.read_bytes() == (index / FILENAME).read_bytes()
    assert kept_files(tmp_path) == [FILENAME]
    assert sum(listener.tasks["Fetching tiny-payload==1.0 (MiB)"]) == pytest.approx(0, abs=1 / MEBIBYTE)
    (index / FILENAME).unlink()
    assert fetch_wheel(wheel, progress=SILENT) == path


def test_an_altered_wheel_in_the_cache_is_noticed_and_fetched_again(wheel: Wheel) -> None:
    path = fetch_wheel(wheel, progress=SILENT)
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    listener = Listener()
    assert sha256_of(fetch_wheel(wheel, progress=listener)) == wheel.sha256
    assert any("altered" in message for message in listener.said)


def test_a_wheel_with_another_checksum_is_refused_and_not_kept(wheel: Wheel, tmp_path: Path) -> None:
    expected = "0" * 64
    with pytest.raises(ArtifactError) as caught:
        fetch_wheel(replace(wheel, sha256=expected), progress=SILENT)
    assert wheel.sha256 in caught.value.message and expected in caught.value.message
    assert kept_files(tmp_path) == []


def test_what_cannot_be_fetched_is_said_with_pips_reason_and_copying_by_hand_works(
    wheel: Wheel, index: Path, tmp_path: Path
) -> None:
    content = (index / FILENAME).read_bytes()
    (index / FILENAME).unlink()
    with pytest.raises(NetworkError) as caught:
        fetch_wheel(wheel, progress=SILENT)
    assert "tiny-payload==1.0" in caught.value.message and "ERROR" in caught.value.message
    assert "\n" not in caught.value.message + caught.value.where + caught.value.hint
    assert kept_files(tmp_path) == []
    by_hand = tmp_path / "cache" / "wheels"
    assert f"copy {FILENAME} into {by_hand}" in caught.value.hint
    (by_hand / FILENAME).write_bytes(content)
    assert fetch_wheel(wheel, progress=SILENT) == by_hand / FILENAME


def test_a_python_without_pip_is_told_how_to_get_it(wheel: Wheel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(NetworkError, match="no pip") as caught:
        fetch_wheel(wheel, progress=SILENT)
    assert "ensurepip" in caught.value.hint


def test_an_interrupted_fetch_leaves_nothing_behind(wheel: Wheel, tmp_path: Path) -> None:
    class Interrupted(Listener):
        @contextmanager
        def task(self, description: str, total: float) -> Iterator[Advance]:
            def interrupt(units: float) -> None:
                raise KeyboardInterrupt

            yield interrupt

    with pytest.raises(KeyboardInterrupt):
        fetch_wheel(wheel, progress=Interrupted())
    assert kept_files(tmp_path) == []


def test_what_a_killed_process_left_is_cleared_away(wheel: Wheel, tmp_path: Path) -> None:
    leftover = tmp_path / "cache" / "wheels" / ".fetching-tiny-payload-x1"
    leftover.mkdir(parents=True)
    (leftover / FILENAME).write_bytes(b"half of it")
    fetch_wheel(wheel, progress=SILENT)
    assert kept_files(tmp_path) == [FILENAME]


def test_two_processes_fetch_it_once(wheel: Wheel) -> None:
    command = [sys.executable, "-c", FETCH, FILENAME, wheel.sha256]
    root = Path(__file__).parent.parent
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) for _ in range(2)]
    assert sorted(process.communicate()[0].strip() for process in processes) == ["True 0", "True 1"]
