"""One local child, from its request to its last descriptor closed."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import time
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from execo._core.child import Child, spawn
from execo._core.locks import fork_gate
from execo._core.stream import Reader, Writer
from execo.errors import CancelledError, ProcessError, SpawnError
from execo.log import logger

from .base import ENDING_SIGNALS, Exec, Sink
from .detached import DETACHED
from .spawn_errors import spawn_error

if TYPE_CHECKING:
    from .local import LocalTransport

__all__ = ["NO_ROOM", "LocalChannel"]

NO_ROOM = frozenset({errno.EMFILE, errno.ENFILE, errno.EAGAIN})
"""The machine, or the limits of the user, have no room for a start at the moment."""

_STATUS_LOOKS = 20
_STATUS_INTERVAL = 0.01


class LocalChannel:
    """One child, from the request to the last descriptor closed."""

    def __init__(self, transport: LocalTransport, request: Exec, sink: Sink) -> None:
        self.request = request
        self.pid: int | None = None
        self.start_date: float | None = None
        self.waited = 0.0
        self.failed = False
        self.queued = False
        self.process: object = None
        self._transport = transport
        self._loop = transport.loop
        self._sink = sink
        self._opened = time.monotonic()
        self._child: Child | None = None
        self._slot: int | None = None
        self._stdin: Writer | None = None
        self._readers: list[Reader] = []
        self._begun = False
        self._looks = 0
        self._exited = False
        self._forgotten = False
        self.ending = False  # told to, with all in its session
        self._lingers = False

    # -- starting: any thread but the I/O thread ----------------------------------------------

    def open(self) -> None:
        """Show itself to the sink."""
        self._sink.on_open(self)

    def spawn(self) -> None:
        """Start the child, or tell the sink why it cannot be started."""
        request = self.request
        command = request.command
        argv = ["/bin/sh", "-c", command] if isinstance(command, str) else list(command)
        try:
            with fork_gate:
                child = self._child = spawn(
                    argv,
                    cwd=request.cwd,
                    env=_environment({**(request.env or {}), **(request.secret_env or {})}),
                    pty=request.pty,
                    prelude=DETACHED if request.relay else "",
                    merge=request.merge,
                    before=self._claim_slot,
                )
                self._take_over(child)
        except BaseException as exc:
            self._undo()
            number = exc.errno if isinstance(exc, OSError) else None
            if number in NO_ROOM and self._transport.postpone(self, number):
                return
            self.refuse(spawn_error(exc, argv, request.cwd))
            self._loop.call_soon(partial(self._transport.settle, self, runs=False))
            if not isinstance(exc, Exception):
                raise  # the second Ctrl-C, see deferring_interrupts()
            return
        self._loop.call_soon(self._begin)

    def refuse(self, error: ProcessError) -> None:
        """It will not be started."""
        self.failed = True
        self._loop.call_soon(self._sink.on_error, error)

    def _claim_slot(self, inode: int) -> None:
        watchdog = None if self.request.detach else self._transport.watchdog()
        if watchdog is not None:
            self._slot = watchdog.claim(inode)

    def _take_over(self, child: Child) -> None:
        eof = b"\x04" if self.request.pty else None
        sink = self._sink
        self._stdin = Writer(child.stdin, sink.on_written, sink.on_write_error, eof=eof)
        for stream, fd in ((1, child.stdout), (2, child.stderr)):
            self._readers.append(self._reader(stream, fd))
        if self._slot is not None and self._transport.started_watchdog is not None:
            self._transport.started_watchdog.started(self._slot, child.pid)
        self.process = child.popen
        self.waited = time.monotonic() - self._opened
        self.start_date = child.start_date
        self.pid = child.pid

    def _undo(self) -> None:
        """Leave nothing of a start that has failed, at whatever point."""
        child, self._child = self._child, None
        if child is not None:
            with contextlib.suppress(OSError):
                child.send_signal(signal.SIGKILL)
            child.reap()
            for stream in (self._stdin, *self._readers):
                if stream is not None:
                    stream.close()
            self._stdin, self._readers = None, []
            self.pid = None
        self._release_slot()

    def _reader(self, stream: int, fd: int) -> Reader:
        sink = self._sink

        def on_data(data: bytes) -> None:
            sink.on_data(stream, data)

        def on_eof(error: OSError | None) -> None:
            if stream == 1 and self.request.pty:
                # Nobody has the terminal open, and waiting for it to take input would be a busy
                # loop. Closing it would be a HUP for the command, which may go on without it.
                self._give_up_stdin("it has closed its terminal")
            self._settle()
            sink.on_eof(stream, error)

        return Reader(fd, on_data, on_eof)

    # -- running: the I/O thread --------------------------------------------------------------

    def _begin(self) -> None:
        assert self._child is not None and self._stdin is not None
        self._begun = True
        self._transport.settle(self, runs=True)
        self._sink.on_start()
        self._stdin.start(self._loop)
        for reader in self._readers:
            reader.start(self._loop)
        self._child.watch(self._loop, self._on_exit)
        if self._transport.closed and not self.request.detach:
            self.send_signal(signal.SIGKILL)

    def write(self, data: bytes) -> None:
        if self._stdin is not None:
            self._stdin.write(data)

    def close_stdin(self) -> None:
        if self._stdin is not None:
            self._stdin.end()

    def send_signal(self, number: int) -> bool:
        # A zombie still holds its number and its group: what it left there can be signalled.
        # Once it is reaped, its number may be somebody else's.
        if not self._begun or self._child is None or self._child.reaped:
            return False
        group = self.request.group
        alive = True
        try:
            alive = self._child.send_signal(number, group=group)
            if number == signal.SIGTERM:
                # A stopped process would see the TERM when somebody continues it: never.
                self._child.send_signal(signal.SIGCONT, group=group)
        except OSError as exc:
            self._transport.runtime.sweeper.submit(
                logger.warning,
                "cannot send signal %d to %r (pid %s): %s",
                number,
                self.request.command,
                self.pid,
                exc.strerror,
            )
        if group and number in ENDING_SIGNALS and not self._child.taken:
            self.ending = self.ending or number != signal.SIGINT
            self._transport.sessions.signal_strays(self._child.pid, number)
            self._settle()
        return alive

    @property
    def descriptors(self) -> tuple[int | None, int | None, int | None]:
        """The numbers of our ends of stdin, stdout and stderr; None for one that is closed."""
        fds = [self._stdin.fd if self._stdin is not None else -1]
        fds += [reader.fd for reader in self._readers]
        found = [fd if fd >= 0 else None for fd in (*fds, -1, -1)]
        return found[0], found[1], found[2]

    def pause(self) -> None:
        for reader in self._readers:
            reader.pause()

    def resume(self) -> None:
        for reader in self._readers:
            reader.resume()

    def abort(self) -> None:
        if self._begun:
            self.send_signal(signal.SIGKILL)
        elif self._transport.give_up(self):
            # A start that is under way goes on: its on_start comes, with what was asked meanwhile.
            self._sink.on_error(CancelledError("given up while it waited for its start"))

    def forget(self) -> None:
        self._forgotten = True
        self._settle()

    def _on_exit(self) -> None:
        assert self._child is not None and self._stdin is not None
        status = self._child.status()
        if status is None and self._looks < _STATUS_LOOKS:
            # The user's thread is in Popen.wait() and has reaped it, but has not noted it yet.
            self._looks += 1
            self._loop.call_later(_STATUS_INTERVAL, self._on_exit)
            return
        self._exited = True
        self._give_up_stdin("it ended before it had read all")
        self._stdin.close()
        # Before the sink hears of it: the script may then wait for all its children, and must not
        # find ours among them.
        self._settle()
        if status is None:
            message = "its exit status is lost: another part of this program has waited for it"
            self._sink.on_exit(None, SpawnError(message))
        else:
            self._sink.on_exit(status)

    def _give_up_stdin(self, why: str) -> None:
        if self._stdin is not None and self._stdin.give_up():
            self._sink.on_write_error(BrokenPipeError(errno.EPIPE, why))

    def _settle(self) -> None:
        """Reap the child once nobody can want to signal what it left, and give all back."""
        child = self._child
        if child is None or not self._exited:
            return
        drained = not any(reader.open for reader in self._readers)
        patience = self.request.kill_timeout
        if child.reaped:
            if drained:
                self._child = None
                self._readers = []
                self._transport.release()
        elif self.ending and patience is not None:
            if not self._lingers:
                self._lingers = True
                self._transport.sessions.linger(child.pid, patience, self._reap)
        elif drained or self._forgotten:
            self._reap()

    def _reap(self) -> None:
        if self._child is not None:
            self._child.reap()
            self._release_slot()
            self._transport.remove(self)
            self._settle()

    def _release_slot(self) -> None:
        slot, self._slot = self._slot, None
        if slot is not None and self._transport.started_watchdog is not None:
            self._transport.started_watchdog.release(slot)


def _environment(changes: Mapping[str, str | None] | None) -> dict[str, str] | None:
    if not changes:
        return None
    merged = {**os.environ, **{k: v for k, v in changes.items() if v is not None}}
    return {k: v for k, v in merged.items() if k not in changes or changes[k] is not None}
