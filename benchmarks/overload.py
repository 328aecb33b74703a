"""What the service does under more load than it can bear, when its copies are restarted, and when its engine dies.

Banking77's messages, 77 labels. Four parts, each with real processes:

- overload: `--times` the measured capacity arrives at a fixed rate for `--seconds`. Refused requests have to be 429 or
  503 with Retry-After, answered ones right and in time, memory bounded, and each answer has its row in the log.
- restart: two copies behind nginx, configured as docs/serving.md says, are restarted one after the other under load.
- engine: vLLM, in its own environment, is killed under load. How long until /readyz says no, and until yes again?
- soak: half the capacity (or `--soak-rate`) for `--soak-seconds`, and beside it everything else that clients do: chats,
  broken streams, feedback, bodies that are no JSON. Memory, file descriptors and threads must not grow.

The labels that count as right are those that the service gave before, to one request at a time. A part whose program is
not on this machine is left out, and `unavailable` says why. There is no peer; `checks` is what matters.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
from _flood import Flood
from _load import Plan
from _measure import banking77, machine, parser, show
from _project import Project, make_project
from _services import BENCHMARKS, Command, Running, Unavailable, free_port, ours, running

PARTS = ("overload", "restart", "engine", "soak")
DEADLINE_S = 30.0
CAPACITY_S = 30.0
SAMPLE_S = 2.0
JSON = {"Content-Type": "application/json"}
NGINX = """
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/nginx-error.log;
events {{ worker_connections 512; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  upstream tuneloop {{ {servers} keepalive 32; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://tuneloop;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $host;
      proxy_buffering off;
      proxy_read_timeout 65s;
      proxy_next_upstream error timeout http_503 non_idempotent;
      client_max_body_size 8m;
    }}
  }}
}}
"""


@dataclass(frozen=True)
class Bench:
    """The project, the messages, and where logs go."""

    project: Project
    work: Path
    texts: list[str]
    seconds: float
    times: float
    soak_s: float
    soak_rate: float | None

    def copy(self, name: str, *settings: str) -> Command:
        """Return how a copy of our service is started: one run, and settings of its own."""
        command = ours(self.project.config, {"a": self.project.runs[0]}, deadline_s=DEADLINE_S, settings=settings)
        return replace(command, name=name)

    def right_labels(self, url: str) -> list[str]:
        """Return the labels that the service gives when nobody else asks."""
        with httpx.Client(base_url=url, timeout=DEADLINE_S + 30, trust_env=False) as http:
            answers = [http.post("/v1/predict", json={"documents": text}).raise_for_status() for text in self.texts]
        return [answer.json()["results"][0]["label"] for answer in answers]

    def load(self, url: str, *, clients: int, seconds: float) -> subprocess.Popen[str]:
        """Start clients that wait for their answers, in a process of their own."""
        plan = Plan(url, "tuneloop", clients, seconds, self.texts, list(self.project.task.labels), "")
        return _child("_load.py", asdict(plan))


def main() -> None:
    """Run the benchmark."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("--work", type=Path, help="folder for the project, found again next time")
    arguments.add_argument("--model", default="embedded", help="base model: embedded, a folder or a Hub id")
    arguments.add_argument("--train-examples", type=int, default=64, help="examples of the quick training")
    arguments.add_argument("--messages", type=int, default=64, help="different messages that are asked about")
    arguments.add_argument("--seconds", type=float, default=300.0, help="how long the overload lasts")
    arguments.add_argument("--times", type=float, default=4.0, help="the overload, in capacities")
    arguments.add_argument("--soak-seconds", type=float, default=1800.0, help="how long the soak lasts")
    arguments.add_argument("--soak-rate", type=float, help="documents a second (default: half the capacity)")
    arguments.add_argument("--parts", nargs="*", choices=PARTS, default=list(PARTS))
    given = arguments.parse_args()
    with ExitStack() as stack:
        work = given.work or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tuneloop-bench-")))
        work = work.absolute()
        project = make_project(work, given.data, given.model, given.train_examples, needs_gguf=False)
        texts = [message.text for message in banking77(given.data, "test.csv")][: given.messages]
        bench = Bench(project, work, texts, given.seconds, given.times, given.soak_seconds, given.soak_rate)
        parts: dict[str, Callable[[Bench], dict[str, Any]]] = {
            "overload": overload, "restart": restart, "engine": engine, "soak": soak,
        }  # fmt: skip
        results, unavailable = {}, {}
        for name in given.parts:
            print(f"  {name}", file=sys.stderr)
            try:
                results[name] = parts[name](bench)
            except Unavailable as reason:
                unavailable[name] = str(reason)
            print(f"    {results.get(name) or unavailable[name]}", file=sys.stderr)
    checks = {f"{part}_{name}": value for part, result in results.items() for name, value in result["checks"].items()}
    shown = {name: result["figures"] for name, result in results.items()}
    show(
        {"name": "overload", "machine": machine(), "ours": shown, "unavailable": unavailable, "checks": checks},
        as_json=given.json,
    )


def overload(bench: Bench) -> dict[str, Any]:
    """Ask for more than can be answered."""
    command, before = bench.copy("overload"), _logged(bench)
    with running(command, bench.work / "logs") as service:
        labels = bench.right_labels(command.url)
        measured = _result(bench.load(command.url, clients=16, seconds=CAPACITY_S))
        rate = bench.times * measured["docs_per_s"]
        plan = Flood(command.url, rate, bench.seconds, bench.texts, labels, DEADLINE_S)
        child = _child("_flood.py", asdict(plan))
        memory = _memory_while(child, service)
        seen = _result(child)
        answered = len(bench.texts) + measured["answered"] + seen["answered"]
    rows = _logged(bench) - before
    half = len(memory) // 2
    return {
        "figures": {
            "capacity_docs_per_s": round(measured["docs_per_s"], 2),
            "sent_per_s": round(rate, 1),
            **seen,
            "memory_mib": [round(memory[0]), round(max(memory[:half])), round(max(memory[half:]))],
        },
        "checks": {
            "only_200_429_503": set(seen["statuses"]) <= {"200", "429", "503"},
            "refused": sum(count for status, count in seen["statuses"].items() if status != "200"),
            "without_retry_after": seen["without_retry_after"],
            "late": seen["late"],
            "wrong": seen["wrong"],
            "memory_growth_in_second_half": round(max(memory[half:]) / max(memory[:half]) - 1, 4),
            "answered_minus_logged": answered - rows,
        },
    }


def restart(bench: Bench) -> dict[str, Any]:
    """Restart two copies behind nginx, one after the other."""
    commands = [bench.copy(f"copy-{number}", "serve.drain_delay_s=1") for number in (1, 2)]
    with ExitStack() as proxy, ExitStack() as first, ExitStack() as second:
        stacks = (first, second)
        for command, stack in zip(commands, stacks, strict=True):
            stack.enter_context(running(command, bench.work / "logs"))
        url = proxy.enter_context(_nginx(bench.work, [command.port for command in commands]))
        labels = bench.right_labels(url)
        load = bench.load(url, clients=8, seconds=24 * 3600.0)
        took = []
        for command, stack in zip(commands, stacks, strict=True):
            time.sleep(5)
            started = time.monotonic()
            stack.close()  # SIGTERM, and wait for its end
            stack.enter_context(running(command, bench.work / "logs"))
            took.append(round(time.monotonic() - started, 1))
        time.sleep(5)
        load.send_signal(signal.SIGUSR1)
        seen = _result(load)
    wrong = sum(label != labels[int(number)] for number, label in seen["labels"].items())
    return {
        "figures": {"answered": seen["answered"], "p99_ms": round(seen["p99_ms"], 1), "restart_s": took},
        "checks": {"failed": sum(seen["errors"].values()), "wrong": wrong},
    }


def engine(bench: Bench) -> dict[str, Any]:
    """Kill vLLM while it answers."""
    from tuneloop.environments import VLLM_CPU, find_environment
    from tuneloop.errors import UsageError

    try:
        find_environment(VLLM_CPU)
    except UsageError as error:
        raise Unavailable(f"{error.message}. {error.hint}") from error
    command = bench.copy("vllm-engine", "serve.engine=vllm")
    with running(command, bench.work / "logs") as service:
        load = bench.load(command.url, clients=4, seconds=24 * 3600.0)
        time.sleep(20)
        killed = _kill_engine(service)
        unready_s = _seconds_until(command, 503)
        ready_s = unready_s + _seconds_until(command, 200)
        time.sleep(20)
        load.send_signal(signal.SIGUSR1)
        seen = _result(load)
    return {
        "figures": {
            "killed_processes": killed,
            "unready_after_s": round(unready_s, 2),
            "ready_after_s": round(ready_s, 1),
            "answered": seen["answered"],
            "errors": seen["errors"],
        },
        "checks": {"unready_within_a_second": unready_s <= 1.0, "only_503_meanwhile": set(seen["errors"]) <= {"503"}},
    }


def soak(bench: Bench) -> dict[str, Any]:
    """Ask for a long time for what can be answered, and for things that cannot."""
    command, samples = bench.copy("soak"), []
    with running(command, bench.work / "logs") as service:
        labels = bench.right_labels(command.url)
        rate = bench.soak_rate or _result(bench.load(command.url, clients=16, seconds=CAPACITY_S))["docs_per_s"] / 2
        child = _child("_flood.py", asdict(Flood(command.url, rate, bench.soak_s, bench.texts, labels, DEADLINE_S)))
        kinds: Counter[str] = Counter()
        while child.poll() is None:
            _misbehave(command, bench.texts[0], kinds)
            samples.append((time.monotonic(), service.memory_mib(), *_handles(service)))
            time.sleep(SAMPLE_S)
        seen = _result(child)
    times, memory, files, threads = np.array(samples[len(samples) // 3 :]).T  # the first third fills caches
    slopes = {
        name: float(np.polyfit(times / 3600, values, 1)[0])
        for name, values in (("memory_mib", memory), ("files", files), ("threads", threads))
    }
    return {
        "figures": {
            **seen,
            "rate": round(rate, 2),
            "beside_it": dict(kinds),
            **{f"{name}_an_hour": round(slope, 2) for name, slope in slopes.items()},
            "memory_mib": [round(samples[0][1]), round(float(memory[0])), round(float(memory[-1]))],
            "files": [int(samples[0][2]), int(files[0]), int(files[-1])],
            "threads": [int(samples[0][3]), int(threads[0]), int(threads[-1])],
        },
        "checks": {
            "wrong": seen["wrong"],
            "failed": sum(count for status, count in seen["statuses"].items() if status not in ("200", "429", "503")),
            "unexpected_answers": kinds["unexpected"],
            "files_grown": int(files[-1] - files[0]),
            "threads_grown": int(threads[-1] - threads[0]),
        },
    }


def _misbehave(command: Command, text: str, kinds: Counter[str]) -> None:
    """Ask once in every other way, and count what does not come back as it should."""
    message = {"messages": [{"role": "user", "content": text}], "max_tokens": 8}
    with httpx.Client(base_url=command.url, timeout=DEADLINE_S + 30, trust_env=False) as http:
        answered = http.post("/v1/predict", json={"documents": text})
        label = answered.json()["results"][0]["label"] if answered.status_code == 200 else ""
        said = {"request_id": answered.headers.get("x-request-id", ""), "label": label}
        asked = {
            "feedback": (http.post("/v1/feedback", json=said), {200, 201, 404}),
            "chat": (http.post("/v1/chat/completions", json={"model": "a", **message}), {200, 503}),
            "no json": (http.post("/v1/predict", content=b"{]", headers=JSON), {400, 422}),
            "no route": (http.get("/nothing"), {404}),
        }
        with http.stream("POST", "/v1/chat/completions", json={"model": "a", "stream": True, **message}) as stream:
            next(stream.iter_bytes(1), b"")  # and leave
    kinds["broken stream"] += 1
    for kind, (response, allowed) in asked.items():
        kinds[kind] += 1
        if response.status_code not in allowed:
            kinds["unexpected"] += 1
            print(f"    {kind}: {response.status_code} {response.text[:200]}", file=sys.stderr)


def _handles(service: Running) -> tuple[int, int]:
    """Return how many file descriptors and threads the service has, all its processes together."""
    leader = psutil.Process(service.process.id)
    processes = [leader, *leader.children(recursive=True)]
    return sum(process.num_fds() for process in processes), sum(process.num_threads() for process in processes)


def _kill_engine(service: Running) -> int:
    """Kill every process of vLLM below the service; returns how many."""
    below = psutil.Process(service.process.id).children(recursive=True)
    theirs = [process for process in below if any("vllm" in word for word in process.cmdline())]
    theirs = [process for process in theirs if "tuneloop" not in process.cmdline()]
    for process in theirs:
        process.send_signal(signal.SIGKILL)
    return len(theirs)


def _seconds_until(command: Command, status: int) -> float:
    started = time.monotonic()
    with httpx.Client(base_url=command.url, timeout=5, trust_env=False) as http:
        while time.monotonic() - started < 600:
            if http.get("/readyz").status_code == status:
                return time.monotonic() - started
            time.sleep(0.02)
    raise RuntimeError(f"/readyz did not say {status} within ten minutes")


@contextmanager
def _nginx(work: Path, ports: Sequence[int]) -> Iterator[str]:
    program = shutil.which("nginx")
    if program is None:
        raise Unavailable("nginx is not on this machine: apt-get install nginx")
    folder, port = work / "nginx", free_port()
    folder.mkdir(exist_ok=True)
    servers = " ".join(f"server 127.0.0.1:{one};" for one in ports)
    configuration = folder / "nginx.conf"
    configuration.write_text(NGINX.format(folder=folder, servers=servers, port=port), encoding="utf-8")
    command = Command("nginx", "tuneloop", [program, "-c", str(configuration)], port, "/readyz")
    with running(command, work / "logs"):
        yield command.url


def _child(script: str, plan: dict[str, Any]) -> subprocess.Popen[str]:
    child = subprocess.Popen(
        [sys.executable, str(BENCHMARKS / script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    threading.Thread(target=_write, args=(child, json.dumps(plan)), daemon=True).start()
    return child


def _write(child: subprocess.Popen[str], text: str) -> None:
    assert child.stdin is not None
    with child.stdin as pipe:
        pipe.write(text)


def _result(child: subprocess.Popen[str]) -> dict[str, Any]:
    assert child.stdout is not None
    content = child.stdout.read()
    if child.wait() != 0:
        raise RuntimeError(f"a load process ended with {child.returncode}")
    result: dict[str, Any] = json.loads(content)
    return result


def _memory_while(child: subprocess.Popen[str], service: Running) -> list[float]:
    """Return the service's memory in MiB, again and again until the child has ended."""
    samples = [service.memory_mib()]
    while child.poll() is None:
        time.sleep(SAMPLE_S)
        samples.append(service.memory_mib())
    smooth = [statistics.median(samples[max(at - 1, 0) : at + 2]) for at in range(len(samples))]
    return smooth if len(smooth) > 1 else smooth * 2


def _logged(bench: Bench) -> int:
    """Return how many rows the log has."""
    words = ["requests", "list", "--config", str(bench.project.config), "--limit", "1", "--json"]
    done = subprocess.run([sys.executable, "-m", "tuneloop", *words], stdout=subprocess.PIPE, text=True, check=True)
    return int(json.loads(done.stdout)["total"])


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
