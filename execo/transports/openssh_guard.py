"""The guard of a target that is reached with the ssh command: one more ssh, and its orders.

The guard itself is a small shell on the host, see :mod:`~execo.transports.remote_shell`.
"""

from __future__ import annotations

import enum
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

from execo._core.timer import Timer
from execo.errors import ProcessError, Reason
from execo.log import logger

from .base import Channel, Target
from .remote_shell import ORDER_BYE, ORDER_END, ORDER_RUN, kill_order, parse_hello
from .ssh_messages import MasterEvent, place

if TYPE_CHECKING:
    from .openssh import OpenSshTransport
    from .openssh_channel import OpenSshChannel
    from .openssh_master import OpenSshMaster

__all__ = ["OpenSshGuard"]

IDLE_TIME = 30.0
"""Seconds that a guard stays after the last command of its target."""

_LONGEST_LINE = 65536


class _State(enum.Enum):
    COMING = enum.auto()
    READY = enum.auto()
    GONE = enum.auto()


class OpenSshGuard:
    """The guard of one target, shared by its commands; the sink of its own ssh.

    It runs over a master like a command; where that does not take it, over a connection of its own.
    ``users`` are the commands that need it. It belongs to the transport's lock; all else to the
    I/O thread.
    """

    number = 0
    reserved = True

    def __init__(self, transport: OpenSshTransport, target: Target) -> None:
        self.target = target
        self.users: set[OpenSshChannel] = set()
        self.master: OpenSshMaster | None = None
        self.ended_by_itself = False
        self.alone = False  # it was not taken over a master
        self._transport = transport
        self._loop = transport.loop
        self._state = _State.COMING
        self._channel: Channel | None = None
        self._entered = False
        self._wanted = False  # by a command that runs, not only to go ahead of it
        self._started = False
        self._sent = False
        self._dismissed = False
        self._over = False
        self._heard = b""
        self._waiting: list[tuple[bytes, Callable[[], object] | None]] = []
        self._known: set[int] = set()  # commands that it was told of
        self._idle = Timer(transport.loop)  # since nobody has needed it
        self._patience = Timer(transport.loop)  # while it comes, and while it goes

    @property
    def gone(self) -> bool:
        """True if it never came, or went: a later command gets another one."""
        return self._state is _State.GONE or self._dismissed

    @property
    def coming(self) -> bool:
        """True until it is there, or will never be: what it is told waits."""
        return self._state is _State.COMING

    @property
    def ready(self) -> bool:
        """True while it takes orders."""
        return self._state is _State.READY and not self._dismissed

    @property
    def busy(self) -> bool:
        """True while a command of its target runs."""
        return any(user.unfinished for user in list(self.users))

    @property
    def opened(self) -> bool:
        return not self.coming

    @property
    def held(self) -> bool:
        return False

    @property
    def ahead(self) -> bool:
        """True while the commands of its target wait for it: it is on its way over a master, and
        not sent yet. What comes after it on a connection is found by it, whenever the script is
        lost."""
        return self.coming and self._entered and not (self._sent or self.alone or self._dismissed)

    def heard(self, event: MasterEvent) -> None:
        if event is MasterEvent.COMMAND and not self._sent:
            self._sent = True
            self._transport.masters.look(self.target)

    def refuse(self, error: ProcessError) -> None:
        self._loop.call_soon(self._end)

    # -- what the commands ask of it ------------------------------------------------------------

    def kill(
        self,
        number: int,
        command: int,
        without: Callable[[], object] | None = None,
        *,
        group: bool = True,
        runs: bool = False,
    ) -> None:
        """Have a signal sent to all of ``command``, as soon as the guard is there.

        :param without: called if there is none, now or later
        :param group: False: to the command alone
        :param runs: it is known to run, or to be about to
        """
        order = kill_order(command, number, group=group, runs=runs).encode()
        if self._state is _State.READY and self._channel is not None:
            self._channel.write(order)
        elif self._state is _State.COMING:
            self._waiting.append((order, without))
            self.come()
        elif without is not None:
            without()

    def runs(self, command: int) -> None:
        """Tell it that ``command`` runs, if it comes."""
        if (self.coming or self.ready) and command not in self._known:
            self._known.add(command)
            self._tell(ORDER_RUN.format(command).encode())

    def ended(self, command: int) -> None:
        """Tell it that ``command`` has ended, if it was told that it runs."""
        if command in self._known:
            self._known.discard(command)
            self._tell(ORDER_END.format(command).encode())

    def _tell(self, order: bytes) -> None:
        if self._state is _State.READY and self._channel is not None:
            self._channel.write(order)
        elif self._state is _State.COMING:
            self._waiting.append((order, None))

    def come(self) -> None:
        """Have it started, if it is not yet: a command of its target runs."""
        if self._transport.claim(self, wanted=True):
            self._transport.enter(self)

    def claim(self, *, wanted: bool) -> bool:
        """Whether it is to be started now: nobody has done so yet. Under the transport's lock."""
        self._wanted = self._wanted or wanted
        claimed = not self._entered and not self._dismissed
        self._entered = self._entered or claimed
        return claimed

    def unclaim(self) -> bool:
        """It would go ahead of a command, and has no master: it stays until it is wanted. False if
        it is already. Under the transport's lock."""
        self._entered = self._wanted
        return not self._wanted

    def set_up(self) -> bool:
        return False  # what it says, or its end, tells so

    def look_idle(self) -> None:
        """Dismiss it after a while, unless it is needed again; at once if it never came."""
        if not self.users and not self._over:
            if not self._entered:
                self._dismiss_idle()
                return
            # Others may wait for its descriptors.
            patience = 0.0 if self._transport.crowded else IDLE_TIME
            self._idle.set(patience, self._dismiss_idle)

    def _dismiss_idle(self) -> None:
        if self._transport.withdraw(self):
            self.dismiss()

    def dismiss(self) -> None:
        """Send it away: it touches nothing any more."""
        if self._dismissed:
            return
        self._dismissed = True
        for user in list(self.users):
            if not user.unfinished:
                user.signals.kill_survivors()  # nobody will look later
        if self._channel is None:
            if not self._entered or self._transport.give_up(self):
                self._end()
        elif not self._started:
            self._channel.abort()
        else:
            if self._state is _State.COMING:
                # It reads them if it comes all the same: what was killed here may go on there.
                for order, _ in self._waiting:
                    self._channel.write(order)
                self._waiting = [(b"", without) for _, without in self._waiting]
            self._channel.write(ORDER_BYE.encode())
            self._channel.close_stdin()
            self._patience.set(_patience(self.target), self.end)

    def end(self) -> None:
        """End its ssh, whatever it does."""
        if self._channel is not None and not self._over:
            self._channel.send_signal(signal.SIGKILL)

    # -- the sink of its ssh --------------------------------------------------------------------

    def on_open(self, channel: Channel) -> None:
        self._channel = channel

    def on_start(self) -> None:
        self._started = True
        if self._dismissed:
            self.end()  # meanwhile: it has nothing to do there
            return
        if self.master is None:
            # There could be no master for it. Nobody would say that it was sent.
            self.alone = True
            self._transport.masters.look(self.target)
        self._patience.set(_patience(self.target), self._give_up_coming)

    def on_data(self, stream: int, data: bytes) -> None:
        if self._state is not _State.COMING or stream != 1 or self._channel is None:
            return
        # A start-up file of the login shell may have printed lines of its own before.
        *lines, self._heard = (self._heard + data).split(b"\n")
        for line in lines:
            hello = parse_hello(line.decode("utf-8", "replace"))
            if hello is not None:
                self._transport.window.leave(self)
                if hello.linux:
                    self._greet(self._channel)
                else:
                    self._miss()  # it cannot find the processes of commands there
                return
        if len(self._heard) > _LONGEST_LINE:
            self._miss()

    def on_eof(self, stream: int, error: OSError | None) -> None:
        pass

    def on_exit(self, status: int | None, error: ProcessError | None = None) -> None:
        self._end()

    def on_error(self, error: ProcessError) -> None:
        self._end()

    def on_written(self, count: int) -> None:
        pass

    def on_write_error(self, error: OSError) -> None:
        pass

    def _greet(self, channel: Channel) -> None:
        self._state = _State.READY
        self._patience.cancel()
        self._heard = b""
        waiting, self._waiting = self._waiting, []
        for order, _ in waiting:
            if order:
                channel.write(order)

    def _tell_lost(self) -> None:
        users = [user for user in list(self.users) if user.unfinished]
        if not users:
            return
        message = (
            f"the guard's connection to {place(self.target)} was lost; "
            f"what ran there was ended; is the host still up?"
        )
        logger.warning("%s: %d commands", message, len(users))
        for user in users:
            user.guard_lost(ProcessError(message, reason=Reason.CONNECT, host=self.target.address))

    def _give_up_coming(self) -> None:
        if self._state is _State.COMING:
            self._miss()
            self.end()

    def _miss(self) -> None:
        """There is no guard: the commands do without."""
        self._state = _State.GONE
        waiting, self._waiting = self._waiting, []
        for _, without in waiting:
            if without is not None:
                without()
        self.dismiss()
        self._transport.masters.look(self.target)

    def _end(self) -> None:
        if self._over:
            return
        was_over_master = self.master is not None
        self._transport.masters.leave(self)
        self.master = None
        if was_over_master and self._state is _State.COMING and not self._dismissed:
            # Two of them do no harm, so it matters not why.
            self.alone = True
            self._channel = None
            self._transport.masters.look(self.target)
            self._transport.enter(self)
            return
        self._over = True
        self._idle.cancel()
        self._transport.window.leave(self)
        if self._state is _State.READY and not self._dismissed:
            self._tell_lost()
        self._miss()
        self._patience.cancel()
        self._transport.guard_ended(self)


def _patience(target: Target) -> float:
    """Seconds for a guard to come or to go."""
    timeout = target.options.connect_timeout
    return 60.0 if timeout is None else max(1.0, timeout)
