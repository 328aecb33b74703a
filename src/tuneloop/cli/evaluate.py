"""`tuneloop evaluate`."""

from __future__ import annotations

from tuneloop.cli import options

EPILOG = options.example("tuneloop evaluate", "tuneloop evaluate evaluate.max_examples=300", "tuneloop evaluate --json")


def evaluate(
    overrides: options.Overrides = None,
    config: options.ConfigPath = options.DEFAULT_CONFIG,
    sets: options.Sets = None,
    as_json: options.Json = False,
    dry_run: options.DryRun = False,
) -> None:
    """Compare the tuned model with its base on the same held-out documents, and write the report."""
    from tuneloop.cli.session import open_session
    from tuneloop.cli.stages import command_line, finish_stage, plan_stage

    session = open_session(config, overrides, sets, as_json=as_json)
    if dry_run:
        plan_stage(session, "evaluate", {"base_model": session.config.model.base_model}, session.config.evaluate)
        return
    from tuneloop.loop import stages

    result = stages.evaluate(session.config, session.store, session.progress)
    next_step = command_line(session, "lineage " + result.artifact.id)
    finish_stage(session, result.artifact, is_skipped=result.is_skipped, next_step=next_step)
