from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.models.loaded import random_ids
from tuneloop.models.prefix import Block
from tuneloop.models.rows import PlannedRow, common_prefix, plan_rows, row_tensors, split_blocks

many_lengths = st.lists(st.integers(1, 60), max_size=40)
CPU = torch.device("cpu")


@given(many_lengths, st.integers(1, 200), st.sampled_from([0.0, 0.05, 0.3]))
def test_every_sequence_stands_once_in_a_place_that_is_long_enough(
    lengths: list[int], budget: int, waste: float
) -> None:
    rows = plan_rows(lengths, budget, waste=waste)
    assert sorted(member for row in rows for member in row.members) == list(range(len(lengths)))
    for row in rows:
        places = [block.length for block in row.blocks for _ in range(block.count)]
        assert len(places) == len(row.members)
        for place, member in zip(places, row.members, strict=True):
            assert place - max(int(place * waste), 1 if waste else 0) <= lengths[member] <= place
        starts = row.starts()
        assert starts == [sum(places[:number]) for number in range(len(places))]
        assert row.tokens == sum(places)


@given(many_lengths, st.integers(1, 200), st.sampled_from([0.0, 0.05, 0.3]))
def test_a_row_keeps_the_budget_unless_it_holds_one_long_sequence(
    lengths: list[int], budget: int, waste: float
) -> None:
    for row in plan_rows(lengths, budget, waste=waste):
        assert row.tokens <= budget or len(row.members) == 1


@given(many_lengths, st.integers(1, 200))
def test_without_waste_there_is_no_padding_and_the_longest_come_first(lengths: list[int], budget: int) -> None:
    rows = plan_rows(lengths, budget)
    assert sum(row.tokens for row in rows) == sum(lengths)
    in_order = [lengths[member] for row in rows for member in row.members]
    assert in_order == sorted(lengths, reverse=True)


def test_a_row_is_filled_before_the_next_begins() -> None:
    assert [row.tokens for row in plan_rows([4] * 10, 13)] == [12, 12, 12, 4]
    assert [row.blocks for row in plan_rows([5, 5, 3], 13)] == [(Block(0, 2, 5), Block(10, 1, 3))]


def test_padding_makes_one_block_of_sequences_that_are_nearly_alike() -> None:
    assert [row.blocks for row in plan_rows([20, 19, 19], 100, waste=0.05)] == [(Block(0, 3, 20),)]
    assert [row.blocks for row in plan_rows([20, 18], 100, waste=0.05)] == [(Block(0, 1, 20), Block(20, 1, 18))]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.integers(0, 50), st.sampled_from([0.0, 0.5]))
def test_a_row_holds_each_sequence_padded_at_its_end_and_counted_from_the_first_position(
    lengths: list[int], first: int, waste: float
) -> None:
    sequences = random_ids(lengths)
    for row in plan_rows(lengths, 20, waste=waste):
        ids, positions = row_tensors(sequences, row, first, CPU)
        assert ids.shape == positions.shape == (1, row.tokens)
        places = [block.length for block in row.blocks for _ in range(block.count)]
        for member, start, length in zip(row.members, row.starts(), places, strict=True):
            sequence = sequences[member]
            padded = sequence + [sequence[-1]] * (length - len(sequence))
            assert ids[0, start : start + length].tolist() == padded
            assert positions[0, start : start + length].tolist() == list(range(first, first + length))


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 5)), max_size=6), st.integers(1, 7))
def test_split_blocks_hold_every_sequence_once_in_order_and_no_group_holds_too_many(
    shapes: list[tuple[int, int]], at_most: int
) -> None:
    blocks, start = [], 0
    for count, length in shapes:
        blocks.append(Block(start, count, length))
        start = blocks[-1].stop
    groups = list(split_blocks(blocks, at_most))

    def places(parts: tuple[Block, ...] | list[Block]) -> list[tuple[int, int]]:
        return [(b.start + i * b.length, b.length) for b in parts for i in range(b.count)]

    assert [place for group in groups for place in places(group)] == places(blocks)
    sizes = [sum(block.count for block in group) for group in groups]
    assert all(size == at_most for size in sizes[:-1]) and all(0 < size <= at_most for size in sizes)


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=8), min_size=1, max_size=6))
def test_the_common_prefix_is_the_longest_that_leaves_every_sequence_a_token(sequences: list[list[int]]) -> None:
    shared = common_prefix(sequences)
    assert all(len(sequence) > shared for sequence in sequences)
    assert len({tuple(sequence[:shared]) for sequence in sequences}) == 1
    if all(len(sequence) > shared + 1 for sequence in sequences):
        assert len({tuple(sequence[: shared + 1]) for sequence in sequences}) > 1


@pytest.mark.parametrize("sequences", [[], [[]], [[], [1, 2]], [[1, 2], [2, 2]], [[1]]])
def test_there_may_be_nothing_in_common(sequences: list[list[int]]) -> None:
    assert common_prefix(sequences) == 0


def test_tuples_and_lists_are_compared_alike() -> None:
    assert common_prefix([(1, 2, 3), [1, 2, 4]]) == 2


def test_a_planned_row_says_where_its_members_begin() -> None:
    assert PlannedRow((4, 2, 7), (Block(0, 2, 5), Block(10, 1, 3))).starts() == [0, 5, 10]
