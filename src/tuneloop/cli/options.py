"""The options that every command has, each written once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DEFAULT_CONFIG = Path("tuneloop.yaml")

ConfigPath = Annotated[Path, typer.Option("--config", "-c", metavar="PATH", help="The configuration file.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Settings that replace those of the file, as train.lora.r=32."),
]
Sets = Annotated[
    list[str] | None,
    typer.Option("--set", "-s", metavar="KEY=VALUE", help="The same as an option; may be given several times."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout; progress stays on stderr.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and write nothing.")]


def show_help(context: typer.Context) -> None:
    """Show a group's help where none of its commands is given: the callback of every group."""
    if context.invoked_subcommand is None:
        print(context.get_help())


def example(*lines: str) -> str:
    """Return a help epilog that shows commands to copy (the first line tells the formatter to keep line breaks)."""
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])
