"""How Ollama reads a Modelfile and renders its template: the rules of its parser.go and of Go's text/template that a
prompt for one document needs.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

ACTION = re.compile(r"\{\{\s*(.*?)\s*\}\}", re.DOTALL)


def read_modelfile(text: str) -> list[tuple[str, str]]:
    """Return the commands (name, value), as ollama/parser/parser.go does."""
    commands: list[tuple[str, str]] = []
    position = 0
    while position < len(text):
        if text[position] in " \t\r\n":
            position += 1
            continue
        name, _, _ = text[position:].partition(" ")
        assert name.isalpha(), f"not a command: {name!r}"
        position += len(name) + 1
        if name.upper() == "PARAMETER":
            name, _, _ = text[position:].partition(" ")
            position += len(name) + 1
        value, position = _value(text, position)
        commands.append((name, value))
    return commands


def _value(text: str, position: int) -> tuple[str, int]:
    """Read up to the first line break at which what was read is a whole value; unprintable characters are dropped."""
    read = ""
    while position <= len(text):
        character = text[position] if position < len(text) else "\n"
        position += 1
        if character in "\r\n":
            whole = _unquote(read.strip())
            if whole is not None:
                return whole, position
            read += character
        elif character in " \t" or not unicodedata.category(character).startswith(("C", "Z")):
            read += character
    raise AssertionError("a value is not closed")


def _unquote(text: str) -> str | None:
    for quote in ('"""', '"'):
        if text.startswith(quote):
            is_closed = len(text) >= 2 * len(quote) and text.endswith(quote)
            return text[len(quote) : len(text) - len(quote)] if is_closed else None
    return text


def render(template: str, values: Mapping[str, str]) -> str:
    """Return what Go's text/template writes: fields, texts in quotes, and if / else / end around them."""
    written: list[str] = []
    branches: list[bool] = []
    position = 0
    for action in ACTION.finditer(template):
        pieces = [(True, template[position : action.start()]), (False, action[1])]
        position = action.end()
        for is_text, piece in pieces:
            if not is_text and piece == "else":
                branches[-1] = not branches[-1]
            elif not is_text and piece == "end":
                branches.pop()
            elif not is_text and piece.startswith("if "):
                branches.append(bool(values[piece.removeprefix("if .")]))
            elif all(branches):
                written.append(piece if is_text else piece[1:-1] if piece[0] == '"' else values[piece[1:]])
    assert not branches
    return "".join([*written, template[position:]])


def prompt(template: str, system: str, document: str) -> str:
    """Return the prompt for one document: Ollama cuts the template at the answer."""
    return render(template.partition("{{ .Response }}")[0], {"System": system, "Prompt": document})
