from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from tuneloop.errors import TrainingError
from tuneloop.models.chat import ChatFormat
from tuneloop.models.prompt import TaskPrompt
from tuneloop.records import Example
from tuneloop.train.batches import Order, TokenizedExample, pays, saved_share, shared_prefix, tokenize

TASK = TaskPrompt("classify", "Which animal is it?", ("cat", "dog"), ())
counts, sizes = st.integers(1, 60), st.integers(1, 20)
seeds = st.integers(-(2**40), 2**40)


@pytest.fixture(scope="module")
def chat(tiny_model: Path) -> ChatFormat:
    return ChatFormat(AutoTokenizer.from_pretrained(tiny_model))


@given(counts, sizes, seeds, st.integers(0, 4))
def test_every_epoch_sees_every_example_once(count: int, size: int, seed: int, epoch: int) -> None:
    order = Order(count, size, epochs=5, seed=seed)
    first = epoch * order.steps_per_epoch
    batches = [order.batch(step) for step in range(first, first + order.steps_per_epoch)]
    assert Counter(i for batch in batches for i in batch) == Counter(range(count))
    assert all(len(batch) == size for batch in batches[:-1])
    assert 1 <= len(batches[-1]) <= size


@given(counts, sizes, seeds, st.integers(0, 100))
def test_a_batch_depends_on_seed_and_position_alone(count: int, size: int, seed: int, step: int) -> None:
    assert Order(count, size, 3, seed).batch(step) == Order(count, size, 7, seed).batch(step)


def test_epochs_and_seeds_shuffle_differently() -> None:
    order = Order(50, 50, 3, seed=1)
    assert order.batch(0) != order.batch(1) != order.batch(2)
    assert order.batch(0) != Order(50, 50, 3, seed=2).batch(0)


@pytest.mark.parametrize(
    ("count", "size", "epochs", "steps"),
    [(10, 4, 1, 3), (10, 4, 2, 6), (10, 4, 0.5, 2), (10, 4, 0.01, 1), (100, 10, 1.1, 11), (1, 32, 3, 3)],
)
def test_a_fraction_of_an_epoch_is_rounded_up_to_whole_steps(count: int, size: int, epochs: float, steps: int) -> None:
    assert Order(count, size, epochs, 0).total_steps == steps


def test_the_loss_falls_on_the_answer_and_the_end_of_the_turn(chat: ChatFormat) -> None:
    (one,) = tokenize([Example(id="a", text="It purrs.", label="cat")], TASK, chat, 512)
    assert list(one.prompt) == chat.prompt_ids(TASK.system(), "It purrs.")
    assert chat.decode(one.answer) == "cat"
    assert one.answer[-1] == chat.end_of_turn_id
    assert one.ids == one.prompt + one.answer
    assert not one.is_cut


def test_a_document_too_long_is_cut_and_its_answer_is_not(chat: ChatFormat) -> None:
    long, short = Example(id="a", text="It purrs. " * 100, label="cat"), Example(id="b", text="It barks.", label="dog")
    cut, whole = tokenize([long, short], TASK, chat, 120)
    assert len(cut.ids) <= 120
    assert (cut.is_cut, whole.is_cut) == (True, False)
    assert chat.decode(cut.answer) == "cat"


def test_an_instruction_that_leaves_no_room_is_refused_with_the_numbers(chat: ChatFormat) -> None:
    with pytest.raises(TrainingError, match=r"model\.max_tokens is 20") as caught:
        tokenize([Example(id="ab12", text="It purrs.", label="cat")], TASK, chat, 20)
    assert "task.instruction" in caught.value.where
    assert "ab12" in caught.value.where


def test_the_shared_prefix_leaves_every_prompt_a_token(chat: ChatFormat) -> None:
    texts = ["It purrs.", "It barks.", ""]
    tokenized = tokenize([Example(id=text, text=text, label="cat") for text in texts], TASK, chat, 512)
    shared = shared_prefix(tokenized)
    assert shared > 10
    assert len({example.prompt[:shared] for example in tokenized}) == 1
    assert min(len(example.prompt) for example in tokenized) > shared
    assert shared_prefix(tokenized[:1] * 3) == len(tokenized[0].prompt) - 1
    assert shared_prefix([]) == 0


def tokens(prefix: int, rest: int, count: int) -> list[TokenizedExample]:
    return [TokenizedExample(str(i), (1,) * prefix + (2,) * (rest - 1), (3,)) for i in range(count)]


def test_the_saving_is_that_of_all_prefixes_but_one() -> None:
    assert saved_share(90, tokens(90, 10, 8), 4) == pytest.approx(90 * 3 / (4 * 100))
    assert saved_share(0, tokens(0, 10, 8), 4) == 0.0


@pytest.mark.parametrize(
    ("prefix", "rest", "count", "batch_size", "is_worth_it"),
    [(500, 30, 32, 32, True), (1, 100, 32, 32, False), (500, 30, 32, 1, False), (500, 30, 1, 32, False)],
)
def test_sharing_pays_where_the_prefix_is_long_and_shared_by_several(
    prefix: int, rest: int, count: int, batch_size: int, is_worth_it: bool
) -> None:
    assert pays(prefix, tokens(prefix, rest, count), batch_size) == is_worth_it
