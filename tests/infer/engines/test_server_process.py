from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from tuneloop.errors import ModelError, StorageError
from tuneloop.infer.engines.server_process import ServerCommand, ServerPatience, ServerProcess

PROGRAM = Path(__file__).with_name("tiny_server.py")
QUICK = ServerPatience(start_s=20.0, end_s=5.0, first_wait_s=0.01, longest_wait_s=0.05, restarts=2)


def process(folder: Path, *behaviour: str, patience: ServerPatience = QUICK) -> ServerProcess:
    def command(port: int, key: str) -> ServerCommand:
        script = (sys.executable, "-I", "-S", str(PROGRAM), str(port), str(folder), *behaviour)
        return ServerCommand(script, {**os.environ, "TINY_KEY": key})

    return ServerProcess("tiny", command, log=folder / "logs" / "server.log", patience=patience)


@contextmanager
def started(folder: Path, *behaviour: str, patience: ServerPatience = QUICK) -> Iterator[ServerProcess]:
    server = process(folder, *behaviour, patience=patience)
    server.start()
    try:
        yield server
    finally:
        server.close()


def noted(folder: Path, name: str = "starts") -> list[int]:
    """Return the process ids that the servers have noted."""
    path = folder / name
    return [int(line.split()[0]) for line in path.read_text().splitlines()] if path.exists() else []


def is_there(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def comes_true(condition: Callable[[], bool], within_s: float = 20.0) -> bool:
    deadline = time.monotonic() + within_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def answers(server: ServerProcess) -> bool:
    headers = {"authorization": f"Bearer {server.key.reveal()}"}
    return httpx.get(f"{server.base_url}/health", headers=headers, trust_env=False).status_code == 200


class Shown:
    """A progress that remembers what it was told."""

    def __init__(self) -> None:
        self.tasks: list[tuple[str, float]] = []
        self.done = 0.0

    @contextmanager
    def task(self, description: str, total: float) -> Iterator[Callable[[float], None]]:
        self.tasks.append((description, total))
        yield self.advance

    def advance(self, units: float) -> None:
        self.done += units

    def say(self, message: str) -> None:
        raise AssertionError(message)


def test_a_server_is_ready_on_loopback_when_start_returns_and_gone_after_close(tmp_path: Path) -> None:
    shown = Shown()
    server = process(tmp_path, "slow")
    server.start(shown)
    assert server.is_alive() and answers(server) and server.base_url.startswith("http://127.0.0.1:")
    assert shown.tasks == [("Starting tiny", 20.0)] and shown.done == pytest.approx(20.0)
    (pid,) = noted(tmp_path)
    server.close()
    assert not server.is_alive() and not is_there(pid) and not is_there(server.process_id)
    server.close()


def test_every_start_has_a_key_of_its_own_that_neither_repr_nor_errors_show(tmp_path: Path) -> None:
    with started(tmp_path) as server:
        key = server.key.reveal()
        assert len(key) > 30 and key in (tmp_path / "logs" / "server.log").read_text()
        assert key not in repr(server.key) + str(server.failure()) and "****" in str(server.failure())
        assert httpx.get(f"{server.base_url}/health", trust_env=False).status_code == 503
    assert (tmp_path / "logs" / "server.log").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("behaviour", ["deaf", "has-children"])
def test_close_ends_the_whole_group_also_what_ignores_the_request(behaviour: str, tmp_path: Path) -> None:
    patience = ServerPatience(start_s=20.0, end_s=0.2)
    with started(tmp_path, behaviour, patience=patience):
        pids = noted(tmp_path) + (noted(tmp_path, "children") if behaviour == "has-children" else [])
        assert all(map(is_there, pids))
    assert not any(map(is_there, pids))


def test_a_server_that_dies_while_starting_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        process(tmp_path, "dies").start()
    assert "exit code 7 while starting" in caught.value.message
    assert "  | no memory left for the model" in caught.value.message
    assert str(tmp_path / "logs" / "server.log") in caught.value.where and "Read the log" in caught.value.hint


def test_a_program_that_is_not_there_is_told_so(tmp_path: Path) -> None:
    command = ServerCommand(("/no/such/program",), dict(os.environ))
    server = ServerProcess("tiny", lambda port, key: command, log=tmp_path / "log", patience=QUICK)
    with pytest.raises(ModelError, match=r"exit code 127(.|\n)*/no/such/program: No such file"):
        server.start()


def test_a_server_that_is_never_ready_is_ended_at_the_deadline(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="was not ready after") as caught:
        process(tmp_path, "never-ready", patience=ServerPatience(start_s=2.0, end_s=2.0)).start()
    assert "longer to start" in caught.value.hint
    assert len(noted(tmp_path)) == 1 and not any(map(is_there, noted(tmp_path)))


def test_a_log_that_cannot_be_written_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("not a folder")
    with pytest.raises(StorageError, match="cannot be written"):
        process(tmp_path).start()


def test_a_death_is_noticed_at_once_and_the_server_comes_back_elsewhere_with_another_key(tmp_path: Path) -> None:
    with started(tmp_path, patience=ServerPatience(start_s=20.0, end_s=2.0, first_wait_s=0.3)) as server:
        before = server.base_url, server.key.reveal()
        os.kill(noted(tmp_path)[0], signal.SIGKILL)
        assert comes_true(lambda: not server.is_alive(), within_s=1.0)
        assert "being started again" in server.failure().hint
        assert server.wait_until_alive(20.0) and answers(server)
        assert (server.base_url, server.key.reveal()) != before and before[1] != server.key.reveal()
        assert len(noted(tmp_path)) == 2 and [is_there(pid) for pid in noted(tmp_path)] == [False, True]


def test_what_a_dead_server_has_left_behind_is_ended_before_it_is_started_again(tmp_path: Path) -> None:
    with started(tmp_path, "has-children") as server:
        os.kill(noted(tmp_path)[0], signal.SIGKILL)
        assert comes_true(lambda: len(noted(tmp_path, "children")) == 2) and server.wait_until_alive(20.0)
        assert [is_there(pid) for pid in noted(tmp_path, "children")] == [False, True]


def test_after_too_many_deaths_in_a_row_it_is_left_alone_and_says_why(tmp_path: Path) -> None:
    with started(tmp_path, "dies-again") as server:
        os.kill(noted(tmp_path)[0], signal.SIGKILL)
        assert comes_true(lambda: "2 starts after that" in server.failure().message)
        assert "no memory left" in server.failure().message and not server.is_alive()
        assert len(noted(tmp_path)) == 3


def test_a_server_that_has_run_for_long_gets_all_its_starts_again(tmp_path: Path) -> None:
    patience = ServerPatience(start_s=20.0, end_s=2.0, first_wait_s=0.01, restarts=1, steady_s=0.0)
    with started(tmp_path, patience=patience) as server:
        for number in range(3):
            os.kill(noted(tmp_path)[number], signal.SIGKILL)
            assert comes_true(lambda: not server.is_alive()) and server.wait_until_alive(20.0)
        assert len(noted(tmp_path)) == 4


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_server_ends_when_we_are_killed(number: int, tmp_path: Path) -> None:
    script = (
        "import sys, time; sys.path[:0] = sys.argv[2:]\n"
        "from pathlib import Path; from tests.infer.engines.test_server_process import process\n"
        "server = process(Path(sys.argv[1]), 'has-children'); server.start()\n"
        "print('ready', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", script, str(tmp_path), str(Path(__file__).resolve().parents[3])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None and owner.stdout.readline() == "ready\n"
        pids = noted(tmp_path) + noted(tmp_path, "children")
        assert all(map(is_there, pids))
        owner.send_signal(number)
        owner.wait()
    assert comes_true(lambda: not any(map(is_there, pids)))


def test_the_server_ends_when_its_watchdog_is_killed(tmp_path: Path) -> None:
    with started(tmp_path, "has-children") as server:
        pids = noted(tmp_path) + noted(tmp_path, "children")
        os.kill(server.process_id, signal.SIGKILL)
        assert comes_true(lambda: not any(map(is_there, pids)))
        assert server.wait_until_alive(20.0)


def test_closing_while_it_starts_again_leaves_nothing_behind(tmp_path: Path) -> None:
    with started(tmp_path, "slow") as server:
        os.kill(noted(tmp_path)[0], signal.SIGKILL)
        assert comes_true(lambda: len(noted(tmp_path)) == 2)
    assert not any(map(is_there, noted(tmp_path)))
    with suppress(ModelError):
        assert not server.is_alive()
