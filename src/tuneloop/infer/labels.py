"""The exact probability of every label of a closed set: the document is read once, all labels continue it as a tree.

The score of a label is the sum of the log-probabilities of its tokens after the prompt, each over the whole vocabulary,
just as a forward pass over prompt and label would give; probabilities are normalised over the label set, so an answer
outside it is impossible.

Shapes: n documents, K labels, N inner nodes of the tree, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from tuneloop.infer.session import PrefixSession, ReadDocuments
from tuneloop.models.prefix import BranchesPass, KeyValues
from tuneloop.models.rows import split_blocks

ROOT = -1


@dataclass(frozen=True)
class LabelTree:
    """The candidates' token sequences as a tree: common beginnings are one path.

    Inner node i has token `tokens[i]` and comes after node `parents[i]` (ROOT: directly after the document). Last
    tokens of candidates are no nodes: their probability is known at the node before. `paths[k]` are the nodes of
    candidate k, `candidates[k]` its ids.
    """

    candidates: tuple[tuple[int, ...], ...]
    tokens: tuple[int, ...]
    parents: tuple[int, ...]
    paths: tuple[tuple[int, ...], ...]

    @classmethod
    def build(cls, candidates: Sequence[Sequence[int]]) -> LabelTree:
        """Make the tree of candidates.

        Raises: ValueError: one of them is empty, there twice, or the beginning of another.
        """
        places: dict[tuple[int, ...], int] = {}
        parents: list[int] = []
        paths = []
        for candidate in candidates:
            path: list[int] = []
            for end in range(1, len(candidate)):
                beginning = tuple(candidate[:end])
                if beginning not in places:
                    places[beginning] = len(parents)
                    parents.append(path[-1] if path else ROOT)
                path.append(places[beginning])
            paths.append(tuple(path))
        unique = {tuple(candidate) for candidate in candidates}
        if not all(unique) or len(unique) < len(candidates) or not unique.isdisjoint(places):
            raise ValueError("a candidate is empty, there twice, or the beginning of another")
        tokens = tuple(beginning[-1] for beginning in places)
        return cls(tuple(tuple(c) for c in candidates), tokens, tuple(parents), tuple(paths))

    @cached_property
    def depths(self) -> Tensor:
        """The depth of each node (N,): 0 directly after the document."""
        depths: list[int] = []
        for parent in self.parents:
            depths.append(0 if parent == ROOT else depths[parent] + 1)
        return torch.tensor(depths, dtype=torch.long)

    @cached_property
    def ancestors(self) -> Tensor:
        """(N, N), True where the column is the row's node itself or an ancestor of it."""
        seen = torch.eye(len(self.tokens), dtype=torch.bool)
        for node, parent in enumerate(self.parents):
            if parent != ROOT:
                seen[node] |= seen[parent]
        return seen

    @cached_property
    def edges(self) -> tuple[Tensor, Tensor, Tensor]:
        """Every step of every candidate: the node it leaves (0 is the root, i + 1 node i), its token, the candidate."""
        steps = [
            (before + 1, token, number)
            for number, (candidate, path) in enumerate(zip(self.candidates, self.paths, strict=True))
            for before, token in zip((ROOT, *path), candidate, strict=True)
        ]
        left, tokens, owners = torch.tensor(steps, dtype=torch.long).T
        return left, tokens, owners


@dataclass(frozen=True)
class ScoredLabels:
    """log_scores (n, K) in the order of the row's members, and the tree's keys and values for going on from a label."""

    log_scores: Tensor
    branches: KeyValues


@torch.inference_mode()
def score_labels(
    session: PrefixSession, documents: ReadDocuments, tree: LabelTree, nodes_per_pass: int = 1024
) -> ScoredLabels:
    """Score every candidate of `tree` after every document of a row.

    Returns: log-scores, not normalised over the candidates; and keys and values (1, G, n·N, D) per layer, document
        by document.
    """
    if not tree.tokens:
        _, tokens, owners = tree.edges
        log_probabilities = documents.next_logits.float().log_softmax(-1)[:, tokens.to(session.device)]
        return ScoredLabels(_sum_by_owner(log_probabilities, owners, len(tree.candidates)), KeyValues())
    ids, ancestors = (part.to(session.device) for part in (torch.tensor(tree.tokens), tree.ancestors))
    scores, parts, done = [], [], 0
    for blocks in split_blocks(documents.row.blocks, max(nodes_per_pass // len(tree.tokens), 1)):
        count = sum(block.count for block in blocks)
        branches = BranchesPass(blocks, documents.states, session.prefix, ancestors)
        lengths = torch.tensor(documents.lengths[done : done + count])
        positions = len(session.prefix_ids) + lengths[:, None] + tree.depths
        logits = session.forward(
            ids.repeat(count)[None], positions.flatten()[None].to(session.device), branches, last=0
        )
        scores.append(_scores(documents.next_logits[done : done + count], logits, tree))
        parts.append(branches.remembered)
        done += count
    return ScoredLabels(torch.cat(scores), _concatenate(parts))


def _scores(root_logits: Tensor, node_logits: Tensor, tree: LabelTree) -> Tensor:
    """Return log-scores (n, K) from the logits after the document (n, V) and at the nodes (n·N, V)."""
    left, tokens, owners = (part.to(root_logits.device) for part in tree.edges)
    at_root = left == 0
    log_totals = torch.logsumexp(root_logits.float(), dim=-1, keepdim=True)
    first = root_logits[:, tokens[at_root]].float() - log_totals
    nodes = node_logits.view(len(root_logits), len(tree.tokens), -1)
    node, token = left[~at_root] - 1, tokens[~at_root]
    later = nodes[:, node, token].float() - torch.logsumexp(nodes.float(), dim=-1)[:, node]
    owners = torch.cat([owners[at_root], owners[~at_root]])
    return _sum_by_owner(torch.cat([first, later], dim=1), owners, len(tree.candidates))


def _sum_by_owner(steps: Tensor, owners: Tensor, count: int) -> Tensor:
    return torch.zeros(len(steps), count, device=steps.device).index_add_(1, owners.to(steps.device), steps)


def _concatenate(parts: Sequence[KeyValues]) -> KeyValues:
    if len(parts) == 1:
        return parts[0]
    layers = parts[0].keys
    return KeyValues(
        {layer: torch.cat([part.keys[layer] for part in parts], dim=2) for layer in layers},
        {layer: torch.cat([part.values[layer] for part in parts], dim=2) for layer in layers},
    )
