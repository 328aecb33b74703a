from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from tuneloop.serve.fair_queue import FairQueue


@dataclass(eq=False)
class Item:
    group: str
    caller: str
    tokens: int
    number: int = 0


def drained(queue: FairQueue[Item], most: int = 4, tokens: int = 100) -> list[list[Item]]:
    """Return all batches."""
    batches = []
    while batch := queue.take(lambda group: most, tokens):
        batches.append(batch)
    return batches


items = st.lists(
    st.builds(Item, group=st.sampled_from("AB"), caller=st.sampled_from("xyz"), tokens=st.integers(1, 60)), max_size=40
)


@given(items)
def test_everything_comes_out_once_in_batches_of_one_group_within_the_limits(given: list[Item]) -> None:
    queue = FairQueue[Item]()
    for item in given:
        queue.add(item)
    batches = drained(queue)
    assert Counter(id(item) for batch in batches for item in batch) == Counter(map(id, given))
    for batch in batches:
        assert len({item.group for item in batch}) == 1
        assert len(batch) <= 4
        assert sum(item.tokens for item in batch) <= 100
    assert not queue


@given(items)
def test_a_callers_own_items_keep_their_order(given: list[Item]) -> None:
    queue = FairQueue[Item]()
    for number, item in enumerate(given):
        item.number = number
        queue.add(item)
    out = [item for batch in drained(queue) for item in batch]
    for key in {(item.group, item.caller) for item in given}:
        numbers = [item.number for item in out if (item.group, item.caller) == key]
        assert numbers == sorted(numbers)


def test_somebody_with_one_document_is_in_the_next_batch_whatever_others_have_queued() -> None:
    queue = FairQueue[Item]()
    for _ in range(50):
        queue.add(Item("A", "many", 1))
    queue.add(Item("A", "one", 1))
    assert "one" in [item.caller for item in queue.take(lambda group: 4, 100)]


def test_groups_take_turns() -> None:
    queue = FairQueue[Item]()
    for _ in range(8):
        queue.add(Item("A", "x", 1))
    for _ in range(2):
        queue.add(Item("B", "y", 1))
    assert [batch[0].group for batch in drained(queue, most=2)] == ["A", "B", "A", "A", "A"]


def test_an_item_larger_than_the_limit_is_taken_alone() -> None:
    queue = FairQueue[Item]()
    queue.add(Item("A", "x", 500))
    queue.add(Item("A", "y", 1))
    assert [[item.tokens for item in batch] for batch in drained(queue)] == [[500], [1]]


def test_a_group_that_cannot_be_computed_now_does_not_hold_up_the_others() -> None:
    queue = FairQueue[Item]()
    queue.add(Item("down", "x", 1))
    queue.add(Item("up", "x", 1))
    assert [item.group for item in queue.take(lambda group: int(group == "up"), 100)] == ["up"]
    assert queue.take(lambda group: int(group == "up"), 100) == []
    assert queue


def test_a_removed_item_does_not_come_out_and_is_removed_once() -> None:
    queue = FairQueue[Item]()
    first, second = Item("A", "x", 1), Item("A", "x", 2)
    queue.add(first)
    queue.add(second)
    assert queue.remove(first)
    assert not queue.remove(first)
    assert drained(queue) == [[second]]


def test_what_is_put_back_comes_first() -> None:
    queue = FairQueue[Item]()
    queue.add(Item("A", "x", 1))
    again = Item("A", "y", 2)
    queue.add_first(again)
    assert queue.take(lambda group: 1, 100) == [again]
