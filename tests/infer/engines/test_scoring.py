from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.infer.constrained import constrained_scores
from tests.models.loaded import opened, random_ids
from tuneloop.infer.engines.scoring import score_labels
from tuneloop.infer.plain import score_candidates
from tuneloop.infer.tree import LabelTree
from tuneloop.models import prefix

CANDIDATES = [[5], [9, 13], [9, 20, 7], [9, 20, 8, 5], [30, 2], [31, 2], [9, 21]]


class _Table:
    """A model over ten tokens whose probabilities depend on the sequence alone; some tokens are much likelier."""

    def __init__(self, boost: float = 0.0) -> None:
        self.boost, self.asked = boost, 0
        self.rounds = 0

    def log_probabilities(self, sequence: Sequence[int]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        logits = np.random.default_rng([len(sequence), *sequence]).normal(size=10)
        logits[3] += self.boost
        return np.asarray(logits - np.logaddexp.reduce(logits))

    def next_log_probabilities(
        self, sequences: Sequence[Sequence[int]], wanted: Sequence[Sequence[int]]
    ) -> list[Mapping[int, float]]:
        self.asked += len(sequences)
        self.rounds += 1
        rows = [self.log_probabilities(sequence) for sequence in sequences]
        return [{token: float(row[token]) for token in one} for row, one in zip(rows, wanted, strict=True)]

    def exact(self, prompt: Sequence[int], candidate: Sequence[int]) -> float:
        steps = [self.log_probabilities([*prompt, *candidate[:n]])[candidate[n]] for n in range(len(candidate))]
        return float(sum(steps))


class _Tiny:
    """The tiny model, asked by one plain forward pass for each question."""

    @torch.inference_mode()
    def next_log_probabilities(
        self, sequences: Sequence[Sequence[int]], wanted: Sequence[Sequence[int]]
    ) -> list[Mapping[int, float]]:
        model = opened("llama").model
        prefix.uninstall(model)
        found: list[Mapping[int, float]] = []
        for sequence, tokens in zip(sequences, wanted, strict=True):
            row = model(input_ids=torch.tensor([list(sequence)])).logits[0, -1].log_softmax(-1)
            found.append({token: float(row[token]) for token in tokens})
        return found


candidate_sets = st.lists(
    st.lists(st.integers(3, 5), max_size=4).map(lambda ids: [*ids, 2]), min_size=1, max_size=8, unique_by=tuple
)


def test_scores_are_those_of_one_forward_pass_for_each_candidate() -> None:
    prompts = random_ids([7, 1, 12])
    found = score_labels(_Tiny(), prompts, LabelTree.build(CANDIDATES), tolerance=0)
    prefix.uninstall(opened("llama").model)
    expected = torch.stack([score_candidates(opened("llama").model, prompt, CANDIDATES) for prompt in prompts])
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=0, atol=1e-4)


@settings(max_examples=60)
@given(candidate_sets, st.integers(0, 5), st.sampled_from([0.0, 2.0, 8.0]))
def test_what_is_left_out_holds_less_than_the_tolerance(candidates: list[list[int]], count: int, boost: float) -> None:
    prompts = [[1, number] for number in range(count)]
    model = _Table(boost)
    found = score_labels(model, prompts, LabelTree.build(candidates), tolerance=1e-3)
    assert found.shape == (count, len(candidates))
    for row, prompt in zip(found.astype(np.float64), prompts, strict=True):
        exact = np.array([model.exact(prompt, candidate) for candidate in candidates])
        shares, expected = (np.exp(part - np.logaddexp.reduce(part)) for part in (row, exact))
        assert np.abs(shares - expected).max() < 1e-3
        assert row.argmax() == exact.argmax() or expected.max() - expected[row.argmax()] < 1e-3


def test_without_tolerance_every_branch_is_asked_about_once_and_scores_are_exact() -> None:
    model, tree = _Table(), LabelTree.build([[3, 4, 2], [3, 5, 2], [4, 2], [3, 4, 5, 2]])
    (found,) = score_labels(model, [[7]], tree, tolerance=0)
    assert model.asked == 1 + len(tree.tokens)
    np.testing.assert_allclose(found, [model.exact([7], candidate) for candidate in tree.candidates], atol=1e-5)


@settings(max_examples=60)
@given(candidate_sets, st.sampled_from([0.0, 2.0, 8.0]), st.sampled_from([0.0, 1e-3]))
def test_constrained_scores_are_shares_at_each_fork(
    candidates: list[list[int]], boost: float, tolerance: float
) -> None:
    model = _Table(boost)
    (found,) = score_labels(model, [[1, 5]], LabelTree.of_beginnings(candidates), tolerance=tolerance)
    expected = constrained_scores(lambda ids: model.log_probabilities([1, 5, *ids]), candidates)
    shares, right = (np.exp(part - np.logaddexp.reduce(part)) for part in (found.astype(np.float64), expected))
    assert np.abs(shares - right).max() < tolerance + 1e-5
    assert np.logaddexp.reduce(found) == pytest.approx(np.logaddexp.reduce(expected), abs=1e-4)


def test_a_constrained_tree_asks_nothing_where_only_one_label_is_left() -> None:
    model = _Table()
    score_labels(model, [[1]], LabelTree.of_beginnings([[3, 4, 5, 2], [3, 5, 4, 2], [4, 5, 3, 2]]), tolerance=0)
    assert model.asked == 2  # after the document, and after 3


def test_a_model_that_knows_its_answer_is_asked_about_few_branches() -> None:
    candidates = [[token, other, 3] for token in range(3, 9) for other in range(3, 9)]
    tree, model = LabelTree.build(candidates), _Table(boost=30.0)
    score_labels(model, [[1]], tree, tolerance=1e-4)
    assert model.asked <= 4 and 1 + len(tree.tokens) == 43


def test_the_documents_of_a_round_are_asked_about_together() -> None:
    model = _Table()
    score_labels(model, [[1, n] for n in range(20)], LabelTree.build([[3, 2], [4, 2]]), tolerance=0)
    assert model.rounds == 2 and model.asked == 60


def test_labels_of_a_single_token_need_a_single_question() -> None:
    model = _Table()
    (found,) = score_labels(model, [[1]], LabelTree.build([[3], [4], [5]]))
    assert model.asked == 1
    np.testing.assert_allclose(found, model.log_probabilities([1])[[3, 4, 5]], atol=1e-6)


def test_no_documents_are_asked_about_for_nothing() -> None:
    model = _Table()
    assert score_labels(model, [], LabelTree.build([[3], [4]])).shape == (0, 2) and model.asked == 0


def test_a_model_that_keeps_a_token_back_is_an_error() -> None:
    class Silent(_Table):
        def next_log_probabilities(
            self, sequences: Sequence[Sequence[int]], wanted: Sequence[Sequence[int]]
        ) -> list[Mapping[int, float]]:
            return [{} for _ in sequences]

    with pytest.raises(ValueError, match="did not tell the log-probability"):
        score_labels(Silent(), [[1]], LabelTree.build([[3], [4]]))
