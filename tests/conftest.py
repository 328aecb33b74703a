"""What every test may ask for."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import settings

from tuneloop.artifacts import ArtifactStore

# One profile everywhere: the examples are the same in every run, and a slow machine fails nothing.
settings.register_profile("tuneloop", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("tuneloop")

# A shell without job control lets what it starts in the background ignore Ctrl-C, and all that it starts inherits that;
# the tests that send one would then wait for an end that never comes.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def _no_settings_of_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shared cache stays the user's own (it only holds checked, immutable files); nothing else gets through."""
    for name in [name for name in os.environ if name.startswith("TUNELOOP_") and name != "TUNELOOP_CACHE"]:
        monkeypatch.delenv(name)


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    """An empty artifact store."""
    return ArtifactStore(tmp_path / "store" / "artifacts")


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of the source tree."""
    return REPOSITORY


@dataclass(frozen=True)
class Finished:
    """A command that has ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def tuneloop(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., Finished]]:
    """`tuneloop("data", "prepare", …)`: run a command in this process, in the current folder."""
    from tuneloop.cli.main import run

    def run_command(*arguments: str | Path) -> Finished:
        capsys.readouterr()
        code = run([str(argument) for argument in arguments])
        return Finished(code, *capsys.readouterr())

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with patch.dict(os.environ):
        yield run_command
    for number, handler in handlers.items():
        signal.signal(number, handler)
