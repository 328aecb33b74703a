"""The walk over a label tree: what is known of each label's probability so far, and what is worth computing next.

Branches are computed in the order of their probability, and those that provably hold less than a tolerance of the label
set's whole probability not at all: the labels below a node can never be more likely together than the path to it.

Knows nothing about models: the log-probabilities come from whoever asks. Shapes: n documents, K labels, N inner nodes
and S segments of the tree, T tokens.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tuneloop.infer.tree import ROOT, Flags, Indices, LabelTree

TOLERANCE = 5e-5
Floats = NDArray[np.float64]


class LabelWalk:
    """How far the trees of `count` documents are known. It begins with what comes directly after the documents."""

    def __init__(self, count: int, tree: LabelTree) -> None:
        self.tree = tree
        self._computed = np.zeros((count, len(tree.segment_starts) + 1), dtype=bool)
        self._computed[:, ROOT] = True  # the last column, which the index ROOT names
        self._steps = np.full((count, len(tree.tokens) + len(tree.candidates)), -np.inf)  # log-probability of each step

    def steps_from(self, nodes: Indices) -> tuple[Indices, Indices, Indices]:
        """Return every step that leaves `nodes` (T,), ROOT among them: index into `nodes`, token, and target."""
        left, tokens, targets = self.tree.steps
        first, stop = np.searchsorted(left, nodes, side="left"), np.searchsorted(left, nodes, side="right")
        rows = np.repeat(np.arange(len(nodes)), stop - first)
        steps = np.concatenate([np.arange(a, b) for a, b in zip(first, stop, strict=True)])
        return rows, tokens[steps], targets[steps]

    def note(self, owners: Indices, targets: Indices, log_probabilities: Floats) -> None:
        """Take the log-probability of steps to `targets`, each in the tree of the document `owners`.

        All steps that leave a node have to be told at once.
        """
        if self.tree.is_constrained:
            log_probabilities = self._constrained(owners, targets, log_probabilities)
        self._steps[owners, targets] = log_probabilities

    def choose(self, tolerance: float, tokens_per_pass: int) -> Flags:
        """Return (n, S): which segments come next; none where all that is left is negligible."""
        waiting = self._waiting()
        bounds = np.where(waiting, self._node_scores()[:, self.tree.segment_starts], -np.inf)
        known = np.logaddexp.reduce(self._known_scores(), axis=1)
        at_most = np.logaddexp(known, np.logaddexp.reduce(bounds, axis=1))
        # What is needed even if all the rest turned out as likely as it can is computed first; nothing is in vain.
        needed = _not_negligible(bounds, at_most, tolerance)
        undecided = ~needed.any(axis=1, keepdims=True)
        needed = np.where(undecided, _not_negligible(bounds, known, tolerance), needed) & waiting
        active = int(needed.any(axis=1).sum())
        return _best_within(needed, bounds, self.tree.segment_sizes, tokens_per_pass // max(active, 1))

    def mark(self, chosen: Flags) -> None:
        """Remember that segments (n, S) are being computed."""
        self._computed[:, :ROOT] |= chosen

    def log_scores(self) -> NDArray[np.float32]:
        """Return (n, K) log-scores; a label that was left out gets its share of what its branch has at most."""
        tree = self.tree
        waiting = self._waiting()
        shared = self._node_scores()[:, tree.segment_starts] - np.log(tree.leads_to.sum(axis=1))
        estimates = np.where(waiting, shared, -np.inf)[:, :, None] + np.where(tree.leads_to, 0.0, -np.inf)
        left_out = estimates.max(axis=1, initial=-np.inf)
        scores: NDArray[np.float32] = np.maximum(self._known_scores(), left_out).astype(np.float32)
        return scores

    def _constrained(self, owners: Indices, targets: Indices, log_probabilities: Floats) -> Floats:
        """Return each step's share among those that leave the same node.

        Up to the first fork they stay what they are: that shifts all scores of a document alike, and tells how likely
        the model finds any label at all.
        """
        leaves, after = self.tree.leaves[targets], self.tree.is_after_fork[targets]
        _, forks = np.unique(np.stack([owners, leaves]), axis=1, return_inverse=True)
        totals = np.full(len(targets), -np.inf)
        np.logaddexp.at(totals, forks, log_probabilities)
        possible = after & np.isfinite(totals[forks])
        return np.where(possible, log_probabilities - np.where(possible, totals[forks], 0.0), log_probabilities)

    def _waiting(self) -> Flags:
        """Return (n, S): what comes before the segment is computed, and the segment is not."""
        return self._computed[:, self.tree.segment_parents] & ~self._computed[:, :ROOT]

    def _node_scores(self) -> Floats:
        """Return (n, N) log-probabilities of the paths to the nodes, -inf where not known."""
        return _sums(self._steps[:, : len(self.tree.tokens)], self.tree.ancestors)

    def _known_scores(self) -> Floats:
        """Return (n, K) log-scores, -inf where not known."""
        inner, last = np.split(self._steps, [len(self.tree.tokens)], axis=1)
        scores: Floats = _sums(inner, self.tree.on_path) + last
        return scores


def _sums(steps: Floats, members: Flags) -> Floats:
    """Return (n, M): for each row of members (M, N) the sum of its steps (n, N); -inf where one is not known."""
    known = np.isfinite(steps)
    complete = known.astype(np.float64) @ members.T == members.sum(axis=1)
    return np.where(complete, np.where(known, steps, 0.0) @ members.T, -np.inf)


def _not_negligible(bounds: Floats, total: Floats, tolerance: float) -> Flags:
    """Return (n, S) without the least likely segments that hold at most `tolerance` of exp(total (n,)) together."""
    with np.errstate(invalid="ignore", over="ignore"):
        shares = np.exp(np.minimum(bounds - total[:, None], 300.0))
    shares = np.where(np.isfinite(bounds), shares, 0.0)
    order = np.argsort(shares, axis=1)
    kept = np.take_along_axis(shares, order, axis=1).cumsum(axis=1) > tolerance
    result = np.zeros_like(kept)
    np.put_along_axis(result, order, kept, axis=1)
    return result & np.isfinite(bounds) if tolerance > 0 else np.isfinite(bounds)


def _best_within(needed: Flags, bounds: Floats, sizes: Indices, tokens: int) -> Flags:
    """Return the likeliest of the needed segments (n, S) with at most `tokens` tokens a document, but at least one."""
    order = np.argsort(np.where(needed, -bounds, np.inf), axis=1, kind="stable")
    spent = np.where(np.take_along_axis(needed, order, axis=1), sizes[order], 0).cumsum(axis=1)
    fits = spent <= tokens
    if fits.shape[1]:
        fits[:, 0] = True
    result = np.zeros_like(needed)
    np.put_along_axis(result, order, fits, axis=1)
    return result & needed
