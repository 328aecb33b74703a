from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Finished
from tests.environments.wheels import use_recipe, write_wheel
from tuneloop.environments import NAMES

Run = Callable[..., Finished]


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUNELOOP_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_list_says_what_is_here_what_each_is_for_and_how_to_get_it(tuneloop: Run, project: Path) -> None:
    done = tuneloop("environment", "list")
    assert done.code == 0 and all(name in done.out for name in NAMES)
    assert "tuneloop environment create llm-compressor" in done.out
    listed = json.loads(tuneloop("environment", "list", "--json").out)["environments"]
    assert {one["name"]: one["state"] for one in listed} == dict.fromkeys(NAMES, "not here")
    own = tuneloop("environment", "list", "--json", "--set", f"environments.vllm={sys.executable}")
    assert [one["state"] for one in json.loads(own.out)["environments"]].count("your own") == 1


def test_an_environment_is_planned_made_listed_and_removed(
    tuneloop: Run, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_wheel(project / "index", "engine")
    use_recipe(monkeypatch, project, ["engine==1.0"])
    planned = json.loads(tuneloop("environment", "create", "tiny", "--dry-run", "--json").out)
    assert planned["dry_run"] and planned["packages"] == ["engine==1.0"] and not (project / "cache").exists()

    made = json.loads(tuneloop("environment", "create", "tiny", "--json").out)
    assert (made["state"], made["skipped"]) == ("ready", False) and Path(made["python"]).exists()
    assert "nothing to do" in tuneloop("environment", "create", "tiny").out

    kept = json.loads(tuneloop("environment", "remove", "tiny", "--dry-run", "--json").out)
    assert kept["paths"] == [made["path"]] and kept["removed"] == [] and Path(made["path"]).exists()
    assert made["path"] in tuneloop("environment", "remove", "tiny").out
    assert not Path(made["path"]).exists()
    assert "there is no environment tiny to remove" in tuneloop("environment", "remove", "tiny").out


def test_a_name_that_is_none_is_refused_in_three_lines(tuneloop: Run) -> None:
    for command in ("create", "remove"):
        done = tuneloop("environment", command, "vlm")
        assert done.code == 2 and len(done.err.strip().splitlines()) == 3
        assert "Did you mean 'vllm'?" in done.err
