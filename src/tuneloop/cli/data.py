"""`tuneloop data`: make a dataset version, and look into one."""

from __future__ import annotations

import typer

from tuneloop.cli import inspect, options

PREPARE_EPILOG = options.example("tuneloop data prepare", "tuneloop data prepare data.on_invalid=drop")

app = typer.Typer(help="Make a dataset version, and look into one.", rich_markup_mode=None)


app.callback(invoke_without_command=True)(options.show_help)


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
    from tuneloop.cli.stages import command_line, dataset_facts, finish_stage, plan_stage

    session = open_session(config, overrides, sets, as_json=as_json)
    if dry_run:
        plan_stage(session, "data prepare", dataset_facts(session), session.config.data)
        return
    from tuneloop.loop import stages

    result = stages.prepare(session.config, session.store, session.progress)
    next_step = command_line(session, "train")
    finish_stage(session, result.artifact, is_skipped=result.is_skipped, next_step=next_step)


app.command("inspect", epilog=inspect.EPILOG, short_help="Show what is in a dataset version.")(inspect.inspect)
