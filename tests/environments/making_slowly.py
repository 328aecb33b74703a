"""Makes the environment `tiny` below the folder in argv[1], as a process of its own: `python -m …making_slowly`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.environments.wheels import NAME, use_recipe
from tuneloop.environments import create_environment
from tuneloop.progress import SILENT

if __name__ == "__main__":
    patch = pytest.MonkeyPatch()
    use_recipe(patch, Path(sys.argv[1]), sys.argv[2:])
    sys.stdout.write(f"{create_environment(NAME, SILENT).folder}\n")
