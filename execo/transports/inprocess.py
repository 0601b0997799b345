"""The in-process transport: commands over SSH connections of this process, which are kept.

``open_all()`` returns at once. Everything happens on the I/O thread, save reading and decrypting,
which each connection does in a thread of its own.
"""

from __future__ import annotations

import signal
from collections.abc import Sequence

from execo._core.latch import Latch
from execo._core.runtime import Runtime
from execo.config import configuration
from execo.errors import CancelledError

from .base import Channel, Exec, Forward, Lease, Request, Sink, not_supported
from .pool import Pool
from .ssh_exec import SshExec
from .ssh_lease import SshForward, SshLease

__all__ = ["InProcessTransport"]


class InProcessTransport:
    """Runs commands over SSH in this process."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.pool = Pool(runtime)
        self.closed = False
        # Submitted and not exited. Belongs to the I/O thread.
        self._live: set[SshExec] = set()
        self._leases: set[SshLease] = set()
        self._ended: list[SshExec] = []
        self._empty: Latch | None = None

    def open_all(self, pairs: Sequence[tuple[Request, Sink]]) -> list[Channel]:
        channels = [self._channel(request, sink) for request, sink in pairs]
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

    # -- the end --------------------------------------------------------------------------------

    def close_idle(self) -> None:
        """Close the connections that no command uses."""
        self.runtime.loop.run_sync(self.pool.close_idle)

    def close(self) -> None:
        """End what runs: TERM to all at once, KILL after ``term_timeout``, or at a Ctrl-C."""
        self.closed = True
        loop = self.runtime.loop
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
