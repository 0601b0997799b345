"""Signals that the server itself is asked to send to a command, where there is no guard (RFC 4254,
6.9)."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from execo._core.loop import Loop

__all__ = ["SignalRequests"]

YOUNG = 0.5
"""Seconds that a server has to become the command. OpenSSH's says that it runs as soon as it has
forked: a little later its child begins a session, before which it cannot be signalled, and after
which it takes a TERM for its own until it execs the login shell."""

_TRIES = 5
_PAUSE = 0.5


class SignalRequests:
    """Those of one command. All on the I/O thread.

    :param started: when the host has said that it runs (monotonic)
    :param post: sends one request, which the server is to answer
    :param runs: whether it still runs
    """

    def __init__(
        self,
        loop: Loop,
        started: float,
        post: Callable[[int], object],
        runs: Callable[[], bool],
    ) -> None:
        self._loop = loop
        self._started = started
        self._post = post
        self._runs = runs
        self._held: list[int] = []  # until it is no longer young, in their order
        self._asked: deque[tuple[int, int]] = deque()  # signals and tries: answers have this order

    def ask(self, number: int) -> None:
        """Have a signal sent: at once, or when the command is sure to get it."""
        left = self._started + YOUNG - time.monotonic()
        self._held.append(number)
        if len(self._held) == 1:
            if left > 0:
                self._loop.call_later(left, self._release)
            else:
                self._release()

    def answered(self, ok: bool) -> None:
        """The server has sent one, or has not: its child may have begun no session yet. (Or it
        signals nothing of this user's.)"""
        if self._asked:
            number, tries = self._asked.popleft()
            if not ok and tries < _TRIES:
                self._loop.call_later(_PAUSE, self._ask, number, tries + 1)

    def _release(self) -> None:
        held, self._held = self._held, []
        for number in held:
            self._ask(number, 1)

    def _ask(self, number: int, tries: int) -> None:
        if self._runs():
            self._asked.append((number, tries))
            self._post(number)
