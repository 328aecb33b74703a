"""The `environments` section: interpreters of your own for what cannot share a Python environment with tuneloop."""

from __future__ import annotations

from pathlib import Path

from tuneloop.config.section import Section


class EnvironmentsConfig(Section):
    """Interpreters of your own. Where none is named, `tuneloop environment create NAME` makes one with pinned packages.

    A relative path starts from the folder of this configuration.
    """

    llm_compressor: Path | None = None
    """A python that has llm-compressor, for the 4-bit and 8-bit forms. Your own follows your CUDA and your versions;
    the one that tuneloop makes is the one it is tested with."""
    vllm_cpu: Path | None = None
    """A python that has vLLM built for CPUs."""
    vllm: Path | None = None
    """A python that has vLLM for GPUs: yours can match the machine's driver, and saves gigabytes that are there."""

    def python_of(self, name: str) -> Path | None:
        """Return the interpreter named for an environment (`vllm-cpu`), or None where tuneloop's own is to be used."""
        python: Path | None = getattr(self, name.replace("-", "_"), None)
        return python
