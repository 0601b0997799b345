"""The taktuk transport: one local ``taktuk`` for all hosts that are started together.

Reference: taktuk(1), TakTuk 3.7.7. Each local taktuk connects to its hosts with a connector
(ssh), directly or through one another, runs on each the command and a *guard*
(:mod:`~execo.transports.remote_shell`), and multiplexes their output. It has one stream for all:
while a process is paused, at most a megabyte of its output waits, then all of that taktuk's hosts
are held up. What hosts are told (signals, input) waits until each host is connected or has failed.
"""

from __future__ import annotations

import os
import secrets
import signal
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import cast

from execo._core.child import descriptors_of_a_child
from execo._core.latch import Latch
from execo._core.room import with_room
from execo._core.runtime import Runtime
from execo.config import configuration
from execo.errors import CancelledError, ProcessError, SpawnError

from . import get as get_transport
from . import guard_path
from .base import Channel, ConnectionOptions, Exec, Request, Sink, not_supported
from .openssh_folder import LogFolder
from .remote_shell import Mark, command_text, guard_text
from .ssh_messages import place
from .taktuk_channel import TaktukChannel
from .taktuk_failures import no_terminal
from .taktuk_run import ENDS_WITHIN, TaktukRun
from .taktuk_words import HostWords, check_address, command_line, connector, host_file, host_text

__all__ = ["TaktukTransport"]

_LAST_WAIT = 2.0

_EACH_HOST = 3
"""Descriptors that a taktuk takes for each host that it has connected to."""

_TAKTUKS_OWN = 16
"""Descriptors that it takes for itself. Past its limit it gives up hosts: so hosts that are more
than one can have are shared out among several."""


class TaktukTransport:
    """Runs commands on hosts, those that are opened together through one taktuk."""

    def __init__(self, runtime: Runtime) -> None:
        # First: at exit, what was made last is closed first.
        self.local = get_transport(runtime, "local")
        self.loop = runtime.loop
        self.closed = False
        self._lock = threading.Lock()
        self._folder = LogFolder(partial(guard_path, runtime))
        self._numbers = 0
        # Those whose taktuk has not ended. Under the lock, as the two above.
        self._live: set[TaktukRun] = set()
        self._waits: list[tuple[Callable[[], bool], Latch]] = []  # of the I/O thread

    def open_all(self, pairs: Sequence[tuple[Request, Sink]]) -> list[Channel]:
        channels: list[TaktukChannel] = []
        for request, sink in pairs:
            if not isinstance(request, Exec):
                raise not_supported("taktuk", request)
            if request.target is None:
                raise ValueError(f"the taktuk transport needs a target for {request.command!r}")
            # Marks of its own: the guard of a host whose connection is lost ends nothing else.
            nonce = secrets.token_hex(8)
            channels.append(TaktukChannel(request, request.target, sink, nonce))
        groups: dict[tuple[ConnectionOptions, bool], list[tuple[TaktukChannel, HostWords]]] = {}
        for channel in channels:
            channel.open()
            words = self._prepare(channel)
            if isinstance(words, ProcessError):
                channel.failed = True
                self.loop.call_soon(channel.refuse, words)
            else:
                key = (channel.target.options, channel.request.detach)
                groups.setdefault(key, []).append((channel, words))
        most = max(1, (descriptors_of_a_child() - _TAKTUKS_OWN) // _EACH_HOST)
        for (options, detach), members in groups.items():
            for first in range(0, len(members), most):
                self._start(options, detach, members[first : first + most])
        return [cast(Channel, channel) for channel in channels]

    def _prepare(self, channel: TaktukChannel) -> HostWords | ProcessError:
        """What is to happen on the host, or why there can be nothing."""
        request, target = channel.request, channel.target
        if self.closed:
            return CancelledError("not started: the interpreter is exiting")
        if request.pty:
            return no_terminal(target, request.command)
        try:
            check_address(target.address)
            text = command_text(
                request.command, cwd=request.cwd, env=request.env, relay=request.relay
            )
            os.fsencode(text + connector(target))  # or its file could not be written, for nobody
        except ValueError as exc:
            error = SpawnError(f"cannot run {request.command!r} on {place(target)}: {exc}")
            error.__cause__ = exc
            return error
        return HostWords(
            target,
            host_text(text, Mark(channel.nonce, 1, request.detach)),
            guard_text(channel.nonce, first=False) if target.options.guard else None,
        )

    def _start(
        self,
        options: ConnectionOptions,
        detach: bool,
        members: Sequence[tuple[TaktukChannel, HostWords]],
    ) -> None:
        """Start the taktuk of these hosts."""
        channels = [channel for channel, _ in members]
        try:
            data = host_file(words for _, words in members)
            run = with_room(self._make_run, channels, data)
        except (OSError, ValueError) as exc:
            for channel in channels:
                error = SpawnError(f"cannot write the file of hosts for taktuk: {exc}")
                error.__cause__ = exc
                channel.failed = True
                self.loop.call_soon(channel.refuse, error)
            return
        # Hosts that are reached with a key of this machine cannot reach one another with it.
        flat = any(channel.target.keyfile is not None for channel in channels)
        argv = command_line(options, run.file, flat=flat)
        self.local.open_all([(Exec(argv, kill_timeout=_LAST_WAIT, detach=detach), run)])

    def _make_run(self, channels: Sequence[TaktukChannel], data: bytes) -> TaktukRun:
        # In one piece: close_idle() removes the folder when no run is live.
        with self._lock:
            self._numbers += 1
            path = self._folder.file(self._numbers)
            with open(path, "xb", opener=_private) as file:
                try:
                    file.write(data)
                    file.flush()
                except OSError:
                    os.unlink(path)  # no room on the disk
                    raise
            run = TaktukRun(self, channels, path)
            self._live.add(run)
        return run

    def run_ended(self, run: TaktukRun) -> None:
        """A local taktuk has ended. On the I/O thread."""
        with self._lock:
            self._live.discard(run)
        self.look_waits()

    # -- the end --------------------------------------------------------------------------------

    def close_idle(self) -> None:
        """Send away the taktuks that only wait for what may survive a killed command: it is killed
        now. Blocks until those whose commands have all ended are gone."""
        self._dismiss()
        with self._lock:
            # Who comes after this look makes a new one.
            if not self._live:
                self._folder.close()

    def close(self) -> None:
        """End what runs, on the hosts: TERM to all at once, KILL after ``term_timeout``, or at a
        Ctrl-C, and the connections where a host cannot be told. What survives a command that has
        ended by then is killed at once."""
        self.closed = True
        try:
            if not self._end_all(
                self._signal, signal.SIGTERM, float(configuration["term_timeout"])
            ):
                self._end_all(self._signal, signal.SIGKILL, _LAST_WAIT)
        except KeyboardInterrupt:
            self._end_all(self._signal, signal.SIGKILL, _LAST_WAIT)
        finally:
            self._end_all(self._hang_up, signal.SIGKILL, _LAST_WAIT)
            self._dismiss()
            self._folder.close()

    def _dismiss(self) -> None:
        gone = self.loop.run_sync(self._dismiss_idle)
        if gone is not None and not gone.wait(ENDS_WITHIN):
            self.loop.run_sync(self._end_dismissed)
            gone.wait(_LAST_WAIT)

    def _dismiss_idle(self) -> Latch:
        idle = {run for run in self._runs() if all(member.told for member in run.members)}
        for run in idle:
            run.dismiss()
        return self._wait_until(lambda: not self._live.intersection(idle))

    def _end_dismissed(self) -> None:
        for run in self._runs():
            if all(member.told for member in run.members):
                run.end()

    def _end_all(
        self, how: Callable[[TaktukChannel, int], object], number: int, patience: float
    ) -> bool:
        def end_all() -> Latch:
            for run in self._runs():
                run.closing = not run.detached
            for channel in self._running():
                how(channel, number)
            return self._wait_until(lambda: not self._running())

        empty = self.loop.run_sync(end_all)
        return empty is None or empty.wait(patience)

    def _runs(self) -> list[TaktukRun]:
        with self._lock:
            return list(self._live)

    def _running(self) -> list[TaktukChannel]:
        members = [member for run in self._runs() for member in run.members]
        return [one for one in members if not one.told and not one.request.detach]

    def _signal(self, channel: TaktukChannel, number: int) -> None:
        # A second TERM makes some programs give up their clean end.
        if channel.pid is None:
            channel.abort()
        elif number != signal.SIGTERM or not channel.ending:
            channel.send_signal(number)

    def _hang_up(self, channel: TaktukChannel, number: int) -> None:
        if not channel.hang_up(number) and channel.run is not None:
            channel.run.end()

    def _wait_until(self, condition: Callable[[], bool]) -> Latch:
        """A latch that fires when ``condition`` holds after the end of some command."""
        latch = Latch()
        self._waits.append((condition, latch))
        self.look_waits()
        return latch

    def look_waits(self) -> None:
        """Some command has ended. On the I/O thread."""
        for wait in list(self._waits):
            condition, latch = wait
            if condition():
                self._waits.remove(wait)
                latch.fire()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
