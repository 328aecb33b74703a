from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from tests.models.loaded import opened, random_ids
from tests.models.tiny import FAMILIES, Family
from tuneloop.infer.generate import Generated, LabelPath, generate, generate_after_labels
from tuneloop.infer.labels import score_labels
from tuneloop.infer.plain import generate_one
from tuneloop.infer.session import PrefixSession
from tuneloop.infer.tree import LabelTree
from tuneloop.models import prefix

LENGTHS = [7, 12, 7, 1, 30, 12, 11, 7]
NEVER = 401  # no token has this id in the byte-level vocabularies: answers end at the limit


def generated_together(
    family: Family, common: Sequence[int], rests: Sequence[Sequence[int]], end_id: int, limit: int, row: int = 40
) -> list[Generated]:
    model = opened(family).model
    prefix.install(model)
    session = PrefixSession(model, common)
    answers: dict[int, Generated] = {}
    for documents in session.read(rests, row):
        found = generate(session, documents, end_id=end_id, max_new_tokens=limit)
        answers |= dict(zip(documents.row.members, found, strict=True))
    return [answers[number] for number in range(len(rests))]


def generated_alone(family: Family, prompts: Sequence[Sequence[int]], end_id: int, limit: int) -> list[Generated]:
    model = opened(family).model
    prefix.uninstall(model)
    return [generate_one(model, prompt, end_id=end_id, max_new_tokens=limit, pad_id=2) for prompt in prompts]


def check_equal(found: Sequence[Generated], expected: Sequence[Generated]) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.ids == other.ids
        assert one.log_probabilities == pytest.approx(other.log_probabilities, abs=1e-4)
        assert one.is_finished == other.is_finished


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("shared", [0, 25])
def test_documents_together_get_the_answers_that_each_gets_alone(family: Family, shared: int) -> None:
    common, *rests = random_ids([shared, *LENGTHS])
    prompts = [[*common, *rest] for rest in rests]
    expected = generated_alone(family, prompts, NEVER, 10)
    check_equal(generated_together(family, common, rests, NEVER, 10), expected)


def test_answers_end_at_different_times_and_some_at_the_limit() -> None:
    common, *rests = random_ids([9, *LENGTHS])
    prompts = [[*common, *rest] for rest in rests]
    free = generated_alone("qwen2", prompts, NEVER, 12)
    counts: dict[int, set[int]] = {}
    for answer in free:
        for token in answer.ids:
            counts.setdefault(token, set()).add(answer.ids.index(token))
    end = max(counts, key=lambda token: len(counts[token]))  # the token that ends most answers at different places
    expected = generated_alone("qwen2", prompts, end, 12)
    assert len({len(answer.ids) for answer in expected}) > 2
    assert {answer.is_finished for answer in expected} == {True, False}
    check_equal(generated_together("qwen2", common, rests, end, 12), expected)


def test_an_end_token_is_counted_and_not_returned() -> None:
    rests = random_ids([8])
    ((first, second),) = [answer.ids for answer in generated_together("llama", (), rests, NEVER, 2)]
    (ended,) = generated_together("llama", (), rests, second, 5)
    assert ended.ids == (first,) and ended.is_finished and len(ended.log_probabilities) == 2
    (at_once,) = generated_together("llama", (), rests, first, 5)
    assert at_once.ids == () and at_once.is_finished and len(at_once.log_probabilities) == 1


def test_a_limit_of_one_gives_one_token() -> None:
    answers = generated_together("llama", (), random_ids(LENGTHS), NEVER, 1)
    assert all(len(answer.ids) == 1 and not answer.is_finished for answer in answers)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    "candidates", [[[5], [9, 13], [9, 20, 7], [30, 2, 4, 4, 6]], [[5], [6], [7]]], ids=["tree", "single tokens"]
)
@pytest.mark.parametrize("build", [LabelTree.build, LabelTree.of_beginnings], ids=["sequence", "constrained"])
def test_going_on_after_a_chosen_label_is_generating_after_its_ids(
    family: Family, candidates: list[list[int]], build: Callable[[list[list[int]]], LabelTree]
) -> None:
    common, *rests = random_ids([14, *LENGTHS])
    model = opened(family).model
    prefix.install(model)
    session, tree = PrefixSession(model, common), build(candidates)
    (documents,) = session.read(rests, 1000)
    scored = score_labels(session, documents, tree, tolerance=0, tokens_per_pass=10)
    chosen = [number % len(candidates) for number in range(len(rests))]
    labels = [LabelPath(tree.paths[k], tuple(candidates[k][len(tree.paths[k]) :])) for k in chosen]
    found = generate_after_labels(session, documents, scored, labels, end_id=NEVER, max_new_tokens=7)
    prompts = [
        [*common, *rests[member], *candidates[label]]
        for member, label in zip(documents.row.members, chosen, strict=True)
    ]
    check_equal(found, generated_alone(family, prompts, NEVER, 7))


def test_generating_leaves_what_was_read_as_it_was() -> None:
    common, *rests = random_ids([14, *LENGTHS])
    model = opened("llama").model
    prefix.install(model)
    session = PrefixSession(model, common)
    (documents,) = session.read(rests, 1000)
    once = generate(session, documents, end_id=NEVER, max_new_tokens=6)
    assert generate(session, documents, end_id=NEVER, max_new_tokens=6) == once
