"""Streamed answers: tokens become text piece by piece, whole characters only, up to a stop text.

Knows nothing about models: the tokens come from whoever computes them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing

from tuneloop.infer.engines.protocol import FinishReason, Piece, Sampling

Decode = Callable[[Sequence[int]], str]
BROKEN = "\ufffd"  # what decoders put where the bytes of a character are not all there yet


class TextReader:
    """Turns tokens into text as they come.

    A character whose bytes lie in several tokens is given out when the last of them is there. Text that may be the
    beginning of a stop text is held back until it is certain; a stop text and what follows it are never given out.
    """

    def __init__(self, decode: Decode, stop: Sequence[str] = ()) -> None:
        self._decode, self._stop = decode, tuple(text for text in stop if text)
        self._ids: list[int] = []
        self._context = self._done = 0  # ids from _context to _done are text already, and say how the next ones begin
        self._held = ""
        self.is_stopped = False

    def add(self, token: int) -> str:
        """Return the text that is certain with this token, often none."""
        self._ids.append(token)
        return self._certain(self._new_text(is_last=False))

    def rest(self) -> str:
        """Return what was held back, when no token follows."""
        text = self._certain(self._new_text(is_last=True))
        held, self._held = self._held, ""
        return text + held

    def _new_text(self, *, is_last: bool) -> str:
        # Some decoders drop a space before the first token, so the tokens before are decoded along and taken away.
        before = self._decode(self._ids[self._context : self._done])
        whole = self._decode(self._ids[self._context :])
        new = whole[len(before) :]
        if not new or (whole.endswith(BROKEN) and not is_last):
            return ""
        self._context, self._done = self._done, len(self._ids)
        return new

    def _certain(self, text: str) -> str:
        text = self._held + text
        found = min((at for stop in self._stop if (at := text.find(stop)) >= 0), default=-1)
        if found >= 0:
            self.is_stopped, self._held = True, ""
            return text[:found]
        certain = len(text) - max((_overlap(text, stop) for stop in self._stop), default=0)
        self._held = text[certain:]
        return text[:certain]


def pieces(
    tokens: Generator[int],
    decode: Decode,
    *,
    end_ids: frozenset[int],
    sampling: Sampling,
    is_cancelled: Callable[[], bool],
) -> Generator[Piece]:
    """Yield an answer as pieces; the last one has a finish reason, and may have no text.

    Args: tokens: computes one token whenever it is asked (and is closed at the end); end_ids: tokens that end an
        answer. `is_cancelled` is asked before every token.
    """
    reader = TextReader(decode, sampling.stop)
    taken = 0
    reason: FinishReason = "length"
    with closing(tokens):
        for _ in range(sampling.max_new_tokens):
            if is_cancelled():
                reason = "cancelled"
                break
            token = next(tokens, None)
            if token is None:  # there is no room for more
                break
            taken += 1
            if token in end_ids:
                reason = "stop"
                break
            text = reader.add(token)
            if reader.is_stopped:
                yield Piece(text, taken, "stop")
                return
            if text:
                yield Piece(text, taken)
                taken = 0
    text = reader.rest()
    yield Piece(text, taken, "stop" if reader.is_stopped else reason)


def _overlap(text: str, stop: str) -> int:
    """Return how many last characters of `text` are the beginning of `stop`, but not the whole of it."""
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if text.endswith(stop[:size])), 0)
