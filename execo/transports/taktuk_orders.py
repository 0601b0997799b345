"""What is to be told to hosts through taktuk: in order for each, and once for many."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Hashable
from typing import Generic, TypeVar

__all__ = ["Orders"]

Host = TypeVar("Host", bound=Hashable)


class Orders(Generic[Host]):
    """Orders that wait. Those for many hosts that say the same become one, as far as each host
    still gets its own in the order in which they were added."""

    def __init__(self) -> None:
        self._batches: list[tuple[bytes, list[Host]]] = []
        self._places: dict[bytes, list[int]] = {}  # of the batches with this text
        self._last: dict[Host, int] = {}  # the place of the last batch that a host is in

    def __bool__(self) -> bool:
        return bool(self._batches)

    def add(self, host: Host, text: bytes) -> None:
        """Tell ``host`` something, after what it was told before."""
        places = self._places.setdefault(text, [])
        # The first batch of the same words that comes after all that this host is told.
        nearest = bisect_right(places, self._last.get(host, -1))
        if nearest == len(places):
            places.append(len(self._batches))
            self._batches.append((text, []))
        self._last[host] = place = places[nearest]
        self._batches[place][1].append(host)

    def take(self) -> list[tuple[bytes, list[Host]]]:
        """All of them, each with its hosts; none waits any more."""
        batches = self._batches
        self._batches, self._places, self._last = [], {}, {}
        return batches
