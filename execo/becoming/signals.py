"""The signals for one command of another user: by the guard of that user, and what survives it."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

from execo.errors import ProcessError, Reason
from execo.transports.base import ENDING_SIGNALS, Exec

if TYPE_CHECKING:
    from execo._core.loop import Loop

    from .channel import BecomeChannel
    from .guard import BecomeGuard

__all__ = ["PATIENCE", "Signals"]

PATIENCE = 10.0
"""Seconds that a host has to end a command that got a SIGKILL."""

_LOOK = 1.0


class Signals:
    """The signals for one command that has a guard of its own user. All on the I/O thread.

    - ``ending``: it was told to end
    - ``signalled``: the last signal of which it may have died, 0 for none
    """

    def __init__(
        self, channel: BecomeChannel, guard: BecomeGuard, number: int, request: Exec, loop: Loop
    ) -> None:
        self.ending = False
        self.signalled = 0
        self._channel = channel
        self._guard = guard
        self._number = number
        self._request = request
        self._loop = loop
        self._forgotten = False
        self._watches_survivors = False
        self._exit_looked_for = False

    def send(self, number: int) -> None:
        """Have a signal sent to what runs, or to what an exited command has left."""
        channel = self._channel
        if not number or self._forgotten or not (channel.runs or self._request.group):
            return
        self._guard.kill(channel, number, self._number, group=self._request.group)
        if number not in (signal.SIGSTOP, signal.SIGCONT):
            self.signalled = number
        if number not in ENDING_SIGNALS:
            return
        if number != signal.SIGINT:
            self.ending = True
            # ssh does not end before they do: there one has to look from now on.
            if not channel.runs or self._request.through == "openssh":
                self._watch_survivors()
        if number == signal.SIGKILL and channel.runs:
            self._loop.call_later(PATIENCE, self._on_no_end)

    def end_hard(self) -> None:
        """Kill it with all that it has started, even if it has exited itself."""
        self.signalled = signal.SIGKILL
        self._guard.kill(self._channel, signal.SIGKILL, self._number, group=True)

    def exited(self) -> None:
        """It has exited."""
        if self.ending:
            self._watch_survivors()

    def forget(self) -> None:
        """What it has left behind is left alone, unless it was told to end."""
        self._forgotten = True
        if not self._watches_survivors:
            self.leave_guard()

    def leave_guard(self) -> None:
        """It needs its guard no more."""
        self._guard.leave(self._channel)

    def _on_no_end(self) -> None:
        if self._channel.runs:
            target = self._channel.target
            why = "the host or its connection may be frozen, or has no guard as the other user"
            text = f"{target.name or target.address}: it has not ended {PATIENCE:g} s after"
            error = ProcessError(f"{text} a SIGKILL: {why}", reason=Reason.CONNECT)
            self._channel.fail(error)

    # -- what survives it -----------------------------------------------------------------------

    def _watch_survivors(self) -> None:
        """What survives its leader, which was told to end, has so long to do the same."""
        patience = self._request.kill_timeout
        if patience is not None and self._request.group and not self._watches_survivors:
            self._watches_survivors = True
            self._loop.call_later(patience, self.kill_survivors)

    def kill_survivors(self) -> None:
        """Kill what is left of it, if it was told to end."""
        if self._channel.runs and not self._channel.exited_there:
            if not self._exit_looked_for:
                self._exit_looked_for = True
                self._loop.call_later(_LOOK, self._look_exited)
            return
        if self._watches_survivors:
            self._watches_survivors = False
            self._guard.kill(self._channel, signal.SIGKILL, self._number, group=True)
        if self._forgotten:
            self.leave_guard()

    def _look_exited(self) -> None:
        self._exit_looked_for = False
        self.kill_survivors()
