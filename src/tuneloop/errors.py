"""Every way tuneloop can refuse or fail, each with its exit code.

An error carries three things a reader needs: what was found, where, and what to do next. Libraries raise these;
only `tuneloop.cli` prints them or ends the process.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import ClassVar


class TuneloopError(Exception):
    """A failure that has an explanation: `message` (what), `where` (file, row, key or stage), `hint` (what to do)."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, where: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.where}: {self.message}\n  {self.hint}"


class UsageError(TuneloopError):
    """The command line asks for something that cannot be done as written."""

    exit_code = 2


class ConfigError(UsageError):
    """The configuration does not fit the schema, or names something that does not exist."""


class DataError(TuneloopError):
    """A source file, a row or a dataset version is not usable as it stands."""

    exit_code = 3


class ModelError(TuneloopError):
    """A base model or adapter cannot be found, read or trusted."""


class UnsafeModelError(ModelError):
    """A model would run code or unpickle data that nobody has asked for by name."""

    exit_code = 2


class ArtifactError(TuneloopError):
    """An artifact is missing, incomplete or altered."""


class StorageError(TuneloopError):
    """The disk is full, read-only, or another process holds the lock."""


class NetworkError(TuneloopError):
    """Something has to be fetched and cannot be."""


class TrainingError(TuneloopError):
    """Training cannot go on (loss not finite, nothing to learn from, …)."""


class GateRefused(TuneloopError):
    """The gate's evidence is against the candidate."""

    exit_code = 4


def nearest(word: str, choices: list[str]) -> str:
    """Return `" Did you mean 'x'?"` for the closest of `choices`, or an empty string where nothing is close."""
    lowered = {choice.lower(): choice for choice in choices}
    close = get_close_matches(word.lower(), list(lowered), n=1, cutoff=0.6)
    return f" Did you mean {lowered[close[0]]!r}?" if close else ""
