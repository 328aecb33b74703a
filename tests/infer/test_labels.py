from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.models.loaded import opened, random_ids
from tests.models.tiny import FAMILIES, Family
from tuneloop.infer.labels import ROOT, LabelTree, score_labels
from tuneloop.infer.plain import score_candidates
from tuneloop.infer.session import PrefixSession
from tuneloop.models import lean, prefix

CANDIDATES = [[5], [9, 13], [9, 20, 7], [9, 20, 8, 5], [30, 2], [31, 2], [9, 21]]
LENGTHS = [7, 12, 7, 1, 30, 12, 11, 7]


def scored_by_tree(
    family: Family,
    common: Sequence[int],
    rests: Sequence[Sequence[int]],
    candidates: Sequence[Sequence[int]],
    tokens_per_row: int = 40,
    nodes_per_pass: int = 1024,
) -> Tensor:
    """Return log-scores (n, K) in the order of `rests`."""
    model = opened(family).model
    prefix.install(model)
    session = PrefixSession(model, common)
    tree = LabelTree.build(candidates)
    scores = torch.full((len(rests), len(candidates)), torch.nan)
    for documents in session.read(rests, tokens_per_row):
        scores[list(documents.row.members)] = score_labels(session, documents, tree, nodes_per_pass).log_scores
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
    candidates: list[list[int]], lengths: list[int], tokens_per_row: int, nodes_per_pass: int
) -> None:
    common, *rests = random_ids([6, *lengths])
    found = scored_by_tree("llama", common, rests, candidates, tokens_per_row, nodes_per_pass)
    torch.testing.assert_close(found, scored_plainly("llama", common, rests, candidates), rtol=0, atol=1e-4)


def test_lean_layers_score_alike() -> None:
    from tests.models.loaded import fresh_model

    common, *rests = random_ids([9, *LENGTHS])
    model = fresh_model("gemma3").requires_grad_(False)
    expected = torch.stack([score_candidates(model, [*common, *rest], CANDIDATES) for rest in rests])
    assert lean.install(model)
    prefix.install(model)
    session, tree = PrefixSession(model, common), LabelTree.build(CANDIDATES)
    for documents in session.read(rests, 1000):
        found = score_labels(session, documents, tree).log_scores
        torch.testing.assert_close(found, expected[list(documents.row.members)], rtol=0, atol=1e-4)


def test_what_is_kept_for_going_on_is_the_trees_keys_and_values_document_by_document() -> None:
    common, *rests = random_ids([9, *LENGTHS])
    prefix.install(opened("llama").model)
    session, tree = PrefixSession(opened("llama").model, common), LabelTree.build(CANDIDATES)
    (documents,) = session.read(rests, 1000)
    whole = score_labels(session, documents, tree)
    split = score_labels(session, documents, tree, nodes_per_pass=2 * len(tree.tokens))
    assert len(whole.branches) == len(split.branches) == len(rests) * len(tree.tokens)
    for layer, keys in whole.branches.keys.items():
        torch.testing.assert_close(split.branches.keys[layer], keys, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(split.branches.values[layer], whole.branches.values[layer], rtol=1e-4, atol=1e-5)


def test_the_tree_shares_common_beginnings_and_has_no_node_for_a_last_token() -> None:
    tree = LabelTree.build([[1, 2, 3], [1, 2, 4], [1, 5], [6]])
    assert tree.tokens == (1, 2) and tree.parents == (ROOT, 0)
    assert tree.paths == ((0, 1), (0, 1), (0,), ())
    assert tree.depths.tolist() == [0, 1]
    assert tree.ancestors.tolist() == [[True, False], [True, True]]


@pytest.mark.parametrize(
    "candidates",
    [[[]], [[1], []], [[1], [1, 2]], [[1, 2], [1]], [[1, 2, 3], [1, 2]], [[1, 2], [1, 2]], [[1], [2], [1]]],
)
def test_candidates_that_cannot_be_told_apart_are_refused(candidates: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="empty, there twice, or the beginning of another"):
        LabelTree.build(candidates)


@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=5), min_size=1, max_size=8))
def test_every_candidate_is_spelled_by_its_path_through_the_tree(candidates: list[list[int]]) -> None:
    candidates = [[*candidate, 9] for candidate in dict.fromkeys(map(tuple, candidates))]
    tree = LabelTree.build(candidates)
    for candidate, path in zip(candidates, tree.paths, strict=True):
        assert [tree.tokens[node] for node in path] == candidate[:-1]
        assert [tree.parents[node] for node in path] == [ROOT, *path[:-1]][: len(path)]
        for depth, node in enumerate(path):
            assert tree.depths[node] == depth
            assert tree.ancestors[node].nonzero()[:, 0].tolist() == sorted(path[: depth + 1])
    assert len(set(zip(tree.parents, tree.tokens, strict=True))) == len(tree.tokens)
