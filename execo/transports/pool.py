"""The connections of this process: shared, limited in how many are set up at a time, reused.

Nothing limits how many commands run. What is limited is starting: connections whose set-up is
under way (it is work for this machine), logins under way at one address (a server hangs up on more
than ten, MaxStartups), commands on one connection (MaxSessions: there is another one then).
"""

from __future__ import annotations

import getpass
import socket
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING

from execo._core.child import raise_descriptor_limit
from execo._core.locks import fork_gate
from execo._core.runtime import Runtime
from execo.errors import ProcessError, Reason, SpawnError

from .base import Target
from .dial import Dial
from .ssh_connection import Command, SshConnection, State

if TYPE_CHECKING:
    from .keys import KeyRing
    from .known_hosts import KnownHostsFiles

__all__ = ["Pool"]

SETTING_UP = 64
"""Connections that are being set up at a time; as many again are being dialled."""

AT_ONE_ADDRESS = 8
"""Connections to one address that have not logged in yet: a server counts them (MaxStartups)."""


class _Host:
    """The connections with one target, and the commands that wait for one."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.connections: list[SshConnection] = []
        self.waiting: deque[Command] = deque()

    def count(self, *states: State) -> int:
        return sum(connection.state in states for connection in self.connections)


class Pool:
    """All on the I/O thread. ``close`` ends what there is."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.keys: KeyRing
        self.known_hosts: KnownHostsFiles
        self._loaded = False
        self._broken: BaseException | None = None
        self._hosts: dict[Target, _Host] = {}
        self._user: str | None = None
        self._dials: dict[SshConnection, Dial] = {}
        self._to_dial: deque[SshConnection] = deque()
        self._dialling: set[SshConnection] = set()  # those that are not silent
        self._spoke: deque[tuple[SshConnection, socket.socket]] = deque()
        self._setting_up: set[SshConnection] = set()
        self._raised = False
        self._loading = False

    def _load(self) -> None:
        """Load paramiko, and what stands on it. On a worker."""
        error: BaseException | None = None
        try:
            with fork_gate:
                from . import guard, keys, known_hosts

            assert guard is not None
            self.keys = keys.KeyRing(self.runtime)
            self.known_hosts = known_hosts.KnownHostsFiles(self.runtime)
        except Exception as exc:  # noqa: BLE001 - a broken installation fails in many ways
            error = exc
        self.runtime.loop.call_soon(self._on_loaded, error)

    def _on_loaded(self, error: BaseException | None) -> None:
        self._loaded = True
        self._broken = error
        self._advance()

    def user_of(self, target: Target) -> str:
        """The name to log in with."""
        if target.user is not None:
            return target.user
        if self._user is None:
            self._user = getpass.getuser()
        return self._user

    # -- commands -------------------------------------------------------------------------------

    def submit(self, commands: Iterable[Command]) -> None:
        """Run commands on connections to their targets, when there is one with room."""
        hosts: dict[_Host, None] = {}
        for command in commands:
            target = command.request.target
            assert target is not None
            host = self._hosts.get(target)
            if host is None:
                host = self._hosts[target] = _Host(target)
            host.waiting.append(command)
            hosts[host] = None
        for host in hosts:
            self._serve(host)
        self._advance()
        if not self._loading:
            # After the first are dialled: it takes a tenth of a second, in which these can answer,
            # and in which the I/O thread seldom gets the interpreter.
            self._loading = True
            self.runtime.workers.submit(self._load)

    def resubmit(self, command: Command, connection: SshConnection) -> None:
        """A command whose channel was refused, so that it has not run, goes to the front."""
        host = self._hosts[connection.target]
        host.waiting.appendleft(command)
        self._serve(host)
        self._advance()

    def give_up(self, command: Command) -> bool:
        """Take back a command that waits; False if it does not."""
        target = command.request.target
        host = None if target is None else self._hosts.get(target)
        if host is None:
            return False
        if command in host.waiting:
            host.waiting.remove(command)
            if not host.waiting:
                self._close_unused(host, State.DIALING)  # a silent host, most likely
            return True
        return any(connection.give_up(command) for connection in host.connections)

    def _serve(self, host: _Host) -> None:
        for connection in host.connections:
            while (
                host.waiting
                and connection.state is State.READY
                and (connection.busy < connection.room)
            ):
                connection.run(host.waiting.popleft())
        coming = [c for c in host.connections if c.state is not State.READY]
        missing = len(host.waiting) - sum(connection.room for connection in coming)
        while missing > 0 and len(coming) < AT_ONE_ADDRESS:
            connection = SshConnection(self, host.target)
            host.connections.append(connection)
            coming.append(connection)
            self._to_dial.append(connection)
            missing -= connection.room

    # -- setting up -----------------------------------------------------------------------------

    def _advance(self) -> None:
        """Begin as much as may be under way."""
        while self._spoke and self._loaded and len(self._setting_up) < SETTING_UP:
            connection, sock = self._spoke.popleft()
            if connection.state is State.OVER:
                sock.close()
                continue
            if self._broken is not None:
                sock.close()
                connection.fail(_unusable(self._broken))
                continue
            self._setting_up.add(connection)
            connection.set_up(sock)
        while self._to_dial and len(self._dialling) + len(self._spoke) < SETTING_UP:
            connection = self._to_dial.popleft()
            if connection.state is not State.OVER:
                self._dial(connection)

    def _dial(self, connection: SshConnection) -> None:
        self._dialling.add(connection)
        dial = Dial(
            self.runtime,
            connection.target,
            on_ready=lambda sock: self._on_spoke(connection, sock),
            on_failed=lambda error: self._on_dial_failed(connection, error),
            on_silent=lambda: self._on_silent(connection),
            make_room=self._make_room,
        )
        self._dials[connection] = dial
        dial.start()

    def _on_silent(self, connection: SshConnection) -> None:
        # It may be silent for ever: the others go on.
        self._dialling.discard(connection)
        self._advance()

    def _on_spoke(self, connection: SshConnection, sock: socket.socket) -> None:
        self._dialling.discard(connection)
        del self._dials[connection]
        self._spoke.append((connection, sock))
        self._advance()

    def _on_dial_failed(self, connection: SshConnection, error: ProcessError) -> None:
        self._dialling.discard(connection)
        self._dials.pop(connection, None)
        connection.fail(error)

    def _make_room(self) -> None:
        """The system has no descriptor left."""
        if not self._raised:
            self._raised = True
            raise_descriptor_limit()
        else:
            self.close_idle()

    def close_idle(self) -> None:
        """Close the connections that no command uses, and those that no command waits for."""
        for host in list(self._hosts.values()):
            if host.waiting:
                self._close_unused(host, State.READY)
            else:
                self._close_unused(host, *State)

    def _close_unused(self, host: _Host, *states: State) -> None:
        for connection in list(host.connections):
            if connection.state in states and not connection.active:
                host.connections.remove(connection)
                dial = self._dials.pop(connection, None)
                if dial is not None:
                    dial.cancel()
                self._dialling.discard(connection)
                self._setting_up.discard(connection)
                connection.close()
        if not host.connections and not host.waiting:
            self._hosts.pop(host.target, None)
        self._advance()

    # -- what connections tell ------------------------------------------------------------------

    def on_ready(self, connection: SshConnection) -> None:
        """It is logged in."""
        self._setting_up.discard(connection)
        self._serve(self._hosts[connection.target])
        self._advance()

    def on_room(self, connection: SshConnection) -> None:
        """A command has ended on it."""
        host = self._hosts.get(connection.target)
        if host is not None and host.waiting:
            self._serve(host)
            self._advance()

    def on_over(self, connection: SshConnection, *, was_ready: bool) -> None:
        """It could not be made, or is lost."""
        self._setting_up.discard(connection)
        self._dialling.discard(connection)
        host = self._hosts.get(connection.target)
        if host is None:
            return  # all were closed
        if connection in host.connections:
            host.connections.remove(connection)
        # Those that wait for its guard have not run: another connection may run them.
        host.waiting.extendleft(reversed(connection.waiting))
        error = connection.error
        assert error is not None
        hopeless = not host.connections or error.reason is not Reason.CONNECT
        if not was_ready and hopeless and not host.count(State.READY):
            waiting, host.waiting = host.waiting, deque()
            for command in waiting:
                command.refuse(error)
        if not host.connections and not host.waiting:
            self._hosts.pop(host.target, None)
        else:
            self._serve(host)
        self._advance()

    # -- the end --------------------------------------------------------------------------------

    def close(self) -> None:
        """End all connections."""
        for dial in self._dials.values():
            dial.cancel()
        self._dials.clear()
        for _, sock in self._spoke:
            sock.close()
        self._spoke.clear()
        for host in self._hosts.values():
            for connection in host.connections:
                connection.close()
        self._hosts.clear()


def _unusable(cause: BaseException) -> SpawnError:
    error = SpawnError(f"paramiko cannot be loaded: {cause}; install it: pip install paramiko")
    error.__cause__ = cause
    return error
