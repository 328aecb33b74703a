"""Every way a command can end badly, as an error that says what happened, where, and what to do next."""

from __future__ import annotations

import errno
import os
import signal
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import takewhile
from typing import ClassVar

from typer import TyperException

from tuneloop.cli.session import STORE_ROOT
from tuneloop.config.secrets import mask_password
from tuneloop.errors import StorageError, TuneloopError, UsageError

FREE_SPACE = "Free some space, or point --set store.root=FOLDER at another disk"
ALLOW = "Correct the permissions, or point --set store.root=FOLDER at a folder that you may write"
HINTS = {
    errno.ENOSPC: FREE_SPACE,
    errno.EDQUOT: FREE_SPACE,
    errno.EROFS: ALLOW,
    errno.EACCES: ALLOW,
    errno.EPERM: ALLOW,
}


class Interrupted(TuneloopError):
    """Ctrl-C."""

    exit_code: ClassVar[int] = 128 + signal.SIGINT


class Terminated(TuneloopError):
    """SIGTERM."""

    exit_code: ClassVar[int] = 128 + signal.SIGTERM


class Bug(TuneloopError):
    """Something that no one foresaw."""


def interrupted(number: int) -> TuneloopError:
    """Return what to print after this signal: SIGINT (Ctrl-C) or SIGTERM."""
    is_termination = number == signal.SIGTERM
    kind = Terminated if is_termination else Interrupted
    return kind(
        "terminated" if is_termination else "interrupted",
        where=f"{STORE_ROOT.get()} (nothing half-written counts)",
        hint="Run the same command again: it goes on from the last step or checkpoint that was finished.",
    )


def explain(error: Exception, arguments: Sequence[str]) -> TuneloopError:
    """Return `error` as one that can be printed; what was not foreseen gets its traceback written to a file."""
    arguments = [mask_password(word) for word in arguments]
    if isinstance(error, TuneloopError):
        return error
    if isinstance(error, TyperException):
        return _usage_error(error, arguments)
    if isinstance(error, OSError) and error.errno in HINTS:
        return StorageError(
            f"cannot read or write: {os.strerror(error.errno or 0).lower()}",
            where=str(error.filename or STORE_ROOT.get()),
            hint=f"{HINTS[error.errno]}, then run the same command again; what was finished before is kept.",
        )
    if _is_out_of_memory(error):
        return TuneloopError(
            "out of memory",
            where=f"tuneloop {' '.join(arguments)}",
            hint="Lower train.tokens_per_row or model.max_tokens, or set train.gradient_checkpointing=true.",
        )
    return _bug(error, arguments)


def _usage_error(error: TyperException, arguments: Sequence[str]) -> UsageError:
    context = getattr(error, "ctx", None)
    words = takewhile(str.isalpha, arguments)  # some errors come without their context
    command = context.command_path if context else " ".join(["tuneloop", *words])
    format_message = getattr(error, "format_message", lambda: str(error))
    return UsageError(
        " ".join(format_message().split()).removesuffix("."),
        where=" ".join(["tuneloop", *arguments]),
        hint=f"`{command} --help` shows what it takes, with an example.",
    )


def _is_out_of_memory(error: Exception) -> bool:
    is_torch = any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__)
    return isinstance(error, MemoryError) or is_torch or "can't allocate memory" in str(error)


def _bug(error: Exception, arguments: Sequence[str]) -> Bug:
    """Write the traceback below the store (or, with TUNELOOP_DEBUG, show it) and say where it is."""
    details = "".join(traceback.format_exception(error))
    message = f"this is a bug in tuneloop ({type(error).__name__}: {' '.join(str(error).split())[:200]})"
    if os.environ.get("TUNELOOP_DEBUG"):
        return Bug(message, where=details.rstrip(), hint="Please report it with the lines above.")
    path = STORE_ROOT.get() / "crashes" / f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{os.getpid()}.txt"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"tuneloop {' '.join(arguments)}\n\n{details}")
    except OSError as unwritable:
        return Bug(
            message,
            where=f"the traceback could not be written to {path}: {unwritable.strerror}",
            hint="Run it again with TUNELOOP_DEBUG=1 to see the traceback, and please report it.",
        )
    return Bug(message, where=f"traceback: {path}", hint="Please report it with that file; what was finished is kept.")
