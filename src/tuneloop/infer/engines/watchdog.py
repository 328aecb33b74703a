"""Run a server for as long as whoever started it lives. A script of its own, which imports nothing of this package.

    python -I watchdog.py PIPE GRACE_S COMMAND ARGUMENT…

PIPE is the number of a file descriptor whose other end only the parent holds. When it closes, because the parent closed
it or was killed (even by SIGKILL), the server and everything in its process group ends: SIGTERM first, SIGKILL after
GRACE_S seconds. When the server ends by itself, its exit code becomes this script's: 128 + N after signal N.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def main(arguments: Sequence[str]) -> int:
    """Start the command, and return its exit code when it has ended."""
    pipe, grace_s, command = int(arguments[0]), float(arguments[1]), list(arguments[2:])
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _leave_to_the_pipe)
    try:
        server = subprocess.Popen(command, preexec_fn=_bind_to_parent())  # this process has one thread until here
    except OSError as error:
        print(f"{command[0]}: {error.strerror or error}", file=sys.stderr)  # noqa: T201, this is a program
        return 127
    is_ending = threading.Event()
    ending = threading.Thread(target=_end_with_parent, args=(pipe, server, grace_s, is_ending), daemon=True)
    ending.start()
    code = server.wait()
    if is_ending.is_set():  # the rest of the group may need SIGKILL
        ending.join()
    os.killpg(os.getpgrp(), signal.SIGTERM)  # what the server has left behind
    return code if code >= 0 else 128 - code


def _end_with_parent(pipe: int, server: subprocess.Popen[bytes], grace_s: float, is_ending: threading.Event) -> None:
    """Wait until the parent lets go of the pipe, then end the whole group, this process included."""
    while os.read(pipe, 1024):
        continue
    is_ending.set()
    group = os.getpgrp()
    os.killpg(group, signal.SIGTERM)
    try:
        server.wait(grace_s)
    except subprocess.TimeoutExpired:
        print(f"still running {grace_s:g} s after SIGTERM: ended by SIGKILL", file=sys.stderr)  # noqa: T201
    os.killpg(group, signal.SIGKILL)


def _leave_to_the_pipe(number: int, frame: object) -> None:
    """Signals to the group are for the server; a handler (unlike SIG_IGN) is not inherited by it."""


def _bind_to_parent() -> Callable[[], None] | None:
    """Return what lets the server be killed with this process, where the system can do that (Linux)."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None).prctl  # looked up before the fork
    return lambda: prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


if __name__ == "__main__":
    os._exit(main(sys.argv[1:]))  # without waiting for the thread
