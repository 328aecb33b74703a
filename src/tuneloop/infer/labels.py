"""The probability of every label of a closed set: the document is read once, all labels continue it as a tree.

The score of a label is the sum of the log-probabilities of its tokens after the prompt, each over the whole vocabulary,
just as a forward pass over prompt and label would give; probabilities are normalised over the label set, so an answer
outside it is impossible.

Branches that provably hold next to nothing are not computed (`walk`): a model that knows its answer needs few
branches of hundreds.

Shapes: n documents, K labels, N inner nodes and S segments of the tree, T new tokens of a pass, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tuneloop.infer import caches
from tuneloop.infer.session import PrefixSession, ReadDocuments
from tuneloop.infer.tree import ROOT, Flags, Indices, LabelTree
from tuneloop.infer.walk import TOLERANCE, LabelWalk
from tuneloop.models.prefix import AppendPass, KeyValues

ROOM = 32  # tokens a document's cache grows by at least


@dataclass(frozen=True)
class ScoredLabels:
    """Log-scores of the labels, and what is needed for going on from one.

    log_scores (n, K) are in the order of the row's members. Those of labels that were left out are what their branch
    could have at most, shared evenly: their probabilities are wrong by less than the tolerance, all together.
    `cache` holds keys and values (n, G, C, D) of document and tree; places (n, N) says where a node's are, -1 where it
    was left out.
    """

    log_scores: Tensor
    cache: KeyValues
    places: Indices


@torch.inference_mode()
def score_labels(
    session: PrefixSession,
    documents: ReadDocuments,
    tree: LabelTree,
    *,
    tolerance: float = TOLERANCE,
    tokens_per_pass: int = 1024,
) -> ScoredLabels:
    """Score every candidate of `tree` after every document of a row.

    Args: tolerance: probability over the label set that may be left out in all; 0 computes every branch.
    """
    search = _Search(session, documents, tree)
    while (chosen := search.walk.choose(tolerance, tokens_per_pass)).any():
        search.expand(chosen)
    return ScoredLabels(torch.from_numpy(search.walk.log_scores()), search.cache, search.places)


class _Search:
    """How far the trees of a row's documents have been computed."""

    def __init__(self, session: PrefixSession, documents: ReadDocuments, tree: LabelTree) -> None:
        count, nodes = len(documents.lengths), len(tree.tokens)
        self.session, self.tree = session, tree
        self.lengths = np.array(documents.lengths, dtype=np.int64)
        self.used = self.lengths.copy()
        self.cache = caches.spread(documents, 0)
        self.places = np.full((count, nodes), -1, dtype=np.int64)
        self.walk = LabelWalk(count, tree)
        self._note_steps(np.arange(count), np.full(count, ROOT), documents.next_logits)

    def expand(self, chosen: Flags) -> None:
        """Compute the chosen segments (n, S) in one pass."""
        of_nodes = chosen[:, self.tree.segment_of]  # (n, N)
        documents = np.flatnonzero(of_nodes.any(axis=1))
        rows, nodes = np.nonzero(of_nodes[documents])  # T new tokens, document by document
        owners = documents[rows]
        counts = of_nodes[documents].sum(axis=1)
        columns = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        self.places[owners, nodes] = self.used[owners] + columns
        self.used[documents] += counts
        if (missing := int(self.used.max()) - caches.room_of(self.cache)) > 0:
            self.cache = caches.widened(self.cache, max(missing, ROOM))
        logits = self._forward(documents, rows, nodes, columns)
        self.walk.mark(chosen)
        self._note_steps(owners, nodes, logits)

    def _forward(self, documents: Indices, rows: Indices, nodes: Indices, columns: Indices) -> Tensor:
        """Append nodes to documents; returns the logits (T, V) after each."""
        device = self.session.device
        owners = documents[rows]
        mask = np.zeros((len(documents), 1, int(columns.max()) + 1, caches.room_of(self.cache)), dtype=bool)
        mask |= np.arange(mask.shape[3]) < self.lengths[documents][:, None, None, None]
        token, ancestor = np.nonzero(self.tree.ancestors[nodes])
        mask[rows[token], 0, columns[token], self.places[owners[token], ancestor]] = True
        is_all = len(documents) == len(self.lengths)
        picked = torch.from_numpy(documents).to(device)
        own = self.cache if is_all else caches.selected(self.cache, picked)
        attend = AppendPass(
            self.session.prefix,
            own,
            *(torch.from_numpy(part).to(device) for part in (rows, columns, self.places[owners, nodes], mask)),
        )
        positions = len(self.session.prefix_ids) + self.lengths[owners] + self.tree.depths[nodes]
        ids = torch.from_numpy(np.array(self.tree.tokens, dtype=np.int64)[nodes]).to(device)
        logits = self.session.forward(ids[None], torch.from_numpy(positions).to(device)[None], attend, last=0)
        if not is_all:
            caches.put_back(self.cache, picked, own)
        return logits

    def _note_steps(self, owners: Indices, nodes: Indices, logits: Tensor) -> None:
        """Take the log-probability of every step that leaves `nodes` from the logits (T, V) after them."""
        rows, tokens, targets = self.walk.steps_from(nodes)
        at = torch.from_numpy(rows).to(logits.device), torch.from_numpy(tokens).to(logits.device)
        totals = torch.logsumexp(logits.float(), dim=-1)
        self.walk.note(owners[rows], targets, (logits[at].float() - totals[at[0]]).double().cpu().numpy())
