"""Finds a value that ScanCode marked in a rule in the rule's own text.

ScanCode lists values as its detectors normalise them: white space collapsed, `(C)` and `©` written `(c)`, a `/` put
after a bare host name. An entity must be what the document says, so each value is looked up and taken from the text.
"""

from __future__ import annotations

import re

COPYRIGHT_SIGN = r"(?:\(c\)|©)"


def find_marked(text: str, type: str, value: str) -> str | None:
    """Return the value as it stands in `text`, or None where it does not occur.

    Verbatim if it is there; otherwise the first place that differs in white space and case only, where `(c)` may be
    `©`, and for a URL the final slash may be missing.
    """
    if value in text:
        return value
    words = [_pattern(word) for word in value.split()]
    if type == "url" and words and words[-1].endswith("/"):
        words[-1] = words[-1].removesuffix("/") + r"(?:/|(?![/\w]))"
    match = re.search(r"\s+".join(words), text, re.IGNORECASE) if words else None
    return match[0] if match else None


def _pattern(word: str) -> str:
    return COPYRIGHT_SIGN.join(re.escape(part) for part in re.split(r"\(c\)", word, flags=re.IGNORECASE))
