"""The house rule, checked on the syntax tree: who may import whom, and what stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tuneloop import errors, progress, records

# Each part of the ground floor may import only what stands before it.
GROUND_FLOOR = (
    "errors",
    "records",
    "progress",
    "formats",
    "sources",
    "shingles",
    "artifacts",
    "cache",
    "wheels",
    "dataset",
    "runs",
    "forms",
    "environments",
    "stats",
    "metrics",
    "hardware",
    "config",
    "store",
    "models",
    "infer",
)
# Rooms meet through artifacts on disk, never through imports.
ROOMS = ("data", "train", "evaluate", "export", "serve")
# These may import rooms, and each what stands before it.
UPSTAIRS = ("loop", "demo")
ENTRANCE = ("cli", "__main__")

HEAVY = (
    "torch",
    "transformers",
    "peft",
    "polars",
    "pyarrow",
    "pandas",
    "sklearn",
    "scipy",
    "matplotlib",
    "gguf",
    "sqlalchemy",
    "alembic",
    "fastapi",
    "uvicorn",
)


def allowed_from(part: str) -> set[str]:
    """Return the parts of the package that `part` may import, itself included."""
    ground = set(GROUND_FLOOR)
    if part in GROUND_FLOOR:
        return set(GROUND_FLOOR[: GROUND_FLOOR.index(part) + 1])
    if part in ROOMS:
        return ground | {part}
    if part in UPSTAIRS:
        return ground | {*ROOMS, *UPSTAIRS[: UPSTAIRS.index(part) + 1]}
    if part in ENTRANCE:
        return ground | {*ROOMS, *UPSTAIRS, *ENTRANCE}
    return set()


def imported_parts(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield (line, part) for every import of the package, also inside functions and under TYPE_CHECKING."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = (
                [f"tuneloop.{alias.name}" for alias in node.names] if node.module == "tuneloop" else [node.module or ""]
            )
        else:
            continue
        for name in names:
            if name.startswith("tuneloop."):
                yield node.lineno, name.split(".")[1]


def violations(package: Path) -> list[str]:
    """Return one line for every import that the rule forbids and every part that it does not know."""
    found = []
    for path in sorted(package.rglob("*.py")):
        part = path.relative_to(package).parts[0].removesuffix(".py")
        allowed = allowed_from(part) | {"__version__"}
        if part != "__init__" and part not in {*GROUND_FLOOR, *ROOMS, *UPSTAIRS, *ENTRANCE}:
            found.append(f"{path.relative_to(package)}: {part!r} has no place in the house yet")
            continue
        found += [
            f"{path.relative_to(package)}:{line}: {part} imports {imported}"
            for line, imported in imported_parts(ast.parse(path.read_text(encoding="utf-8")))
            if imported not in allowed
        ]
    return found


def test_every_part_imports_only_what_it_may(repository: Path) -> None:
    assert violations(repository / "src" / "tuneloop") == []


@pytest.mark.parametrize(
    ("path", "line", "found"),
    [
        ("train/run.py", "from tuneloop.data.prepare import prepare", "train imports data"),
        ("records.py", "from tuneloop.artifacts import Artifact", "records imports artifacts"),
        ("models/load.py", "def f():\n    import tuneloop.infer.labels", "models imports infer"),
        ("data/prepare.py", "from tuneloop import cli", "data imports cli"),
        ("demo/run.py", "from tuneloop.cli.render import table", "demo imports cli"),
        ("kitchen/sink.py", "", "no place in the house"),
    ],
)
def test_a_forbidden_import_is_found_wherever_it_stands(tmp_path: Path, path: str, line: str, found: str) -> None:
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).write_text(line + "\n")
    assert len(violations(tmp_path)) == 1
    assert found in violations(tmp_path)[0]


def heavy_modules_after(statement: str, folder: Path) -> set[str]:
    script = f"import sys\n{statement}\nprint(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=folder)
    return set(HEAVY) & set(done.stderr.split())


@pytest.mark.parametrize(
    "statement",
    [
        "import tuneloop",
        "import tuneloop.artifacts, tuneloop.cache, tuneloop.dataset, tuneloop.hardware, tuneloop.records",
        "from tuneloop.config.load import load_config; load_config(None)",
        "from tuneloop.cli.main import run; run(['--help'])",
        "from tuneloop.cli.main import run; run(['train', '--help'])",
        "from tuneloop.cli.main import run; run(['config', 'show', '--defaults'])",
        "from tuneloop.cli.main import run; run(['train', '--config', 'missing.yaml'])",
    ],
)
def test_what_has_to_be_quick_imports_nothing_heavy(statement: str, tmp_path: Path) -> None:
    assert heavy_modules_after(statement, tmp_path) == set()


def test_the_check_for_heavy_modules_notices_one(tmp_path: Path) -> None:
    assert heavy_modules_after("import pyarrow", tmp_path) == {"pyarrow"}


def public_names(module: object) -> set[str]:
    mine = {name: value for name, value in vars(module).items() if not name.startswith("_")}
    name_of_module = getattr(module, "__name__", "")
    return {name for name, value in mine.items() if getattr(value, "__module__", name_of_module) == name_of_module}


def test_the_words_that_everything_else_is_written_in_are_these() -> None:
    assert public_names(records) >= {"Message", "Entity", "Example", "Dropped", "Prediction", "example_id"}
    assert public_names(progress) >= {"Progress", "SILENT"}
    assert {name for name in public_names(errors) if name[0].isupper()} == {
        "TuneloopError",
        "UsageError",
        "ConfigError",
        "DataError",
        "ModelError",
        "UnsafeModelError",
        "ArtifactError",
        "StorageError",
        "NetworkError",
        "TrainingError",
        "GateRefused",
    }


def test_every_error_has_an_exit_code_that_is_documented() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert {kind.exit_code for kind in kinds if issubclass(kind, errors.TuneloopError)} == {1, 2, 3, 4}
