"""Tiny projects for the tests of training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.models.tiny import make_tiny_model
from tests.train.projects import make_project


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one tiny Llama, to be read only."""
    return make_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture
def new_project(tmp_path: Path, tiny_model: Path) -> Callable[[], Path]:
    """`new_project()` makes another small project."""
    made = 0

    def make() -> Path:
        nonlocal made
        made += 1
        return make_project(tmp_path / f"project{made}", tiny_model, rows=60)

    return make


@pytest.fixture
def project(new_project: Callable[[], Path]) -> Path:
    """One small project."""
    return new_project()
