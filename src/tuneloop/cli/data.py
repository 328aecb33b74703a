"""`tuneloop data`: make a dataset version, and look into one."""

from __future__ import annotations

import typer

from tuneloop.cli import inspect, options

PREPARE_EPILOG = options.example("tuneloop data prepare", "tuneloop data prepare data.on_invalid=drop")

app = typer.Typer(help="Make a dataset version, and look into one.", rich_markup_mode=None)


@app.callback(invoke_without_command=True)
def _group(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command("prepare", epilog=PREPARE_EPILOG, short_help="Turn the sources into a dataset version.")
def prepare(
    overrides: options.Overrides = None,
    config: options.ConfigPath = options.DEFAULT_CONFIG,
    sets: options.Sets = None,
    as_json: options.Json = False,
    dry_run: options.DryRun = False,
) -> None:
    """Read the sources, check every row, drop duplicates, and split the rest into an immutable dataset version."""
    from tuneloop.cli.session import open_session
    from tuneloop.cli.stages import command_line, finish_stage, plan_stage
    from tuneloop.data.prepare import dataset_id
    from tuneloop.data.prepare import prepare as run_preparation

    session = open_session(config, overrides, sets, as_json=as_json)
    if dry_run:
        id = dataset_id(session.config)
        is_there = session.store.find("dataset", id) is not None
        plan_stage(session, "data prepare", {"id": id, "is_there": is_there}, session.config.data)
        return
    result = run_preparation(session.config, session.store, session.progress)
    finish_stage(session, result.artifact, is_skipped=result.skipped, next_step=command_line(session, "train"))


app.command("inspect", epilog=inspect.EPILOG, short_help="Show what is in a dataset version.")(inspect.inspect)
