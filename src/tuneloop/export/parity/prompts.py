"""Are the prompts of two engines equal, byte by byte and token by token, and where do they depart first?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from tuneloop.export.parity.asked import Asked
from tuneloop.records import Example

CHARS_AROUND, TOKENS_AROUND = 24, 4
CUT = "…"


@dataclass(frozen=True)
class Departure:
    """The first place where two prompts differ.

    `item` counts from 1, `index` (of a character of the template's text, or of a token) from 0. `expected` and `found`
    show what the reference and the other have around that place; for tokens they are ids.
    """

    what: Literal["template", "tokens"]
    item: int
    item_id: str
    index: int
    expected: str
    found: str


@dataclass(frozen=True)
class PromptParity:
    """How many of `n` prompts are equal as text and as tokens; `untold` says why that is not known where it is not."""

    n: int
    same_text: int
    same_tokens: int
    first: Departure | None
    untold: str = ""

    @property
    def is_known(self) -> bool:
        """Whether both engines tell their prompts."""
        return not self.untold

    @property
    def is_equal(self) -> bool:
        """Whether all prompts are known and equal."""
        return self.is_known and self.same_text == self.same_tokens == self.n

    def to_dict(self) -> dict[str, Any]:
        """Return the fields for JSON, the figures as null where the prompts are not known."""
        content = asdict(self)
        return content if self.is_known else content | {"same_text": None, "same_tokens": None}


def compare_prompts(reference: Asked, other: Asked, items: Sequence[Example]) -> PromptParity:
    """Compare the prompts of every item; the text's departure is named before the tokens', which follow from it."""
    told = (reference.prompts, other.prompts, reference.token_ids, other.token_ids)
    if any(part is None for part in told):
        untold = other.untold or reference.untold
        return PromptParity(len(items), 0, 0, None, untold)
    mine, theirs, my_ids, their_ids = (part or () for part in told)
    texts = [here == there for here, there in zip(mine, theirs, strict=True)]
    tokens = [here == there for here, there in zip(my_ids, their_ids, strict=True)]
    first = None
    if not all(texts):
        item = texts.index(False)
        first = text_departure(str(mine[item]), str(theirs[item]), item + 1, items[item].id)
    elif not all(tokens):
        item = tokens.index(False)
        first = token_departure(_ids(my_ids[item]), _ids(their_ids[item]), item + 1, items[item].id)
    return PromptParity(len(items), sum(texts), sum(tokens), first)


def text_departure(mine: str, theirs: str, item: int, item_id: str) -> Departure:
    """Return where two different texts depart, with the text around it, control characters shown as escapes."""
    index = first_difference(mine, theirs)
    return Departure("template", item, item_id, index, _window(mine, index), _window(theirs, index))


def token_departure(mine: Sequence[int], theirs: Sequence[int], item: int, item_id: str) -> Departure:
    """Return where two different rows of token ids depart, with the ids around it."""
    index = first_difference(mine, theirs)
    return Departure("tokens", item, item_id, index, _id_window(mine, index), _id_window(theirs, index))


def first_difference(mine: Sequence[Any], theirs: Sequence[Any]) -> int:
    """Return the first index at which two sequences differ: the shorter one's length where the other begins with it."""
    pairs = enumerate(zip(mine, theirs, strict=False))
    return next((index for index, (here, there) in pairs if here != there), min(len(mine), len(theirs)))


def _window(text: str, index: int) -> str:
    start, end = max(index - CHARS_AROUND, 0), index + CHARS_AROUND
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text[start:end])
    return f"{CUT if start else ''}{shown}{CUT if end < len(text) else ''}"


def _id_window(ids: Sequence[int], index: int) -> str:
    start, end = max(index - TOKENS_AROUND, 0), index + TOKENS_AROUND
    shown = " ".join(map(str, ids[start:end]))
    return f"{CUT + ' ' if start else ''}{shown}{' ' + CUT if end < len(ids) else ''}"


def _ids(row: Any) -> tuple[int, ...]:
    return tuple(int(token) for token in row)
