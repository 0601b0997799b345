"""The signals for one command that runs through ssh: by its guard, or by ending its connection."""

from __future__ import annotations

import signal
from functools import partial
from typing import TYPE_CHECKING

from execo.errors import ProcessError, Reason
from execo.log import logger

from .base import ENDING_SIGNALS
from .openssh_guard import OpenSshGuard
from .ssh_messages import place

if TYPE_CHECKING:
    from .openssh_channel import OpenSshChannel

__all__ = ["Signals"]

FROZEN_AFTER = 5.0
"""Seconds from the order to kill to the end of the ssh: after that the host does not answer."""

_AGAIN = (0.3, 1.0)
_YOUNG = 2.0
_LOOK = 0.2
_SURVIVOR_LOOK = 1.0


class Signals:
    """The signals for one command. All on the I/O thread, save ``guard``.

    - ``guard``: who signals it on its host, if anybody
    - ``ending``: the last signal that was meant to end it
    - ``signalled``: the last one of which it may have died
    """

    def __init__(self, channel: OpenSshChannel) -> None:
        self.guard: OpenSshGuard | None = None
        self.ending: int | None = None
        self.signalled: int | None = None
        self._channel = channel
        self._transport = channel.transport
        self._loop = channel.transport.loop
        self._watches_survivors = False

    def send(self, number: int) -> None:
        """Have a signal sent to what runs."""
        channel = self._channel
        if not channel.unfinished:
            return
        ending = number in ENDING_SIGNALS
        if channel.record.follows and not channel.record.read().accepted:
            if not ending:
                self._loop.call_later(_LOOK, self.send, number)
                return
            # There is nothing to signal. The host may be at the point of starting it: a little
            # later the guard looks for it.
            channel.hang_up(number)
            self._watch_survivors(_LOOK, known=True)
            return
        if ending:
            self.ending = number
        if number not in (signal.SIGSTOP, signal.SIGCONT):
            self.signalled = number
        self._order(number)
        if ending and not channel.seen and channel.record.age(channel.running) < _YOUNG:
            # The host may be about to start it, with nothing there yet to signal.
            for delay in _AGAIN:
                self._loop.call_later(delay, self._order_again, number)
        kill_timeout = channel.request.kill_timeout
        if number == signal.SIGTERM and kill_timeout is not None:
            self._watch_survivors(kill_timeout, known=False)

    def send_left(self, number: int) -> None:
        """Have a signal sent to what the command has left behind."""
        if self.guard is not None:
            self.guard.kill(number, self._channel.number, group=self._channel.request.group)

    def _order(self, number: int) -> None:
        without = partial(self._without_guard, number)
        self._transport.rejoin_guard(self._channel)
        if self.guard is None:
            without()
            return
        group, runs = self._channel.request.group, not self._channel.record.read().exited
        self.guard.kill(number, self._channel.number, without, group=group, runs=runs)
        if number == signal.SIGKILL:
            self._loop.call_later(FROZEN_AFTER, self._look_frozen)

    def _order_again(self, number: int) -> None:
        if self._channel.unfinished and not self._channel.seen and self.ending == number:
            self._order(number)

    def _without_guard(self, number: int) -> None:
        channel = self._channel
        if not channel.unfinished:
            return
        if number in ENDING_SIGNALS:
            if not channel.request.pty and not channel.hung_up:
                logger.warning(
                    "no guard on %s: its connection is ended, but what %r has started there may go "
                    "on; a pty would end it",
                    place(channel.target),
                    channel.request.command,
                )
            channel.hang_up(number)
        else:
            logger.warning(
                "cannot send signal %d to %r on %s: no guard there to do it",
                number,
                channel.request.command,
                place(channel.target),
            )

    def _look_frozen(self) -> None:
        channel = self._channel
        if not channel.unfinished:
            return
        guard = self.guard
        if guard is not None and guard.coming and guard.master is None:
            self._loop.call_later(FROZEN_AFTER, self._look_frozen)  # it has not been told yet
            return
        if not channel.record.read().exited:
            channel.lose(
                ProcessError(
                    f"{place(channel.target)} does not answer: killed here, what ran there may go "
                    "on",
                    reason=Reason.CONNECT,
                    host=channel.target.address,
                )
            )
        # Else something that bears no mark holds its output open.
        channel.hang_up(signal.SIGKILL)

    # -- what survives it -----------------------------------------------------------------------

    def _watch_survivors(self, delay: float, *, known: bool) -> None:
        """Kill what is left of it ``delay`` seconds from now, or when it has exited after that.

        :param known: look once only: the command is over then
        """
        if self._channel.request.group and self.guard and not self._watches_survivors:
            self._watches_survivors = True
            self._loop.call_later(delay, self._end_survivors, known)

    def _end_survivors(self, known: bool) -> None:
        channel = self._channel
        if known or not channel.unfinished or channel.record.read().exited:
            self.kill_survivors()
        else:
            self._loop.call_later(_SURVIVOR_LOOK, self._end_survivors, False)

    def kill_survivors(self) -> None:
        """Kill what is left of it, if it was told to end."""
        if self._watches_survivors and self.guard is not None:
            self._watches_survivors = False
            self.guard.kill(signal.SIGKILL, self._channel.number)
        self.release_guard()

    def release_guard(self) -> None:
        """The guard is needed no more, unless something is to be killed later."""
        if not self._channel.unfinished and not self._watches_survivors and self.guard is not None:
            self.guard.ended(self._channel.number)
            self._transport.release_guard(self.guard, self._channel)
