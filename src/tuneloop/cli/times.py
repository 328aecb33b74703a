"""How people write times on the command line: `90d`, `24h`, `2030-12-31`."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from tuneloop.errors import UsageError

UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
SPAN = re.compile(r"(\d{1,6})([smhdw])")
HELP = "90d, 24h, 30m, 2w"


def time_span(word: str, option: str) -> timedelta:
    """Return how long `90d`, `24h`, `30m`, `45s` or `2w` is. Raises: UsageError: it is none of these."""
    if matched := SPAN.fullmatch(word.strip().lower()):
        return timedelta(**{UNITS[matched[2]]: int(matched[1])})
    raise _refused(word, option, f"Write a number and s, m, h, d or w: {HELP}.")


def time_to_come(word: str, option: str) -> datetime:
    """Return the moment that is a span from now, or the end of a day or moment in ISO 8601 (UTC where it says no zone).

    Raises: UsageError: it is neither.
    """
    matched = SPAN.fullmatch(word.strip().lower())
    return datetime.now(UTC) + time_span(word, option) if matched else _moment(word, option, end_of_day=True)


def time_ago(word: str, option: str) -> datetime:
    """Return the moment that was a span ago, or the beginning of a day or a moment in ISO 8601.

    Raises: UsageError: it is neither.
    """
    matched = SPAN.fullmatch(word.strip().lower())
    return datetime.now(UTC) - time_span(word, option) if matched else _moment(word, option, end_of_day=False)


def _moment(word: str, option: str, *, end_of_day: bool) -> datetime:
    try:
        moment = datetime.fromisoformat(word.strip())
    except ValueError:
        hint = f"Write a span ({HELP}) or a day (2030-12-31)."
        raise _refused(word, option, hint) from None
    if end_of_day and len(word.strip()) == len("2030-12-31"):
        moment += timedelta(days=1)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _refused(word: str, option: str, hint: str) -> UsageError:
    return UsageError(f"{word!r} is not a time", where=f"{option} {word}", hint=hint)
