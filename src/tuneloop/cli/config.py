"""`tuneloop config`: what is in force, and what may be written."""

from __future__ import annotations

from typing import Annotated

import typer

from tuneloop.cli import options

SHOW_EPILOG = options.example("tuneloop config show", "tuneloop config show train.lora.r=32 > full.yaml")

app = typer.Typer(help="Show the configuration that is in force, or its schema.", rich_markup_mode=None)


app.callback(invoke_without_command=True)(options.show_help)


@app.command("show", epilog=SHOW_EPILOG, short_help="Print the resolved configuration.")
def show(
    overrides: options.Overrides = None,
    config: options.ConfigPath = options.DEFAULT_CONFIG,
    sets: options.Sets = None,
    defaults: Annotated[bool, typer.Option("--defaults", help="Ignore the file: show every key's default.")] = False,
    as_json: options.Json = False,
) -> None:
    """Print the resolved configuration: the file, the overrides, and the defaults for all else."""
    from tuneloop.cli.render import print_result
    from tuneloop.config.load import load_config
    from tuneloop.config.load import show as as_yaml

    loaded = load_config(None if defaults else config, [*(sets or []), *(overrides or [])])
    print_result(loaded.model_dump(mode="json"), [as_yaml(loaded).rstrip()], as_json=as_json)


@app.command(
    "schema",
    short_help="Print the JSON Schema of the file.",
    epilog=options.example("tuneloop config schema > tuneloop.schema.json"),
)
def schema(as_json: options.Json = False) -> None:
    """Print the JSON Schema of the file, for editors that complete and check while you type."""
    import json

    from tuneloop.cli.render import print_result
    from tuneloop.config.load import schema as json_schema

    described = json_schema()
    print_result(described, [json.dumps(described, indent=2)], as_json=as_json)
