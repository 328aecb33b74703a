"""A guessed configuration as YAML that explains itself. Knows nothing about how the guesses were made."""

from __future__ import annotations

import json
from collections.abc import Mapping

from tuneloop.data.validate import Columns
from tuneloop.records import TaskKind

MANY_ROWS = 2_000  # from here on a first try on a part is worth suggesting


def config_text(
    path: str,
    columns: Columns,
    kind: TaskKind,
    instruction: str,
    on_invalid: str,
    rows: int,
    reasons: Mapping[str, str],
) -> str:
    """Return a whole tuneloop.yaml.

    Args: path: the source as it is to be written; rows: how many there are; reasons: why, by `text`, `label`,
        `entities`, `group`, `kind`, `on_invalid`; an empty one is left out.
    """
    blocks = [
        _block("# What tuneloop guessed from the data file. `tuneloop config show` prints every other setting."),
        _block("task:", *_why(reasons, "kind"), f"  kind: {kind}", f"  instruction: {_quoted(instruction)}"),
        _block("data:", "  sources:", f"    - path: {_quoted(path)}", "      columns:", *_columns(columns, reasons)),
        _block(
            *_why(reasons, "on_invalid"), f"  on_invalid: {on_invalid}  # error: stop at the first; drop: list them"
        ),
        _block("model:", "  base_model: embedded  # SmolLM2-135M-Instruct; or a Hub id, or a local folder"),
        *_first_try(rows),
    ]
    return "\n".join(blocks)


def _block(*lines: str) -> str:
    return "".join(f"{line}\n" for line in lines)


def _why(reasons: Mapping[str, str], key: str, indent: int = 2) -> list[str]:
    reason = " ".join(reasons.get(key, "").split())
    return [f"{' ' * indent}# {reason}"] if reason else []


def _columns(columns: Columns, reasons: Mapping[str, str]) -> list[str]:
    lines = []
    for key, name in (("text", columns.text), ("label", columns.label), ("group", columns.group)):
        lines += _why(reasons, key, 8) + ([f"        {key}: {_quoted(name)}"] if name is not None else [])
    lines += _why(reasons, "entities", 8)
    if isinstance(columns.entities, str):
        lines.append(f"        entities: {_quoted(columns.entities)}")
    elif columns.entities:
        pairs = [f"          {_quoted(type_)}: {_quoted(name)}" for type_, name in columns.entities.items()]
        lines += ["        entities:", *pairs]
    return lines


def _first_try(rows: int) -> list[str]:
    if rows < MANY_ROWS:
        return []
    return [
        _block(
            "# train:", f"#   max_examples: 800  # a first try on a part of {rows} rows; remove it for the real run"
        ),
        _block("# evaluate:", "#   max_examples: 300  # of the test split: fewer are faster, and widen every interval"),
    ]


def _quoted(text: str) -> str:
    """Return a double-quoted YAML scalar: JSON strings are that, with what YAML does not print escaped."""
    return json.dumps(text, ensure_ascii=not text.isprintable())
