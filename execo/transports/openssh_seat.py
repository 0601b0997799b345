"""The place of a command on its master: whether that has sent it, and if not, another start."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from execo.errors import ProcessError

from .ssh_messages import MasterEvent

if TYPE_CHECKING:
    from asyncio import TimerHandle

    from .openssh_channel import OpenSshChannel

__all__ = ["Seat"]

_LOOK = 0.02
_LOOKS = 50
_PATIENCE = 60.0
_TAIL_OF_A_LOST_MASTER = "read from master failed"


class Seat:
    """The place of one command on its master, if it has one. On the I/O thread.

    A client that ends without having been sent has certainly not run: it is started once more,
    with a connection of its own. Until it is known that it was sent, its input is kept, and what
    its ssh tells of an end is held.
    """

    def __init__(self, channel: OpenSshChannel) -> None:
        self._channel = channel
        self._loop = channel.transport.loop
        self._since = 0.0  # when its client was started
        self._held: list[tuple[int, OSError | None]] = []
        self._held_error: OSError | None = None
        self._looks = 0
        self._timer: TimerHandle | None = None

    # -- until it was sent ----------------------------------------------------------------------

    @property
    def holds(self) -> bool:
        """True while it may have to be started once more."""
        channel = self._channel
        started = channel.unfinished and channel.master is not None
        return started and not channel.opened and not channel.hung_up

    def started(self) -> None:
        """Its client runs."""
        if self._channel.master is not None:
            self._channel.input.keep()
            self._since = time.monotonic()
            self._look_later()

    def hold_end(self, stream: int, error: OSError | None) -> None:
        """An output of its client has ended."""
        self._held.append((stream, error))

    def hold_error(self, error: OSError) -> None:
        """Its client takes no input any more."""
        self._held_error = error

    def tell_held(self) -> None:
        """It was sent, or is over: tell what was held."""
        if self._timer is not None:
            # It would hold a command that has ended in memory.
            self._timer.cancel()
            self._timer = None
        held, self._held = self._held, []
        for stream, error in held:
            self._channel.on_eof(stream, error)
        wrong, self._held_error = self._held_error, None
        if wrong is not None:
            self._channel.on_write_error(wrong)

    def heard(self, event: MasterEvent) -> None:
        """Its master says something of it."""
        if event is MasterEvent.COMMAND:
            self._channel.input.settle()
            self.tell_held()

    def suspect(self) -> None:
        """Its host does not answer: is its master to blame?"""
        if self._channel.master is not None:
            self._channel.transport.masters.suspect(self._channel.master, 0.0)

    def _patience(self) -> float:
        timeout = self._channel.target.options.connect_timeout
        return _PATIENCE if timeout is None else max(1.0, timeout)

    def _look_later(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(self._patience(), self._look_opened, self._since)

    def _look_opened(self, since: float) -> None:
        waits = self._channel.unfinished and self.holds and since == self._since
        if waits and self._channel.master is not None:
            self._channel.transport.masters.suspect(self._channel.master, since)
            self._look_later()

    # -- its client has ended -------------------------------------------------------------------

    def settle(self, status: int | None, error: ProcessError | None) -> None:
        """Its client has exited, and says of what. Its master has told before whether the output
        was complete, if it was, and is no more if it was not."""
        channel, master = self._channel, self._channel.master
        assert master is not None
        self._looks += 1
        if channel.record.complete or master.over or self._looks > _LOOKS:
            channel.release(status, error)
        else:
            self._loop.call_later(_LOOK, self.settle, status, error)

    def judge(self, status: int) -> None:
        """Its client has exited with the wait status ``status``, that of a failure. Its master
        tells why: whether it was sent, and has exited."""
        channel, master = self._channel, self._channel.master
        assert master is not None
        self._looks += 1
        sent = channel.opened or _TAIL_OF_A_LOST_MASTER in channel.record.text()
        if sent and not (channel.record.read().exited or master.over) and self._looks < _LOOKS:
            self._loop.call_later(_LOOK, self.judge, status)
        elif channel.opened or channel.hung_up or (sent and not master.over):
            channel.release(status)
        else:
            # The master writes of a command before it sends it, so this one was not sent, and will
            # not be: it was refused, or the master is no more.
            channel.transport.masters.leave(channel)
            channel.master = None
            self._held.clear()
            self._held_error = None
            channel.start_again()
