"""One SSH connection to a host: from the first packet to the last, and the commands on it.

::

    DIALING ──> KEYS ──> LOGIN ──> READY ──> OVER
                 (session set-up)

The first command is sent as it is as soon as the connection is ready, and the guard with it, right
behind. Until the guard has said what the login shell is, other commands wait; from then on each
bears a mark by which the guard finds its processes. Where no guard can be, commands are sent as
they are.
"""

from __future__ import annotations

import enum
import secrets
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from execo._core.runtime import Runtime
from execo.errors import ProcessError, Reason
from execo.log import escape_controls

from .base import Exec, Target
from .liveness import Liveness
from .remote_shell import Hello, Mark
from .wire import AnyWire

if TYPE_CHECKING:
    from asyncio import TimerHandle

    from .guard import Guard
    from .pool import Pool
    from .session import Session
    from .ssh_login import SshLogin

__all__ = ["Command", "Lessee", "SshConnection", "State"]

SESSIONS = 10
"""Channels of one connection at the most: what a server allows by default (MaxSessions). One of
them is the guard's."""

_YOUNG = 0.2
"""Seconds, at the most, that a command runs until the guard is told of it."""


class State(enum.Enum):
    """See the module."""

    DIALING = enum.auto()
    KEYS = enum.auto()
    LOGIN = enum.auto()
    READY = enum.auto()
    OVER = enum.auto()


class Command(Protocol):
    """What a connection runs: one request and what becomes of it. All on the I/O thread."""

    request: Exec

    def request_signal(self, number: int) -> None:
        """Have the server itself send a signal."""

    def send(self, connection: SshConnection, number: int, mark: Mark | None, posix: bool) -> None:
        """Open a channel on this connection and run there."""

    def refuse(self, error: ProcessError) -> None:
        """It will not run: ``error`` is what happened to its host."""

    def may_go_again(self, connection: SshConnection) -> bool:
        """``connection`` is lost, and it has not started: whether another one may run it."""


class Lessee(Protocol):
    """What keeps a connection without running a command there. All on the I/O thread."""

    target: Target

    def leased(self, connection: SshConnection) -> None:
        """This connection is ready, and stays until :meth:`SshConnection.give_back`."""

    def lost(self, error: ProcessError) -> None:
        """The connection that it has is lost."""

    def refuse(self, error: ProcessError) -> None:
        """It gets none: ``error`` is what happened to its host."""


class SshConnection:
    """One connection to ``target``. All on the I/O thread.

    :param pool: told when it is ready, over, or has room again
    :param room: commands that it may run at a time
    """

    def __init__(self, pool: Pool, target: Target, room: int) -> None:
        self.target = target
        self.runtime: Runtime = pool.runtime
        self.state = State.DIALING
        self.busy = 0  # channels of commands that are open or being opened
        self.active = 0  # of these, commands that have not ended
        self.lessees: set[Lessee] = set()
        self.room = room
        self.proven = False  # the host has opened a channel for a command
        self.error: ProcessError | None = None
        self.ready_since = 0.0  # (monotonic)
        self.unanswering = False  # lost without a word
        self.life = Liveness(self)
        self._pool = pool
        self._session: Session | None = None
        self._deadline: TimerHandle | None = None
        self._login: SshLogin | None = None
        self._guard: Guard | None = None
        self._hello: Hello | None = None
        self._plain = not target.options.guard
        self._nonce = secrets.token_hex(6)
        self._number = 0
        self._first: Command | None = None  # the one without a mark, until it has ended
        self._waiting: deque[Command] = deque()
        self._unanswered: dict[Command, TimerHandle] = {}
        self._young: set[int] = set()  # commands that run, and are not worth an order yet
        self._known: set[int] = set()  # those that the guard was told of
        self._tell_timer: TimerHandle | None = None

    # -- keys and login -------------------------------------------------------------------------

    def set_up(self, wire: AnyWire) -> None:
        """Agree on keys over a connected socket, and log in."""
        from .session import Session  # see Pool
        from .ssh_login import SshLogin

        self.state = State.KEYS
        self._session = Session(self.runtime.loop, wire, self._on_lost)
        self._session.restrict(self.target.options.algorithms)
        self._login = SshLogin(
            self.runtime,
            self.target,
            self._session,
            self._pool.keys,
            self._pool.asker,
            self._pool.known_hosts,
            on_trusted=self._on_trusted,
            on_done=self._on_login,
            on_failed=self._fail,
        )
        self._login.start()

    def _on_trusted(self) -> None:
        self.state = State.LOGIN

    def _on_login(self) -> None:
        self.state = State.READY
        self._login = None
        self._pool.on_ready(self)

    # -- commands -------------------------------------------------------------------------------

    @property
    def has_room(self) -> bool:
        """Whether it can run one more command."""
        return self.state is State.READY and self.busy < self.room and self.life.trusted

    @property
    def session(self) -> Session:
        """The session of a connection that is ready."""
        assert self._session is not None
        return self._session

    def run(self, command: Command) -> None:
        """Run a command: at once, or when the guard has said what it has to look like."""
        self._use()
        self.busy += 1
        self.active += 1
        request = command.request
        first = self._number == 0 and self._guard is None
        if self._plain:
            command.send(self, -1, None, False)
        elif self._hello is not None:
            self._send_marked(command)
        elif first and not (request.cwd or request.env or request.detach):
            # The one command that bears no mark: it is told apart by having none.
            self._number = 1
            self._first = command
            command.send(self, 0, None, False)
            if self._first is not None:
                # In one go: the host wakes up once for both, and we for its answers.
                self.open_guard()
        else:
            self._waiting.append(command)
            if self._first is None:
                self.open_guard()

    def open_guard(self) -> None:
        """The first command goes out, or there is none: have the guard follow."""
        from .guard import Guard

        if self._guard is None and not self._plain and self.state is State.READY:
            self._number = max(self._number, 1)
            first = self._first is not None
            self._guard = Guard(self.session, self._nonce, self._on_guard, first=first)
            self._wait_for_guard(self._guard)

    def _wait_for_guard(self, guard: Guard) -> None:
        timeout = self.target.options.connect_timeout
        if timeout is not None:
            self._deadline = self.runtime.loop.call_later(timeout, guard.give_up)

    @property
    def has_hello(self) -> bool:
        """The guard runs there, so commands do."""
        return self._hello is not None

    def _on_guard(self, hello: Hello | None) -> None:
        self._stop_deadline()
        self._hello = hello
        self._plain = hello is None
        if hello is None:
            self.room += 1
            if self._first is not None and self._guard is not None:
                for number in self._guard.unsent:
                    self._first.request_signal(number)
        if self.state is State.READY:
            waiting, self._waiting = self._waiting, deque()
            for command in waiting:
                self.busy -= 1
                self.active -= 1
                self.run(command)

    def _send_marked(self, command: Command) -> None:
        assert self._hello is not None
        number, self._number = self._number, self._number + 1
        mark = Mark(self._nonce, number, detach=command.request.detach)
        command.send(self, number, mark, self._hello.posix)

    def expect_answer(self, command: Command) -> None:
        """A command was sent: the host has to say soon whether it runs."""
        timeout = self.target.options.connect_timeout
        if timeout is not None:
            self._await_answer(command, timeout)

    def _await_answer(self, command: Command, seconds: float) -> None:
        timer = self.runtime.loop.call_later(seconds, self._on_no_answer, command)
        self._unanswered[command] = timer

    def answered(self, command: Command) -> None:
        """The host has said whether a command runs."""
        timer = self._unanswered.pop(command, None)
        if timer is not None:
            timer.cancel()

    def _on_no_answer(self, command: Command) -> None:
        # A connection that was kept may be dead without a word: the host has lost its power. One
        # that is slow says something meanwhile: it makes room for what is on its way.
        seconds = self.target.options.connect_timeout
        if self.state is not State.READY or seconds is None:
            return
        left = self.session.wire.heard + seconds - time.monotonic()
        if left > 0:
            self._await_answer(command, left)
        else:
            self.stopped_answering(f"it has not answered for {seconds:g} s (connect_timeout)")

    def give_up(self, command: Command) -> bool:
        """Take back a command that waits for the guard; False if it does not."""
        if command not in self._waiting:
            return False
        self._waiting.remove(command)
        self.ended()
        self.finished()
        return True

    def signal(self, number: int, command: int, *, group: bool = True, runs: bool = False) -> bool:
        """Have the guard signal a command; False if there is none that can.

        :param runs: it is known to run
        """
        guard = self._guard
        if command < 0 or guard is None or self._plain:
            return False
        if self._hello is not None and not guard.works:
            return False
        guard.kill(number, command, group=group, runs=runs)
        return True

    def started(self, command: int) -> None:
        """A command runs. If that lasts, the guard is told."""
        if command >= 0 and not self._plain:
            self._young.add(command)
            if self._tell_timer is None:
                self._tell_timer = self.runtime.loop.call_later(_YOUNG, self._tell_running)

    def _tell_running(self) -> None:
        self._tell_timer = None
        if self._guard is not None and not self._plain and self.state is State.READY:
            for command in self._young:
                self._guard.runs(command)
            self._known |= self._young
        self._young.clear()

    def exited(self, command: int) -> None:
        """A command has exited, and what it has left behind was left on purpose."""
        self._young.discard(command)
        if command in self._known:
            self._known.discard(command)
            if command and self._guard is not None:
                self._guard.ended(command)
        if command == 0 and self._first is not None:
            self._first = None
            if self._guard is not None:
                self._guard.first_ended()

    def ended(self) -> None:
        """A command has ended."""
        self.active -= 1
        self._look_unused()

    def finished(self) -> None:
        """The channel of a command is free again."""
        self.busy -= 1
        self._look_after_waiting()
        self._pool.on_room(self)

    def refused(self, command: Command, *, full: bool) -> None:
        """The host did not open a channel for ``command``.

        :param full: not for the first time: it has as many channels as it takes
        """
        self.busy -= 1
        self.ended()
        if command is self._first:
            self.exited(0)  # it did not run
        if full:
            self.room = max(1, self.busy)
            self._pool.learn_room(self)
        self._look_after_waiting()

    def take_session_of_guard(self, command: Command) -> bool:
        """The host has opened no channel for ``command``, and none for another one that runs: where
        it allows one session alone (MaxSessions 1), the guard must not be the one. Whether
        ``command`` is to run when the guard has gone."""
        guard = self._guard
        if guard is None or self._plain or (self.proven and self.busy > 1):
            return False
        self._waiting.append(command)
        if self._hello is not None:
            self._hello = None
            self.room = 0  # until then
            self._wait_for_guard(guard)
            guard.make_way(self._on_guard)
        return True

    def _look_after_waiting(self) -> None:
        # The first command may have ended without the guard that follows it.
        if self._waiting and self._guard is None:
            self._first = None
            self.open_guard()

    # -- leases ---------------------------------------------------------------------------------

    def lease(self, lessee: Lessee) -> None:
        """Stay for ``lessee``, beside all commands."""
        self._use()
        if self.life.is_fresh:
            self.grant(lessee)
        else:
            # Who is given a dead one cannot tell it from a slow host.
            self.life.prove(lessee)

    def grant(self, lessee: Lessee) -> None:
        """It works: ``lessee`` has it."""
        self.lessees.add(lessee)
        lessee.leased(self)

    def give_back(self, lessee: Lessee) -> None:
        """``lessee`` needs it no more."""
        self.lessees.discard(lessee)
        self._look_unused()

    def give_up_lease(self, lessee: Lessee) -> None:
        """Take back one that waits for the host to answer."""
        if lessee in self.life.unproven:
            self.life.unproven.remove(lessee)
            self._look_unused()

    # -- whether it is used ---------------------------------------------------------------------

    @property
    def idle(self) -> bool:
        """Nobody uses it."""
        return not (self.active or self.lessees or self.life.unproven)

    @property
    def is_kept(self) -> bool:
        """It is ready, and nobody uses it."""
        return self.state is State.READY and self.idle

    def _use(self) -> None:
        if self.is_kept:
            self._pool.on_used(self)

    def _look_unused(self) -> None:
        if self.is_kept:
            self._pool.on_unused(self)

    def stopped_answering(self, how: str) -> None:
        """It is lost, since nothing comes from the host.

        :param how: what was waited for
        """
        self.unanswering = True
        self._fail(Reason.CONNECT, f"{how}: is it frozen, or off?", None)

    # -- the end --------------------------------------------------------------------------------

    def close(self) -> None:
        """End it in good order: the guard is told."""
        if self._guard is not None:
            self._guard.dismiss()
        self._hang_up()

    def _on_lost(self) -> None:
        """The session is over: the host has ended it, the network has, or we have."""
        if self.state is State.OVER:
            return
        assert self._session is not None
        cause = self._session.get_exception()
        # The words may be those of the host.
        why = escape_controls(" ".join((self._session.wire.problem or str(cause or "")).split()))
        if self._login is not None:
            self._login.lost(why, cause)
        else:
            self._fail(Reason.CONNECT, f"the connection is lost{': ' if why else ''}{why}", cause)

    def _fail(self, reason: Reason, why: str, cause: BaseException | None) -> None:
        target = self.target
        name = target.name or target.address
        error = ProcessError(f"{name}: {why}", reason=reason, host=name)
        error.__cause__ = cause
        self.fail(error)

    def fail(self, error: ProcessError) -> None:
        """It could not be made, or is lost."""
        if self.state is State.OVER:
            return
        self.error = error
        was_ready = self.state is State.READY
        self._hang_up()
        for lessee in list(self.lessees):
            lessee.lost(error)
        self._pool.on_over(self, was_ready=was_ready)

    def _hang_up(self) -> None:
        self.state = State.OVER
        self._stop_deadline()
        self.life.stop()
        if self._login is not None:
            self._login.stop()
            self._login = None
        for timer in self._unanswered.values():
            timer.cancel()
        self._unanswered.clear()
        if self._session is not None:
            self._session.hang_up()

    def _stop_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    @property
    def waiting(self) -> Sequence[Command]:
        """Commands that wait for the guard."""
        return self._waiting
