"""What this machine can do, measured: devices, memory, and which number formats are fast here.

Nothing is looked up in a table of products. A dtype is fast when a timed matrix product says so: bfloat16 is 80 to 500
times slower than float32 on CPUs without native support, and twice as fast or better on those that have it.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

DeviceKind = Literal["cpu", "cuda", "mps"]

MEASURED_DTYPES = ("float32", "bfloat16", "float16")
# float16 is left out: its narrow range needs loss scaling, or gradients vanish (Micikevicius et al. 2018, section 3.2).
SAFE_DTYPES = ("float32", "bfloat16")
WORTH_LOWER_PRECISION = 1.2  # times the speed of float32, beyond what one measurement varies by
BUDGET_S = 0.25  # for one dtype on one device
MAX_REPEATS = 9
GIB = 2**30
CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Device:
    """One place to compute. `gflops` maps dtype names to measured GFLOP/s; a dtype that does not run is not in it."""

    kind: DeviceKind
    index: int
    name: str
    memory_gib: float
    gflops: Mapping[str, float] = field(default_factory=dict)

    @property
    def torch_name(self) -> str:
        """The name that torch knows the device by, like `cuda:0`."""
        return f"cuda:{self.index}" if self.kind == "cuda" else self.kind


@dataclass(frozen=True)
class Hardware:
    """This machine as the process sees it: CPU affinity and container memory limits count, not what is built in."""

    devices: tuple[Device, ...]
    cores: int
    memory_total_gib: float
    memory_available_gib: float

    @property
    def best_device(self) -> Device:
        """The device to train on: the GPU with the most memory, else Apple's, else the CPU."""
        rank = {"cuda": 2, "mps": 1, "cpu": 0}
        return max(self.devices, key=lambda device: (rank[device.kind], device.memory_gib, -device.index))


def measure() -> Hardware:
    """Return devices, memory and speeds; takes under a second after torch is imported, and speeds are kept."""
    import psutil

    memory = psutil.virtual_memory()
    limit, used = _container_memory_bytes(CGROUP)
    total = min(memory.total, limit)
    available = min(memory.available, limit - used) if limit < memory.total else memory.available
    return Hardware(
        devices=tuple(_devices(total / GIB)),
        cores=_usable_cores(),
        memory_total_gib=round(total / GIB, 2),
        memory_available_gib=round(max(available, 0) / GIB, 2),
    )


def choose_dtype(hardware: Hardware, requested: str) -> str:
    """Return `requested`, or for `auto` the fastest dtype on the best device that training is stable in.

    float32 stays unless another is at least 1.2 times as fast there: precision is not given away for noise.
    """
    if requested != "auto":
        return requested
    speeds = hardware.best_device.gflops
    base = speeds.get("float32", 0.0) * WORTH_LOWER_PRECISION
    faster = {name: speeds[name] for name in SAFE_DTYPES if name in speeds and speeds[name] > base}
    return max(faster, key=lambda name: faster[name], default="float32")


def matmul_gflops(
    dtype: str, device: str = "cpu", shape: tuple[int, int, int] = (1024, 1024, 1024), budget_s: float = BUDGET_S
) -> float:
    """Return the speed of `(m, k) @ (k, n)` in GFLOP/s: the median of repeated runs.

    Starts at a sixteenth of `shape` and doubles while the next size fits into `budget_s`, so that what is 500 times
    slower is recognised in milliseconds. Small sizes only choose the size: on busy cores, starting threads dwarfs them.

    Args: dtype a torch name (`float32`); device a torch device; shape (m, k, n).
    Raises: RuntimeError: the device has no matrix product in this dtype.
    """
    import torch

    number_type: torch.dtype = getattr(torch, dtype)
    tiny = torch.ones(8, 8, dtype=number_type, device=device)
    _seconds_of(partial(torch.mm, tiny, tiny), device)  # loads the library and starts the threads
    deadline = time.perf_counter() + budget_s
    for divisor in (16, 8, 4, 2, 1):
        m, k, n = (max(side // divisor, 1) for side in shape)
        left = torch.ones(m, k, dtype=number_type, device=device)
        right = torch.ones(k, n, dtype=number_type, device=device)
        product = partial(torch.mm, left, right)
        first_s = _seconds_of(product, device)
        if divisor == 1 or time.perf_counter() + 8 * first_s > deadline:
            break
    seconds = [first_s]
    while len(seconds) < MAX_REPEATS and time.perf_counter() < deadline:
        seconds.append(_seconds_of(product, device))
    return 2 * m * k * n / 1e9 / max(statistics.median(seconds), 1e-9)


def _seconds_of(run: Callable[[], object], device: str) -> float:
    start = time.perf_counter()
    run()
    _wait_for(device)
    return time.perf_counter() - start


def _wait_for(device: str) -> None:
    import torch

    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    elif device.startswith("mps"):
        torch.mps.synchronize()


def _devices(memory_gib: float) -> list[Device]:
    import torch

    devices = [Device("cpu", 0, _cpu_name(), round(memory_gib, 2), _speeds("cpu"))]
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        memory = round(properties.total_memory / GIB, 2)
        devices.append(Device("cuda", index, properties.name, memory, _speeds(f"cuda:{index}")))
    if torch.backends.mps.is_available():
        devices.append(Device("mps", 0, "Apple GPU", round(memory_gib, 2), _speeds("mps")))
    return devices


@cache
def _speeds(device: str) -> Mapping[str, float]:
    speeds = {}
    for dtype in MEASURED_DTYPES:
        try:
            speeds[dtype] = round(matmul_gflops(dtype, device), 2)
        except (RuntimeError, TypeError):  # torch's two ways to say that a device lacks a dtype
            continue
    return speeds


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    import platform

    return platform.processor() or platform.machine()


def _container_memory_bytes(cgroup: Path) -> tuple[int, int]:
    """Return (limit, use) of this process's container; the limit is larger than any memory where there is none."""
    no_limit = 2**63
    for limit_name, use_name in (
        ("memory.max", "memory.current"),  # cgroup v2
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),  # cgroup v1
    ):
        try:
            limit = (cgroup / limit_name).read_text().strip()
            used = (cgroup / use_name).read_text().strip()
        except OSError:
            continue
        return (int(limit), int(used)) if limit.isdigit() else (no_limit, 0)
    return no_limit, 0
