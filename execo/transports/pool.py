"""The connections of this process: shared, reused, replaced when they are lost.

Nothing limits how many commands run. What is limited is starting, see
:mod:`~execo.transports.set_ups`, and commands on one connection (MaxSessions: there is another one
then).
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING

from execo._core.child import raise_descriptor_limit
from execo._core.locks import fork_gate
from execo._core.runtime import Runtime
from execo.errors import ProcessError, Reason, SpawnError
from execo.log import logger

from .base import Target
from .counters import Counters
from .dial import Dial, DialListener, TcpDial
from .dial_through import ThroughDial, Way
from .pooled_host import FIRST_PAUSE, BehindGateway, PooledHost
from .set_ups import AT_ONE_PLACE, SetUps, descriptors
from .ssh_connection import Command, Lessee, SshConnection, State
from .upkeep import Upkeep

if TYPE_CHECKING:
    from .asking import Asker
    from .keys import KeyRing
    from .known_hosts import KnownHostsFiles

__all__ = ["Pool"]

RESERVE = 32
"""Descriptors, and an eighth of all beside, that are left to the rest of the program."""

_MOST_BEREFT = 10_000
"""Hosts that are remembered to count those that come back: some never do."""

_LONGEST_PAUSE = 60.0


class Pool:
    """All on the I/O thread, save ``_load`` (a worker). ``close`` ends what there is.

    :param way_to: what leads to a target that is not reached directly
    """

    def __init__(self, runtime: Runtime, way_to: Callable[[Target], Way]) -> None:
        self.runtime = runtime
        self.counters = Counters()
        self.asker: Asker
        self.keys: KeyRing
        self.known_hosts: KnownHostsFiles
        self._loading = False
        self._hosts: dict[Target, PooledHost] = {}
        self._way_to = way_to
        self._behind: dict[SshConnection, BehindGateway] = {}
        self._kept: dict[SshConnection, None] = {}  # that nobody uses, for the longest time first
        # That have lost a connection, and have no new one yet.
        self._bereft: dict[Target, None] = {}
        self._raised = False
        self._set_ups = SetUps(
            runtime, self.counters, make_dial=self._make_dial, make_room=self._may_open
        )
        self._upkeep = Upkeep(runtime.loop, close=self._close_unneeded, lose=self._lose)

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
        self._loading = self._set_ups.loaded = error is None
        if error is not None:
            # Those that are here have lost; the next one tries again.
            problem = SpawnError(f"paramiko cannot be loaded: {error} (pip install paramiko)")
            problem.__cause__ = error
            for connection in self._set_ups.all():
                connection.fail(problem)
        self._set_ups.advance()

    # -- commands -------------------------------------------------------------------------------

    def submit(self, commands: Iterable[Command]) -> None:
        """Run commands on connections to their targets, when there is one with room."""
        self._begin({self._add(command, first=False): None for command in commands})

    def lease(self, lessees: Iterable[Lessee]) -> None:
        """Give each a connection to its target, when there is one: however many commands it runs,
        since what is carried beside them is no session (MaxSessions)."""
        hosts: dict[PooledHost, None] = {}
        for lessee in lessees:
            host = self._host(lessee.target)
            host.lessees.append(lessee)
            hosts[host] = None
        self._begin(hosts)

    def _begin(self, hosts: Iterable[PooledHost]) -> None:
        for host in hosts:
            try:
                self._serve(host)
            except Exception as exc:  # whatever it is must not keep the other hosts waiting
                logger.exception("internal error with %s", host.target.name)
                host.refuse_all(SpawnError(f"internal error: {exc}"))
        self._set_ups.advance()
        if not self._loading:
            # After the first are dialled: it takes a tenth of a second, in which these can answer,
            # and in which the I/O thread seldom gets the interpreter.
            self._loading = True
            self.runtime.workers.submit(self._load)

    def resubmit(self, command: Command) -> None:
        """A command that has certainly not run goes to the front."""
        self.counters.resubmitted += 1
        self.runtime.loop.call_soon(self._serve_soon, self._add(command, first=True))

    def _add(self, command: Command, *, first: bool) -> PooledHost:
        target = command.request.target
        assert target is not None
        host = self._host(target)
        if first:
            host.waiting.appendleft(command)
        else:
            host.waiting.append(command)
        return host

    def _host(self, target: Target) -> PooledHost:
        host = self._hosts.get(target)
        if host is None:
            host = self._hosts[target] = PooledHost(target)
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
        if host is None:
            return
        if lessee in host.lessees:
            host.lessees.remove(lessee)
            self._look_unwanted(host)
        for connection in host.connections:
            connection.give_up_lease(lessee)

    def _look_unwanted(self, host: PooledHost) -> None:
        if not host.wanted:
            # A host that is silent, most likely, or one for which somebody would be asked.
            self._close_unused(host, State.DIALING, State.KEYS, State.LOGIN)

    def _serve_soon(self, host: PooledHost) -> None:
        if self._hosts.get(host.target) is host:
            self._serve(host)
        self._set_ups.advance()

    def _serve(self, host: PooledHost) -> None:
        for connection in host.connections:
            while host.waiting and connection.has_room:
                connection.run(host.waiting.popleft())
        # One of which others were lost in silence has to be heard of first.
        ready = [c for c in host.connections if c.state is State.READY and c.life.trusted]
        while host.lessees and ready:
            ready[0].lease(host.lessees.popleft())
        coming = [c for c in host.connections if c.state is not State.READY]
        missing = len(host.waiting) - sum(connection.room for connection in coming)
        if host.lessees and not coming:
            missing = max(missing, 1)
        while missing > 0 and len(coming) < AT_ONE_PLACE and not host.barred:
            connection = SshConnection(self, host.target, host.room)
            host.connections.append(connection)
            coming.append(connection)
            missing -= connection.room
            self._reach(connection)

    # -- reaching hosts -------------------------------------------------------------------------

    def _reach(self, connection: SshConnection) -> None:
        gateway = connection.target.via
        if gateway is None or connection.target.proxy_command is not None:
            self._set_ups.enqueue(connection)
            return
        # Before its turn comes: a gateway that is not there must not hold up others, and all that
        # are behind it are to fail at once.
        behind = self._behind[connection] = BehindGateway(
            connection, gateway, partial(self._reachable, connection)
        )
        host = self._host(gateway)
        host.lessees.append(behind)
        self.runtime.loop.call_soon(self._serve_soon, host)

    def _reachable(self, connection: SshConnection) -> None:
        """The gateway of a connection is ready."""
        self._behind.pop(connection, None)
        if connection.state is State.DIALING:
            self._set_ups.enqueue(connection)
            self.runtime.loop.call_soon(self._set_ups.advance)

    def _make_dial(self, connection: SshConnection, listener: DialListener) -> Dial:
        target = connection.target
        if target.via is None and target.proxy_command is None:
            return TcpDial(self.runtime, target, listener)
        return ThroughDial(self.runtime, target, listener, self._way_to(target))

    def _may_open(self) -> bool:
        """Whether there are descriptors for one more connection; closes those that are idle."""
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        if self._set_ups.descriptors < max(4, limit - limit // 8 - RESERVE):
            return True
        if not self._raised:
            self._raised = True
            raise_descriptor_limit()
            return self._may_open()
        for connection in self._kept:
            host = self._hosts.get(connection.target)
            if host is not None and not host.wanted and descriptors(connection):
                self._close(host, [connection])
                return True
        return False

    # -- what connections tell ------------------------------------------------------------------

    def on_ready(self, connection: SshConnection) -> None:
        """It is logged in."""
        self._set_ups.done(connection)
        self.counters.made += 1
        connection.ready_since = time.monotonic()
        if connection.target in self._bereft:
            del self._bereft[connection.target]
            self.counters.replaced += 1
        host = self._hosts[connection.target]
        host.pause = FIRST_PAUSE
        self._serve(host)
        if connection.is_kept:
            self.on_unused(connection)
        self._set_ups.advance()

    def on_used(self, connection: SshConnection) -> None:
        """Somebody uses it, whom nobody has used."""
        self._kept.pop(connection, None)
        self._upkeep.use(connection)

    def on_unused(self, connection: SshConnection) -> None:
        """Nobody uses it any more."""
        self._kept[connection] = None
        self._upkeep.leave(connection)

    def on_room(self, connection: SshConnection) -> None:
        """A command has ended on it."""
        host = self._hosts.get(connection.target)
        if host is not None and (host.waiting or self._set_ups.wanting):
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
        if was_ready:
            self.counters.lost += 1
            self._bereft[host.target] = None
            if len(self._bereft) > _MOST_BEREFT:
                del self._bereft[next(iter(self._bereft))]
        else:
            self.counters.count_failure(error.reason)
        if connection in host.connections:
            host.connections.remove(connection)
        host.lessees.extendleft(reversed(connection.life.unproven))
        for command in reversed(connection.waiting):
            # Those that wait for its guard have not run.
            if command.may_go_again(connection):
                self.counters.resubmitted += 1
                host.waiting.appendleft(command)
            else:
                command.refuse(error)
        if connection.unanswering:
            self._distrust(host)
        if was_ready:
            host.barred = False
        elif not host.connections:
            host.refuse_all(error)
        else:
            self._bar(host, error)
        if host.connections or host.wanted:
            self._serve(host)
        else:
            self._hosts.pop(host.target, None)
        self._set_ups.advance()

    def _bar(self, host: PooledHost, error: ProcessError) -> None:
        """Others serve the host: another one is not tried again before a while, which grows, and
        not at all where it is not let in."""
        host.barred = True
        if error.reason is Reason.CONNECT:
            self.runtime.loop.call_later(host.pause, self._unbar, host)
            host.pause = min(host.pause * 2, _LONGEST_PAUSE)

    def _unbar(self, host: PooledHost) -> None:
        host.barred = False
        self._serve_soon(host)

    def _distrust(self, host: PooledHost) -> None:
        """One connection was lost without a word. Those that are idle may be as dead: the next
        command is not to find out one after the other."""
        self._close_unused(host, State.READY)
        for connection in host.connections:
            connection.life.distrust()

    def _lose(self, connection: SshConnection, silence: float) -> None:
        if connection.state is State.READY:
            self.counters.keepalive_losses += 1
            connection.stopped_answering(f"it has not answered for {silence:.1f} s (keepalive)")

    def _forget(self, connection: SshConnection) -> None:
        self._kept.pop(connection, None)
        self._upkeep.forget(connection)
        self._set_ups.forget(connection)
        behind = self._behind.pop(connection, None)
        if behind is not None:
            self.give_up_lease(behind)

    # -- the end --------------------------------------------------------------------------------

    def close_idle(self) -> None:
        """Close the connections that no command uses, and those that no command waits for."""
        for host in self._outermost_last():
            if host.wanted:
                self._close_unused(host, State.READY)
            else:
                self._close_unused(host, *State)
        self._set_ups.advance()

    def _outermost_last(self) -> list[PooledHost]:
        """The hosts, those behind others first: a farewell goes by way of the gateway."""
        return sorted(self._hosts.values(), key=lambda host: -host.target.hops)

    def _close_unneeded(self, connection: SshConnection) -> None:
        """Nobody has used it for long."""
        host = self._hosts.get(connection.target)
        if host is not None and connection in host.connections and connection.is_kept:
            self.counters.idle_closed += 1
            self._close(host, [connection])
            self._set_ups.advance()

    def _close_unused(self, host: PooledHost, *states: State) -> bool:
        """Close those in ``states`` that nobody uses; whether there were any."""
        unused = [c for c in host.connections if c.state in states and c.idle]
        self._close(host, unused)
        return bool(unused)

    def _close(self, host: PooledHost, connections: list[SshConnection]) -> None:
        for connection in connections:
            host.connections.remove(connection)
            self._forget(connection)
            connection.close()
        if not host.connections and not host.wanted:
            self._hosts.pop(host.target, None)

    def close(self) -> None:
        """End all connections."""
        hosts = self._outermost_last()
        self._hosts = {}
        self._set_ups.clear()
        self._behind.clear()
        for host in hosts:
            for connection in host.connections:
                self._forget(connection)
                connection.close()
        self._upkeep.stop()

    # -- what there is --------------------------------------------------------------------------

    def numbers(self) -> dict[str, int]:
        """What there is now, and what has happened so far."""
        ready = [c for h in self._hosts.values() for c in h.connections if c.state is State.READY]
        waiting = sum(len(host.waiting) for host in self._hosts.values())
        numbers = self._set_ups.numbers()
        numbers["queued"] += len(self._behind)
        return {
            **numbers,
            **vars(self.counters),
            "hosts": len(self._hosts),
            "ready": len(ready),
            "idle": sum(connection.idle for connection in ready),
            "commands_waiting": waiting + sum(len(c.waiting) for c in ready),
            "channels": sum(connection.session.channels for connection in ready),
        }
