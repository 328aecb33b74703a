"""Tests with programs that live in Python environments of their own. `make test` leaves them out; `make
test-integration` makes the environments first. A test whose environment is not there says so and is skipped.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tuneloop.environments import LLM_COMPRESSOR, VLLM_CPU, Environment, find_environment
from tuneloop.errors import UsageError

HERE = Path(__file__).resolve().parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.integration)


def environment_or_skip(name: str) -> Environment:
    """Return the environment `name`, or skip the test with the reason and the command that makes it."""
    try:
        return find_environment(name)
    except UsageError as error:
        pytest.skip(f"{error.message}: {error.hint}")


@pytest.fixture(scope="session")
def llm_compressor() -> Environment:
    """The environment in which models are quantised."""
    return environment_or_skip(LLM_COMPRESSOR)


@pytest.fixture(scope="session")
def vllm_cpu() -> Environment:
    """The environment in which vLLM serves on the CPU."""
    return environment_or_skip(VLLM_CPU)
