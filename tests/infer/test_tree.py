from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuneloop.infer.tree import ROOT, LabelTree


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
            assert tree.ancestors[node].nonzero()[0].tolist() == sorted(path[: depth + 1])
    assert len(set(zip(tree.parents, tree.tokens, strict=True))) == len(tree.tokens)


@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=5), min_size=1, max_size=8))
def test_segments_are_the_runs_of_nodes_between_forks(candidates: list[list[int]]) -> None:
    tree = LabelTree.build([[*candidate, 9] for candidate in dict.fromkeys(map(tuple, candidates))])
    left, tokens, targets = tree.steps
    out = [sum(left == node) for node in range(len(tree.tokens))]
    for node, parent in enumerate(tree.parents):
        goes_on = parent != ROOT and out[parent] == 1
        assert (parent != ROOT and tree.segment_of[node] == tree.segment_of[parent]) == goes_on
    assert tree.segment_sizes.sum() == len(tree.tokens)
    for segment, start in enumerate(tree.segment_starts):
        before = tree.parents[start]
        assert tree.segment_parents[segment] == (ROOT if before == ROOT else tree.segment_of[before])
        through = [number for number, path in enumerate(tree.paths) if start in path]
        assert tree.leads_to[segment].nonzero()[0].tolist() == through
    assert sorted(targets.tolist()) == list(range(len(tree.tokens) + len(tree.candidates)))
    assert list(left) == sorted(left) and len(tokens) == len(targets)


@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=5), min_size=1, max_size=8))
def test_a_tree_of_beginnings_goes_as_far_as_candidates_differ(candidates: list[list[int]]) -> None:
    candidates = [[*candidate, 9] for candidate in dict.fromkeys(map(tuple, candidates))]
    tree = LabelTree.of_beginnings(candidates)
    for number, (candidate, beginning) in enumerate(zip(candidates, tree.candidates, strict=True)):
        others = candidates[:number] + candidates[number + 1 :]
        lengths = [n for n in range(1, len(candidate) + 1) if all(other[:n] != candidate[:n] for other in others)]
        assert list(beginning) == candidate[: lengths[0]]


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=5), min_size=1, max_size=8))
def test_only_steps_on_every_path_are_before_the_first_fork(candidates: list[list[int]]) -> None:
    tree = LabelTree.of_beginnings([[*candidate, 9] for candidate in dict.fromkeys(map(tuple, candidates))])
    left, _, targets = tree.steps
    for node, target in zip(left, targets, strict=True):
        assert tree.leaves[target] == node
        assert tree.is_after_fork[target] == (node != ROOT and not all(node in path for path in tree.paths))


@pytest.mark.parametrize("candidates", [[[]], [[1], [1, 2]], [[1, 2], [1, 2]]])
def test_beginnings_of_candidates_that_cannot_be_told_apart_are_refused(candidates: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="empty, there twice, or the beginning of another"):
        LabelTree.of_beginnings(candidates)
