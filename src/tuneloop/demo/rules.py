"""Reads ScanCode's licence rules: one file a document, YAML front matter between `---` lines, then the text.

    ---
    license_expression: mit
    is_license_notice: yes
    ignorable_holders:
        - Example Corporation
    ---

    Copyright Example Corporation. MIT licensed.

Knows nothing about categories of expressions, tables or training.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import yaml

from tuneloop.errors import DataError
from tuneloop.progress import Progress

FRONT_MATTER = re.compile(r"\ufeff?---[ \t]*\n(.*?)^---[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE)
DOCUMENT = re.compile(r"licensedcode/data/(rules/[^/]+\.RULE|licenses/[^/]+\.LICENSE)")
KINDS = ("notice", "reference", "tag", "text")
MARKED = {
    "holder": "ignorable_holders",
    "author": "ignorable_authors",
    "copyright": "ignorable_copyrights",
    "url": "ignorable_urls",
    "email": "ignorable_emails",
}
# Every scalar stays the string that was written: a holder `3000`, `2019-01-01` or `no` must not become another type.
LOADER = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
TRUE = {"yes", "true", "on"}


@dataclass(frozen=True, slots=True)
class Rule:
    """One document of the rule base.

    `licence` is a licence expression, empty where the rule has none. `category` is only known for a licence's own
    text; `flags` are its true `is_…` keys; `marked` maps entity type to the values marked by hand, as ScanCode
    normalises them (see `marked.py`).
    """

    file: str
    text: str
    licence: str
    kind: str
    language: str
    flags: frozenset[str]
    category: str
    marked: Mapping[str, tuple[str, ...]]


def read_rules(wheel: Path, progress: Progress) -> list[Rule]:
    """Return all documents in a licensedcode-data wheel, ordered by file name (37,000 in half a minute).

    Raises: DataError: a file has no front matter that can be read.
    """
    with ZipFile(wheel) as archive:
        members = sorted(name for name in archive.namelist() if DOCUMENT.fullmatch(name))
        rules = []
        with progress.task("Reading licence rules", len(members)) as advance:
            for member in members:
                file = member.removeprefix("licensedcode/data/")
                rules.append(parse_rule(file, archive.read(member).decode("utf-8")))
                advance(1)
    return rules


def parse_rule(file: str, content: str) -> Rule:
    """Return one document; `file` names it (`rules/mit_1.RULE`).

    Raises: DataError: the front matter is missing or is not a YAML mapping.
    """
    content = content.replace("\r\n", "\n")
    match = FRONT_MATTER.match(content)
    if match is None:
        raise _unreadable(file, "there is no front matter between `---` lines")
    try:
        data = yaml.load(match[1], Loader=LOADER)  # noqa: S506 (the base loader makes strings, lists and dicts only)
    except yaml.YAMLError as error:
        raise _unreadable(file, f"its front matter is not YAML ({str(error).splitlines()[0]})") from error
    if not isinstance(data, dict):
        raise _unreadable(file, "its front matter is not a mapping")
    flags = frozenset(key for key, value in data.items() if key.startswith("is_") and str(value).lower() in TRUE)
    is_licence = file.endswith(".LICENSE")
    return Rule(
        file=file,
        text=_without_marks(content[match.end() :]),
        licence=str(data.get("key" if is_licence else "license_expression", "")),
        kind="text" if is_licence else next((kind for kind in KINDS if f"is_license_{kind}" in flags), ""),
        language=str(data.get("language", "en")),
        flags=flags,
        category=str(data.get("category", "")),
        marked={type: _strings(data.get(key)) for type, key in MARKED.items() if key in data},
    )


def _without_marks(text: str) -> str:
    """Take out `{{` and `}}`, with which the rules' authors point at the words that give the licence away."""
    return text.replace("{{", "").replace("}}", "").strip()


def _strings(values: Any) -> tuple[str, ...]:
    listed = values if isinstance(values, list) else [values]
    return tuple(str(value) for value in listed if str(value).strip())


def _unreadable(file: str, found: str) -> DataError:
    return DataError(
        f"the rule cannot be read: {found}",
        where=file,
        hint="The wheel is not the release this version was made for; update tuneloop.",
    )
