"""A small project for whole commands: a data file, a tiny model, and nothing prepared yet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import Finished
from tests.models.tiny import make_tiny_model
from tuneloop.artifacts import ArtifactStore

Run = Callable[..., Finished]
DOES = {
    "cat": ("meows", "purrs", "licks its paws", "sleeps on the sofa", "ignores everyone"),
    "dog": ("barks", "wags its tail", "fetches the stick", "chases the postman", "guards the house"),
    "bird": ("sings", "flies away", "builds a nest", "eats the seeds", "sits on the roof"),
}
QUICK = {
    "model.base_model": "./model",
    "train.epochs": "1",
    "evaluate.free_generation_examples": "6",
    "evaluate.max_new_tokens": "8",
    "evaluate.bootstrap_resamples": "200",
}
SETTINGS = [word for key, value in QUICK.items() for word in ("--set", f"{key}={value}")]


@dataclass(frozen=True)
class Refusal:
    """The three lines of a failure, and its exit code."""

    code: int
    what: str
    where: str
    do: str


def refusal_of(done: Finished, *, after_progress: bool = False) -> Refusal:
    """Return the three lines on stderr; there may be nothing else unless the command had begun to work."""
    lines = done.err.rstrip("\n").split("\n")
    if after_progress:
        lines = lines[-3:]
    assert [line.partition(":")[0] for line in lines] == ["error", "where", "do"], done.err
    assert done.out == ""
    return Refusal(done.code, *(line.partition(":")[2].strip() for line in lines))


def artifacts() -> list[str]:
    """Return kind of every artifact of the project, oldest first; fails on anything else in the store but locks."""
    root = Path(".tuneloop")
    found = list(ArtifactStore(root / "artifacts"))
    owned = {artifact.path for artifact in found}
    strays = [
        path
        for path in root.rglob("*")
        if path.is_file() and not owned & set(path.parents) and not path.name.startswith(".lock-")
    ]
    assert strays == []
    return [artifact.kind for artifact in found]


def animal_rows() -> list[str]:
    """Return sixty lines of CSV, no two texts alike."""
    return [
        f"Number {n} of the {('old', 'young', 'grey', 'red')[n % 4]} ones {does} at {n + 7} o'clock,{label}"
        for n in range(4)
        for label, doings in DOES.items()
        for does in doings
    ]


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder that every project links to."""
    return make_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def project(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with `animals.csv` (60 rows, 3 labels) and `model`."""
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "animals.csv").write_text("\n".join(["text,label", *animal_rows()]) + "\n", encoding="utf-8")
    (folder / "model").symlink_to(tiny_model)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def ready(project: Path, tuneloop: Run) -> Path:
    """The project with a configuration."""
    assert tuneloop("init", "--data", "animals.csv").code == 0
    return project
