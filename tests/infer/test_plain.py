from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from tests.models.loaded import fresh_model, opened, random_ids
from tests.models.tiny import FAMILIES, Family
from tuneloop.infer.plain import generate_one, score_candidates
from tuneloop.models import prefix

PROMPT = random_ids([12])[0]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_score_is_minus_the_summed_cross_entropy_of_the_candidate(family: Family) -> None:
    model = opened(family).model
    prefix.uninstall(model)
    candidates = [[5], [5, 9, 13], [80, 7]]
    scores = score_candidates(model, PROMPT, candidates)
    for candidate, score in zip(candidates, scores, strict=True):
        ids = torch.tensor([PROMPT + candidate])
        labels = torch.tensor([[-100] * len(PROMPT) + candidate])
        with torch.no_grad():
            logits = model(input_ids=ids).logits
        loss = functional.cross_entropy(logits[0, :-1], labels[0, 1:], reduction="sum")
        assert float(score) == pytest.approx(-float(loss), abs=1e-4)


def greedy(length: int, end_id: int) -> tuple[list[int], list[float]]:
    """Generate by whole forward passes, one a token."""
    model, ids, scores = opened("llama").model, list(PROMPT), []
    prefix.uninstall(model)
    for _ in range(length):
        with torch.no_grad():
            best, token = model(input_ids=torch.tensor([ids])).logits[0, -1].log_softmax(-1).max(-1)
        ids.append(int(token))
        scores.append(float(best))
        if ids[-1] == end_id:
            break
    return ids[len(PROMPT) :], scores


def test_generation_takes_the_most_probable_token_each_time_and_says_how_probable_it_was() -> None:
    ids, scores = greedy(8, -1)
    found = generate_one(opened("llama").model, PROMPT, end_id=399, max_new_tokens=8, pad_id=2)
    assert list(found.ids) == ids and not found.is_finished
    assert found.log_probabilities == pytest.approx(scores, abs=1e-4)


def test_generation_ends_at_the_end_token_which_is_counted_but_not_returned() -> None:
    ids, scores = greedy(8, -1)
    end = ids[4]
    first = ids.index(end)
    found = generate_one(opened("llama").model, PROMPT, end_id=end, max_new_tokens=8, pad_id=2)
    assert list(found.ids) == ids[:first] and found.is_finished
    assert found.log_probabilities == pytest.approx(scores[: first + 1], abs=1e-4)


def test_what_a_model_brings_along_for_chatting_does_not_change_its_answers() -> None:
    model = fresh_model("llama")
    expected = generate_one(model, PROMPT, end_id=399, max_new_tokens=8, pad_id=2)
    model.generation_config.repetition_penalty = 5.0
    model.generation_config.no_repeat_ngram_size = 1
    model.generation_config.num_beams = 3
    assert generate_one(model, PROMPT, end_id=399, max_new_tokens=8, pad_id=2) == expected
