"""What a request may ask of an engine."""

from __future__ import annotations

from collections.abc import Sequence

from tuneloop.errors import UsageError


def require_room(ids: Sequence[int], max_tokens: int) -> None:
    """Refuse a prompt without tokens, or one that leaves no room for an answer. Raises: UsageError."""
    if not ids:
        raise UsageError("the prompt is empty", where="prompt", hint="Give at least one character.")
    if len(ids) >= max_tokens:
        raise UsageError(
            f"the prompt has {len(ids)} tokens; {max_tokens} are available for it and its answer",
            where="prompt",
            hint="Shorten it, or raise model.max_tokens.",
        )
