"""A GGUF file opened by llama.cpp: tokens in, logits out, with many sequences that share their beginnings.

A sequence is a number. Copying one costs nothing (its cells get another owner), and a token may belong to several at
once, which is how a tree of tokens is computed in one pass.

Shapes: V vocabulary.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuneloop.errors import ModelError
from tuneloop.infer.engines.llama_library import last_complaint, llama_library

Logits = NDArray[np.float32]
SEQUENCES = 64  # at once
TOKENS_PER_CALL = 2048
UNKNOWN, CONTROL = 1 << 0, 1 << 3  # LLAMA_TOKEN_ATTR_UNKNOWN and _CONTROL in llama.h
NO_ROOM = 1  # llama_decode's answer where the cache is full


@dataclass(frozen=True, slots=True)
class Step:
    """One token at one position of one or several sequences; `wanted` asks for the logits after it."""

    token: int
    position: int
    sequences: tuple[int, ...]
    wanted: bool = False


class GgufModel:
    """An open GGUF file. One thread computes at a time; others wait.

    Args: room: tokens that all sequences hold together; threads: None takes one for each core that may be used.
    Raises: ModelError: llama.cpp is not installed, or cannot open the file.
    """

    def __init__(self, path: Path, *, room: int, threads: int | None = None) -> None:
        self.path, self.room = path, room
        self._lock = threading.RLock()
        self._model = self._context = None
        self._library = llama_library()
        self._model = self._library.llama_model_load_from_file(
            str(path).encode(), self._library.llama_model_default_params()
        )
        if not self._model:
            raise self._unusable("llama.cpp cannot load it")
        self._vocabulary = self._library.llama_model_get_vocab(self._model)
        self.vocabulary_size = int(self._library.llama_vocab_n_tokens(self._vocabulary))
        self._context = self._library.llama_init_from_model(self._model, self._settings(threads))
        if not self._context:
            found = self._unusable("llama.cpp cannot make room to compute with it")
            self.close()
            raise found
        self._memory = self._library.llama_get_memory(self._context)
        self._batch = self._library.llama_batch_init(TOKENS_PER_CALL, 0, SEQUENCES)

    @property
    def is_open(self) -> bool:
        return self._context is not None

    def close(self) -> None:
        """Free the memory, when nothing is being computed any more."""
        with self._lock:
            if self._context:
                self._library.llama_batch_free(self._batch)
                self._library.llama_free(self._context)
                self._context = None
            if self._model:
                self._library.llama_model_free(self._model)
                self._model = None

    def decode(self, steps: Sequence[Step]) -> list[Logits]:
        """Compute tokens; returns the logits (V,) after each that wants them, in order.

        A token comes after those before it in its sequences, and these must be in the order of their positions.

        Raises: ModelError: there is no room left, or the model is closed.
        """
        found: list[Logits] = []
        with self._lock:
            self._require_open()
            for start in range(0, len(steps), TOKENS_PER_CALL):
                found += self._decode(steps[start : start + TOKENS_PER_CALL])
        return found

    def copy(self, source: int, target: int) -> None:
        """Let sequence `target`, which is empty, begin with all that `source` has."""
        with self._lock:
            self._require_open()
            self._library.llama_memory_seq_cp(self._memory, source, target, -1, -1)

    def forget(self, sequence: int) -> None:
        """Empty a sequence; cells that others share with it stay."""
        with self._lock:
            if self.is_open:
                self._library.llama_memory_seq_rm(self._memory, sequence, -1, -1)

    def tokenize(self, text: str) -> list[int]:
        """Return the ids of a text; control tokens in it are read as such, none is added.

        Raises: ModelError: llama.cpp cannot, or the model is closed.
        """
        data = text.encode("utf-8")
        limit = len(data) + 8
        ids = (ctypes.c_int32 * limit)()
        with self._lock:
            self._require_open()
            count = self._library.llama_tokenize(self._vocabulary, data, len(data), ids, limit, False, True)
        if count < 0:
            raise ModelError("llama.cpp cannot tokenise a text", where=str(self.path), hint=last_complaint() or "—")
        return list(ids[:count])

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """Return the bytes that a token stands for; those of a control token only with `special`."""
        size = 64
        while True:
            buffer = ctypes.create_string_buffer(size)
            with self._lock:
                self._require_open()
                length = int(self._library.llama_token_to_piece(self._vocabulary, token, buffer, size, 0, special))
            if length >= 0:
                return buffer.raw[:length]
            size = -length

    def written(self, token: int) -> str:
        """Return a token as the vocabulary writes it."""
        return bytes(self._library.llama_vocab_get_text(self._vocabulary, token)).decode("utf-8", "replace")

    @property
    def begin_id(self) -> int | None:
        token = int(self._library.llama_vocab_bos(self._vocabulary))
        return token if token >= 0 else None

    @property
    def end_id(self) -> int | None:
        token = int(self._library.llama_vocab_eos(self._vocabulary))
        return token if token >= 0 else None

    @cached_property
    def control_ids(self) -> tuple[int, ...]:
        """Every token that means something by itself: what `tokenize` reads as one token wherever it stands."""
        attributes, special = self._library.llama_vocab_get_attr, CONTROL | UNKNOWN
        return tuple(token for token in range(self.vocabulary_size) if attributes(self._vocabulary, token) & special)

    @cached_property
    def end_ids(self) -> frozenset[int]:
        """Every token that ends an answer, by what the file says."""
        is_end = self._library.llama_vocab_is_eog
        return frozenset(token for token in self.control_ids if is_end(self._vocabulary, token))

    @cached_property
    def chat_template(self) -> str | None:
        """The chat template in the file."""
        template = self._library.llama_model_chat_template(self._model, None)
        return None if template is None else bytes(template).decode("utf-8")

    @cached_property
    def metadata(self) -> Mapping[str, str]:
        """The file's settings that are numbers, words or switches."""

        def text(read: Any, index: int) -> str:
            size = int(read(self._model, index, None, 0)) + 1
            buffer = ctypes.create_string_buffer(size)
            read(self._model, index, buffer, size)
            return buffer.value.decode("utf-8", "replace")

        keys, values = self._library.llama_model_meta_key_by_index, self._library.llama_model_meta_val_str_by_index
        count = int(self._library.llama_model_meta_count(self._model))
        return {text(keys, index): text(values, index) for index in range(count)}

    def _require_open(self) -> None:
        """Refuse to touch memory that `close` has freed; called with the lock held."""
        if not self.is_open:
            raise ModelError("this model is closed", where=str(self.path), hint="Open it again.")

    def _settings(self, threads: int | None) -> Any:
        settings = self._library.llama_context_default_params()
        settings.n_ctx, settings.n_batch, settings.n_seq_max = self.room, TOKENS_PER_CALL, SEQUENCES
        settings.n_threads = settings.n_threads_batch = threads or len(os.sched_getaffinity(0))
        settings.kv_unified = True  # sequences share cells only in one common cache
        settings.swa_full = True  # else what lies before a sliding window could not be gone back to
        settings.no_perf = True
        return settings

    def _decode(self, steps: Sequence[Step]) -> list[Logits]:
        batch = self._batch
        batch.n_tokens = len(steps)
        for place, step in enumerate(steps):
            batch.token[place], batch.pos[place] = step.token, step.position
            batch.n_seq_id[place] = len(step.sequences)
            for number, sequence in enumerate(step.sequences):
                batch.seq_id[place][number] = sequence
            batch.logits[place] = step.wanted
        code = int(self._library.llama_decode(self._context, batch))
        if code != 0:
            found = f"{self.room} tokens are too few for what it is asked" if code == NO_ROOM else last_complaint()
            raise ModelError(
                f"llama.cpp cannot compute (code {code}): {found}",
                where=str(self.path),
                hint="Ask for fewer or shorter documents at once, or raise model.max_tokens.",
            )
        return [self._logits_at(place) for place, step in enumerate(steps) if step.wanted]

    def _logits_at(self, place: int) -> Logits:
        pointer = self._library.llama_get_logits_ith(self._context, place)
        return np.array(np.ctypeslib.as_array(pointer, (self.vocabulary_size,)), dtype=np.float32)

    def _unusable(self, found: str) -> ModelError:
        return ModelError(
            f"{found} ({last_complaint() or 'it gives no reason'})",
            where=str(self.path),
            hint="Check that it is a whole GGUF file of a causal language model, and that there is enough memory.",
        )
