"""How numbers and foreign text are written in sentences, tables, HTML and Markdown.

Documents, labels and model answers are hostile data: `visible` makes every character show for what it is, HTML
escaping is the template engine's, and `markdown` takes away the meaning of Markdown's signs.
"""

from __future__ import annotations

import math
import re
import unicodedata

from tuneloop.stats import Interval

NONE = "–"
JOINERS = frozenset("\u00ad\u200c\u200d")  # soft hyphen, and what Persian, Indic scripts and emoji are written with


def percent(share: float) -> str:
    """Return 0.84 as "84.0 %"; a dash for NaN."""
    return NONE if math.isnan(share) else f"{100 * share:.1f} %"


def points(share: float) -> str:
    """Return 0.313 as "31.3", with a real minus sign; a dash for NaN."""
    text = f"{100 * share:.1f}"
    return {"-0.0": "0.0", "nan": NONE}.get(text, text.replace("-", "−"))


def signed_points(share: float) -> str:
    """Return 0.313 as "+31.3"."""
    text = points(share)
    return text if text[0] in f"−{NONE}" or text == "0.0" else f"+{text}"


def interval_words(interval: Interval) -> str:
    """Return "95 % interval 25.0 to 37.3" (in percent or points)."""
    return f"{confidence_words(interval.confidence)} interval {points(interval.low)} to {points(interval.high)}"


def confidence_words(confidence: float) -> str:
    """Return "95 %", with as many digits as it takes not to claim certainty: "99.7 %"."""
    digits = next(n for n in range(15) if n == 14 or float(f"{100 * confidence:.{n}f}") < 100)
    return f"{100 * confidence:.{digits}f} %"


def range_of(interval: Interval) -> str:
    """Return "25.0 to 37.3" (in percent or points); nothing where there is no figure."""
    return "" if math.isnan(interval.estimate) else f"{points(interval.low)} to {points(interval.high)}"


def seconds(value: float) -> str:
    """Return a time in the unit that reads well: "212 ms", "1.32 s", "5 min 13 s"."""
    if not math.isfinite(value):
        return NONE
    if value < 0.9995:
        return f"{1000 * value:.0f} ms" if value >= 0.01 else f"{1000 * value:.2g} ms"
    return f"{value:.3g} s" if value < 90 else f"{int(value // 60):,} min {int(value % 60)} s"


def seconds_range(interval: Interval) -> str:
    """Return "180 to 240 ms"; "180 ms or more" where the data set no upper bound."""
    if math.isnan(interval.estimate):
        return ""
    low = "" if math.isinf(interval.low) else seconds(interval.low)
    if math.isinf(interval.high):
        return f"{low} or more" if low else "no bound"
    high = seconds(interval.high)
    if low and low.split()[1:] == high.split()[1:] and len(low.split()) == 2:
        low = low.split()[0]
    return f"{low} to {high}" if low else f"up to {high}"


def number(value: float) -> str:
    """Return a figure that is no share, with three digits: "0.083"; a dash for NaN."""
    return NONE if math.isnan(value) else f"{value:.3f}"


def number_range(interval: Interval) -> str:
    """Return "0.071 to 0.095"; nothing where there is no figure."""
    return "" if math.isnan(interval.estimate) else f"{number(interval.low)} to {number(interval.high)}"


def tokens(value: float) -> str:
    """Return a mean number of tokens: "587", "12.4"."""
    return NONE if math.isnan(value) else f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def dollars(value: float) -> str:
    """Return an amount with as many digits as mean something: "$4.10", "$0.0031"."""
    if math.isnan(value):
        return NONE
    if value == 0 or value >= 0.1:
        return f"${value:,.2f}"
    return f"${value:.2g}"


def p_value(value: float) -> str:
    """Return a p-value with as many digits as mean something."""
    return "< 0.0001" if value < 0.0001 else f"{value:.4f}" if value < 0.01 else f"{value:.2f}"


def excerpt(text: str, max_chars: int) -> str:
    """Return a text on one line, cut at a word where one ends near `max_chars`, with an ellipsis."""
    line = " ".join(text.split())
    if len(line) <= max_chars:
        return line
    cut = line[:max_chars]
    at_word = cut.rfind(" ")
    return (cut[:at_word] if at_word > 0.7 * max_chars else cut).rstrip() + " …"


def visible(text: str) -> str:
    """Return a text without characters that hide or reorder others, or that UTF-8 cannot hold (each becomes "�")."""
    return "".join("�" if _hides(character) else character for character in text)


def markdown(text: str) -> str:
    """Return a text that Markdown shows as it is, on one line, also inside a table."""
    line = " ".join(visible(text).split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    line = re.sub(r"([\\`*{}\[\]#|~!])", r"\\\1", line)
    return re.sub(r"(?<![0-9A-Za-z])_|_(?![0-9A-Za-z])", r"\\_", line)


def _hides(character: str) -> bool:
    if character in "\n\t":
        return False
    return unicodedata.category(character) in ("Cc", "Cf", "Cs") and character not in JOINERS
