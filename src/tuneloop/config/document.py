"""YAML text and `key=value` overrides as one plain dictionary that remembers where each key was written.

Knows YAML; knows nothing about which keys mean something.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tuneloop.config.problems import KeyPath, Problem, dotted, refusal
from tuneloop.errors import ConfigError

OVERRIDE = re.compile(r"(?P<key>[A-Za-z_]\w*(\.\w+)*)=(?P<value>.*)", re.DOTALL)


@dataclass
class Document:
    """Plain values, and for each key path the place it was written at (`tuneloop.yaml:12`, or the override itself)."""

    name: str
    values: dict[str, Any] = field(default_factory=dict)
    places: dict[KeyPath, str] = field(default_factory=dict)

    def place_of(self, path: KeyPath) -> str:
        """Return where the key at `path`, or else the nearest key above it, was written."""
        for length in range(len(path), 0, -1):
            if place := self.places.get(path[:length]):
                return place
        return self.name


def read_document(path: Path) -> Document:
    """Read a YAML file.

    Raises: ConfigError: the file is missing, unreadable, not UTF-8, not YAML, not a mapping, or repeats a key.
    """
    text = _read_text(path)
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise _not_yaml(path, error) from error
    if values is None:
        return Document(str(path))
    if not isinstance(values, dict):
        raise ConfigError(
            f"found {_kind(values)} where the sections of a configuration were expected",
            where=str(path),
            hint="Write `section:` lines with indented `key: value` pairs, as `tuneloop config show --defaults` does.",
        )
    document = Document(str(path), values)
    repeated: list[Problem] = []
    _note_places(node, (), document, repeated, seen=set())
    if repeated:
        raise refusal(repeated, document.name)
    return document


def apply_overrides(document: Document, overrides: Sequence[str]) -> list[Problem]:
    """Set each `section.key=value` (value parsed as YAML) in the document; return what is wrong with any of them."""
    problems = []
    for override in overrides:
        match = OVERRIDE.fullmatch(override)
        if match is None:
            problems.append(Problem(override, "this is not of the form section.key=value", "the command line"))
            continue
        path: KeyPath = tuple(int(part) if part.isdigit() else part for part in match["key"].split("."))
        try:
            value = yaml.safe_load(match["value"])
        except yaml.YAMLError:
            problems.append(Problem(match["key"], f"{match['value']!r} is not YAML; quote it", "the command line"))
            continue
        if complaint := _put(document.values, path, value):
            problems.append(Problem(match["key"], complaint, "the command line"))
        document.places = {known: place for known, place in document.places.items() if known[: len(path)] != path}
        document.places[path] = f"{override} (command line)"
    return problems


def _put(values: dict[str, Any], path: KeyPath, value: Any) -> str:
    """Set `path` in nested dicts and lists to `value`; return what stands in the way, or an empty string."""
    here: Any = values
    for depth, part in enumerate(path):
        is_last = depth == len(path) - 1
        if isinstance(here, list) and isinstance(part, int):
            if part >= len(here):
                return f"{dotted(path[:depth])} has {len(here)} items, counted from 0"
        elif not isinstance(here, dict):
            return f"{dotted(path[:depth])} is {_kind(here)} and has no key {part!r}"
        else:
            part = str(part)
        if is_last:
            here[part] = value
        else:
            if isinstance(here, dict) and here.get(part) is None:
                here[part] = {}
            here = here[part]
    return ""


def _read_text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise ConfigError(
            "there is no such configuration file",
            where=str(path),
            hint=f"Write one from your data: `tuneloop init --data FILE --output {path}`.",
        ) from error
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"byte {error.start} (0x{error.object[error.start]:02x}) is not UTF-8",
            where=str(path),
            hint="Save the file as UTF-8.",
        ) from error
    except OSError as error:
        raise ConfigError(
            f"cannot read: {(error.strerror or str(error)).lower()}",
            where=str(path),
            hint="Give a readable YAML file with --config.",
        ) from error


def _not_yaml(path: Path, error: yaml.YAMLError) -> ConfigError:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    problem = getattr(error, "problem", None) or str(error)
    has_tab = "'\\t'" in problem
    return ConfigError(
        f"this is not YAML: {problem}",
        where=f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path),
        hint="YAML indents with spaces, not tabs."
        if has_tab
        else "Check indentation, colons and quotes around this place; a text with a colon in it needs quotes.",
    )


def _note_places(node: Any, path: KeyPath, document: Document, repeated: list[Problem], seen: set[int]) -> None:
    """Record the line of every key below `node`, and every key that stands twice in one mapping."""
    if id(node) in seen:  # an alias: its keys have the line of the anchor
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for index, item in enumerate(node.value):
            document.places[*path, index] = f"{document.name}:{item.start_mark.line + 1}"
            _note_places(item, (*path, index), document, repeated, seen)
    if not isinstance(node, yaml.MappingNode):
        return
    lines: dict[str, int] = {}
    for key, value in node.value:
        name, line = str(key.value), key.start_mark.line + 1
        below = (*path, name)
        document.places[below] = f"{document.name}:{line}"
        if name in lines and key.tag != "tag:yaml.org,2002:merge":
            complaint = f"this key is here twice (line {lines[name]} and line {line}); keep one"
            repeated.append(Problem(dotted(below), complaint, document.places[below]))
        lines[name] = line
        _note_places(value, below, document, repeated, seen)


def _kind(value: Any) -> str:
    names = {dict: "a section", list: "a list", str: "text", bool: "true/false", int: "a number", float: "a number"}
    return names.get(type(value), type(value).__name__ if value is not None else "nothing")
