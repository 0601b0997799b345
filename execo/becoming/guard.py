"""What signals the commands of one other user on one target, and ends them if this script is lost:
the guard of :mod:`~execo.transports.remote_shell`, run as that user.

The guard of the connection runs as who logs in, who may signal nothing of root's.
"""

from __future__ import annotations

import itertools
import secrets
from typing import TYPE_CHECKING

from execo.errors import ProcessError, Reason
from execo.log import logger
from execo.transports.base import Become, Channel, Exec, Target
from execo.transports.remote_shell import (
    ORDER_BYE,
    guard_text,
    kill_order,
    parse_hello,
)

if TYPE_CHECKING:
    from .channel import BecomeChannel
    from .transport import BecomingTransport

__all__ = ["LEAVING_TIME", "BecomeGuard", "Visit"]

IDLE_TIME = 30.0
"""Seconds that a guard stays after the last command that needs it."""

COMING_TIME = 60.0
"""Seconds for it to come, where ``connect_timeout`` sets no limit."""

LEAVING_TIME = 2.0
"""Seconds for it to go."""

_LONGEST_LINE = 65536


class BecomeGuard:
    """The guard of one other user on one target. It comes when a command needs it, goes when none
    does, and comes again. All on the I/O thread, save ``next_number``.

    :param through: the transport that carries it
    :param pty: it has a terminal, as its commands have: without one, some programs do not ask
    """

    def __init__(
        self, transport: BecomingTransport, through: str, target: Target, become: Become, pty: bool
    ) -> None:
        self.nonce = secrets.token_hex(8)
        self.target = target
        self.become = become
        self.users: set[BecomeChannel] = set()
        self._transport = transport
        self._loop = transport.runtime.loop
        self._request = Exec(
            guard_text(self.nonce, first=False),  # every command here bears a mark
            pty=pty,
            kill_timeout=LEAVING_TIME,
            target=target,
            become=become,
            through=through,
        )
        self._numbers = itertools.count(1)
        self.key = through, target, become, pty
        self._visit: Visit | None = None
        self._idle = 0  # counts the times that it fell idle
        self._warned = False

    def next_number(self) -> int:
        """A command's number. From any thread."""
        return next(self._numbers)

    @property
    def place(self) -> str:
        """For messages."""
        name = self.target.name or self.target.address
        return f"{name} as {self.become.user!r}"

    @property
    def busy(self) -> bool:
        """A command needs it."""
        return any(not user.over for user in self.users)

    # -- what the commands ask of it ------------------------------------------------------------

    def join(self, user: BecomeChannel) -> None:
        """``user`` is about to begin; it is told when the guard is there, or will not come."""
        self.users.add(user)
        there = self._visit is not None and self._visit.settled
        if there or not self.target.options.guard:
            user.guard_settled()
        else:
            self._come()

    def leave(self, user: BecomeChannel) -> None:
        """``user`` needs it no more."""
        if user in self.users:
            self.users.discard(user)
            if not self.users:
                self._idle += 1
                self._loop.call_later(IDLE_TIME, self._look_idle, self._idle)

    def kill(self, user: BecomeChannel, number: int, command: int, *, group: bool) -> None:
        """Have a signal sent to ``command``, as soon as the guard is there."""
        runs = user.runs and not user.exited_there
        text = kill_order(command, number, group=group, runs=runs)
        if not self.target.options.guard or (self._visit is None and self._transport.closed):
            user.signal_inner(number)
            return
        if self._visit is None:
            self._come()  # somebody has ended it on the host
        if self._visit is not None and not self._visit.order(text):
            user.signal_inner(number)

    def _come(self) -> None:
        if self._visit is None:
            self._visit = Visit(self)
            seconds = self.target.options.connect_timeout or COMING_TIME
            self._loop.call_later(seconds, self._visit.give_up)
            self._transport.start_guard(self._request, self._visit)

    def _look_idle(self, idle: int) -> None:
        if idle == self._idle and not self.users:
            self.dismiss()
            self._transport.drop_guard(self)

    def dismiss(self) -> None:
        """Send it away: it touches nothing any more."""
        for user in list(self.users):
            if user.over:
                user.kill_survivors()  # nobody will look later
        visit, self._visit = self._visit, None
        if visit is not None:
            visit.dismiss()

    def end_later(self, visit: Visit) -> None:
        """End ``visit``, if it does not go."""
        self._loop.call_later(LEAVING_TIME, visit.end)

    # -- what its visits tell -------------------------------------------------------------------

    def settled(self, visit: Visit) -> None:
        """It is there, or takes too long."""
        if visit is not self._visit:
            return
        if not visit.ready and not self._warned:
            self._warned = True
            logger.warning(
                "no guard on %s: kill() may not reach what runs there, nor the end of this script",
                self.place,
            )
        for user in list(self.users):
            user.guard_settled()

    def ended(self, visit: Visit) -> None:
        """It has gone, or could not come."""
        self._transport.guard_ended(visit)
        if visit is not self._visit:
            return
        if not visit.settled:
            visit.settled = True
            self.settled(visit)
        self._visit = None
        users = [user for user in list(self.users) if user.runs]
        if not users or not visit.ready or self._transport.closed:
            return
        message = f"the guard on {self.place} was lost; what ran there was ended: is the host up?"
        logger.warning("%s: %d commands", message, len(users))
        for user in users:
            error = ProcessError(message, reason=Reason.CONNECT, host=self.target.address)
            user.guard_lost(error)


class Visit:
    """One time that the guard is there: the sink of its command."""

    def __init__(self, guard: BecomeGuard) -> None:
        self.ready = False
        self.settled = False
        self.dismissed = False
        self.guard = guard
        self._channel: Channel | None = None
        self._started = False
        self._over = False
        self._heard = b""
        self._waiting: list[bytes] = []

    def order(self, text: str) -> bool:
        """Give it an order, when it is there; False if it cannot take any."""
        if self.ready and self._channel is not None:
            self._channel.write(text.encode())
        elif not self._over and not self.settled:
            self._waiting.append(text.encode())
        else:
            return False
        return True

    def give_up(self) -> None:
        """The commands do not wait for it any longer."""
        if not self.settled:
            self.settled = True
            self.guard.settled(self)

    def dismiss(self) -> None:
        """Send it away."""
        if self.dismissed or self._over:
            return
        self.dismissed = True
        if self._channel is None or not self._started:
            self.end()
        else:
            self._channel.write(ORDER_BYE.encode())
            self._channel.close_stdin()
            self.guard.end_later(self)

    def end(self) -> None:
        """End it, whatever it does."""
        if self._channel is not None and not self._over:
            self._channel.abort()

    # -- the sink -------------------------------------------------------------------------------

    def on_open(self, channel: Channel) -> None:
        self._channel = channel

    def on_start(self) -> None:
        self._started = True
        if self.dismissed and self._channel is not None:
            self._channel.write(ORDER_BYE.encode())
            self._channel.close_stdin()

    def on_data(self, stream: int, data: bytes) -> None:
        if self.ready or stream != 1 or self._channel is None:
            return
        *lines, self._heard = (self._heard + data)[-_LONGEST_LINE:].split(b"\n")
        for line in lines:
            hello = parse_hello(line.decode("utf-8", "replace"))
            if hello is not None:
                self._greet(self._channel, hello.linux)
                return

    def _greet(self, channel: Channel, linux: bool) -> None:
        self.ready = linux
        if linux:
            for order in self._waiting:
                channel.write(order)
        else:
            self.dismiss()  # it cannot find the processes of commands there
        self._waiting.clear()
        self.settled = True
        self.guard.settled(self)

    def on_eof(self, stream: int, error: OSError | None) -> None:
        pass

    def on_exit(self, status: int | None, error: ProcessError | None = None) -> None:
        self._end()

    def on_error(self, error: ProcessError) -> None:
        if not self.ready:
            logger.debug("no guard on %s: %s", self.guard.place, error)
        self._end()

    def on_written(self, count: int) -> None:
        pass

    def on_write_error(self, error: OSError) -> None:
        pass

    def _end(self) -> None:
        if not self._over:
            self._over = True
            self.guard.ended(self)
