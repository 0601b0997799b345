"""The connections of this process: shared, limited in how many are set up at a time, reused.

Nothing limits how many commands run. What is limited is starting: connections whose set-up is
under way (it is work for this machine), logins under way at one target (a server hangs up on more
than ten, MaxStartups), commands on one connection (MaxSessions: there is another one then), and
open connections, by the descriptors of this process.
"""

from __future__ import annotations

import resource
import socket
from collections import deque
from collections.abc import Iterable
from typing import TYPE_CHECKING

from execo._core.child import raise_descriptor_limit
from execo._core.locks import fork_gate
from execo._core.runtime import Runtime
from execo.errors import ProcessError, Reason, SpawnError
from execo.log import logger

from .base import Target
from .dial import Dial
from .ssh_connection import SESSIONS, Command, Lessee, SshConnection, State
from .wire import Wire

if TYPE_CHECKING:
    from .asking import Asker
    from .keys import KeyRing
    from .known_hosts import KnownHostsFiles

__all__ = ["Pool"]

SETTING_UP = 64
"""Connections that are being set up at a time; as many again are being dialled."""

AT_ONE_TARGET = 8
"""Connections to one target that have not logged in yet: a server counts them (MaxStartups)."""

RESERVE = 32
"""Descriptors, and an eighth of all beside, that are left to the rest of the program."""

_ANNOUNCE_AFTER = 5.0
_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 60.0


class _Host:
    """The connections with one target, and the commands and lessees that wait for one."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.connections: list[SshConnection] = []
        self.waiting: deque[Command] = deque()
        self.lessees: deque[Lessee] = deque()
        self.room = SESSIONS - 1
        self.barred = False  # no further connection for now: the last one could not be made
        self.pause = _FIRST_PAUSE

    @property
    def wanted(self) -> bool:
        """Somebody waits for a connection."""
        return bool(self.waiting or self.lessees)


class Pool:
    """All on the I/O thread, save ``_load`` (a worker). ``close`` ends what there is."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.asker: Asker
        self.keys: KeyRing
        self.known_hosts: KnownHostsFiles
        self._loading = False
        self._loaded = False
        self._hosts: dict[Target, _Host] = {}
        self._to_dial: deque[SshConnection] = deque()
        self._dials: dict[SshConnection, Dial] = {}
        self._dialling: set[SshConnection] = set()  # those that are not silent
        self._spoke: deque[tuple[SshConnection, Wire]] = deque()
        self._setting_up: set[SshConnection] = set()
        self._open: set[SshConnection] = set()  # those that hold a descriptor, or soon will
        self._raised = False
        self._announcing = False

    # -- paramiko -------------------------------------------------------------------------------

    def _load(self) -> None:
        error: Exception | None = None
        try:
            with fork_gate:
                from . import asking, guard, keys, known_hosts, ssh_login

            assert guard is not None and ssh_login is not None
            self.asker = asking.Asker(self.runtime)
            self.keys = keys.KeyRing(self.runtime, self.asker)
            self.known_hosts = known_hosts.KnownHostsFiles(self.runtime)
        except Exception as exc:  # noqa: BLE001 - a broken installation fails in many ways
            error = exc
        self.runtime.loop.call_soon(self._on_loaded, error)

    def _on_loaded(self, error: Exception | None) -> None:
        self._loading = self._loaded = error is None
        if error is not None:
            # Those that are here have lost; the next one tries again.
            problem = SpawnError(f"paramiko cannot be loaded: {error} (pip install paramiko)")
            problem.__cause__ = error
            for connection in list(self._open) + list(self._to_dial):
                connection.fail(problem)
        self._advance()

    # -- commands -------------------------------------------------------------------------------

    def submit(self, commands: Iterable[Command]) -> None:
        """Run commands on connections to their targets, when there is one with room."""
        self._begin({self._add(command, first=False): None for command in commands})

    def lease(self, lessees: Iterable[Lessee]) -> None:
        """Give each a connection to its target, when there is one: however many commands it runs,
        since what is carried beside them is no session (MaxSessions)."""
        hosts: dict[_Host, None] = {}
        for lessee in lessees:
            host = self._host(lessee.target)
            host.lessees.append(lessee)
            hosts[host] = None
        self._begin(hosts)

    def _begin(self, hosts: Iterable[_Host]) -> None:
        for host in hosts:
            try:
                self._serve(host)
            except Exception as exc:  # whatever it is must not keep the other hosts waiting
                logger.exception("internal error with %s", host.target.name)
                self._refuse_all(host, SpawnError(f"internal error: {exc}"))
        self._advance()
        if not self._loading:
            # After the first are dialled: it takes a tenth of a second, in which these can answer,
            # and in which the I/O thread seldom gets the interpreter.
            self._loading = True
            self.runtime.workers.submit(self._load)

    def resubmit(self, command: Command) -> None:
        """A command that has certainly not run goes to the front."""
        self.runtime.loop.call_soon(self._serve_soon, self._add(command, first=True))

    def _add(self, command: Command, *, first: bool) -> _Host:
        target = command.request.target
        assert target is not None
        host = self._host(target)
        if first:
            host.waiting.appendleft(command)
        else:
            host.waiting.append(command)
        return host

    def _host(self, target: Target) -> _Host:
        host = self._hosts.get(target)
        if host is None:
            host = self._hosts[target] = _Host(target)
        return host

    def give_up(self, command: Command) -> bool:
        """Take back a command that waits; False if it does not."""
        target = command.request.target
        host = None if target is None else self._hosts.get(target)
        if host is None:
            return False
        if command in host.waiting:
            host.waiting.remove(command)
            self._look_unwanted(host)
            return True
        return any(connection.give_up(command) for connection in host.connections)

    def give_up_lease(self, lessee: Lessee) -> None:
        """Take back one that waits."""
        host = self._hosts.get(lessee.target)
        if host is not None and lessee in host.lessees:
            host.lessees.remove(lessee)
            self._look_unwanted(host)

    def _look_unwanted(self, host: _Host) -> None:
        if not host.wanted:
            self._close_unused(host, State.DIALING)  # a silent host, most likely

    def _refuse_all(self, host: _Host, error: ProcessError) -> None:
        waiting, host.waiting = host.waiting, deque()
        for command in waiting:
            command.refuse(error)
        lessees, host.lessees = host.lessees, deque()
        for lessee in lessees:
            lessee.refuse(error)

    def _serve_soon(self, host: _Host) -> None:
        if self._hosts.get(host.target) is host:
            self._serve(host)
        self._advance()

    def _serve(self, host: _Host) -> None:
        for connection in host.connections:
            while host.waiting and connection.has_room:
                connection.run(host.waiting.popleft())
        ready = [c for c in host.connections if c.state is State.READY]
        while host.lessees and ready:
            ready[0].lease(host.lessees.popleft())
        coming = [c for c in host.connections if c.state is not State.READY]
        missing = len(host.waiting) - sum(connection.room for connection in coming)
        if host.lessees and not coming:
            missing = max(missing, 1)
        while missing > 0 and len(coming) < AT_ONE_TARGET and not host.barred:
            connection = SshConnection(self, host.target, host.room)
            host.connections.append(connection)
            coming.append(connection)
            self._to_dial.append(connection)
            missing -= connection.room

    # -- setting up -----------------------------------------------------------------------------

    def _advance(self) -> None:
        """Begin as much as may be under way."""
        while self._spoke and self._loaded and len(self._setting_up) < SETTING_UP:
            connection, wire = self._spoke.popleft()
            self._setting_up.add(connection)
            connection.set_up(wire)
        while self._to_dial and len(self._dialling) + len(self._spoke) < SETTING_UP:
            if not self._may_open():
                self._announce_later()
                return  # until one of the others is of no more use
            connection = self._to_dial.popleft()
            if connection.state is State.DIALING:
                self._dial(connection)

    def _may_open(self) -> bool:
        """Whether there are descriptors for one more connection; closes those that are idle."""
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        if len(self._open) < max(4, limit - limit // 8 - RESERVE):
            return True
        if not self._raised:
            self._raised = True
            raise_descriptor_limit()
            return self._may_open()
        for host in list(self._hosts.values()):
            if not host.wanted and self._close_unused(host, State.READY):
                return True
        return False

    def _announce_later(self) -> None:
        if not self._announcing:
            self._announcing = True
            self.runtime.loop.call_later(_ANNOUNCE_AFTER, self._announce)

    def _announce(self) -> None:
        self._announcing = False
        if self._to_dial and not self._may_open():
            self.runtime.sweeper.submit(
                logger.warning,
                "%d connections wait for free descriptors beside %d; they are made as others end. "
                "Raise the limit (ulimit -n) to have more at once",
                len(self._to_dial),
                len(self._open),
            )

    def _dial(self, connection: SshConnection) -> None:
        self._open.add(connection)
        self._dialling.add(connection)
        dial = self._dials[connection] = Dial(
            self.runtime,
            connection.target,
            on_ready=lambda sock: self._on_spoke(connection, sock),
            on_failed=lambda error: self._on_dial_failed(connection, error),
            on_silent=lambda: self._on_silent(connection),
        )
        dial.start()

    def _on_silent(self, connection: SshConnection) -> None:
        # It may be silent for ever: the others go on.
        self._dialling.discard(connection)
        self._advance()

    def _on_spoke(self, connection: SshConnection, sock: socket.socket) -> None:
        self._dialling.discard(connection)
        del self._dials[connection]
        self._spoke.append((connection, Wire(self.runtime.loop, sock)))
        self._advance()

    def _on_dial_failed(self, connection: SshConnection, error: ProcessError) -> None:
        connection.fail(error)

    # -- what connections tell ------------------------------------------------------------------

    def on_ready(self, connection: SshConnection) -> None:
        """It is logged in."""
        self._setting_up.discard(connection)
        host = self._hosts[connection.target]
        host.pause = _FIRST_PAUSE
        self._serve(host)
        self._advance()

    def on_room(self, connection: SshConnection) -> None:
        """A command has ended on it."""
        host = self._hosts.get(connection.target)
        if host is not None and (host.waiting or self._to_dial):
            # Not within the call: the next command may end at once, too.
            self.runtime.loop.call_soon(self._serve_soon, host)

    def learn_room(self, connection: SshConnection) -> None:
        """The server opens no more channels than that on a connection."""
        host = self._hosts.get(connection.target)
        if host is not None:
            host.room = connection.room

    def on_over(self, connection: SshConnection, *, was_ready: bool) -> None:
        """It could not be made, or is lost."""
        self._forget(connection)
        host = self._hosts.get(connection.target)
        error = connection.error
        if host is None or error is None:
            return  # all were closed
        if connection in host.connections:
            host.connections.remove(connection)
        for command in reversed(connection.waiting):
            # Those that wait for its guard have not run: another connection may run them, once.
            command.tries += 1
            if command.tries > 1:
                command.refuse(error)
            else:
                host.waiting.appendleft(command)
        if was_ready:
            host.barred = False
        elif not host.connections:
            self._refuse_all(host, error)
        else:
            self._bar(host, error)
        if host.connections or host.wanted:
            self._serve(host)
        else:
            del self._hosts[host.target]
        self._advance()

    def _bar(self, host: _Host, error: ProcessError) -> None:
        """Others serve the host: another one is not tried again before a while, which grows, and
        not at all where it is not let in."""
        host.barred = True
        if error.reason is Reason.CONNECT:
            self.runtime.loop.call_later(host.pause, self._unbar, host)
            host.pause = min(host.pause * 2, _LONGEST_PAUSE)

    def _unbar(self, host: _Host) -> None:
        host.barred = False
        self._serve_soon(host)

    def _forget(self, connection: SshConnection) -> None:
        self._open.discard(connection)
        self._dialling.discard(connection)
        self._setting_up.discard(connection)
        dial = self._dials.pop(connection, None)
        if dial is not None:
            dial.cancel()
        for entry in list(self._spoke):
            if entry[0] is connection:
                self._spoke.remove(entry)
                entry[1].close()

    # -- the end --------------------------------------------------------------------------------

    def close_idle(self) -> None:
        """Close the connections that no command uses, and those that no command waits for."""
        for host in list(self._hosts.values()):
            if host.wanted:
                self._close_unused(host, State.READY)
            else:
                self._close_unused(host, *State)
        self._advance()

    def _close_unused(self, host: _Host, *states: State) -> bool:
        """Close those in ``states`` that nobody uses; whether there were any."""
        unused = [c for c in host.connections if c.state in states and c.idle]
        for connection in unused:
            host.connections.remove(connection)
            self._forget(connection)
            connection.close()
        if not host.connections and not host.wanted:
            self._hosts.pop(host.target, None)
        return bool(unused)

    def close(self) -> None:
        """End all connections."""
        hosts, self._hosts = self._hosts, {}
        self._to_dial.clear()
        for host in hosts.values():
            for connection in host.connections:
                self._forget(connection)
                connection.close()
