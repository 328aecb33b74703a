"""A queue that is fair among groups (a model's documents) and, inside a group, among callers. Knows no threads."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Hashable
from typing import Generic, Protocol, TypeVar


class Queued(Protocol):
    """What can wait in the queue. Items that are computed together have the same group."""

    @property
    def group(self) -> Hashable:
        """What may be computed together."""

    @property
    def caller(self) -> str:
        """Who asked."""

    @property
    def tokens(self) -> int:
        """What it costs."""


Item = TypeVar("Item", bound=Queued)


class FairQueue(Generic[Item]):
    """Groups take turns; in a group callers take turns, one item each; a caller's own items keep their order.

    Somebody with one document waits for one round, however many documents others have queued.
    """

    def __init__(self) -> None:
        self._groups: OrderedDict[Hashable, OrderedDict[str, deque[Item]]] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._groups)

    def add(self, item: Item) -> None:
        """Put an item behind its caller's others."""
        callers = self._groups.setdefault(item.group, OrderedDict())
        callers.setdefault(item.caller, deque()).append(item)

    def add_first(self, item: Item) -> None:
        """Put an item before all others of its caller, which is next in its group."""
        callers = self._groups.setdefault(item.group, OrderedDict())
        callers.setdefault(item.caller, deque()).appendleft(item)
        callers.move_to_end(item.caller, last=False)

    def remove(self, item: Item) -> bool:
        """Take an item out; returns whether it was waiting."""
        callers = self._groups.get(item.group)
        waiting = None if callers is None else callers.get(item.caller)
        if waiting is None or item not in waiting:
            return False
        waiting.remove(item)
        self._tidy(item.group, item.caller)
        return True

    def take(self, items_of: Callable[[Hashable], int], max_tokens: int) -> list[Item]:
        """Return what is computed next: items of one group within its own limit and `max_tokens`.

        Args: items_of: how many items of a group are computed together; 0 where none can be now.
        Returns: at least one item if any group has room for it, however many tokens it has.
        """
        group, most = next(((group, most) for group in self._groups if (most := items_of(group))), (None, 0))
        if not most:
            return []
        callers, taken, tokens = self._groups[group], list[Item](), 0
        while callers and len(taken) < most:
            caller, waiting = next(iter(callers.items()))
            if taken and tokens + waiting[0].tokens > max_tokens:
                break
            taken.append(waiting.popleft())
            tokens += taken[-1].tokens
            callers.move_to_end(caller)
            self._tidy(group, caller)
        if group in self._groups:
            self._groups.move_to_end(group)
        return taken

    def take_all(self) -> list[Item]:
        """Return everything that waits, and be empty."""
        items = [item for callers in self._groups.values() for waiting in callers.values() for item in waiting]
        self._groups.clear()
        return items

    def _tidy(self, group: Hashable, caller: str) -> None:
        callers = self._groups[group]
        if not callers[caller]:
            del callers[caller]
        if not callers:
            del self._groups[group]
