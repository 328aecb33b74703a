"""Documents per second and latency of classification into 77 labels over HTTP, against three ways to do without us.

Banking77's messages, an instruction that names all 77 labels, one message a request. Ours is a real `tuneloop serve`.
The peers serve the same weights, merged: a FastAPI service around `model.generate` as tutorials write it, vLLM (its
own environment, its prefix cache, guided choice) and llama.cpp's server (Q8_0, its prefix cache, a grammar). Every
service is a process of its own; all of them are there from the beginning, and in every round each is asked for
`--seconds` by every number of clients, in turn, from one more process. Ours gives a probability for every label, the
peers a label.

`ratio` compares capacities: documents per second at the number of clients that suits a service best, medians of all
rounds. A peer that is not on this machine has no ratio, and `unavailable` says why.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from _load import Plan
from _measure import banking77, machine, parser, show
from _project import MAX_TOKENS, Project, make_project
from _services import BENCHMARKS, Command, Running, Unavailable, generate_service, llamacpp, ours, running, vllm

PEERS = ("generate", "vllm", "llamacpp")
RATIO = {"generate": "generate_service", "vllm": "vllm", "llamacpp": "llamacpp"}
OURS = "tuneloop"
FIGURES = ("docs_per_s", "p50_ms", "p95_ms", "p99_ms")
WARM_UP_S = 3.0
IDLE_CPU = 0.1  # processor seconds a second that the services not asked may use together, before it counts as unfair

Measured = Mapping[str, Any]


@dataclass
class Bench:
    """Everything that was measured: service → clients → one result a round."""

    project: Project
    texts: list[str]
    seconds: float
    services: dict[str, Running] = field(default_factory=dict)
    results: dict[str, dict[int, list[Measured]]] = field(
        default_factory=lambda: defaultdict(lambda: defaultdict(list))
    )
    switching: dict[str, list[float]] = field(default_factory=lambda: {"one": [], "both": []})
    idle_cpu: list[float] = field(default_factory=list)
    asked: int = 0

    def load(
        self,
        name: str,
        clients: int,
        *,
        models: Sequence[str] = (),
        seconds: float | None = None,
        first: int | None = None,
    ) -> Measured:
        """Put load on one service from a process of its own."""
        service = self.services[name]
        plan = Plan(
            url=service.command.url,
            kind=service.command.kind,
            clients=clients,
            seconds=seconds or self.seconds,
            texts=self.texts,
            labels=list(self.project.task.labels),
            system=self.project.task.system(),
            models=list(models) or [service.command.model],
            first=self.asked if first is None else first,
        )
        script = [sys.executable, str(BENCHMARKS / "_load.py")]
        done = subprocess.run(script, input=json.dumps(asdict(plan)), stdout=subprocess.PIPE, text=True, check=True)
        result: dict[str, Any] = json.loads(done.stdout)
        return result

    def warm_up(self) -> None:
        """Ask every service something, so that none computes for the first time while it is measured."""
        for name in self.services:
            self.load(name, 2, seconds=WARM_UP_S)

    def round(self, clients: Sequence[int]) -> None:
        """Measure every service once with every number of clients, one after the other, on the same messages."""
        for count in clients:
            most = 0
            for name in self.services:
                before = {other: service.cpu_s() for other, service in self.services.items() if other != name}
                result = self.load(name, count)
                idle = sum(self.services[other].cpu_s() - seconds for other, seconds in before.items())
                self.idle_cpu.append(idle / self.seconds)
                self.results[name][count].append(result)
                most = max(most, int(result["answered"]))
                shown = {figure: round(result[figure], 2) for figure in FIGURES}
                print(f"  {name}, {count} clients: {shown} {result['errors'] or ''}", file=sys.stderr)
            self.asked += most  # the next load finds no message in any cache

    def measure_switching(self) -> None:
        """Ask our service one at a time, for one adapter and then for two in turn."""
        for which, models in (("one", ["a"]), ("both", ["a", "b"])):
            result = self.load(OURS, 1, models=models)
            self.switching[which].append(float(result["p50_ms"]))
            self.asked += int(result["answered"])


def main() -> None:
    """Run the benchmark."""
    arguments = parser(__doc__ or "")
    arguments.add_argument("--model", default="embedded", help="base model: embedded, a folder or a Hub id")
    arguments.add_argument(
        "--work", type=Path, help="folder for the project, found again next time (default: a new one)"
    )
    arguments.add_argument("--train-examples", type=int, default=64, help="examples of the two quick trainings")
    arguments.add_argument("--messages", type=int, default=3000, help="messages that requests are taken from")
    arguments.add_argument("--seconds", type=float, default=30.0, help="how long each service is asked each time")
    arguments.add_argument("--clients", type=int, nargs="+", default=[1, 8, 64])
    arguments.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS))
    given = arguments.parse_args()
    with ExitStack() as stack:
        work = given.work or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tuneloop-bench-")))
        needs_gguf = "llamacpp" in given.peers
        project = make_project(work.absolute(), given.data, given.model, given.train_examples, needs_gguf=needs_gguf)
        texts = [message.text for message in banking77(given.data, "test.csv")][: given.messages]
        bench = Bench(project, texts, given.seconds)
        commands, unavailable = _commands(project, work.absolute(), given.peers, max(given.clients))
        for command in commands:
            print(f"  starting {command.name}", file=sys.stderr)
            bench.services[command.name] = stack.enter_context(running(command, work.absolute() / "logs"))
        bench.warm_up()
        for _ in range(max(given.rounds, 1)):
            bench.round(given.clients)
            bench.measure_switching()
        memory = {name: round(service.memory_mib()) for name, service in bench.services.items()}
        show(_result(bench, unavailable, memory), as_json=given.json)


def _commands(
    project: Project, work: Path, peers: Sequence[str], most_clients: int
) -> tuple[list[Command], dict[str, str]]:
    """Return the services to start, ours first, and why others cannot be."""
    system = work / "system.json"
    system.write_text(json.dumps(project.task.system()), encoding="utf-8")
    commands, unavailable = [ours(project.config, dict(zip("ab", project.runs, strict=True)))], {}
    makers = {
        "generate": lambda: generate_service(project.merged, system),
        "vllm": lambda: vllm(project.merged, MAX_TOKENS),
        "llamacpp": lambda: llamacpp(_required(project.gguf), min(most_clients, 8)),
    }
    for peer in peers:
        try:
            commands.append(makers[peer]())
        except Unavailable as reason:
            unavailable[RATIO[peer]] = str(reason)
    return commands, unavailable


def _required(path: Path | None) -> Path:
    if path is None:
        raise Unavailable("there is no GGUF form of the model")
    return path


def _result(bench: Bench, unavailable: Mapping[str, str], memory: Mapping[str, int]) -> dict[str, Any]:
    figures = {name: _medians(by_clients) for name, by_clients in bench.results.items()}
    return {
        "name": "serve",
        "machine": machine(),
        "ours": {**figures[OURS], "memory_mib": memory[OURS]},
        "peer": {RATIO[n]: {**figures[n], "memory_mib": memory[n]} for n in figures if n != OURS},
        "ratio": _ratios(figures),
        "unavailable": dict(unavailable),
        "checks": _checks(bench),
    }


def _medians(by_clients: Mapping[int, Sequence[Measured]]) -> dict[str, float]:
    """Return every figure at every number of clients, as `docs_per_s_8`."""
    return {
        f"{figure}_{clients}": round(statistics.median(float(one[figure]) for one in rounds), 3)
        for clients, rounds in by_clients.items()
        for figure in FIGURES
    }


def _capacity(figures: Mapping[str, float]) -> float:
    return max(value for name, value in figures.items() if name.startswith("docs_per_s_"))


def _ratios(figures: Mapping[str, Mapping[str, float]]) -> dict[str, float | None]:
    """Return our capacity over each peer's, and the same at each number of clients; None where a peer gave nothing."""
    ratios: dict[str, float | None] = {}
    for peer, name in RATIO.items():
        theirs = figures.get(peer)
        ratios[f"docs_per_s_vs_{name}"] = None if theirs is None else _over(_capacity(figures[OURS]), _capacity(theirs))
        for key in (key for key in theirs or {} if key.startswith("docs_per_s_")):
            clients = key.removeprefix("docs_per_s_")
            ratios[f"docs_per_s_vs_{name}_at_{clients}_clients"] = _over(figures[OURS][key], (theirs or {})[key])
    return ratios


def _over(ours: float, theirs: float) -> float | None:
    return round(ours / theirs, 2) if theirs > 0 else None


def _checks(bench: Bench) -> dict[str, Any]:
    """Return what must be as it should for the figures to mean something."""
    one, both = (statistics.median(bench.switching[which]) for which in ("one", "both"))
    everything = [one for by_clients in bench.results.values() for rounds in by_clients.values() for one in rounds]
    errors: dict[str, int] = defaultdict(int)
    for name, by_clients in bench.results.items():
        errors[name] += sum(sum(one["errors"].values()) for rounds in by_clients.values() for one in rounds)
    outside = {
        name: sum(int(one["outside_label_set"]) for rounds in by_clients.values() for one in rounds)
        for name, by_clients in bench.results.items()
    }
    return {
        "answers": sum(int(one["answered"]) for one in everything),
        "errors": dict(errors),
        "outside_label_set": outside,
        "label_agreement": {RATIO[name]: _agreement(bench, name) for name in bench.results if name != OURS},
        "adapter_switch_cost_share": round(both / one - 1, 4),
        "adapter_one_p50_ms": round(one, 2),
        "adapter_both_p50_ms": round(both, 2),
        "idle_cpu_share": round(statistics.median(bench.idle_cpu), 4),
        "is_fair": statistics.median(bench.idle_cpu) <= IDLE_CPU,
    }


def _agreement(bench: Bench, peer: str) -> float | None:
    """Return on which share of the messages that both answered a peer gave the same label as ours."""
    mine, theirs = (_labels(bench, name) for name in (OURS, peer))
    both = mine.keys() & theirs.keys()
    return round(sum(mine[number] == theirs[number] for number in both) / len(both), 4) if both else None


def _labels(bench: Bench, name: str) -> dict[str, str]:
    return {n: label for rounds in bench.results[name].values() for one in rounds for n, label in one["labels"].items()}


if __name__ == "__main__":
    main()
