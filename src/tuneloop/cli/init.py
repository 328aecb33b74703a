"""`tuneloop init`: from a data file to a commented configuration."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from tuneloop.cli import options

EPILOG = options.example("tuneloop init --data contracts.parquet", "tuneloop init --data train.csv --dry-run")


def init(
    data: Annotated[Path, typer.Option("--data", metavar="FILE", help="A parquet, CSV or JSONL file of examples.")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="PATH", help="Where to write the configuration.")
    ] = options.DEFAULT_CONFIG,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it is there.")] = False,
    as_json: options.Json = False,
    dry_run: options.DryRun = False,
) -> None:
    """Look at a data file and write a commented tuneloop.yaml, saying what was guessed and why."""
    from tuneloop.artifacts import write_durably
    from tuneloop.cli.render import print_result
    from tuneloop.config.load import load_config
    from tuneloop.data.guess import guess_config
    from tuneloop.errors import UsageError

    if output.exists() and not (force or dry_run):
        raise UsageError(
            "the file is there already, and init does not replace what you may have edited",
            where=str(output),
            hint="Add --force to replace it, or --output OTHER.yaml to keep both.",
        )
    guess = guess_config(data, relative_to=output.parent)
    result = {"config": str(output), "written": not dry_run, "reasons": list(guess.reasons)}
    if dry_run:
        print_result(result | {"config_text": guess.config_text}, [guess.config_text.rstrip()], as_json=as_json)
        return
    output.parent.mkdir(parents=True, exist_ok=True)
    write_durably(output, guess.config_text.encode())
    load_config(output)
    option = "" if output == options.DEFAULT_CONFIG else f" --config {os.fspath(output)}"
    steps = [f"  tuneloop {step}{option}" for step in ("data prepare", "train", "evaluate")]
    lines = [f"{output} written. What was guessed, and why:", *(f"  - {reason}" for reason in guess.reasons)]
    print_result(result, [*lines, "", "Read it, correct it where the guess is wrong, then:", *steps], as_json=as_json)
