"""`tuneloop train`."""

from __future__ import annotations

from tuneloop.cli import options

EPILOG = options.example("tuneloop train", "tuneloop train train.lora.r=32 train.epochs=2", "tuneloop train --dry-run")


def train(
    overrides: options.Overrides = None,
    config: options.ConfigPath = options.DEFAULT_CONFIG,
    sets: options.Sets = None,
    as_json: options.Json = False,
    dry_run: options.DryRun = False,
) -> None:
    """Fine-tune the base model on the dataset version; goes on from the last checkpoint if it was interrupted."""
    from tuneloop.cli.session import open_session
    from tuneloop.cli.stages import command_line, dataset_facts, finish_stage, plan_stage

    session = open_session(config, overrides, sets, as_json=as_json)
    if dry_run:
        facts = {**dataset_facts(session), "base_model": session.config.model.base_model}
        plan_stage(session, "train", facts, session.config.train)
        return
    from tuneloop.loop import stages

    result = stages.train(session.config, session.store, session.progress)
    next_step = command_line(session, "evaluate")
    finish_stage(session, result.artifact, is_skipped=result.is_skipped, next_step=next_step)
