"""How sequences of different lengths are laid end to end: equally long ones side by side, with little or no padding.

Knows nothing about what the tokens mean.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tuneloop.models.beginnings import common_prefix as common_prefix
from tuneloop.models.prefix import Block


@dataclass(frozen=True)
class PlannedRow:
    """One row: `members` are indices of sequences in the order in which they stand, `blocks` their places."""

    members: tuple[int, ...]
    blocks: tuple[Block, ...]

    @property
    def tokens(self) -> int:
        return self.blocks[-1].stop

    def starts(self) -> list[int]:
        """Return the first token of each member."""
        return [block.start + i * block.length for block in self.blocks for i in range(block.count)]


def plan_rows(
    lengths: Sequence[int], tokens_per_row: int, *, at_most: int | None = None, waste: float = 0.0
) -> list[PlannedRow]:
    """Lay sequences of the given lengths out in rows of at most `tokens_per_row` tokens (a longer one gets its own).

    A row holds no more than `at_most` sequences.

    Sequences are sorted by length (at least 1); a block holds sequences that are shorter than its longest one by at
    most the share `waste` of that, or by one token, padded to it. With waste 0 there is no padding at all.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    rows: list[PlannedRow] = []
    members: list[int] = []
    blocks: list[Block] = []
    at = 0
    while at < len(order):
        used = blocks[-1].stop if blocks else 0
        longest = lengths[order[at]]
        shortest = longest - max(int(longest * waste), 1 if waste else 0)
        room = max((tokens_per_row - used) // longest, 0 if blocks else 1)
        room = room if at_most is None else min(room, at_most - len(members))
        chosen = [i for i in order[at : at + room] if lengths[i] >= shortest]  # sorted: these are the first ones
        if not chosen:
            rows.append(PlannedRow(tuple(members), tuple(blocks)))
            members, blocks = [], []
            continue
        members += chosen
        blocks.append(Block(used, len(chosen), longest))
        at += len(chosen)
    if blocks:
        rows.append(PlannedRow(tuple(members), tuple(blocks)))
    return rows


def row_tensors(
    sequences: Sequence[Sequence[int]], row: PlannedRow, first_position: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return the row's ids and positions, both (1, T); each sequence counts from `first_position`.

    Padding repeats a sequence's last token: it comes after everything that counts, so nothing attends to it.
    """
    ids: list[int] = []
    positions: list[int] = []
    members = iter(row.members)
    for block in row.blocks:
        for _ in range(block.count):
            sequence = sequences[next(members)]
            ids += [*sequence, *[sequence[-1]] * (block.length - len(sequence))]
            positions += range(first_position, first_position + block.length)
    return torch.tensor([ids], device=device), torch.tensor([positions], device=device)


def split_blocks(blocks: Sequence[Block], at_most: int) -> Iterator[tuple[Block, ...]]:
    """Yield the blocks in groups that hold at most `at_most` sequences, splitting blocks where needed."""
    group: list[Block] = []
    room = at_most
    for block in blocks:
        done = 0
        while done < block.count:
            count = min(room, block.count - done)
            group.append(Block(block.start + done * block.length, count, block.length))
            done, room = done + count, room - count
            if room == 0:
                yield tuple(group)
                group, room = [], at_most
    if group:
        yield tuple(group)
