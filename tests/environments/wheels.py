"""Wheels of a few bytes and recipes made of them, so that environments are made for real in a second, offline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from zipfile import ZipFile

import pytest

from tuneloop.environments import Recipe, recipes

NAME = "tiny"


def write_wheel(folder: Path, name: str, version: str = "1.0", *, requires: Sequence[str] = (), code: str = "") -> None:
    """Write a wheel with the package `name`, whose __init__.py is `code`."""
    folder.mkdir(parents=True, exist_ok=True)
    needs = "".join(f"Requires-Dist: {requirement}\n" for requirement in requires)
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}/__init__.py": code,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    with ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        for path, content in {**files, f"{info}/RECORD": record}.items():
            wheel.writestr(path, content)


def use_recipe(patch: pytest.MonkeyPatch, folder: Path, pins: Sequence[str], *, module: str = "engine") -> Recipe:
    """Make `tiny` the name of an environment with these pins, below the cache `folder/cache`, from `folder/index`."""
    aliases = {"engine-by-another-name": "1.0+cpu"}
    recipe = Recipe(NAME, "shows how it is done", module=module, fetches_mib=1, disk_mib=1, aliases=aliases)
    (folder / "pins").mkdir(parents=True, exist_ok=True)
    (folder / "pins" / f"{NAME}.txt").write_text("# pinned\n" + "\n".join(pins) + "\n", encoding="utf-8")
    patch.setattr(recipes, "PINS", folder / "pins")
    patch.setitem(recipes.RECIPES, NAME, recipe)
    patch.setenv("TUNELOOP_CACHE", str(folder / "cache"))
    patch.setenv("PIP_NO_INDEX", "1")
    patch.setenv("PIP_FIND_LINKS", str(folder / "index"))
    patch.setenv("PIP_CONSTRAINT", "")
    return recipe
