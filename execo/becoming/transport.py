"""The transport ``become``: runs requests as another user, or with secret variables, by way of the
transports that they name."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import partial
from signal import SIGTERM
from typing import cast

from execo import transports
from execo._core.latch import Latch
from execo._core.runtime import Runtime
from execo.config import configuration
from execo.errors import CancelledError, NotSupported, SpawnError
from execo.transports.base import Become, Channel, Exec, Request, Sink, Target, not_supported
from execo.transports.last_start import let_detached_start

from .channel import BecomeChannel
from .guard import LEAVING_TIME, BecomeGuard, Visit
from .passwords import Passwords

__all__ = ["BecomingTransport"]

_CARRIERS = frozenset({"openssh", "paramiko"})
"""Transports with an stdin that reaches the command as it is, from the start on."""

_Key = tuple[str, Target, Become, bool]


class BecomingTransport:
    """Stands between processes and the transports that reach their hosts."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.passwords = Passwords(runtime)
        self.closed = False
        self._lock = threading.Lock()
        self._guards: dict[_Key, BecomeGuard] = {}
        self._carriers: set[str] = set()
        # Of the I/O thread.
        self._live: set[BecomeChannel] = set()
        self._visits: set[Visit] = set()
        self._ended: list[BecomeChannel] = []
        self._empty: Latch | None = None
        self._waits: list[tuple[set[Visit], Latch]] = []

    def open_all(self, pairs: Sequence[tuple[Request, Sink]]) -> list[Channel]:
        channels: list[BecomeChannel] = []
        for request, sink in pairs:
            if not isinstance(request, Exec):
                raise not_supported("become", request)
            if request.through not in _CARRIERS:
                what = "become" if request.become is not None else "secret_env"
                raise NotSupported(
                    f"{what} does not go through the transport {request.through!r}: use one of "
                    f"{', '.join(sorted(_CARRIERS))}, that is Remote or SshProcess"
                )
            if request.target is None:
                raise ValueError(f"the transport 'become' needs a target for {request.command!r}")
            guard = self._guard(request, request.target)
            channels.append(BecomeChannel(self, request, request.target, sink, guard))
        self._carry(channels)
        return [cast(Channel, channel) for channel in channels]

    def _guard(self, request: Exec, target: Target) -> BecomeGuard | None:
        if request.become is None:
            return None
        key = request.through, target, request.become, request.pty
        with self._lock:
            guard = self._guards.get(key)
            if guard is None:
                guard = self._guards[key] = BecomeGuard(self, *key)
            return guard

    def _carry(self, channels: Sequence[BecomeChannel]) -> None:
        groups: dict[str, list[tuple[Request, Sink]]] = {}
        self.runtime.loop.call_soon(self._live.update, list(channels))
        for channel in channels:
            channel.open()
            if self.closed:
                channel.refuse(CancelledError("not started: the interpreter is exiting"))
                continue
            try:
                request = channel.carried()
            except ValueError as exc:
                name = channel.target.name or channel.target.address
                error = SpawnError(f"cannot run {channel.request.command!r} on {name}: {exc}")
                error.__cause__ = exc
                channel.refuse(error)
                continue
            groups.setdefault(channel.request.through, []).append((request, channel))
        for name, group in groups.items():
            carrier = transports.get(self.runtime, name)
            with self._lock:
                if name not in self._carriers:
                    # The callbacks run last one first: what we run ends before what carries it.
                    self._carriers.add(name)
                    self.runtime.at_exit.append(self._end_commands)
            carrier.open_all(group)

    def start_guard(self, request: Exec, visit: Visit) -> None:
        """Run a guard. On the I/O thread."""
        self._visits.add(visit)
        self.runtime.workers.submit(self._open_guard, request, visit)

    def _open_guard(self, request: Exec, visit: Visit) -> None:
        assert request.target is not None
        self._carry([BecomeChannel(self, request, request.target, visit, None)])

    def drop_guard(self, guard: BecomeGuard) -> None:
        """Nobody has needed it for a while. On the I/O thread."""
        with self._lock:
            if self._guards.get(guard.key) is guard:
                del self._guards[guard.key]

    def guard_ended(self, visit: Visit) -> None:
        """A guard has gone. On the I/O thread."""
        self._visits.discard(visit)
        self._look_waits()

    def remove(self, channel: BecomeChannel) -> None:
        """It has exited, or was given up. On the I/O thread."""
        self._live.discard(channel)
        self._look_empty()

    # -- the end --------------------------------------------------------------------------------

    def close_idle(self) -> None:
        """Send away the guards that nobody needs, so that their connections are idle, and have
        those closed. Blocks until they have gone."""
        self._dismiss_guards(idle=True)
        for name in sorted(self._carriers):
            transports.get(self.runtime, name).close_idle()

    def close(self) -> None:
        """Does nothing more: what ran was ended before the transports that carry it."""

    def _end_commands(self) -> None:
        """At exit, before the transports that carry them: TERM to all at once, KILL after
        ``term_timeout``, or at a Ctrl-C; then dismiss the guards."""
        loop = self.runtime.loop
        let_detached_start(loop, self._starting_detached)
        self.closed = True
        try:
            empty = loop.run_sync(self._end_all)
            if empty is not None:
                empty.wait(float(configuration["term_timeout"]))
        except KeyboardInterrupt:
            pass  # enough waited
        empty = loop.run_sync(self._end_all_hard)
        if empty is not None:
            empty.wait(LEAVING_TIME)
        self._dismiss_guards(idle=False)

    def _starting_detached(self) -> list[Exec]:
        return [c.request for c in self._live if c.request.detach and not c.runs]

    def _commands(self) -> list[BecomeChannel]:
        # Those that a transport below cannot signal. Guards are dismissed, the rest it ends itself.
        # What is detached is left alone when it runs: not while it waits for its start.
        return [one for one in self._live if (not one.runs if one.request.detach else one.guarded)]

    def _end_all(self) -> Latch:
        self._empty = Latch()
        for channel in self._commands():
            if not channel.runs:
                channel.abort()
            else:
                self._ended.append(channel)
                if not channel.ending:
                    # A second TERM makes some programs give up their clean end.
                    channel.send_signal(SIGTERM)
        self._look_empty()
        return self._empty

    def _end_all_hard(self) -> Latch | None:
        # Also those that have exited since: what they had started may have ignored the TERM.
        for channel in self._ended:
            channel.end_hard()
        return self._empty

    def _dismiss_guards(self, *, idle: bool) -> None:
        left = self.runtime.loop.run_sync(partial(self._dismiss, idle=idle))
        if left is not None:
            left.wait(LEAVING_TIME)

    def _dismiss(self, *, idle: bool) -> Latch:
        with self._lock:
            guards = {*self._guards.values(), *(visit.guard for visit in self._visits)}
        for guard in guards:
            if not (idle and guard.busy):
                guard.dismiss()
        left = Latch()
        self._waits.append(({visit for visit in self._visits if visit.dismissed}, left))
        self._look_waits()
        return left

    def _look_waits(self) -> None:
        for wait in list(self._waits):
            leaving, left = wait
            if not leaving & self._visits:
                self._waits.remove(wait)
                left.fire()

    def _look_empty(self) -> None:
        if self._empty is not None and not self._commands():
            self._empty.fire()
