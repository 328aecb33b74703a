"""What documents can be told apart by: label, length, script, language, source, and the user's own columns.

Each is one word a document. A column that says nothing (one value, or almost every document its own) is left out.
Numbers fall into quarters of equally many documents, dates into months, quarters or years.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime
from pathlib import PurePath

import numpy as np
from numpy.typing import NDArray

from tuneloop.evaluate.comparison.languages import UNCERTAIN, languages
from tuneloop.records import Example

LABEL, LENGTH, SCRIPT, LANGUAGE, SOURCE, GROUP = "label", "length", "script", "language", "source", "group"
OWN_LANGUAGE = ("language", "lang", "locale", "language_code", "lang_code")  # the user's columns that know it better
QUARTERS = ("shortest quarter", "second quarter", "third quarter", "longest quarter")
MAX_VALUES = 200  # more different values are names, not attributes
MAX_GROUPS = 20
MIN_NUMBERS = 13  # fewer different numbers are categories
ISO_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
RANGE = re.compile(r"(up to |over )?(-?\d[\d,.]*(?:e[+-]\d+)?)(?: to |\)| characters|$)")
PERIOD = re.compile(r"\d{4}(-\d{2}| Q[1-4])?$")
UNKNOWN = "(none)"
MONTHS_AS_MONTHS, MONTHS_AS_QUARTERS = 12, 48  # a span of up to so many months is cut into months, quarters, else years


def columns_of(items: Sequence[Example], own: Mapping[str, Sequence[str]] | None = None) -> dict[str, tuple[str, ...]]:
    """Return column name → one value per document, those columns only that tell documents apart.

    The columns that the items keep (`Example.kept`) are among them. Languages are found out where no column of the
    user's names them, and left out where all that is certain is one language. Args: own: more of the user's columns
    (name → one value per item); a name of ours is replaced by theirs.
    Raises: ValueError: a column's length is not the number of items.
    """
    found: dict[str, tuple[str, ...]] = {
        LABEL: tuple(item.label or UNKNOWN for item in items),
        LENGTH: lengths(items),
        SCRIPT: tuple(script(item.text) for item in items),
        SOURCE: tuple(PurePath(item.source).name or UNKNOWN for item in items),
    }
    groups = tuple(item.group or UNKNOWN for item in items)
    if len(set(groups)) <= MAX_GROUPS:
        found[GROUP] = groups
    kept = {name: [dict(item.kept).get(name, UNKNOWN) for item in items] for name in _kept_names(items)}
    users = {**kept, **(own or {})}
    if not any(name.lower() in OWN_LANGUAGE for name in users):
        spoken = languages([item.text for item in items])
        found |= {LANGUAGE: spoken} if len(set(spoken) - {UNCERTAIN}) > 1 else {}
    for name, values in users.items():
        if len(values) != len(items):
            raise ValueError(f"column {name!r} has {len(values)} values for {len(items)} items")
        found[name] = binned(values)
    return {name: values for name, values in found.items() if 1 < len(set(values)) <= MAX_VALUES}


def _kept_names(items: Sequence[Example]) -> list[str]:
    return list(dict.fromkeys(name for item in items for name, _ in item.kept))


def lengths(items: Sequence[Example]) -> tuple[str, ...]:
    """Return each document's quarter by characters, with its range: "longest quarter (910 or more characters)"."""
    chars = np.array([len(item.text) for item in items], dtype=np.float64)
    if not len(chars):
        return ()
    edges = np.unique(np.quantile(chars, [0.25, 0.5, 0.75]).round())
    names = QUARTERS if len(edges) == 3 else tuple(f"part {i + 1}" for i in range(len(edges) + 1))
    bounds = [0, *(int(edge) for edge in edges)]
    words = [f"{name} ({bounds[i] + (i > 0):,} to {bounds[i + 1]:,} characters)" for i, name in enumerate(names[:-1])]
    words.append(f"{names[-1]} (over {bounds[-1]:,} characters)")
    return tuple(words[place] for place in np.searchsorted(edges, chars, side="left"))


def script(text: str) -> str:
    """Return the script that most of the letters are written in; plain and accented Latin are told apart.

    Unlike the language, which is guessed, the script is a fact, also of the shortest text.
    """
    letters = [character for character in text[:2000] if character.isalpha()]
    if not letters:
        return "no letters"
    if all(character.isascii() for character in letters):
        return "Latin, plain"
    counts = Counter("LATIN" if c.isascii() else unicodedata.name(c, "OTHER").split()[0].split("-")[0] for c in letters)
    name = min(counts, key=lambda word: (-counts[word], word))
    if name == "LATIN":
        return "Latin, accented"
    return {"CJK": "Han", "HIRAGANA": "Japanese", "KATAKANA": "Japanese"}.get(name, name.capitalize())


def binned(values: Sequence[str]) -> tuple[str, ...]:
    """Return values as attributes: dates by period, many numbers by quarter, anything else as it is."""
    given = [value.strip() for value in values if value and value.strip()]
    if given and (dates := _dates(given)) is not None:
        period = _period(dates)
        return tuple(period(date.fromisoformat(v.strip()[:10])) if v and v.strip() else UNKNOWN for v in values)
    if len(set(given)) >= MIN_NUMBERS and (numbers := _numbers(given)) is not None:
        edges = np.unique(np.quantile(numbers, [0.25, 0.5, 0.75]))
        return tuple(_between(float(v), edges) if v and v.strip() else UNKNOWN for v in values)
    return tuple(value.strip() if value and value.strip() else UNKNOWN for value in values)


def in_order(sizes: Mapping[str, int]) -> list[str]:
    """Return the values of one column as a table lists them: periods and ranges as they follow, others by size."""
    if all(PERIOD.match(value) or value == UNKNOWN for value in sizes):
        return sorted(sizes)
    ranges = {value: RANGE.search(value) for value in sizes}
    if all(found or value == UNKNOWN for value, found in ranges.items()):
        return sorted(sizes, key=lambda value: _start(ranges[value]))
    return sorted(sizes, key=lambda value: (-sizes[value], value))


def _start(found: re.Match[str] | None) -> tuple[int, float]:
    """Return where a range begins: "up to" before everything, "over" after everything, no value last."""
    if found is None:
        return (3, 0.0)
    side = {"up to ": 0, "over ": 2}.get(found[1] or "", 1)
    return (side, float(found[2].replace(",", "")))


def _dates(values: Sequence[str]) -> list[date] | None:
    """Return all values as dates where every one is an ISO date or time."""
    if not all(ISO_DAY.match(value) for value in values):
        return None
    try:
        return [datetime.fromisoformat(value).date() for value in values]
    except ValueError:
        return None


def _numbers(values: Sequence[str]) -> list[float] | None:
    try:
        numbers = [float(value) for value in values]
    except ValueError:
        return None
    return numbers if np.isfinite(numbers).all() else None


def _period(dates: Sequence[date]) -> Callable[[date], str]:
    """Return how to name the period of a date, so that the whole span falls into a dozen or so."""
    first, last = min(dates), max(dates)
    months = 12 * (last.year - first.year) + last.month - first.month + 1
    if months <= MONTHS_AS_MONTHS:
        return lambda day: f"{day:%Y-%m}"
    if months <= MONTHS_AS_QUARTERS:
        return lambda day: f"{day.year} Q{(day.month + 2) // 3}"
    return lambda day: f"{day.year}"


def _between(number: float, edges: NDArray[np.float64]) -> str:
    """Return "3 to 7", "up to 3" or "over 7"."""
    place = int(np.searchsorted(edges, number, side="left"))
    if place == 0:
        return f"up to {edges[0]:g}"
    if place == len(edges):
        return f"over {edges[-1]:g}"
    return f"{edges[place - 1]:g} to {edges[place]:g}"
