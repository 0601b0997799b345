"""One SSH connection to a host: from the first packet to the last, and the commands on it.

::

    DIALING ──> KEYS ──> LOGIN ──> READY ──> OVER
                 (session set-up)

The first command is sent as it is as soon as the connection is ready, and the guard right behind
it. Until the guard has said what the login shell is, other commands wait; from then on each bears
a mark by which the guard finds its processes. Where no guard can be, commands are sent as they are.
"""

from __future__ import annotations

import enum
import secrets
import socket
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from execo._core.runtime import Runtime
from execo.errors import ProcessError, Reason

from .base import Exec, Target
from .dial import known_name
from .remote_shell import Hello, Mark
from .wire import Wire

if TYPE_CHECKING:
    from asyncio import TimerHandle

    from .guard import Guard
    from .keys import Identity, Keys
    from .known_hosts import KnownHosts
    from .pool import Pool
    from .session import Session

__all__ = ["Command", "SshConnection", "State"]

SESSIONS = 10
"""Channels of one connection at the most: what a server allows by default (MaxSessions)."""


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

    def send(self, connection: SshConnection, number: int, mark: Mark | None, posix: bool) -> None:
        """Open a channel on this connection and run there."""

    def refuse(self, error: ProcessError) -> None:
        """It will not run: ``error`` is what happened to its host."""


class SshConnection:
    """One connection to ``target``. All on the I/O thread.

    :param pool: told when it is ready, over, or has room again
    """

    def __init__(self, pool: Pool, target: Target) -> None:
        self.target = target
        self.runtime: Runtime = pool.runtime
        self.state = State.DIALING
        self.busy = 0  # channels of commands that are open or being opened
        self.active = 0  # of these, commands that have not ended
        self.room = SESSIONS - 1  # one is the guard's
        self.error: ProcessError | None = None
        self._pool = pool
        self._session: Session | None = None
        self._deadline: TimerHandle | None = None
        self._identities: deque[Identity] = deque()
        self._tried: list[str] = []
        self._problems: tuple[str, ...] = ()
        self._guard: Guard | None = None
        self._hello: Hello | None = None
        self._plain = not target.options.guard
        self._nonce = secrets.token_hex(6)
        self._number = 0
        self._first_ended = False
        self._waiting: deque[Command] = deque()
        self._unanswered: dict[Command, TimerHandle] = {}

    # -- keys and login -------------------------------------------------------------------------

    def set_up(self, sock: socket.socket) -> None:
        """Agree on keys over a connected socket, and log in."""
        from .session import Session  # see Pool

        loop = self.runtime.loop
        self.state = State.KEYS
        self._session = Session(loop, Wire(loop, sock), self._on_lost)
        timeout = self.target.options.connect_timeout
        if timeout is not None:
            self._deadline = loop.call_later(timeout, self._on_timeout)
        if self.target.options.host_key_policy == "off":
            self._start(None)
        else:
            self._pool.known_hosts.get(self.target.options.known_hosts, self._start)

    def _start(self, known: KnownHosts | None) -> None:
        session = self._session
        if session is None or self.state is not State.KEYS:
            return
        from .session import Event

        if known is not None:
            session.prefer_key_types(known.keys_of(known_name(self.target)))
        try:
            session.start_client(event=Event(self.runtime.loop, lambda: self._on_keys(known)))
        except RuntimeError as exc:  # no thread can be started
            session.hang_up()
            self._fail(Reason.CONNECT, f"no thread can be started for it: {exc}", exc)

    def _on_keys(self, known: KnownHosts | None) -> None:
        session = self._session
        if session is None or self.state is not State.KEYS or not session.is_active():
            return  # lost: that is told apart
        if known is not None:
            key = session.get_remote_server_key()
            name = known_name(self.target)
            strict = self.target.options.host_key_policy == "strict"
            problem = known.problem(name, key, strict=strict)
            if problem is not None:
                self._fail(Reason.HOST_KEY, problem, None)
                return
            if known.add(name, key):
                self.runtime.workers.submit(known.write, name, key)
        self.state = State.LOGIN
        self._pool.keys.get(self.target.keyfile, self._on_identities)

    def _on_identities(self, keys: Keys) -> None:
        self._identities.extend(keys.identities)
        self._problems = keys.problems
        self._try_key()

    def _try_key(self) -> None:
        session = self._session
        if session is None or self.state is not State.LOGIN:
            return
        if not self._identities:
            self._refuse_login()
            return
        from .session import Event

        identity = self._identities.popleft()
        self._tried.append(identity.source)
        try:
            session.auth_publickey(
                self._pool.user_of(self.target),
                identity.key,
                Event(self.runtime.loop, self._on_login),
            )
        except Exception as exc:  # noqa: BLE001 - lost in this moment: that is told apart
            if session.is_active():
                self._fail(Reason.AUTH, f"{identity.source} cannot be used: {exc}", exc)

    def _on_login(self) -> None:
        session = self._session
        if session is None or self.state is not State.LOGIN or not session.is_active():
            return
        if not session.is_authenticated():
            self._try_key()
            return
        self.state = State.READY
        self._stop_deadline()
        self._pool.on_ready(self)

    def _refuse_login(self) -> None:
        user = self._pool.user_of(self.target)
        tried = f"it refused {', '.join(self._tried)}" if self._tried else "there is no key to try"
        problems = f" ({'; '.join(self._problems)})" if self._problems else ""
        text = f"cannot log in as {user!r}: {tried}{problems}; set keyfile or user"
        self._fail(Reason.AUTH, text, None)

    # -- commands -------------------------------------------------------------------------------

    @property
    def session(self) -> Session:
        """The session of a connection that is ready."""
        assert self._session is not None
        return self._session

    def run(self, command: Command) -> None:
        """Run a command: at once, or when the guard has said what it has to look like."""
        self.busy += 1
        self.active += 1
        request = command.request
        first = self._number == 0 and self._guard is None and not self._plain
        if self._plain:
            command.send(self, -1, None, False)
        elif self._hello is not None:
            self._send_marked(command)
        elif first and not (request.cwd or request.env or request.detach):
            # The one command that bears no mark: it is told apart by having none.
            self._number = 1
            command.send(self, 0, None, False)
        else:
            if first:
                self._first_ended = True
                self.open_guard()
            self._waiting.append(command)

    def open_guard(self) -> None:
        """The first command has gone out: have the guard follow."""
        if self._guard is None and not self._plain and self.state is State.READY:
            from .guard import Guard

            self._number = max(self._number, 1)
            self._guard = Guard(self.session, self._nonce, self._on_guard)
            if self._first_ended:
                self._guard.first_ended()
            timeout = self.target.options.connect_timeout
            if timeout is not None:
                self._deadline = self.runtime.loop.call_later(timeout, self._guard.give_up)

    def _on_guard(self, hello: Hello | None) -> None:
        self._stop_deadline()
        self._hello = hello
        self._plain = hello is None
        if hello is None:
            self.room += 1
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
            timer = self.runtime.loop.call_later(timeout, self._on_no_answer)
            self._unanswered[command] = timer

    def answered(self, command: Command) -> None:
        """The host has said whether a command runs."""
        timer = self._unanswered.pop(command, None)
        if timer is not None:
            timer.cancel()

    def _on_no_answer(self) -> None:
        # A connection that was kept may be dead without a word: the host has lost its power.
        if self.state is State.READY:
            seconds = self.target.options.connect_timeout
            text = f"it has not answered for {seconds:g} s (connect_timeout): is it frozen, or off?"
            self._fail(Reason.CONNECT, text, None)

    def give_up(self, command: Command) -> bool:
        """Take back a command that waits for the guard; False if it does not."""
        if command not in self._waiting:
            return False
        self._waiting.remove(command)
        self.active -= 1
        self.finished()
        return True

    def signal(self, number: int, command: int, *, group: bool = True) -> bool:
        """Have the guard signal a command; False if there is none that can."""
        guard = self._guard
        if command < 0 or guard is None or self._plain:
            return False
        if self._hello is not None and not guard.works:
            return False
        guard.kill(number, command, group=group)
        return True

    def exited(self, command: int) -> None:
        """A command has exited, and what it has left behind was left on purpose."""
        if command == 0 and not self._first_ended:
            self._first_ended = True
            if self._guard is not None:
                self._guard.first_ended()

    def finished(self) -> None:
        """The channel of a command is free again."""
        self.busy -= 1
        self._pool.on_room(self)

    def refused_channel(self) -> None:
        """The host opens no more channels: that is as many as it takes."""
        self.busy -= 1
        self.active -= 1
        self.room = max(1, self.busy)

    # -- the end --------------------------------------------------------------------------------

    def close(self) -> None:
        """End it in good order: the guard is told."""
        if self._guard is not None:
            self._guard.dismiss()
        self._hang_up()

    def _on_timeout(self) -> None:
        seconds = self.target.options.connect_timeout
        if self.state is State.KEYS:
            text = f"no keys were agreed on within {seconds:g} s (connect_timeout)"
            self._fail(Reason.CONNECT, text, None)
        else:
            text = f"it has not let us in within {seconds:g} s (connect_timeout)"
            self._fail(Reason.AUTH, text, None)

    def _on_lost(self) -> None:
        """The session is over: the host has ended it, the network has, or we have."""
        if self.state is State.OVER:
            return
        assert self._session is not None
        cause = self._session.get_exception()
        why = str(cause or "").strip()
        if self.state is State.KEYS:
            self._fail(Reason.CONNECT, _no_keys(why), cause)
        elif self.state is State.LOGIN:
            tried = f" after {', '.join(self._tried)}" if self._tried else ""
            self._fail(Reason.AUTH, f"it hung up during the login{tried}", cause)
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
        self.error = error
        was_ready = self.state is State.READY
        self._hang_up()
        self._pool.on_over(self, was_ready=was_ready)

    def _hang_up(self) -> None:
        self.state = State.OVER
        self._stop_deadline()
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


def _no_keys(why: str) -> str:
    if "banner" in why or "protocol version" in why:
        return f"what answers there does not speak SSH ({why})"
    if "Incompatible" in why or "no acceptable" in why:
        return f"no common algorithm: {why}; set transport to 'openssh' to reach very old servers"
    return f"it hung up while keys were agreed on{f' ({why})' if why else ''}"
