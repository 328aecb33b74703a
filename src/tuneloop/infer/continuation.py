"""One text that a model goes on with, a token at a time: for answers that are streamed.

Shapes: V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from tuneloop.infer import caches
from tuneloop.infer.generate import step
from tuneloop.infer.session import PrefixSession
from tuneloop.models import prefix

ROOM = 64  # tokens the cache grows by


class Continuation(Protocol):
    """A text that a model has read."""

    @property
    def logits(self) -> NDArray[np.float32]:
        """What the model expects next (V,)."""
        ...

    def add(self, token: int) -> None:
        """Let the model read one more token."""
        ...


def read_text(
    model: PreTrainedModel, ids: Sequence[int], longest: int, session: PrefixSession | None = None
) -> Continuation:
    """Let a model read `ids` (at least one), to be continued up to `longest` tokens in all.

    Args: session: the same model with a prefix that it has read; used where `ids` begin with that.
    """
    if prefix.obstacle(model, longest) is not None:
        prefix.uninstall(model)
        return _PlainContinuation(model, ids)
    prefix.install(model)
    shared = 0 if session is None else len(session.prefix_ids)
    if session is None or shared >= len(ids) or session.prefix_ids != tuple(ids[:shared]):
        session, shared = PrefixSession(model, ()), 0
    return _SharedContinuation(session, ids[shared:])


class _SharedContinuation:
    """After a session's prefix, by shared-prefix attention."""

    @torch.inference_mode()
    def __init__(self, session: PrefixSession, rest: Sequence[int]) -> None:
        (documents,) = session.read([rest], len(rest))
        self._session = session
        self._cache = caches.spread(documents, ROOM)
        self._length = torch.tensor(documents.lengths, device=session.device)
        self._logits = documents.next_logits

    @property
    def logits(self) -> NDArray[np.float32]:
        return _as_array(self._logits[0])

    @torch.inference_mode()
    def add(self, token: int) -> None:
        prefix.install(self._session.model)
        if int(self._length) == caches.room_of(self._cache):
            self._cache = caches.widened(self._cache, ROOM)
        ids = torch.tensor([token], device=self._session.device)
        self._logits = step(self._session, self._cache, self._length, ids)
        self._length = self._length + 1


class _PlainContinuation:
    """By the model's own attention and cache."""

    @torch.inference_mode()
    def __init__(self, model: PreTrainedModel, ids: Sequence[int]) -> None:
        self._model = model
        self._cache: Any = None
        self._read(ids)

    @property
    def logits(self) -> NDArray[np.float32]:
        return _as_array(self._logits)

    @torch.inference_mode()
    def add(self, token: int) -> None:
        prefix.uninstall(self._model)
        self._read([token])

    def _read(self, ids: Sequence[int]) -> None:
        row = torch.tensor([list(ids)], device=next(self._model.parameters()).device)
        output = self._model(input_ids=row, past_key_values=self._cache, use_cache=True, logits_to_keep=1)
        self._cache, self._logits = output.past_key_values, output.logits[0, -1]


def _as_array(logits: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = logits.float().cpu().numpy()
    return array
