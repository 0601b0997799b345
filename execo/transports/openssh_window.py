"""How many ssh may be at the point of connecting: a window on their set-up, not on what runs.

A stock sshd drops connections at random from the eleventh on that has not logged in (MaxStartups
10:30:100 in sshd_config(5)), and a thousand ssh that start at once starve the machine.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from execo._core.loop import Loop

from .base import Target, is_loopback

__all__ = ["EACH", "TOTAL", "Entrant", "Window"]

TOTAL = 64
EACH = 8
"""Of one address and port. All of loopback is one machine, whatever the address."""

_LOOK = 0.05


class Entrant(Protocol):
    """An ssh that is to be started."""

    target: Target

    def set_up(self) -> bool:
        """Whether its connection needs no slot any more. On the I/O thread; does not block."""


@dataclass(slots=True)
class _Address:
    held: int = 0
    queue: deque[Entrant] = field(default_factory=deque)
    in_round: bool = False


class Window:
    """Slots for connections that are being set up. Any thread may call, unless it says other.

    :param start: is given those that may start now, where others have left; on the I/O thread
    """

    def __init__(self, loop: Loop, start: Callable[[list[Entrant]], object]) -> None:
        self._loop = loop
        self._start = start
        self._lock = threading.Lock()
        self._held: dict[Entrant, None] = {}
        self._queued: dict[Entrant, None] = {}
        self._addresses: dict[tuple[str, int | None], _Address] = {}
        # The addresses that have somebody queued and a slot free: a slow one holds up no other.
        self._round: deque[_Address] = deque()
        self._looks = False

    def enter(self, entrants: Sequence[Entrant]) -> list[Entrant]:
        """Queue ``entrants``. Returns those that have a slot: the caller is to start them."""
        with self._lock:
            for entrant in entrants:
                self._queued[entrant] = None
                address = self._addresses.setdefault(_key(entrant.target), _Address())
                address.queue.append(entrant)
                self._join_round(address)
            return self._take()

    def leave(self, entrant: Entrant) -> None:
        """Free the slot of ``entrant``, if it has one, for the next. On the I/O thread."""
        self._leave([entrant])

    def give_up(self, entrant: Entrant) -> bool:
        """Take ``entrant`` out of the queue; False if it is not in there."""
        with self._lock:
            # It stays in its deque: taking out each of ten thousand is quadratic.
            return self._queued.pop(entrant, self) is None

    def queued(self) -> list[Entrant]:
        """Those that have no slot yet."""
        with self._lock:
            return list(self._queued)

    def _leave(self, entrants: Iterable[Entrant]) -> None:
        with self._lock:
            for entrant in entrants:
                if self._held.pop(entrant, self) is not None:
                    continue
                key = _key(entrant.target)
                address = self._addresses[key]
                address.held -= 1
                self._join_round(address)
                if not address.held and not address.queue:
                    del self._addresses[key]
            taken = self._take()
        if taken:
            self._start(taken)

    def _join_round(self, address: _Address) -> None:
        if address.queue and address.held < EACH and not address.in_round:
            address.in_round = True
            self._round.append(address)

    def _take(self) -> list[Entrant]:
        taken: list[Entrant] = []
        while self._round and len(self._held) < TOTAL:
            address = self._round.popleft()
            address.in_round = False
            entrant = address.queue.popleft()
            if self._queued.pop(entrant, self) is None:  # else it was given up
                self._held[entrant] = None
                address.held += 1
                taken.append(entrant)
            self._join_round(address)
        if self._held and not self._looks:
            self._looks = True
            self._loop.call_soon(self._loop.call_later, _LOOK, self._look)
        return taken

    def _look(self) -> None:
        # Nothing announces what ssh writes into its log, so one look for all of them, as long as
        # there are some.
        with self._lock:
            held = list(self._held)
        self._leave([entrant for entrant in held if entrant.set_up()])
        with self._lock:
            self._looks = bool(self._held)
        if self._looks:
            self._loop.call_later(_LOOK, self._look)


def _key(target: Target) -> tuple[str, int | None]:
    return "localhost" if is_loopback(target.address) else target.address, target.port
