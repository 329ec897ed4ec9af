"""Divide places, bytes and turns among clients, so that one of them cannot take all."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")

#: The client of what the service does on its own: watched folders and the camera.
OWN = ""


class FairShares:
    """Places of which a lone client gets so many, and of which a new client always finds some.

    A client may hold as much as is free after that. So a lone one holds half of all, two hold a
    third each, and a further one still gets its part (dynamic thresholds, as switches share their
    memory). Not safe to use from several threads.

    Args:
        limit: the most that a lone client may hold; all together hold at most twice as much.

    Example:
        >>> shares = FairShares(4)
        >>> [shares.take("greedy", 1) for _ in range(5)]
        [True, True, True, True, False]
        >>> shares.take("other", 2)
        True
    """

    def __init__(self, limit: int) -> None:
        self._total = 2 * limit + 1
        self._held = Counter[str]()
        self.count = 0  # what all hold

    def has(self, client: str, count: int = 1) -> bool:
        """Whether a client may take some."""
        return self._held[client] + count <= self._total - self.count - count

    def take(self, client: str, count: int = 1) -> bool:
        """Take some if the client may have them; whether it may."""
        if not self.has(client, count):
            return False
        self._held[client] += count
        self.count += count
        return True

    def give(self, client: str, count: int = 1) -> None:
        """Give some back."""
        self.count -= count
        self._held[client] -= count
        if self._held[client] <= 0:
            del self._held[client]


class FairQueue(Generic[Item]):
    """A queue in which the clients take turns. Safe to use from several threads.

    Example:
        >>> queue = FairQueue[str]()
        >>> for client, item in [("a", "a1"), ("a", "a2"), ("b", "b1")]:
        ...     queue.put(client, item)
        >>> [queue.take(), queue.take(), queue.take(), queue.take()]
        ['a1', 'b1', 'a2', None]
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._items: dict[str, deque[Item]] = {}  # in the order of the clients' turns

    def __bool__(self) -> bool:
        return bool(self._items)

    def put(self, client: str, item: Item) -> None:
        """Add an item behind the others of its client."""
        with self._lock:
            self._items.setdefault(client, deque()).append(item)

    def peek(self) -> Item | None:
        """The item that is next; None where there is none."""
        with self._lock:
            return next((items[0] for items in self._items.values()), None)

    def take(self, may: Callable[[str], bool] = lambda client: True) -> Item | None:
        """The next item of a client that may have its turn; None where there is none.

        Args:
            may: whether a client may. No other item is taken while it is asked.
        """
        with self._lock:
            client = next(filter(may, self._items), None)
            if client is None:
                return None
            items = self._items.pop(client)
            item = items.popleft()
            if items:
                self._items[client] = items  # behind the other clients
            return item
