from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tuneloop.artifacts import Build
from tuneloop.cache import cache_folder, make_once
from tuneloop.errors import StorageError
from tuneloop.progress import SILENT

MAKE_SLOWLY = """
import sys, time
from tuneloop.cache import make_once
from tuneloop.progress import SILENT

def make(build):
    with open(sys.argv[1], "a") as made:
        made.write("made\\n")
    time.sleep(0.5)
    (build.path / "value.txt").write_text("42")

print((make_once("thing", "one", inputs={}, make=make, progress=SILENT).path / "value.txt").read_text())
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUNELOOP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def write_value(build: Build) -> None:
    (build.path / "value.txt").write_text("42")


def test_the_cache_is_where_the_variable_says(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_folder() == cache
    monkeypatch.delenv("TUNELOOP_CACHE")
    assert cache_folder() != cache and cache_folder().name == "tuneloop"


def test_a_thing_is_made_once_and_then_found() -> None:
    made = []

    def make(build: Build) -> None:
        made.append(build.path)
        write_value(build)

    first = make_once("thing", "one", inputs={}, make=make, progress=SILENT)
    second = make_once("thing", "one", inputs={}, make=make, progress=SILENT)
    assert first.path == second.path and (second.path / "value.txt").read_text() == "42" and len(made) == 1


def test_a_failure_leaves_nothing_that_could_be_taken_for_the_thing(cache: Path) -> None:
    def fail(build: Build) -> None:
        write_value(build)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_once("thing", "one", inputs={}, make=fail, progress=SILENT)
    assert [path for path in (cache / "thing").iterdir() if path.is_dir()] == []
    assert make_once("thing", "one", inputs={}, make=write_value, progress=SILENT).path.is_dir()


def test_a_thing_that_lost_a_file_is_made_again(cache: Path) -> None:
    path = make_once("thing", "one", inputs={}, make=write_value, progress=SILENT).path
    (path / "value.txt").write_text("4")
    again = make_once("thing", "one", inputs={}, make=write_value, progress=SILENT).path
    assert (again / "value.txt").read_text() == "42"


def test_two_processes_at_once_make_it_once_and_both_get_it(tmp_path: Path) -> None:
    log = tmp_path / "made.txt"
    command = [sys.executable, "-c", MAKE_SLOWLY, str(log)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate()[0].strip() for process in processes] == ["42", "42"]
    assert log.read_text() == "made\n"


def test_a_cache_that_cannot_be_written_is_explained(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache.parent.mkdir(exist_ok=True)
    cache.write_text("a file, not a folder")
    with pytest.raises(StorageError) as caught:
        make_once("thing", "one", inputs={}, make=write_value, progress=SILENT)
    assert "TUNELOOP_CACHE" in caught.value.hint and str(cache) in caught.value.where
    monkeypatch.setenv("TUNELOOP_CACHE", str(cache.with_name("another")))
    assert make_once("thing", "one", inputs={}, make=write_value, progress=SILENT).path.is_dir()
