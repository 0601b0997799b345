"""The in-process transport: commands over SSH connections of this process, which are kept.

``open_all()`` returns at once. Everything happens on the I/O thread, save reading and decrypting,
which each connection does in a thread of its own.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence
from functools import partial

from execo._core.latch import Latch
from execo._core.runtime import Runtime
from execo.config import configuration
from execo.errors import CancelledError

from . import get
from .base import (
    Channel,
    Exec,
    Forward,
    Lease,
    Request,
    Sink,
    Target,
    Transport,
    not_supported,
)
from .dial import DEFAULT_PORT
from .dial_through import Way
from .last_start import let_detached_start
from .pool import Pool
from .ssh_exec import SshExec
from .ssh_lease import SshForward, SshLease

__all__ = ["InProcessTransport"]

_PATIENCE = 1.0
"""Seconds that a proxy command has to pass on what it was sent and to end."""


class InProcessTransport:
    """Runs commands over SSH in this process."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.pool = Pool(runtime, self._way_to)
        self.closed = False
        # Submitted and not exited. Belongs to the I/O thread.
        self._live: set[SshExec] = set()
        self._leases: set[SshLease] = set()
        self._ended: list[SshExec] = []
        self._empty: Latch | None = None
        self._local: Transport | None = None  # for proxy commands

    def open_all(self, pairs: Sequence[tuple[Request, Sink]]) -> list[Channel]:
        channels = [self._channel(request, sink) for request, sink in pairs]
        if self._local is None and any(_needs_program(request.target) for request, _ in pairs):
            self._load_local()
        for channel in channels:
            channel.open()
        self.runtime.loop.call_soon(self._submit, channels)
        return list(channels)

    def _channel(self, request: Request, sink: Sink) -> SshExec | SshLease:
        if request.target is None:
            raise ValueError("what is to happen over SSH needs a target")
        if isinstance(request, Exec):
            return SshExec(self, request, sink)
        if isinstance(request, Forward):
            return SshForward(self, request, request.target, sink)
        if isinstance(request, Lease):
            return SshLease(self, request, request.target, sink)
        raise not_supported("paramiko", request)

    # -- ways to hosts that are not reached directly ----------------------------------------------

    def _load_local(self) -> None:
        with self.runtime.lock:
            if self._local is None:
                self._local = get(self.runtime, "local")
                # Before that of the local transport, which would end what leads to hosts before
                # their commands are told to end.
                self.runtime.at_exit.append(self.close)

    def _way_to(self, target: Target) -> Way:
        if target.proxy_command is not None:
            return Way(partial(self._run_program, target.proxy_command), self._end_program)
        return Way(partial(self._carry, target), _drop)

    def _carry(self, target: Target, sink: Sink) -> None:
        gateway = target.via
        assert gateway is not None
        request = Forward(target.address, target.port or DEFAULT_PORT, gateway)
        forward = SshForward(self, request, gateway, sink)
        forward.open()
        # Not one of those that are ended at exit: commands are told to end by way of it.
        self.pool.lease([forward])

    def _run_program(self, command: str, sink: Sink) -> None:
        assert self._local is not None
        # Starting it may take as long as its file server likes.
        self.runtime.workers.submit(self._local.open_all, [(Exec(command), sink)])

    def _end_program(self, channel: Channel) -> None:
        channel.close_stdin()
        self.runtime.loop.call_later(_PATIENCE, channel.abort)

    def _submit(self, channels: list[SshExec | SshLease]) -> None:
        if self.closed:
            for channel in channels:
                channel.refuse(CancelledError("not started: the interpreter is exiting"))
            return
        commands = [channel for channel in channels if isinstance(channel, SshExec)]
        leases = [
            channel for channel in channels if isinstance(channel, SshLease) and not channel.over
        ]
        self._live.update(commands)
        self._leases.update(leases)
        if commands:
            self.pool.submit(commands)
        if leases:
            self.pool.lease(leases)

    def remove(self, channel: SshExec) -> None:
        """A command has exited, or was given up."""
        self._live.discard(channel)
        self._look_empty()

    def give_back(self, lease: SshLease) -> None:
        """A lease or a forwarded connection is over."""
        self._leases.discard(lease)

    def statistics(self) -> dict[str, int]:
        """What there is now, and what has happened so far: see
        :class:`~execo.transports.ConnectionStatistics`. From any thread."""
        return self.runtime.loop.run_sync(self._numbers) or {}

    def _numbers(self) -> dict[str, int]:
        running = sum(command.started for command in self._live)
        return {**self.pool.numbers(), "commands_running": running}

    # -- the end --------------------------------------------------------------------------------

    def close_idle(self) -> None:
        """Close the connections that no command uses."""
        self.runtime.loop.run_sync(self.pool.close_idle)

    def close(self) -> None:
        """End what runs: TERM to all at once, KILL after ``term_timeout``, or at a Ctrl-C. What is
        to be left alone has some seconds to start."""
        if self.closed:
            return
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
            empty.wait(2.0)
        loop.run_sync(self.pool.close)

    def _starting_detached(self) -> list[Exec]:
        return [c.request for c in self._live if c.request.detach and not c.started]

    def _end_all(self) -> Latch:
        self._empty = Latch()
        for lease in list(self._leases):
            lease.abort()
        for channel in list(self._live):
            if not channel.started:
                channel.abort()
            elif not channel.request.detach:
                self._ended.append(channel)
                channel.send_signal(signal.SIGTERM)
        self._look_empty()
        return self._empty

    def _end_all_hard(self) -> Latch | None:
        # Also those that have exited since: what they had started may have ignored the TERM.
        for channel in self._ended:
            channel.end_hard()
        return self._empty

    def _look_empty(self) -> None:
        if self._empty is not None and all(c.request.detach for c in self._live):
            self._empty.fire()


def _drop(channel: Channel) -> None:
    assert isinstance(channel, SshForward)
    channel.drop()


def _needs_program(target: Target | None) -> bool:
    """Whether a proxy command leads to it, or to one of the hosts that it is behind."""
    while target is not None:
        if target.proxy_command is not None:
            return True
        target = target.via
    return False
