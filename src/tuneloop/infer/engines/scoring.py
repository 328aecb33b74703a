"""The probability of every label of a closed set, by a model of which nothing is known but next-token probabilities.

The scores and the certified pruning of `infer.labels`, for engines whose inside is out of reach: the walk over
the label tree is turned into questions "how likely are these tokens after those", many at once, so that an engine can
answer them as a batch and serve the common beginnings from its prefix cache.

Shapes: n documents, K labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from tuneloop.infer.tree import ROOT, Indices, LabelTree
from tuneloop.infer.walk import TOLERANCE, LabelWalk

TOKENS_PER_ROUND = 1024  # label tokens of one round, over all documents


class NextTokenModel(Protocol):
    """A model that tells how likely tokens are to come next."""

    def next_log_probabilities(
        self, sequences: Sequence[Sequence[int]], wanted: Sequence[Sequence[int]]
    ) -> list[Mapping[int, float]]:
        """Return, for each sequence of token ids, the log-probability (over the whole vocabulary) of its wanted tokens.

        Many sequences share long beginnings. Tokens that are told in vain do no harm; a missing one is an error.
        """
        ...


@dataclass(frozen=True, slots=True)
class Question:
    """How likely are the `wanted` tokens after a document (by its number) and `ids`, the beginning of some labels?"""

    document: int
    ids: tuple[int, ...]
    wanted: tuple[int, ...]


Ask = Callable[[Sequence[Question]], Sequence[Mapping[int, float]]]


def score_labels(
    model: NextTokenModel, prompts: Sequence[Sequence[int]], tree: LabelTree, *, tolerance: float = TOLERANCE
) -> NDArray[np.float32]:
    """Return log-scores (n, K) of every candidate of `tree` after every prompt (token ids).

    Args: tolerance: probability over the label set that may be left out in all; 0 asks about every branch.
    Raises: ValueError: the model's answer lacks a wanted token.
    """

    def ask(questions: Sequence[Question]) -> Sequence[Mapping[int, float]]:
        sequences = [[*prompts[question.document], *question.ids] for question in questions]
        return model.next_log_probabilities(sequences, [question.wanted for question in questions])

    return walk_labels(ask, len(prompts), tree, tolerance=tolerance)


def walk_labels(
    ask: Ask, count: int, tree: LabelTree, *, tolerance: float = TOLERANCE, tokens_per_round: int = TOKENS_PER_ROUND
) -> NDArray[np.float32]:
    """Return log-scores (count, K); `ask` answers the questions of one round, first those directly after documents.

    Raises: ValueError: an answer lacks a wanted token.
    """
    walk = LabelWalk(count, tree)
    if count:
        _ask_about(walk, ask, np.arange(count), np.full(count, ROOT))
        while (chosen := walk.choose(tolerance, tokens_per_round)).any():
            walk.mark(chosen)
            _ask_about(walk, ask, *np.nonzero(chosen[:, tree.segment_of]))
    return walk.log_scores()


def _ask_about(walk: LabelWalk, ask: Ask, owners: Indices, nodes: Indices) -> None:
    """Ask for every step that leaves `nodes` (T,) in the trees of `owners` (T,), and note the answers."""
    rows, tokens, targets = walk.steps_from(nodes)
    wanted = np.split(tokens, np.searchsorted(rows, np.arange(1, len(nodes))))
    questions = [
        Question(int(owner), _path(walk.tree, int(node)), tuple(dict.fromkeys(one.tolist())))
        for owner, node, one in zip(owners, nodes, wanted, strict=True)
    ]
    answers = ask(questions)
    found = [answers[row].get(token) for row, token in zip(rows.tolist(), tokens.tolist(), strict=True)]
    told = [one for one in found if one is not None]
    if len(answers) != len(questions) or len(told) < len(found):
        raise ValueError("the engine did not tell the log-probability of every token that was asked for")
    walk.note(owners[rows], targets, np.array(told, dtype=np.float64))


def _path(tree: LabelTree, node: int) -> tuple[int, ...]:
    """Return the ids from the document up to `node`, none for ROOT."""

    def upwards() -> Iterator[int]:
        at = node
        while at != ROOT:
            yield tree.tokens[at]
            at = tree.parents[at]

    return tuple(upwards())[::-1]
