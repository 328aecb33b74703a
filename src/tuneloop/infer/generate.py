"""Greedy generation for many documents at once, after a common prefix that is computed once.

Greedy, since a classifier or extractor has one right answer. Shapes: n documents, C tokens of room each, G key/value
heads, D dimensions of a head, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tuneloop.infer.labels import LabelTree, ScoredLabels
from tuneloop.infer.session import PrefixSession, ReadDocuments
from tuneloop.models.prefix import KeyValues, StepPass


@dataclass(frozen=True)
class Generated:
    """One generated answer: its ids without the end token, and the log-probability of each (end token included)."""

    ids: tuple[int, ...]
    log_probabilities: tuple[float, ...]
    is_finished: bool


@torch.inference_mode()
def generate(session: PrefixSession, documents: ReadDocuments, *, end_id: int, max_new_tokens: int) -> list[Generated]:
    """Generate an answer to every document of a row, in the order of the row's members."""
    cache = _room_for(documents, max_new_tokens)
    lengths = torch.tensor(documents.lengths, device=session.device)
    log_probabilities = documents.next_logits.float().log_softmax(-1)
    return _continue(session, cache, lengths, log_probabilities, end_id, max_new_tokens)


@torch.inference_mode()
def generate_after_labels(
    session: PrefixSession,
    documents: ReadDocuments,
    scored: ScoredLabels,
    tree: LabelTree,
    chosen: Sequence[int],
    *,
    end_id: int,
    max_new_tokens: int,
) -> list[Generated]:
    """Go on where the chosen candidate of each document ends; the answers do not repeat the candidate."""
    longest = max(len(path) for path in tree.paths)
    cache = _room_for(documents, longest + 1 + max_new_tokens)
    lengths = torch.tensor(documents.lengths, device=session.device)
    nodes = len(tree.tokens)
    for layer in cache.keys:
        for document, candidate in enumerate(chosen):
            path = [document * nodes + node for node in tree.paths[candidate]]
            if path:
                span = slice(documents.lengths[document], documents.lengths[document] + len(path))
                cache.keys[layer][document, :, span] = scored.branches.keys[layer][0, :, path]
                cache.values[layer][document, :, span] = scored.branches.values[layer][0, :, path]
    lengths = lengths + torch.tensor([len(tree.paths[candidate]) for candidate in chosen], device=session.device)
    last = torch.tensor([tree.candidates[candidate][-1] for candidate in chosen], device=session.device)
    logits = _step(session, cache, lengths, last)
    return _continue(session, cache, lengths + 1, logits.float().log_softmax(-1), end_id, max_new_tokens)


def _continue(
    session: PrefixSession,
    cache: KeyValues,
    lengths: Tensor,
    log_probabilities: Tensor,
    end_id: int,
    max_new_tokens: int,
) -> list[Generated]:
    ids: list[list[int]] = [[] for _ in lengths]
    active = list(range(len(lengths)))
    owners: list[int] = []
    best_of_steps: list[Tensor] = []
    for step in range(max_new_tokens):
        best, token = log_probabilities.max(-1)
        owners += active
        best_of_steps.append(best)
        chosen = token.tolist()  # the only time in a step that the device is waited for
        for document, one in zip(active, chosen, strict=True):
            ids[document].append(one)
        going = [place for place, one in enumerate(chosen) if one != end_id]
        if not going or step == max_new_tokens - 1:
            break
        if len(going) < len(active):
            active = [active[place] for place in going]
            places = torch.tensor(going, device=token.device)
            cache, lengths, token = _select(cache, places), lengths[places], token[places]
        log_probabilities = _step(session, cache, lengths, token).float().log_softmax(-1)
        lengths = lengths + 1
    scores: list[list[float]] = [[] for _ in ids]
    for document, score in zip(owners, torch.cat(best_of_steps).tolist(), strict=True):
        scores[document].append(score)
    return [
        Generated(tuple(answer[:-1] if answer[-1] == end_id else answer), tuple(score), answer[-1] == end_id)
        for answer, score in zip(ids, scores, strict=True)
    ]


def _step(session: PrefixSession, cache: KeyValues, lengths: Tensor, tokens: Tensor) -> Tensor:
    """Give each document its next token; returns logits (n, V)."""
    room = next(iter(cache.keys.values())).shape[2]
    mask = torch.arange(room, device=lengths.device) <= lengths[:, None]
    attend = StepPass(session.prefix, cache, lengths, mask[:, None, None])
    positions = lengths + len(session.prefix_ids)
    return session.forward(tokens[None], positions[None], attend, last=len(tokens))


def _room_for(documents: ReadDocuments, more: int) -> KeyValues:
    """Return the documents' keys and values as (n, G, C, D), with room for `more` tokens after the longest."""
    room = max(documents.lengths) + more
    count = len(documents.lengths)

    def spread(part: Tensor) -> Tensor:
        spacious = part.new_zeros((count, part.shape[1], room, part.shape[3]))
        first = 0
        for block in documents.row.blocks:
            own = part[0, :, block.start : block.stop].view(-1, block.count, block.length, part.shape[3])
            spacious[first : first + block.count, :, : block.length] = own.transpose(0, 1)
            first += block.count
        return spacious

    return KeyValues(
        {layer: spread(part) for layer, part in documents.states.keys.items()},
        {layer: spread(part) for layer, part in documents.states.values.items()},
    )


def _select(cache: KeyValues, documents: Tensor) -> KeyValues:
    return KeyValues(
        {layer: part[documents] for layer, part in cache.keys.items()},
        {layer: part[documents] for layer, part in cache.values.items()},
    )
