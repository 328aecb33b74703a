"""What the documentation says is what the program does."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from docs.generate import pages
from tests.conftest import REPOSITORY
from tuneloop.cli.main import app
from tuneloop.config.load import load_config
from tuneloop.config.schema import Config

LEFT_OUT = {".git", ".venv", ".tuneloop", "node_modules", "dist", "build"}


def files_of_ours(pattern: str) -> list[Path]:
    paths = (path for path in REPOSITORY.rglob(pattern))
    return sorted(p for p in paths if not (LEFT_OUT & set(p.relative_to(REPOSITORY).parts) or ".cache" in str(p)))


def pages_of_ours() -> list[Path]:
    return [path for path in files_of_ours("*.md") if path.parent == REPOSITORY or "docs" in path.parts]


def name_of(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


@pytest.mark.parametrize("name", ["cli.md", "config.md"])
def test_a_generated_page_is_what_the_code_says_now(name: str) -> None:
    written = (REPOSITORY / "docs" / name).read_text(encoding="utf-8")
    assert written == pages()[name], "run `make docs`"


def test_the_reference_names_every_setting_once() -> None:
    text = pages()["config.md"]
    for section in Config.model_fields:
        assert text.count(f"\n## `{section}`\n") == 1


def commands(command: Any) -> Iterator[Any]:
    yield command
    for below in getattr(command, "commands", {}).values():
        yield from commands(below)


def test_every_command_has_an_example_and_every_option_a_help_text() -> None:
    for command in commands(typer.main.get_command(app)):
        is_group = hasattr(command, "commands")
        assert command.help, command.name
        assert is_group or f"tuneloop {command.name}" in command.epilog or command.name in command.epilog, command.name
        for parameter in command.params:
            assert getattr(parameter, "help", ""), f"{command.name} {parameter.name}"


def test_every_command_takes_json_and_every_command_with_settings_takes_config_and_set() -> None:
    for command in commands(typer.main.get_command(app)):
        options = {option for parameter in command.params for option in parameter.opts}
        if not hasattr(command, "commands"):
            assert "--json" in options, command.name
            assert ("--config" in options) == ("--set" in options), command.name
            takes_words = bool({"overrides", "subjects", "names"} & {parameter.name for parameter in command.params})
            assert takes_words == ("--set" in options and command.name != "predict")  # its words are documents


@pytest.mark.parametrize("path", pages_of_ours(), ids=name_of)
def test_every_link_to_a_file_leads_to_one(path: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)", path.read_text(encoding="utf-8"))
    broken = [target for target in targets if "://" not in target and not (path.parent / target).exists()]
    assert broken == []


@pytest.mark.parametrize("path", pages_of_ours(), ids=name_of)
def test_every_command_in_a_code_block_exists(path: Path) -> None:
    tree = typer.main.get_command(app)
    for block in re.findall(r"```(?:bash|sh|console|text)?\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL):
        for line in re.findall(r"^\s*(?:\$ )?tuneloop((?: [a-z]+)*)", block, re.MULTILINE):
            here: Any = tree
            for word in line.split():
                if not hasattr(here, "commands"):
                    break
                assert word in here.commands, f"{name_of(path)}: tuneloop{line}"
                here = here.commands[word]


class _Loader(yaml.SafeLoader):
    """Reads the tag by which lm-evaluation-harness's task files name functions, too."""


_Loader.add_constructor("!function", lambda loader, node: loader.construct_scalar(node))  # type: ignore[arg-type]


@pytest.mark.parametrize("path", files_of_ours("*.yaml") + files_of_ours("*.yml"), ids=name_of)
def test_every_yaml_file_loads_and_every_configuration_is_valid(path: Path) -> None:
    values = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 (a SafeLoader)
    assert values is not None
    if path.stem == "tuneloop":
        assert isinstance(load_config(path), Config)
