from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from tests.infer.constrained import constrained_scores
from tests.models.loaded import opened, random_ids
from tests.models.tiny import FAMILIES, Family
from tuneloop.infer.labels import score_labels
from tuneloop.infer.plain import PlainNextTokens, score_candidates
from tuneloop.infer.session import PrefixSession
from tuneloop.infer.tree import LabelTree
from tuneloop.models import lean, prefix

CANDIDATES = [[5], [9, 13], [9, 20, 7], [9, 20, 8, 5], [30, 2], [31, 2], [9, 21]]
LENGTHS = [7, 12, 7, 1, 30, 12, 11, 7]


def scored_by_tree(
    family: Family,
    common: Sequence[int],
    rests: Sequence[Sequence[int]],
    candidates: Sequence[Sequence[int]],
    tokens_per_row: int = 40,
    tokens_per_pass: int = 1024,
    tolerance: float = 0,
) -> Tensor:
    """Return log-scores (n, K) in the order of `rests`."""
    model = opened(family).model
    prefix.install(model)
    session = PrefixSession(model, common)
    tree = LabelTree.build(candidates)
    scores = torch.full((len(rests), len(candidates)), torch.nan)
    for documents in session.read(rests, tokens_per_row):
        scored = score_labels(session, documents, tree, tolerance=tolerance, tokens_per_pass=tokens_per_pass)
        scores[list(documents.row.members)] = scored.log_scores
    return scores


def scored_plainly(
    family: Family, common: Sequence[int], rests: Sequence[Sequence[int]], candidates: Sequence[Sequence[int]]
) -> Tensor:
    model = opened(family).model
    prefix.uninstall(model)
    return torch.stack([score_candidates(model, [*common, *rest], candidates) for rest in rests])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("shared", [0, 25])
def test_scores_are_those_of_one_forward_pass_for_each_candidate(family: Family, shared: int) -> None:
    common, *rests = random_ids([shared, *LENGTHS])
    found = scored_by_tree(family, common, rests, CANDIDATES)
    torch.testing.assert_close(found, scored_plainly(family, common, rests, CANDIDATES), rtol=0, atol=1e-4)


@pytest.mark.parametrize("candidates", [[[5], [6], [300]], [[5]], [[5, 6, 7, 8]], [[5, 6], [5, 7]]])
def test_labels_of_a_single_token_and_sets_of_a_single_label_are_scored_too(candidates: list[list[int]]) -> None:
    common, *rests = random_ids([10, *LENGTHS])
    found = scored_by_tree("qwen2", common, rests, candidates)
    torch.testing.assert_close(found, scored_plainly("qwen2", common, rests, candidates), rtol=0, atol=1e-4)


@pytest.mark.parametrize("family", ["llama", "gemma"])
def test_a_label_that_is_the_beginning_of_another_is_scored_with_its_end_of_turn(family: Family) -> None:
    chat = opened(family).chat
    labels = ["Public", "Public Domain", "Pub", "Größe", "Public Domain 2"]
    candidates = [chat.answer_ids([label]) for label in labels]
    rests = random_ids(LENGTHS)
    found = scored_by_tree(family, (), rests, candidates)
    torch.testing.assert_close(found, scored_plainly(family, (), rests, candidates), rtol=0, atol=1e-4)


@settings(max_examples=15)
@given(
    st.lists(
        st.lists(st.integers(3, 5), max_size=4).map(lambda ids: [*ids, 2]), min_size=1, max_size=8, unique_by=tuple
    ),
    st.lists(st.integers(1, 12), min_size=1, max_size=6),
    st.integers(1, 60),
    st.integers(1, 30),
)
def test_neither_rows_nor_passes_change_scores(
    candidates: list[list[int]], lengths: list[int], tokens_per_row: int, tokens_per_pass: int
) -> None:
    common, *rests = random_ids([6, *lengths])
    found = scored_by_tree("llama", common, rests, candidates, tokens_per_row, tokens_per_pass)
    torch.testing.assert_close(found, scored_plainly("llama", common, rests, candidates), rtol=0, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_constrained_scores_are_shares_at_each_fork(family: Family) -> None:
    common, *rests = random_ids([14, *LENGTHS])
    candidates = [[3, 8, *candidate, 1] for candidate in CANDIDATES]  # all begin alike
    model = opened(family).model
    prefix.install(model)
    session, tree = PrefixSession(model, common), LabelTree.of_beginnings(candidates)
    (documents,) = session.read(rests, 1000)
    found = score_labels(session, documents, tree, tolerance=0).log_scores
    prefix.uninstall(model)
    plain = PlainNextTokens(model)
    for member, scores in zip(documents.row.members, found, strict=True):

        def after(ids: Sequence[int], member: int = member) -> NDArray[np.float64]:
            (told,) = plain.next_log_probabilities([[*common, *rests[member], *ids]], [range(40)])
            return np.array([told[token] for token in range(40)])

        np.testing.assert_allclose(scores.numpy(), constrained_scores(after, candidates), atol=1e-4)


def test_lean_layers_score_alike() -> None:
    from tests.models.loaded import fresh_model

    common, *rests = random_ids([9, *LENGTHS])
    model = fresh_model("gemma3").requires_grad_(False)
    expected = torch.stack([score_candidates(model, [*common, *rest], CANDIDATES) for rest in rests])
    assert lean.install(model)
    prefix.install(model)
    session, tree = PrefixSession(model, common), LabelTree.build(CANDIDATES)
    for documents in session.read(rests, 1000):
        found = score_labels(session, documents, tree, tolerance=0).log_scores
        torch.testing.assert_close(found, expected[list(documents.row.members)], rtol=0, atol=1e-4)


class _Guessed(PrefixSession):
    """A session whose logits are pushed towards a few tokens, as a tuned model's are; counts the tokens it computes."""

    def __init__(self, *args: Any, boost: float) -> None:
        self.boost, self.computed = boost, 0
        super().__init__(*args)

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        self.computed += args[0].shape[1]
        logits = super().forward(*args, **kwargs).clone()
        logits[:, [9, 20, 8, 5]] += self.boost
        return logits


@pytest.mark.parametrize("boost", [0.0, 3.0, 9.0, 30.0])
@pytest.mark.parametrize("tokens_per_pass", [1, 30, 1024])
def test_branches_left_out_hold_less_than_the_tolerance_and_cost_nothing(boost: float, tokens_per_pass: int) -> None:
    common, *rests = random_ids([14, *LENGTHS])
    prefix.install(opened("llama").model)
    session, tree = _Guessed(opened("llama").model, common, boost=boost), LabelTree.build(CANDIDATES)
    (documents,) = session.read(rests, 1000)
    session.computed = 0
    whole = score_labels(session, documents, tree, tolerance=0)
    assert session.computed == len(rests) * len(tree.tokens) and (whole.places >= 0).all()
    session.computed = 0
    pruned = score_labels(session, documents, tree, tolerance=1e-3, tokens_per_pass=tokens_per_pass)
    assert session.computed == (pruned.places >= 0).sum()
    assert boost < 9 or session.computed <= len(rests) * len(tree.tokens) / 2
    error = (pruned.log_scores.softmax(-1) - whole.log_scores.softmax(-1)).abs()
    assert float(error.max()) < 1e-3 and torch.isfinite(pruned.log_scores).all()


def test_a_label_that_was_left_out_gets_its_share_of_what_its_branch_could_have() -> None:
    common, *rests = random_ids([14, *LENGTHS])
    prefix.install(opened("llama").model)
    session, tree = _Guessed(opened("llama").model, common, boost=30.0), LabelTree.build(CANDIDATES)
    (documents,) = session.read(rests, 1000)
    scores = score_labels(session, documents, tree, tolerance=1e-3).log_scores
    root = documents.next_logits.float().log_softmax(-1)
    torch.testing.assert_close(scores[:, 4], root[:, 30], rtol=0, atol=1e-4)
