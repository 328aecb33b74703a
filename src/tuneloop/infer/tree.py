"""The candidates of a closed set as a tree of tokens: common beginnings are one path.

The tree holds the candidates whole, or only as far as they differ (`LabelTree.of_beginnings`), which is a fraction.

Knows nothing about models. Shapes: K candidates, N inner nodes, S segments.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from tuneloop.models.beginnings import common_prefix

ROOT = -1
Indices = NDArray[np.int64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class LabelTree:
    """The candidates' token sequences as a tree.

    Inner node i has token `tokens[i]` and comes after node `parents[i]` (ROOT: directly after the document). Last
    tokens of candidates are no nodes: their probability is known at the node before. `paths[k]` are the nodes of
    candidate k, `candidates[k]` its ids. `is_constrained` says that whoever walks it may go nowhere else: the
    probability of a step is its share among the steps that leave the same node.
    """

    candidates: tuple[tuple[int, ...], ...]
    tokens: tuple[int, ...]
    parents: tuple[int, ...]
    paths: tuple[tuple[int, ...], ...]
    is_constrained: bool = False

    @classmethod
    def of_beginnings(cls, candidates: Sequence[Sequence[int]]) -> LabelTree:
        """Make the constrained tree of the candidates' beginnings, each with the first token that tells it from all
        others; what comes after that is certain where nothing but candidates may be written.

        Raises: ValueError: one of them is empty, there twice, or the beginning of another.
        """
        ordered = sorted(range(len(candidates)), key=lambda number: tuple(candidates[number]))
        in_order = [candidates[number] for number in ordered]
        shared = [0, *(common_prefix(pair) for pair in pairwise(in_order)), 0]
        ends = dict(zip(ordered, (max(before, after) + 1 for before, after in pairwise(shared)), strict=True))
        return replace(cls.build([candidate[: ends[k]] for k, candidate in enumerate(candidates)]), is_constrained=True)

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
    def depths(self) -> Indices:
        """The depth of each node (N,): 0 directly after the document."""
        depths: Indices = self.ancestors.sum(1) - 1
        return depths

    @cached_property
    def ancestors(self) -> Flags:
        """(N, N), True where the column is the row's node itself or an ancestor of it."""
        seen = np.eye(len(self.tokens), dtype=bool)
        for node, parent in enumerate(self.parents):
            if parent != ROOT:
                seen[node] |= seen[parent]
        return seen

    @cached_property
    def on_path(self) -> Flags:
        """(K, N), True where the node is on the candidate's path."""
        on = np.zeros((len(self.candidates), len(self.tokens)), dtype=bool)
        for candidate, path in enumerate(self.paths):
            on[candidate, list(path)] = True
        return on

    @cached_property
    def steps(self) -> tuple[Indices, Indices, Indices]:
        """Every step of the tree, sorted by where it leaves: node (or ROOT), token, and where it leads.

        It leads to node i as i, and to the end of candidate k as N + k.
        """
        inner = list(zip(self.parents, self.tokens, range(len(self.tokens)), strict=True))
        last = [
            (path[-1] if path else ROOT, candidate[-1], len(self.tokens) + number)
            for number, (candidate, path) in enumerate(zip(self.candidates, self.paths, strict=True))
        ]
        left, tokens, targets = np.array(sorted(inner + last), dtype=np.int64).T
        return left, tokens, targets

    @cached_property
    def leaves(self) -> Indices:
        """The node (or ROOT) that the step to each target leaves (N + K,)."""
        left, _, targets = self.steps
        leaves = np.empty_like(left)
        leaves[targets] = left
        return leaves

    @cached_property
    def is_after_fork(self) -> Flags:
        """(N + K,), True where not every candidate's path takes the node that the step to the target leaves."""
        common = np.append(self.on_path.all(axis=0), True)  # the last one is what the index ROOT names
        after: Flags = ~common[self.leaves]
        return after

    @cached_property
    def segment_of(self) -> Indices:
        """The segment of each node (N,): nodes in a row without a fork between them are one, numbered by their first.

        Its nodes follow each other in number, too: one candidate made them all.
        """
        forks = np.bincount(self.steps[0] + 1, minlength=len(self.tokens) + 1)[1:] > 1
        begins = np.array([parent == ROOT or bool(forks[parent]) for parent in self.parents], dtype=bool)
        return np.cumsum(begins) - 1

    @cached_property
    def segment_starts(self) -> Indices:
        """The first node of each segment (S,)."""
        return np.flatnonzero(np.diff(self.segment_of, prepend=-1))

    @cached_property
    def segment_sizes(self) -> Indices:
        """How many nodes each segment has (S,)."""
        return np.bincount(self.segment_of)

    @cached_property
    def segment_parents(self) -> Indices:
        """The segment before each segment (S,), or ROOT."""
        before = np.array(self.parents, dtype=np.int64)[self.segment_starts]
        return np.where(before == ROOT, ROOT, self.segment_of[before])

    @cached_property
    def candidate_parents(self) -> Indices:
        """The segment that each candidate's last token comes after (K,), or ROOT."""
        return np.array([self.segment_of[path[-1]] if path else ROOT for path in self.paths], dtype=np.int64)

    @cached_property
    def leads_to(self) -> Flags:
        """(S, K), True where the candidate's path goes through the segment."""
        return self.on_path[:, self.segment_starts].T
