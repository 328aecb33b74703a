"""Greedy generation for many documents at once, after a common prefix that is computed once.

Greedy, since a classifier or extractor has one right answer. Shapes: n documents, C tokens of room each, G key/value
heads, D dimensions of a head, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tuneloop.infer import caches
from tuneloop.infer.answering import Generated as Generated
from tuneloop.infer.labels import ScoredLabels
from tuneloop.infer.session import PrefixSession, ReadDocuments
from tuneloop.models.prefix import AppendPass, KeyValues


@dataclass(frozen=True, slots=True)
class LabelPath:
    """A label after a document: the nodes of the tree that its beginning is, and the ids that follow, at least one."""

    nodes: tuple[int, ...]
    rest: tuple[int, ...]


@torch.inference_mode()
def generate(session: PrefixSession, documents: ReadDocuments, *, end_id: int, max_new_tokens: int) -> list[Generated]:
    """Generate an answer to every document of a row, in the order of the row's members."""
    cache = caches.spread(documents, max_new_tokens)
    lengths = torch.tensor(documents.lengths, device=session.device)
    log_probabilities = documents.next_logits.float().log_softmax(-1)
    return _continue(session, cache, lengths, log_probabilities, end_id, max_new_tokens)


@torch.inference_mode()
def generate_after_labels(
    session: PrefixSession,
    documents: ReadDocuments,
    scored: ScoredLabels,
    labels: Sequence[LabelPath],
    *,
    end_id: int,
    max_new_tokens: int,
) -> list[Generated]:
    """Go on where the chosen label of each document ends; the answers do not repeat the label.

    Raises: ValueError: the scoring left a chosen label out, since it is next to impossible.
    """
    kept = [
        [*range(length), *scored.places[document, list(label.nodes)]]
        for document, (length, label) in enumerate(zip(documents.lengths, labels, strict=True))
    ]
    if min(map(min, kept)) < 0:
        raise ValueError("a chosen label was left out by the scoring")
    room, rest = max(map(len, kept)), max(len(label.rest) for label in labels)
    places = torch.tensor([[*row, *[0] * (room - len(row))] for row in kept], device=session.device)
    cache = caches.widened(caches.rearranged(scored.cache, places), max_new_tokens + rest)
    lengths = torch.tensor([len(row) for row in kept], device=session.device)
    logits = append(session, cache, lengths, [label.rest for label in labels])
    lengths += torch.tensor([len(label.rest) for label in labels], device=session.device)
    return _continue(session, cache, lengths, logits.float().log_softmax(-1), end_id, max_new_tokens)


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
    for number in range(max_new_tokens):
        best, token = log_probabilities.max(-1)
        owners += active
        best_of_steps.append(best)
        chosen = token.tolist()  # the only time in a step that the device is waited for
        for document, one in zip(active, chosen, strict=True):
            ids[document].append(one)
        going = [place for place, one in enumerate(chosen) if one != end_id]
        if not going or number == max_new_tokens - 1:
            break
        if len(going) < len(active):
            active = [active[place] for place in going]
            places = torch.tensor(going, device=token.device)
            cache, lengths, token = caches.selected(cache, places), lengths[places], token[places]
        log_probabilities = step(session, cache, lengths, token).float().log_softmax(-1)
        lengths = lengths + 1
    scores: list[list[float]] = [[] for _ in ids]
    for document, score in zip(owners, torch.cat(best_of_steps).tolist(), strict=True):
        scores[document].append(score)
    return [
        Generated(tuple(answer[:-1] if answer[-1] == end_id else answer), tuple(score), answer[-1] == end_id)
        for answer, score in zip(ids, scores, strict=True)
    ]


def append(session: PrefixSession, cache: KeyValues, lengths: Tensor, tokens: Sequence[Sequence[int]]) -> Tensor:
    """Give each document its next tokens, at least one, in one pass; returns the logits (n, V) after the last of each.

    `lengths` (n,) tells how many each has; the cache needs room for the new ones.
    """
    device = lengths.device
    counts = torch.tensor([len(own) for own in tokens], device=device)
    owners = torch.repeat_interleave(torch.arange(len(tokens), device=device), counts)
    columns = torch.arange(len(owners), device=device) - (counts.cumsum(0) - counts)[owners]
    places = lengths[owners] + columns
    seen = lengths[:, None] + torch.arange(int(counts.max()), device=device)
    mask = torch.arange(caches.room_of(cache), device=device) <= seen[:, :, None]
    attend = AppendPass(session.prefix, cache, owners, columns, places, mask[:, None])
    ids = torch.tensor([token for own in tokens for token in own], device=device)
    logits = session.forward(ids[None], (places + len(session.prefix_ids))[None], attend, last=0)
    return logits[counts.cumsum(0) - 1]


def step(session: PrefixSession, cache: KeyValues, lengths: Tensor, tokens: Tensor) -> Tensor:
    """Give each document its next token; returns logits (n, V)."""
    documents = torch.arange(len(lengths), device=lengths.device)
    mask = torch.arange(caches.room_of(cache), device=lengths.device) <= lengths[:, None]
    columns = torch.zeros_like(documents)
    attend = AppendPass(session.prefix, cache, documents, columns, lengths, mask[:, None, None])
    positions = lengths + len(session.prefix_ids)
    return session.forward(tokens[None], positions[None], attend, last=len(tokens))
