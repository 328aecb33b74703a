"""Templates whose every value is written for the syntax it stands in.

A template cannot insert a plain text: `finalize` lets only `Escaped` ones through, which the filters make, so that a
value that nobody has thought of is an error and not a hole. Numbers pass as they are.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from typing import Any

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class Escaped(str):
    """Text that is safe where it stands."""

    __slots__ = ()


def render(template: str, **values: Any) -> str:
    """Return the template's text with these values.

    Raises: TypeError: the template inserts a text without saying for which syntax.
    """
    environment = Environment(
        loader=PackageLoader("tuneloop.export.targets"),
        undefined=StrictUndefined,
        finalize=_only_escaped,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # nothing here is HTML; `finalize` is stricter
    )
    writers: dict[str, Callable[[Any], Escaped]] = {
        "yaml": for_yaml,
        "yaml_compose": for_compose,
        "shell": for_shell,
        "python": for_python,
        "systemd": for_systemd,
        "comment": for_comment,
        "dockerfile": for_dockerfile,
        "json": for_json,
    }
    environment.filters.update(writers)
    return environment.get_template(template).render(**values)


def for_yaml(value: Any) -> Escaped:
    """Return a scalar, list or mapping in YAML's flow style on one line, every text in double quotes."""
    text = yaml.dump(value, default_flow_style=True, width=2**31, Dumper=_Quoting)
    return Escaped(text.removesuffix("\n").removesuffix("\n..."))


def for_compose(value: str) -> Escaped:
    """Return a text for a compose file, where `$` would name a variable."""
    return for_yaml(value.replace("$", "$$"))


def for_json(value: Any) -> Escaped:
    """Return a value as JSON in ASCII."""
    return Escaped(json.dumps(value, ensure_ascii=True, allow_nan=False))


def for_shell(value: str) -> Escaped:
    """Return one word of a POSIX shell. Raises: ValueError: it has a NUL, which no argument can hold."""
    if "\0" in value:
        raise ValueError("a NUL cannot stand in a command line")
    return Escaped(shlex.quote(value))


def for_python(value: Any) -> Escaped:
    """Return a literal of Python (text, number, boolean, list) in ASCII."""
    return Escaped(ascii(value))


def for_systemd(value: str) -> Escaped:
    """Return one word of a unit file's command line or environment: quoted, without specifiers or variables.

    systemd.syntax(7), Quoting; systemd.service(5), Command lines: `%` and `$` are doubled.
    """
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return Escaped(f'"{UNPRINTABLE.sub(_systemd_escape, escaped)}"')


def for_dockerfile(value: str) -> Escaped:
    """Return the value of an ARG, ENV or LABEL in double quotes: `\\`, `"` and `$` mean themselves.

    Raises: ValueError: it has a line break, which a quoted value cannot hold.
    """
    if UNPRINTABLE.search(value):
        raise ValueError("a line break or control character cannot stand in a Dockerfile's value")
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$")
    return Escaped(f'"{escaped}"')


def for_comment(value: str) -> Escaped:
    """Return text in one line, for a comment that ends with its line."""
    return Escaped(UNPRINTABLE.sub(" ", value))


def _systemd_escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}"


def _only_escaped(value: Any) -> Any:
    if isinstance(value, str) and not isinstance(value, Escaped):
        raise TypeError(f"{value[:40]!r} is inserted without a filter that escapes it")
    return value


class _Quoting(yaml.SafeDumper):
    """Writes every text in double quotes, so that `no`, `1e3` and `null` stay texts."""


def _quoted(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"')


_Quoting.add_representer(str, _quoted)
