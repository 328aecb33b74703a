from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import psutil
import pytest

from tuneloop import hardware
from tuneloop.hardware import Device, Hardware, choose_dtype, matmul_gflops, measure


def machine(*devices: Device) -> Hardware:
    return Hardware(devices=devices, cores=2, memory_total_gib=8.0, memory_available_gib=4.0)


def cpu(**gflops: float) -> Device:
    return Device("cpu", 0, "some CPU", 8.0, gflops)


@pytest.mark.parametrize(
    ("gflops", "chosen"),
    [
        ({"float32": 105.0, "bfloat16": 1.3, "float16": 1.4}, "float32"),
        ({"float32": 500.0, "bfloat16": 4000.0, "float16": 100.0}, "bfloat16"),
        ({"float32": 100.0, "bfloat16": 110.0}, "float32"),
        ({"float32": 100.0}, "float32"),
        ({"float32": 100.0, "float16": 9000.0}, "float32"),
        ({}, "float32"),
    ],
)
def test_auto_takes_what_is_measured_to_be_fast_and_is_safe_to_train_in(gflops: dict[str, float], chosen: str) -> None:
    assert choose_dtype(machine(cpu(**gflops)), "auto") == chosen


@pytest.mark.parametrize("requested", ["float32", "bfloat16", "float16"])
def test_a_dtype_asked_for_by_name_is_taken_however_slow(requested: str) -> None:
    assert choose_dtype(machine(cpu(float32=100.0, bfloat16=1.0)), requested) == requested


def test_the_best_device_is_the_gpu_with_the_most_memory_and_the_first_of_equals() -> None:
    small, large, twin = (Device("cuda", i, f"GPU {i}", gib) for i, gib in enumerate([16.0, 40.0, 40.0]))
    assert machine(cpu(), small, large, twin).best_device is large
    assert machine(cpu(), Device("mps", 0, "Apple GPU", 8.0)).best_device.kind == "mps"
    assert machine(cpu()).best_device.kind == "cpu"
    assert (large.torch_name, cpu().torch_name) == ("cuda:1", "cpu")


def test_dtype_is_chosen_for_the_device_that_is_trained_on() -> None:
    gpu = Device("cuda", 0, "GPU", 40.0, {"float32": 19_000.0, "bfloat16": 300_000.0})
    assert choose_dtype(machine(cpu(float32=100.0, bfloat16=1.0), gpu), "auto") == "bfloat16"


def test_this_machine_is_measured() -> None:
    found = measure()
    assert found.best_device.gflops["float32"] > 0
    assert 0 < found.memory_available_gib <= found.memory_total_gib
    assert found.memory_total_gib * hardware.GIB <= psutil.virtual_memory().total * 1.01
    assert 1 <= found.cores <= (psutil.cpu_count() or 1)
    assert found.devices[0].name


def test_speeds_are_measured_once_per_process() -> None:
    assert measure().devices[0].gflops is measure().devices[0].gflops


class Clock:
    """A clock that moves only when a matrix product is computed: by `seconds_per_flop` for each operation."""

    def __init__(self, seconds_per_flop: float) -> None:
        self.now = 0.0
        self.seconds_per_flop = seconds_per_flop
        self.shapes: list[tuple[int, int, int]] = []

    def perf_counter(self) -> float:
        return self.now

    def mm(self, left: Any, right: Any) -> Any:
        m, k = left.shape
        n = right.shape[1]
        self.shapes.append((m, k, n))
        self.now += 2 * m * k * n * self.seconds_per_flop
        return left


@pytest.fixture
def clocked(monkeypatch: pytest.MonkeyPatch) -> Any:
    import torch

    def start(gflops: float) -> Clock:
        clock = Clock(1e-9 / gflops)
        monkeypatch.setattr("tuneloop.hardware.time.perf_counter", clock.perf_counter)
        monkeypatch.setattr(torch, "mm", clock.mm)
        return clock

    return start


@pytest.mark.parametrize("gflops", [0.1, 1.3, 20.0, 105.0, 5000.0])
def test_the_speed_found_is_the_speed_there_is_and_the_time_is_bounded(clocked: Any, gflops: float) -> None:
    clock = clocked(gflops)
    assert matmul_gflops("float32", budget_s=0.25) == pytest.approx(gflops)
    assert clock.now < 0.5


def test_a_slow_dtype_is_recognised_on_a_small_product_and_a_fast_one_gets_the_full_shape(clocked: Any) -> None:
    slow = clocked(0.2)
    matmul_gflops("float32", shape=(1024, 1024, 1024), budget_s=0.25)
    assert max(slow.shapes) < (512, 512, 512)
    fast = clocked(5000.0)
    matmul_gflops("float32", shape=(1024, 512, 256), budget_s=0.25)
    assert max(fast.shapes) == (1024, 512, 256)


def test_one_run_that_was_disturbed_does_not_decide(clocked: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = clocked(100.0)
    undisturbed = clock.mm

    def mm(left: Any, right: Any) -> Any:
        if len(clock.shapes) in {7, 9}:
            clock.now += 0.01
        return undisturbed(left, right)

    monkeypatch.setattr("torch.mm", mm)
    assert matmul_gflops("float32", shape=(512, 512, 512), budget_s=1.0) == pytest.approx(100.0)


def test_a_dtype_without_a_matrix_product_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def only_float32(dtype: str, device: str) -> float:
        if dtype != "float32":
            raise RuntimeError(f"not implemented for {dtype}")
        return statistics.median([50.0])

    monkeypatch.setattr(hardware, "matmul_gflops", only_float32)
    hardware._speeds.cache_clear()
    try:
        assert hardware._speeds("cpu") == {"float32": 50.0}
    finally:
        hardware._speeds.cache_clear()


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"memory.max": "1073741824\n", "memory.current": "268435456\n"}, (2**30, 2**28)),
        ({"memory.max": "max\n", "memory.current": "5\n"}, (2**63, 0)),
        ({"memory/memory.limit_in_bytes": "1024", "memory/memory.usage_in_bytes": "24"}, (1024, 24)),
        ({}, (2**63, 0)),
    ],
)
def test_a_containers_memory_limit_counts(tmp_path: Path, files: dict[str, str], expected: tuple[int, int]) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    assert hardware._container_memory_bytes(tmp_path) == expected


def test_memory_in_a_container_is_what_the_container_has_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "memory.max").write_text(str(2**30))
    (tmp_path / "memory.current").write_text(str(2**28))
    monkeypatch.setattr(hardware, "CGROUP", tmp_path)
    found = measure()
    assert (found.memory_total_gib, found.memory_available_gib) == (1.0, 0.75)


def test_the_cpu_is_called_what_the_system_calls_it(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\n")
    assert hardware._cpu_name(tmp_path / "cpuinfo") == "Some CPU @ 2 GHz"
    assert hardware._cpu_name(tmp_path / "missing")
