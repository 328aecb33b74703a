"""Each planted defect is caught and named, and what is the same is found to be the same."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from tests.export.parity.engines import (
    LABELS,
    TASK,
    ChangedEngine,
    TinyEngine,
    chat,
    items,
    rounded,
    tuned,
    with_chat,
    with_token,
)
from tests.models.tiny import CHAT_TEMPLATE
from tuneloop.errors import GateRefused, ModelError, UsageError
from tuneloop.export.parity import asked
from tuneloop.export.parity.asked import Asked, ask
from tuneloop.export.parity.result import ParityResult
from tuneloop.export.parity.run import check_parity
from tuneloop.export.parity.tolerance import Tolerance
from tuneloop.infer.engines.protocol import Engine
from tuneloop.infer.predict import Mode
from tuneloop.models.load import LoadedModel
from tuneloop.progress import Advance
from tuneloop.records import Entity, Prediction

EXACT = Tolerance(
    min_agreement=0.995,
    max_accuracy_loss=0.005,
    max_median_probability_difference=0.01,
    max_median_score_difference=0.5,
    min_entity_agreement=0.98,
)
ROUNDED = Tolerance(min_agreement=0.9, max_accuracy_loss=0.05)
ITEMS = items()


@cache
def model() -> LoadedModel:
    return tuned()


@cache
def reference() -> Asked:
    return ask(TinyEngine(model()), ITEMS, "the evaluated model")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asked, "ALONE", 2)


def check(
    other: Engine, tolerance: Tolerance = EXACT, *, knows_base: bool = False, name: str = "merged"
) -> ParityResult:
    untuned = (lambda: TinyEngine(tuned(0.0))) if knows_base else None
    return check_parity(reference(), other, ITEMS, tolerance, names=("", name), untuned=untuned)


def cause(result: ParityResult) -> str:
    assert not result.is_within
    assert result.sentence.startswith("beyond tolerance: ")
    return result.causes[0]


def test_the_same_model_again_is_within_the_tolerance_in_every_figure() -> None:
    result = check(TinyEngine(tuned()))
    assert result.is_within, result.beyond
    assert result.prompts.is_equal
    assert result.labels is not None and result.labels.same == len(ITEMS)
    assert result.scores is not None and result.scores.largest < 1e-3
    assert result.accuracy is not None and result.accuracy.difference.estimate == 0
    assert result.causes == ()
    assert "24 of 24 labels agree (100.0 %, 95 % interval 86.2 to 100.0)" in result.sentence


def test_two_engines_are_asked_where_no_answers_are_given() -> None:
    result = check_parity(TinyEngine(model()), TinyEngine(model()), ITEMS[:4], EXACT)
    assert result.is_within
    assert (result.reference, result.other) == ("transformers", "transformers")


def test_another_chat_template_is_named_with_the_item_and_the_character_where_it_departs() -> None:
    other = chat(CHAT_TEMPLATE.replace("'\n' }}{% endfor", "' ' }}{% endfor"))
    result = check(TinyEngine(with_chat(model(), other)))
    first = result.prompts.first
    assert first is not None
    assert (first.what, first.item, first.item_id) == ("template", 1, "item-000")
    mine, theirs = (TinyEngine(one).rendered_prompt(ITEMS[0].text) for one in (model(), with_chat(model(), other)))
    assert mine[: first.index] == theirs[: first.index]
    assert mine[first.index] != theirs[first.index]
    assert "<|im_end|>\\n<|im_start|>" in first.expected
    assert "<|im_end|> <|im_start|>" in first.found
    assert "spaces and line breaks alone" in cause(result)


def test_a_chat_template_without_the_instruction_is_named_as_that() -> None:
    other = chat("{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}<|im_start|>assistant\n")
    result = check(TinyEngine(with_chat(model(), other), replace(TASK, instruction="Classify the document.")))
    assert cause(result) == "another chat template"  # without a system turn the instruction comes with the document
    silent = chat(CHAT_TEMPLATE.replace("message['content']", "message['content'] | replace('Classify', 'Sort')"))
    assert "changes the instruction" in cause(check(TinyEngine(with_chat(model(), silent))))


def test_a_token_that_was_added_to_the_tokenizer_is_named_with_the_place_where_tokens_depart() -> None:
    result = check(TinyEngine(with_token(model(), "reserved")))
    first = result.prompts.first
    assert first is not None
    assert (first.what, first.item, first.item_id) == ("tokens", 2, "item-001")  # the first that says "reserved"
    assert result.prompts.same_text == len(ITEMS) > result.prompts.same_tokens
    assert "tokens were added" in cause(result)
    mine = model().chat.prompt_ids(TASK.system(), ITEMS[1].text)
    assert first.expected.split(" ")[1:-1] == [str(id) for id in mine[first.index - 4 : first.index + 4]]


def test_a_second_beginning_of_text_is_named_as_that() -> None:
    class Doubled(TinyEngine):
        def prompt_ids(self, text: str) -> list[int]:
            return [1, *super().prompt_ids(text)]

    assert "a token more at the beginning" in cause(check(Doubled(model())))


def test_a_missing_adapter_is_named_when_the_untuned_model_can_be_asked() -> None:
    assert "the adapter is not applied" in cause(check(TinyEngine(tuned(0.0)), knows_base=True))


def test_an_unscaled_adapter_is_named_with_the_strength_at_which_it_works() -> None:
    """Its scale alpha / r is 2; dropped, the adapter works at half its strength."""
    found = cause(check(TinyEngine(tuned(1.0)), knows_base=True))
    assert "the adapter is scaled otherwise" in found
    strength = float(found.split("about ")[1].split(" ")[0])
    assert 0.35 < strength < 0.65


@pytest.mark.parametrize("scale", [0.0, 1.0, 6.0])
def test_without_the_untuned_model_the_adapter_is_still_named_with_the_evidence(scale: float) -> None:
    found = cause(check(TinyEngine(tuned(scale))))
    assert "adapter not applied or scaled otherwise" in found
    assert "the tokens are equal" in found


def test_an_adapter_that_works_far_too_strongly_is_a_candidate_by_name() -> None:
    assert "an adapter scaled far otherwise" in cause(check(TinyEngine(tuned(6.0)), knows_base=True))


def test_weights_rounded_to_eight_bits_are_named_as_rounded_where_that_is_too_much() -> None:
    assert cause(check(TinyEngine(rounded(model(), 8)))).startswith("rounded weights")


def test_the_untuned_model_is_asked_only_when_something_is_beyond_the_tolerance() -> None:
    def never() -> Engine:
        raise AssertionError("asked for nothing")

    assert check_parity(reference(), TinyEngine(tuned()), ITEMS, EXACT, untuned=never).is_within


def test_scores_that_belong_to_other_labels_are_named_a_permuted_label_set() -> None:
    def permute(number: int, answer: Prediction) -> Prediction:
        scores = answer.label_scores or ()
        turned = (*scores[1:], scores[0])
        return replace(answer, label_scores=turned, label=LABELS[int(np.argmax(turned))])

    assert cause(check(ChangedEngine(model(), permute))).startswith("a permuted label set")


def test_a_label_set_in_another_order_is_another_task_even_where_the_answers_agree() -> None:
    turned = replace(TASK, labels=LABELS[::-1], name_labels=False)
    mine = ask(TinyEngine(model(), replace(TASK, name_labels=False)), ITEMS)
    result = check_parity(mine, TinyEngine(model(), turned), ITEMS, EXACT)
    assert result.labels is not None and result.labels.same == len(ITEMS)
    assert "its label set is in another order (label 1 is 'L', the reference's 'A')" in cause(result)


def test_weights_rounded_to_nonsense_are_beyond_even_the_tolerance_for_rounded_forms() -> None:
    result = check(TinyEngine(rounded(model(), 2)), ROUNDED, knows_base=True)
    assert "damaged weights" in cause(result)
    assert result.labels is not None and result.labels.first is not None
    assert result.labels.first.item_id in result.sentence


def test_weights_that_are_rounded_a_little_are_within_the_tolerance_for_rounded_forms() -> None:
    result = check(TinyEngine(rounded(model(), 10)), ROUNDED)
    assert result.is_within, result.beyond
    assert result.scores is not None and result.scores.largest > 1e-4


def test_weights_that_overflow_are_named_and_the_result_is_still_json() -> None:
    def broken(number: int, answer: Prediction) -> Prediction:
        return replace(answer, label_scores=(float("nan"),) * len(LABELS), label=LABELS[0], probability=1.0)

    result = check(ChangedEngine(model(), broken))
    assert "no numbers" in cause(result)
    content = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert content["score_difference_nats"]["largest"] is None
    assert content["within_tolerance"] is False


def test_scores_that_are_all_shifted_alike_are_no_adapters_doing() -> None:
    def shift(number: int, answer: Prediction) -> Prediction:
        return replace(answer, label_scores=tuple(score - 3.0 for score in answer.label_scores or ()))

    found = cause(check(ChangedEngine(model(), shift), knows_base=True))
    assert "adapter is" not in found and "correlation 1.00, scale 1.00" in found


def test_a_document_between_two_labels_that_tips_over_is_numerical_noise() -> None:
    """One score of 24 documents moves a little more than its lead: the cause says so, the verdict is the bound's."""
    near = min(range(len(ITEMS)), key=lambda n: lead(reference().predictions[n].label_scores or ()))

    def tip(number: int, answer: Prediction) -> Prediction:
        scores = list(answer.label_scores or ())
        second = int(np.argsort(scores)[-2])
        if number != near or len(scores) < 2 or scores != list(reference().predictions[near].label_scores or ()):
            return answer
        scores[second] += lead(scores) + 1e-4
        return replace(answer, label=LABELS[second], label_scores=tuple(scores))

    engine = ChangedEngine(model(), tip)
    strict = check_parity(reference(), engine, ITEMS, EXACT)
    if lead(reference().predictions[near].label_scores or ()) <= 0.1:
        assert cause(strict).startswith("numerical noise")
    assert check_parity(reference(), engine, ITEMS, ROUNDED).is_within


def lead(scores: Sequence[float]) -> float:
    best = sorted(scores)[-2:]
    return best[1] - best[0]


def test_an_engine_that_keeps_its_prompts_to_itself_is_judged_by_its_answers() -> None:
    class Silent(TinyEngine):
        def prompt_ids(self, text: str) -> list[int]:
            raise ModelError("this server does not tell its tokens", where="url", hint="None.")

    result = check(Silent(model()))
    assert result.is_within
    assert not result.prompts.is_known
    assert result.notes == ("the prompts could not be compared: this server does not tell its tokens",)
    assert result.to_dict()["prompts"]["same_tokens"] is None


def test_an_answer_that_depends_on_its_company_is_noted() -> None:
    class Moody(TinyEngine):
        def predict(
            self, texts: Sequence[str], mode: Mode = "closed", advance: Advance | None = None
        ) -> list[Prediction]:
            answers = super().predict(texts, mode, advance)
            return answers if len(texts) > 1 else [replace(answers[0], label="another")]

    assert check(Moody(model())).notes == ("2 of 2 documents got another label when asked alone",)


def test_a_refusal_says_what_where_and_why_with_the_exit_code_of_the_gate() -> None:
    refusal = check(TinyEngine(tuned(0.0)), knows_base=True).refusal()
    assert isinstance(refusal, GateRefused)
    assert refusal.exit_code == 4
    assert refusal.message.startswith("beyond tolerance: merged: another label on ")
    assert refusal.hint.startswith("Likely cause: the adapter is not applied")


def test_no_items_prove_nothing() -> None:
    with pytest.raises(UsageError, match="no items"):
        check_parity(reference(), reference(), [], EXACT)


def test_an_engine_that_loses_answers_is_an_error_and_not_a_comparison() -> None:
    class Forgetful(TinyEngine):
        def predict(
            self, texts: Sequence[str], mode: Mode = "closed", advance: Advance | None = None
        ) -> list[Prediction]:
            return super().predict(texts, mode, advance)[1:]

    with pytest.raises(ModelError, match="23 answers to 24 documents"):
        check(Forgetful(model()))


def with_entities(one: Asked, found: Sequence[tuple[Entity, ...]]) -> Asked:
    task = replace(TASK, kind="classify+extract", entity_types=("holder",))
    predictions = [replace(answer, entities=e) for answer, e in zip(one.predictions, found, strict=True)]
    return replace(one, task=task, predictions=tuple(predictions))


def test_entities_are_compared_with_the_references_and_with_the_truth() -> None:
    documents = [
        replace(item, text=f"By Ada {number}", entities=(Entity("holder", "Ada"),)) for number, item in enumerate(ITEMS)
    ]
    right = [(Entity("holder", "Ada"),)] * len(ITEMS)
    worse = [(Entity("holder", "By"),), *right[1:6], *([()] * (len(ITEMS) - 6))]
    mine, theirs = with_entities(reference(), right), with_entities(reference(), worse)
    result = check_parity(mine, theirs, documents, EXACT)
    assert result.entities is not None
    assert result.entities.same_items.estimate == 5 / 24
    assert result.entities.agreement_f1.estimate == pytest.approx(2 * 5 / (24 + 6))
    assert any("entities agree to 33.3 % (F1), 98.0 % required" in finding for finding in result.beyond)
    assert check_parity(mine, mine, documents, EXACT).is_within


def test_two_that_find_no_entities_agree() -> None:
    empty: list[tuple[Entity, ...]] = [()] * len(ITEMS)
    mine = with_entities(reference(), empty)
    assert check_parity(mine, mine, ITEMS, EXACT).is_within
