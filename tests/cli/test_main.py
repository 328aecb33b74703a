from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Finished
from tuneloop import __version__
from tuneloop.cli import main as cli_main
from tuneloop.errors import DataError, GateRefused

Run = Callable[..., Finished]
PYTHON = [sys.executable, "-m", "tuneloop"]


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def three_lines(text: str) -> tuple[str, str, str]:
    lines = text.rstrip("\n").split("\n")
    assert [line.split(":")[0] for line in lines] == ["error", "where", "do"]
    what, where, do = (line.partition(":")[2].strip() for line in lines)
    return what, where, do


def failing_with(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `tuneloop config schema` end in `error`."""

    def fail() -> Any:
        raise error

    monkeypatch.setattr("tuneloop.config.load.schema", fail)


def test_help_lists_the_commands_in_the_order_of_a_models_life(tuneloop: Run) -> None:
    for arguments in ([], ["--help"], ["-h"]):
        done = tuneloop(*arguments)
        assert done.code == 0
        listed = re.findall(r"^  ([a-z]+)  +\S", done.out.partition("Commands:")[2], re.MULTILINE)
        assert listed == [name for name in cli_main.ORDER if name in listed]
        assert len(listed) >= 7


def test_the_version_is_the_packages(tuneloop: Run) -> None:
    assert tuneloop("--version") == Finished(0, f"tuneloop {__version__}\n", "")


@pytest.mark.parametrize("group", ["data", "config"])
def test_a_group_without_a_command_shows_its_help(tuneloop: Run, group: str) -> None:
    done = tuneloop(group)
    assert done.code == 0
    assert done.out.startswith(f"Usage: tuneloop {group}")


@pytest.mark.parametrize(
    ("arguments", "what", "do"),
    [
        (["trian"], "No such command 'trian'. Did you mean 'train'?", "`tuneloop --help`"),
        (["data", "prepair"], "Did you mean 'prepare'?", "`tuneloop data --help`"),
        (["train", "--lora"], "No such option: --lora", "`tuneloop train --help`"),
        (["init"], "Missing option '--data'", "`tuneloop init --help`"),
        (["data", "inspect", "--samples", "x"], "valid integer", "`tuneloop data inspect --help`"),
        (["train", "--config"], "requires an argument", "`tuneloop train --help`"),
    ],
)
def test_wrong_usage_is_three_lines_and_exit_code_2(tuneloop: Run, arguments: list[str], what: str, do: str) -> None:
    done = tuneloop(*arguments)
    assert done.code == 2
    assert done.out == ""
    found, where, advice = three_lines(done.err)
    assert what in found
    assert where == " ".join(["tuneloop", *arguments])
    assert do in advice


@pytest.mark.parametrize("command", [["train"], ["evaluate"], ["data", "prepare"], ["config", "show"]])
def test_without_a_configuration_every_stage_says_how_to_get_one(tuneloop: Run, command: list[str]) -> None:
    done = tuneloop(*command)
    assert done.code == 2
    what, where, do = three_lines(done.err)
    assert (what, where) == ("there is no such configuration file", "tuneloop.yaml")
    assert "tuneloop init --data" in do


def test_a_typo_in_the_configuration_names_the_key_the_line_and_the_remedy(tuneloop: Run) -> None:
    Path("tuneloop.yaml").write_text("train:\n  epoch: 3\n")
    done = tuneloop("train")
    assert done.code == 2
    what, where, _ = three_lines(done.err)
    assert "Did you mean 'epochs'?" in what
    assert where == "tuneloop.yaml:2"


def test_with_json_a_failure_is_one_object_on_stdout_too(tuneloop: Run) -> None:
    done = tuneloop("train", "--json")
    error = json.loads(done.out)["error"]
    assert (done.code, error["exit_code"], error["where"]) == (2, 2, "tuneloop.yaml")
    assert three_lines(done.err) == (error["message"], error["where"], error["hint"])


@pytest.mark.parametrize(("kind", "code"), [(DataError, 3), (GateRefused, 4)])
def test_an_expected_failure_has_the_exit_code_of_its_kind(
    tuneloop: Run, monkeypatch: pytest.MonkeyPatch, kind: Any, code: int
) -> None:
    failing_with(kind("what", where="a.csv:3", hint="do this"), monkeypatch)
    done = tuneloop("config", "schema")
    assert done.code == code
    assert three_lines(done.err) == ("what", "a.csv:3", "do this")


def test_markup_in_an_error_is_printed_as_it_is(tuneloop: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    failing_with(DataError("label '[red]x[/red]'", where="[a]", hint="[bold]"), monkeypatch)
    assert three_lines(tuneloop("config", "schema").err) == ("label '[red]x[/red]'", "[a]", "[bold]")


def test_a_long_error_is_not_wrapped_into_more_lines(tuneloop: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    failing_with(DataError("w" * 300 + " " + "x" * 300, where="y" * 300, hint="z " * 200), monkeypatch)
    assert len(tuneloop("config", "schema").err.splitlines()) == 3


def test_a_bug_is_called_one_and_its_traceback_is_in_a_file(tuneloop: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    failing_with(ZeroDivisionError("division by zero"), monkeypatch)
    done = tuneloop("config", "schema")
    assert done.code == 1
    what, where, _ = three_lines(done.err)
    assert "this is a bug" in what
    assert "ZeroDivisionError" in what
    path = Path(where.removeprefix("traceback: "))
    assert path.parent == Path(".tuneloop/crashes")
    assert "raise error" in path.read_text()
    assert "tuneloop config schema" in path.read_text()
    assert "Traceback" not in done.err


def test_with_debug_the_traceback_is_shown(tuneloop: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNELOOP_DEBUG", "1")
    failing_with(ZeroDivisionError("division by zero"), monkeypatch)
    done = tuneloop("config", "schema")
    assert done.code == 1
    assert "Traceback" in done.err
    assert not Path(".tuneloop").exists()


def test_a_bug_where_nothing_can_be_written_says_how_to_see_it(tuneloop: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".tuneloop").write_text("a file in the way")
    failing_with(ZeroDivisionError("x"), monkeypatch)
    done = tuneloop("config", "schema")
    assert done.code == 1
    assert "TUNELOOP_DEBUG=1" in three_lines(done.err)[2]


@pytest.mark.parametrize(
    ("error", "what"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/mnt/x"), "no space left on device"),
        (PermissionError(errno.EACCES, "Permission denied", "/mnt/x"), "permission denied"),
        (MemoryError(), "out of memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "out of memory"),
    ],
)
def test_what_the_machine_refuses_is_no_bug(
    tuneloop: Run, monkeypatch: pytest.MonkeyPatch, error: Exception, what: str
) -> None:
    failing_with(error, monkeypatch)
    done = tuneloop("config", "schema")
    assert done.code == 1
    assert what in three_lines(done.err)[0]
    assert not Path(".tuneloop").exists()


STUCK = (
    "import sys, time\n"
    "import tuneloop.config.load as load\n"
    "def schema():\n"
    "    print('working', flush=True)\n"
    "    time.sleep(60)\n"
    "load.schema = schema\n"
    "from tuneloop.cli.main import run\n"
    "sys.exit(run(['config', 'schema']))\n"
)


@pytest.mark.parametrize(
    ("number", "code", "what"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_a_stopped_command_says_that_it_can_go_on(number: int, code: int, what: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STUCK], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "working\n"
        process.send_signal(number)
        _, err = process.communicate(timeout=30)
    assert process.returncode == code
    found, _, do = three_lines(err)
    assert found == what
    assert "same command again" in do


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("error", [AttributeError("a half-imported module"), BaseException("a panic in Rust code")])
def test_a_signal_that_a_library_swallowed_is_no_bug_when_something_breaks_later(
    tuneloop: Run, monkeypatch: pytest.MonkeyPatch, number: int, code: int, error: BaseException
) -> None:
    def swallow_and_break() -> Any:
        with suppress(KeyboardInterrupt):
            signal.raise_signal(number)
            time.sleep(10)
        raise error

    monkeypatch.setattr("tuneloop.config.load.schema", swallow_and_break)
    assert tuneloop("config", "schema").code == code
    assert not Path(".tuneloop").exists()  # where crashes are written


@pytest.mark.parametrize("arguments", [["config", "schema"], ["--help"], ["config", "show", "--defaults", "--json"]])
def test_a_reader_that_stops_early_is_no_error(arguments: list[str]) -> None:
    with subprocess.Popen([*PYTHON, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_output_to_a_pipe_has_no_colour_and_json_is_one_object() -> None:
    shown = subprocess.run([*PYTHON, "config", "show", "--defaults", "--json"], capture_output=True, check=True)
    assert json.loads(shown.stdout)["train"]["lora"]["r"] == 16
    failed = subprocess.run([*PYTHON, "train"], capture_output=True, check=False)
    assert b"\x1b" not in shown.stdout + failed.stderr


def test_libraries_are_asked_to_be_quiet_unless_debugging(tuneloop: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in cli_main.QUIET:
        monkeypatch.delenv(name, raising=False)
    tuneloop("--version")
    assert os.environ["TOKENIZERS_PARALLELISM"] == "false"
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "true")
    tuneloop("--version")
    assert os.environ["TOKENIZERS_PARALLELISM"] == "true"
