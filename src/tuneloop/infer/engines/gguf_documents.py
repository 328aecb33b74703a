"""Documents read by llama.cpp after a prefix that is read once: what comes next, how likely labels are, what follows.

Shapes: n documents of a group, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import zip_longest

import numpy as np

from tuneloop.errors import ModelError
from tuneloop.infer.answering import Generated
from tuneloop.infer.engines.gguf_model import SEQUENCES, GgufModel, Logits, Step
from tuneloop.infer.engines.scoring import Question

PREFIX = 0  # its sequence
LabelPath = tuple[int, tuple[int, ...]]  # a document by its number, and tokens after it
DOCUMENTS = 16  # in a group; sequence 1 + i is document i
STREAMS = 4  # texts that are being continued, which have the last sequences
LEAVES = range(1 + DOCUMENTS, SEQUENCES - STREAMS)  # ends of label paths in one pass
LABEL_TOKENS = 512  # of one pass, at most


class GgufReader:
    """A GGUF model with a prefix that it has read, kept from call to call."""

    def __init__(self, model: GgufModel) -> None:
        self._model = model
        self._prefix: tuple[int, ...] = ()
        self._streams = set(range(SEQUENCES - STREAMS, SEQUENCES))

    def groups(self, shared: int, prompts: Sequence[Sequence[int]], answer_tokens: int) -> Iterator[list[int]]:
        """Yield the numbers of prompts that are read together: as many as there is room for, at least one."""
        room = self._model.room // 2 - LABEL_TOKENS - shared  # the other half is for texts that are streamed
        group: list[int] = []
        used = 0
        for number, prompt in enumerate(prompts):
            needed = len(prompt) - shared + answer_tokens
            if group and (len(group) == DOCUMENTS or used + needed > room):
                yield group
                group, used = [], 0
            group.append(number)
            used += needed
        if group:
            yield group

    @contextmanager
    def reading(self, prefix: Sequence[int], rests: Sequence[Sequence[int]]) -> Iterator[GgufDocuments]:
        """Read documents (at most `DOCUMENTS`, each at least a token after the prefix), and forget them at the end."""
        self._read_prefix(prefix)
        with ExitStack() as stack:
            steps = []
            for sequence, rest in enumerate(rests, 1):
                stack.callback(self._model.forget, sequence)
                self._model.copy(PREFIX, sequence)
                steps += _steps(rest, len(prefix), sequence)
            logits = self._model.decode(steps)
            yield GgufDocuments(self._model, [len(prefix) + len(rest) for rest in rests], logits)

    @contextmanager
    def continuing(self, ids: Sequence[int]) -> Iterator[GgufText]:
        """Read a text (at least one token) that is gone on with, and forget it at the end."""
        if not self._streams:
            raise ModelError(
                f"{STREAMS} answers are being streamed already",
                where=str(self._model.path),
                hint="Wait for one of them to end.",
            )
        sequence, shared = self._streams.pop(), len(self._prefix)
        try:
            if shared < len(ids) and self._prefix == tuple(ids[:shared]):
                self._model.copy(PREFIX, sequence)
            else:
                shared = 0
            (logits,) = self._model.decode(_steps(ids[shared:], shared, sequence))
            yield GgufText(self._model, sequence, len(ids), logits)
        finally:
            self._model.forget(sequence)
            self._streams.add(sequence)

    def _read_prefix(self, ids: Sequence[int]) -> None:
        if self._prefix != tuple(ids):
            self._model.forget(PREFIX)
            self._prefix = ()
            try:
                self._model.decode(_steps(ids, 0, PREFIX))
            except BaseException:
                self._model.forget(PREFIX)  # half of it would be in the way of a prompt without any prefix
                raise
            self._prefix = tuple(ids)


class GgufText:
    """A text that the model has read; `logits` (V,) are what it expects next."""

    def __init__(self, model: GgufModel, sequence: int, length: int, logits: Logits) -> None:
        self._model, self._sequence, self._length = model, sequence, length
        self.logits = logits

    def add(self, token: int) -> None:
        """Let the model read one more token."""
        (self.logits,) = self._model.decode([Step(token, self._length, (self._sequence,), wanted=True)])
        self._length += 1


class GgufDocuments:
    """Documents that the model has read. `lengths` are their tokens, the prefix included; `next_logits` (V,)."""

    def __init__(self, model: GgufModel, lengths: Sequence[int], next_logits: Sequence[Logits]) -> None:
        self._model, self.lengths, self.next_logits = model, list(lengths), list(next_logits)

    def answer(self, questions: Sequence[Question]) -> list[Mapping[int, float]]:
        """Answer the questions of one round of a walk over a label tree."""
        logits: dict[LabelPath, Logits] = {
            (one.document, ()): self.next_logits[one.document] for one in questions if not one.ids
        }
        paths = sorted({(one.document, one.ids) for one in questions if one.ids})
        for chosen in _passes(paths):
            logits |= self._after(chosen)
        return [_log_probabilities(logits[one.document, one.ids], one.wanted) for one in questions]

    def generate(self, begun: Sequence[Sequence[int]] | None, *, end_id: int, max_new_tokens: int) -> list[Generated]:
        """Generate greedily after every document, and after `begun`, the beginning of its answer, where there is one.

        The answers do not repeat that. It can be done once: the documents have grown then.
        """
        logits = dict(enumerate(self.next_logits))
        if begun is not None:
            steps = [
                step
                for number, ids in enumerate(begun)
                for step in _steps(ids, self.lengths[number], 1 + number)
            ]  # fmt: skip
            logits = dict(enumerate(self._model.decode(steps)))
            self.lengths = [length + len(ids) for length, ids in zip(self.lengths, begun, strict=True)]
        ids: list[list[int]] = [[] for _ in logits]
        scores: list[list[float]] = [[] for _ in logits]
        for _ in range(max_new_tokens):
            for number, expected in logits.items():
                token = int(expected.argmax())
                ids[number].append(token)
                scores[number].append(_log_probabilities(expected, [token])[token])
            going = [number for number in logits if ids[number][-1] != end_id and len(ids[number]) < max_new_tokens]
            if not going:
                break
            steps = [
                Step(ids[number][-1], self.lengths[number] + len(ids[number]) - 1, (1 + number,), wanted=True)
                for number in going
            ]
            logits = dict(zip(going, self._model.decode(steps), strict=True))
        return [
            Generated(tuple(answer[:-1] if answer[-1] == end_id else answer), tuple(score), answer[-1] == end_id)
            for answer, score in zip(ids, scores, strict=True)
        ]

    def _after(self, paths: Sequence[LabelPath]) -> dict[LabelPath, Logits]:
        """Return the logits after each path (sorted) below its document, computed as trees in one pass."""
        leaves = {path: LEAVES[number] for number, path in enumerate(_ends(paths))}
        owners: dict[LabelPath, list[int]] = {}
        for (document, ids), sequence in leaves.items():
            self._model.copy(1 + document, sequence)
            for size in range(1, len(ids) + 1):
                owners.setdefault((document, ids[:size]), []).append(sequence)
        wanted = set(paths)
        nodes = sorted(owners)  # parents stand before their children
        steps = [
            Step(
                ids[-1], self.lengths[document] + len(ids) - 1, tuple(owners[document, ids]), (document, ids) in wanted
            )
            for document, ids in nodes
        ]
        try:
            found = self._model.decode(steps)
        finally:
            for sequence in leaves.values():
                self._model.forget(sequence)
        return dict(zip([node for node in nodes if node in wanted], found, strict=True))


def _steps(ids: Sequence[int], start: int, sequence: int) -> list[Step]:
    """Return the tokens of a sequence from position `start`; the logits after the last one are wanted."""
    last = len(ids) - 1
    return [Step(token, start + place, (sequence,), place == last) for place, token in enumerate(ids)]


def _ends(paths: Sequence[LabelPath]) -> list[LabelPath]:
    """Return the paths (sorted) that are not the beginning of another."""
    return [
        one
        for one, other in zip_longest(paths, paths[1:])
        if other is None or other[0] != one[0] or other[1][: len(one[1])] != one[1]
    ]


def _passes(paths: Sequence[LabelPath]) -> Iterator[list[LabelPath]]:
    """Yield sorted paths in parts that one pass can hold, beginnings together with what they are the beginning of."""
    ends, tokens = 0, 0
    part: list[LabelPath] = []
    closing = set(_ends(paths))
    for path in paths:
        part.append(path)
        if path in closing:
            ends, tokens = ends + 1, tokens + len(path[1])
            if ends == len(LEAVES) or tokens >= LABEL_TOKENS // 2:
                yield part
                ends, tokens, part = 0, 0, []
    if part:
        yield part


def _log_probabilities(logits: Logits, wanted: Sequence[int]) -> dict[int, float]:
    """Return the log-probabilities of some tokens, over the whole vocabulary."""
    best = float(logits.max())
    total = best + float(np.log(np.exp(logits - best).sum(dtype=np.float64)))
    return {token: float(logits[token]) - total for token in wanted}
