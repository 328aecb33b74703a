"""What the benchmarks share: data, the machine's description, child processes, medians, and how a result is printed.

Every benchmark prints one JSON object with `name`, `machine`, `ours`, `peer`, `ratio` (ours to peer, over 1 is better
for us) and `checks`. Both sides run in alternating processes or interleaved in one, and figures are medians.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import resource
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tuneloop.records import Example, example_id

BESIDE_THE_CHECKOUT = Path(__file__).resolve().parents[2] / "shared" / "data" / "banking77"
SHORT_INSTRUCTION = "Name the intent of the customer's message."


def parser(description: str) -> argparse.ArgumentParser:
    """Return a parser with the arguments that every benchmark has."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    made.add_argument("--json", action="store_true", help="print the result as one JSON object and nothing else")
    made.add_argument(
        "--data",
        type=Path,
        default=Path(os.environ.get("TUNELOOP_BANKING77", BESIDE_THE_CHECKOUT)),
        help="folder with Banking77's train.csv and test.csv (PolyAI 2020, CC-BY-4.0), columns text and category",
    )
    made.add_argument("--rounds", type=int, default=2, help="how often each side is measured")
    return made


def banking77(folder: Path, name: str = "train.csv") -> list[Example]:
    """Return the rows of one of Banking77's files, in a fixed random order."""
    if not (folder / name).exists():
        sys.exit(f"{folder / name}: no such file. Give Banking77's folder with --data or TUNELOOP_BANKING77.")
    with (folder / name).open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    random.Random(0).shuffle(rows)
    return [
        Example(id=example_id(row["text"], row["category"], None), text=row["text"].strip(), label=row["category"])
        for row in rows
    ]


def in_child(script: str, *arguments: str) -> dict[str, Any]:
    """Run a benchmark script's `--child` mode and return the JSON object that it prints last."""
    command = [sys.executable, script, "--child", *arguments]
    finished = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(finished.stdout.strip().splitlines()[-1])
    print(f"  {' '.join(arguments)}: {result}", file=sys.stderr)
    return result


def peak_memory_gib() -> float:
    """Return the largest resident size that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def median_of(results: Sequence[Mapping[str, Any]], key: str) -> float:
    """Return the median of one figure over several results."""
    return float(statistics.median(result[key] for result in results))


def machine() -> dict[str, Any]:
    """Describe where this ran."""
    import torch

    from tuneloop.hardware import measure

    hardware = measure()
    return {
        "device": hardware.best_device.name,
        "cores": hardware.cores,
        "memory_gib": hardware.memory_total_gib,
        "torch": torch.__version__,
    }


def show(result: Mapping[str, Any], *, as_json: bool) -> None:
    """Print the result: one line of JSON, or indented for a person."""
    print(json.dumps(result, indent=None if as_json else 2))
