"""Write the reference pages from the code: `docs/cli.md` from every `--help`, `docs/config.md` from the schema.

`make docs` runs it; `make test` fails when a page is out of date.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from tuneloop.cli.main import app
from tuneloop.config.load import schema

FOLDER = Path(__file__).resolve().parent
HELP_COLUMNS = 100
NOTE = "<!-- Written by docs/generate.py; `make docs` writes it again. -->"


def pages() -> dict[str, str]:
    """Return file name → text of every generated page."""
    return {"cli.md": cli_page(), "config.md": config_page()}


def cli_page() -> str:
    """Return the reference of the command line: each command's own help, groups before their commands."""
    parts = [
        "# The command line",
        NOTE,
        "Results go to stdout, progress and errors to stderr. With `--json`, stdout is exactly one JSON object, also "
        'when the command fails (`{"error": {"message", "where", "hint", "exit_code"}}`). Where stderr is not a '
        "terminal there is no colour and no bar, but a line every ten seconds.",
        "| Exit code | Meaning |\n|---:|---|\n"
        "| 0 | done (also when there was nothing to do) |\n"
        "| 1 | failed |\n"
        "| 2 | bad usage or configuration |\n"
        "| 3 | bad data |\n"
        "| 4 | the gate refused |\n"
        "| 130, 143 | interrupted by Ctrl-C or terminated; run the same command again to go on |",
        "An expected failure prints three lines: what is wrong, where, and what to do. A crash writes its traceback "
        "to `.tuneloop/crashes/` and names the file; `TUNELOOP_DEBUG=1` shows it, and what libraries print, instead.",
    ]
    for path, text in _helps(typer.main.get_command(app), "tuneloop", None):
        parts += [f"## `{path}`", f"```text\n{text.rstrip()}\n```"]
    return "\n\n".join(parts) + "\n"


def _helps(command: Any, name: str, parent: Any) -> Iterator[tuple[str, str]]:
    """Yield (`tuneloop data prepare`, its help) of a command and all below it."""
    options = {"parent": parent, "resilient_parsing": True, "terminal_width": HELP_COLUMNS}
    with command.make_context(name, [], **options) as context:
        yield context.command_path, context.get_help()
        for below in command.list_commands(context) if hasattr(command, "list_commands") else []:
            yield from _helps(command.commands[below], below, context)


def config_page() -> str:
    """Return the reference of `tuneloop.yaml`: one table per section."""
    described = schema()
    sections = described["$defs"]
    parts = [
        "# The configuration: `tuneloop.yaml`",
        NOTE,
        "Every section and key may be left out. Unknown keys are errors that name the nearest valid key, and all "
        "mistakes are reported at once. Relative paths start from the folder of the file. Any key can be set on the "
        "command line, as `train.lora.r=32` (after the command, or with `--set`); the value is YAML, and relative "
        "paths there start from the current folder. `tuneloop config show` prints what is in force, "
        "`tuneloop config schema` a JSON Schema for editors.",
    ]
    for name, path in _section_paths(described, sections, ""):
        section = sections[name]
        parts += [f"## `{path}`", section["description"], _table(section, sections)]
    return "\n\n".join(parts) + "\n"


def _section_paths(section: dict[str, Any], sections: dict[str, Any], prefix: str) -> Iterator[tuple[str, str]]:
    """Yield (schema name, dotted path) of the sections below `section`, each before what is in it."""
    for key, value in section["properties"].items():
        inner = _reference(value) or _reference(value.get("items", {}))
        if inner:
            path = f"{prefix}{key}{'[]' if 'items' in value else ''}"
            yield inner, path
            yield from _section_paths(sections[inner], sections, f"{path}.")


def _table(section: dict[str, Any], sections: dict[str, Any]) -> str:
    lines = ["| Key | Value | Default | |", "|---|---|---|---|"]
    for key, value in section["properties"].items():
        is_section = bool(_reference(value))
        default = "" if is_section or key in section.get("required", []) else f"`{_plain(value.get('default'))}`"
        about = value.get("description", "see below" if is_section or _reference(value.get("items", {})) else "")
        cells = [f"`{key}`", _kind(value, sections), default or ("required" if not is_section else ""), about]
        lines.append("| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def _kind(value: dict[str, Any], sections: dict[str, Any]) -> str:
    if _reference(value):
        return "section"
    if choices := value.get("enum", [value["const"]] if "const" in value else []):
        return ", ".join(f"`{choice}`" for choice in choices)
    if options := value.get("anyOf"):
        return " or ".join(_kind(option, sections) for option in options)
    if value.get("type") == "array":
        return f"list of {_kind(value['items'], sections)}"
    if value.get("type") == "object":
        return "mapping"
    names = {"integer": "whole number", "string": "text", "boolean": "true/false", "null": "nothing"}
    words = names.get(value["type"], value["type"])
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = [f"{sign} {value[name]:g}" for name, sign in signs.items() if name in value]
    return f"{words} {', '.join(limits)}" if limits else words


def _reference(value: dict[str, Any]) -> str:
    reference: str = value.get("$ref", "")
    return reference.rsplit("/", 1)[-1]


def _plain(default: Any) -> str:
    if default is None:
        return "null"
    return str(default).lower() if isinstance(default, bool) else str(default).replace("'", "")


def main() -> None:
    """Write the pages beside this file."""
    for name, text in pages().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
