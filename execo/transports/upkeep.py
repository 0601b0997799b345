"""Connections that are kept: closed when nobody has used them for long, asked whether the host is
still there while somebody does.

One timer for each of the two, set for the first connection that is due: thousands that are idle
cost nothing until then.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from execo._core.loop import Loop

from .ssh_connection import SshConnection

if TYPE_CHECKING:
    from asyncio import TimerHandle

__all__ = ["Upkeep"]

_AT_ONCE = 100
"""Connections that are closed in one go: the I/O thread has other work in between."""

_SLACK = 0.05
"""The timers may be late by this part of a time limit, so that many share one wake-up."""


class Upkeep:
    """All on the I/O thread. Connections are told of while they are ready.

    :param close: closes one that was idle for too long
    :param lose: gives up one whose host has not answered for so many seconds
    """

    def __init__(
        self,
        loop: Loop,
        *,
        close: Callable[[SshConnection], object],
        lose: Callable[[SshConnection, float], object],
    ) -> None:
        self._loop = loop
        self._close = close
        self._lose = lose
        # limit -> connection -> since when: in the order in which they have become idle
        self._idle: dict[float, dict[SshConnection, float]] = {}
        self._idle_timer: TimerHandle | None = None
        self._used: set[SshConnection] = set()  # that are asked
        self._ask_timer: TimerHandle | None = None

    def use(self, connection: SshConnection) -> None:
        """Somebody uses it from now on."""
        options = connection.target.options
        if options.idle_limit is not None:
            self._idle.get(options.idle_limit, {}).pop(connection, None)
        connection.life.used_since = time.monotonic()
        connection.life.questions = connection.life.doubts = 0
        if options.keepalive:
            self._used.add(connection)
            self._wake_to_ask(connection.life.used_since + options.keepalive)

    def leave(self, connection: SshConnection) -> None:
        """Nobody uses it any more."""
        self._used.discard(connection)
        limit = connection.target.options.idle_limit
        if limit is not None:
            now = time.monotonic()
            idle = self._idle.setdefault(limit, {})
            idle.pop(connection, None)  # it goes to the end
            idle[connection] = now
            self._wake_to_close(now + limit)

    def forget(self, connection: SshConnection) -> None:
        """It is over."""
        self._used.discard(connection)
        limit = connection.target.options.idle_limit
        if limit is not None:
            self._idle.get(limit, {}).pop(connection, None)

    def stop(self) -> None:
        """All connections are over."""
        for timer in (self._idle_timer, self._ask_timer):
            if timer is not None:
                timer.cancel()
        self._idle_timer = self._ask_timer = None

    # -- those that are idle --------------------------------------------------------------------

    def _wake_to_close(self, due: float) -> None:
        timer = self._idle_timer
        if timer is None or timer.when() > due + _SLACK:
            if timer is not None:
                timer.cancel()
            delay = max(0.0, due - time.monotonic())
            self._idle_timer = self._loop.call_later(delay, self._close_idle)

    def _close_idle(self) -> None:
        self._idle_timer = None
        now = time.monotonic()
        due = math.inf
        closed = 0
        for limit, idle in list(self._idle.items()):
            while idle:
                connection, since = next(iter(idle.items()))
                # A little early is as good as another wake-up.
                if since + limit * (1 - _SLACK) > now:
                    due = min(due, since + limit)
                    break
                if closed == _AT_ONCE:
                    due = now
                    break
                del idle[connection]
                if connection.life.needed_until > now:
                    delay = connection.life.needed_until - now
                    self._loop.call_later(delay, self._look_again, connection, since)
                    continue
                closed += 1
                self._close(connection)
            if not idle:
                self._idle.pop(limit, None)
        if due < math.inf:
            self._wake_to_close(due)

    def _look_again(self, connection: SshConnection, since: float) -> None:
        if connection.is_kept and connection.life.used_since <= since:
            self._close(connection)

    # -- those that are used --------------------------------------------------------------------

    def _wake_to_ask(self, due: float) -> None:
        timer = self._ask_timer
        if timer is None or timer.when() > due + _SLACK:
            if timer is not None:
                timer.cancel()
            delay = max(0.0, due - time.monotonic())
            self._ask_timer = self._loop.call_later(delay, self._ask)

    def _ask(self) -> None:
        self._ask_timer = None
        now = time.monotonic()
        due = math.inf
        lost = []
        for connection in self._used:
            options = connection.target.options
            interval = options.keepalive or math.inf
            heard = connection.life.heard
            connection.life.look_answered()
            last = max(heard, connection.life.used_since)
            since = connection.life.asked if connection.life.questions else last
            if since + interval * (1 - _SLACK) > now:
                due = min(due, since + interval)
            elif connection.life.questions >= options.keepalive_count:
                understood = max(connection.session.understood, connection.life.used_since)
                lost.append((connection, now - understood))
            else:
                connection.life.questions += 1
                connection.life.asked = now
                connection.session.ask(_nothing)
                due = min(due, now + interval)
        if due < math.inf:
            self._wake_to_ask(due)
        # Gateways first: what is behind one is lost with it, and says so.
        for connection, silence in sorted(lost, key=lambda entry: entry[0].target.hops):
            self._lose(connection, silence)


def _nothing() -> None:
    """That something was heard is enough."""
