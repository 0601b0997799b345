"""The local transport: commands are children of this process.

What can start is spawned before ``open_all()`` returns, so that its pid and the errors of starting
it are there then. What waits for descriptors is spawned by a worker when others have ended. Nothing
is spawned on the I/O thread: loading a program may take as long as its file server likes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from functools import partial

from execo._core.child import Child, raise_descriptor_limit, spawn
from execo._core.latch import Latch
from execo._core.locks import fork_gate
from execo._core.runtime import Runtime
from execo._core.sessions import Sessions, signal_strays
from execo._core.stream import Reader, Writer
from execo._core.watchdog import Watchdog
from execo.config import configuration
from execo.errors import CancelledError, ProcessError, SpawnError
from execo.log import logger

from .base import ENDING_SIGNALS, Channel, Exec, Request, Sink, not_supported
from .spawn_errors import spawn_error

__all__ = ["LocalTransport"]

DESCRIPTORS = 4
"""Descriptors that a running child takes here: stdin, stdout, stderr and its pidfd."""

_STATUS_LOOKS = 20
_STATUS_INTERVAL = 0.01
_RETRY_INTERVAL = 0.1
_RETRIES = 50
_ANNOUNCE_AFTER = 5.0
# The machine or the limits of the user have no room at the moment.
_NO_ROOM = frozenset({errno.EMFILE, errno.ENFILE, errno.EAGAIN})


class LocalTransport:
    """Runs commands as children of this process, within the limit of open descriptors."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.loop = runtime.loop
        self.sessions = Sessions(runtime)
        self._lock = threading.Lock()
        self._used = 0
        self._raised = False
        self._budget = self._most = _room(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        self._starting = 0  # admitted, and neither begun nor failed yet
        self._queue: deque[LocalChannel] = deque()
        self._announced = False
        self.started_watchdog: Watchdog | None = None
        self._unwatched = False
        self.closed = False
        # Running, or held for what survives of their session. Belongs to the I/O thread.
        self._live: set[LocalChannel] = set()
        self._empty: Latch | None = None

    def open_all(self, pairs: Sequence[tuple[Request, Sink]]) -> list[Channel]:
        channels: list[LocalChannel] = []
        for request, sink in pairs:
            if not isinstance(request, Exec):
                raise not_supported("local", request)
            channels.append(LocalChannel(self, request, sink))
        for channel in channels:
            channel.open()
            if self.closed:
                # The next step of a sequence whose step was ended by the end of the script.
                channel.refuse(CancelledError("not started: the interpreter is exiting"))
            elif self._admit(channel):
                channel.spawn()
        return list(channels)

    # -- descriptors --------------------------------------------------------------------------

    def _admit(self, channel: LocalChannel) -> bool:
        with self._lock:
            if not self._raised and self._used + DESCRIPTORS > self._budget:
                # Only now: a script that never needs it leaves its children as they were.
                self._raised = True
                self._budget = self._most = _room(raise_descriptor_limit()) + self._used
            if not self._queue and self._used + DESCRIPTORS <= self._budget:
                self._used += DESCRIPTORS
                self._starting += 1
                return True
            self._queue.append(channel)
            channel.queued = True
        self._arm_announce()
        return False

    def postpone(self, channel: LocalChannel) -> bool:
        """Put back a channel for which the system had no room. False: it never will have."""
        with self._lock:
            if self._used == DESCRIPTORS:
                channel.retries += 1
                if channel.retries > _RETRIES:
                    return False
            self._used -= DESCRIPTORS
            self._starting -= 1
            self._budget = max(DESCRIPTORS, self._used)
            self._queue.appendleft(channel)
            channel.queued = True
        # Not only when one of ours ends: the rest of the program may have needed them for a moment.
        self.loop.call_soon(self.loop.call_later, _RETRY_INTERVAL, self._retry)
        self._arm_announce()
        return True

    def _retry(self) -> None:
        with self._lock:
            self._budget = min(self._most, self._budget + DESCRIPTORS)
        self._spawn_next()

    def release(self) -> None:
        """A channel has given its descriptors back: the next one may start."""
        with self._lock:
            self._used -= DESCRIPTORS
            self._budget = min(self._most, self._budget + 1)
        self._spawn_next()

    def _spawn_next(self) -> None:
        with self._lock:
            while self._queue and self._used + DESCRIPTORS <= self._budget:
                channel = self._queue.popleft()
                channel.queued = False
                if not channel.failed:
                    self._used += DESCRIPTORS
                    self._starting += 1
                    self.runtime.workers.submit(channel.spawn)

    def _arm_announce(self) -> None:
        if not self._announced:
            self._announced = True
            self.loop.call_soon(self.loop.call_later, _ANNOUNCE_AFTER, self._announce)

    def _announce(self) -> None:
        with self._lock:
            waiting = sum(not channel.failed for channel in self._queue)
            used = self._used // DESCRIPTORS
            self._announced = waiting > 0
        if waiting:
            self.runtime.sweeper.submit(
                logger.warning,
                "%d processes wait for free descriptors while %d run; they start as others end. "
                "Raise the limit (ulimit -n) to run more at once",
                waiting,
                used,
            )

    # -- the watchdog -------------------------------------------------------------------------

    def watchdog(self) -> Watchdog | None:
        """The watchdog, started at the first call. None where it cannot be started."""
        if self.started_watchdog is None and not self._unwatched:
            with self._lock:
                if self.started_watchdog is None:
                    try:
                        self.started_watchdog = Watchdog()
                    except OSError as exc:
                        if exc.errno in _NO_ROOM:
                            raise
                        self._unwatched = True
                        logger.warning(
                            "cannot start the watchdog (%s): local processes will outlive this "
                            "script if it is killed",
                            exc,
                        )
        return self.started_watchdog

    # -- the end ------------------------------------------------------------------------------

    def settle(self, channel: LocalChannel, *, runs: bool) -> None:
        """The start of an admitted channel is over."""
        with self._lock:
            self._starting -= 1
        if runs:
            self._live.add(channel)
        else:
            self.release()
            self._look_empty()

    def remove(self, channel: LocalChannel) -> None:
        """A running channel has come to its end."""
        self._live.discard(channel)
        self._look_empty()

    def give_up(self, channel: LocalChannel) -> bool:
        """Take a channel out of the queue; False if it is not in there."""
        with self._lock:
            # It stays in the list, marked: taking out each of ten thousand is quadratic.
            if channel.failed or not channel.queued:
                return False
            channel.failed = True
        return True

    def _look_empty(self) -> None:
        gone = not self._starting and all(channel.request.detach for channel in self._live)
        if self._empty is not None and gone:
            self._empty.fire()

    def close(self) -> None:
        """End what runs: TERM to all at once, KILL after ``term_timeout``, or at a Ctrl-C."""
        self.closed = True
        try:
            if not self._end_all(signal.SIGTERM, float(configuration["term_timeout"])):
                self._end_all(signal.SIGKILL, 2.0)
        except KeyboardInterrupt:
            self._end_all(signal.SIGKILL, 2.0)
        finally:
            if self.started_watchdog is not None:
                self.started_watchdog.close()

    def _end_all(self, number: int, patience: float) -> bool:
        empty = self.loop.run_sync(self._signal_all, number)
        if empty is None or empty.fired:
            return True
        leaders = self.loop.run_sync(self._leaders) or []
        # In this thread, since the workers may be busy with what the script has left to them.
        signal_strays(dict.fromkeys(leaders, number))
        return empty.wait(patience)

    def _leaders(self) -> list[int]:
        return [c.pid for c in self._live if c.pid is not None and not c.request.detach]

    def _signal_all(self, number: int) -> Latch:
        with self._lock:
            queued = list(self._queue)
        for channel in queued:
            channel.abort()
        if self._empty is None:
            self._empty = Latch()
        for channel in list(self._live):
            # A second TERM makes some programs give up their clean end.
            if not channel.request.detach and not (number == signal.SIGTERM and channel.ending):
                channel.send_signal(number)
        self._look_empty()
        return self._empty


class LocalChannel:
    """One child, from the request to the last descriptor closed."""

    def __init__(self, transport: LocalTransport, request: Exec, sink: Sink) -> None:
        self.request = request
        self.pid: int | None = None
        self.start_date: float | None = None
        self.waited = 0.0
        self.failed = False
        self.queued = False
        self.retries = 0
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
                    env=_environment(request.env),
                    pty=request.pty,
                    before=self._claim_slot,
                )
                self._take_over(child)
        except Exception as exc:  # noqa: BLE001 - told to the sink
            self._undo()
            no_room = isinstance(exc, OSError) and exc.errno in _NO_ROOM
            if no_room and self._transport.postpone(self):
                return
            self.refuse(spawn_error(exc, argv, request.cwd))
            self._loop.call_soon(partial(self._transport.settle, self, runs=False))
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
        if not self._begun or self._child is None:
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
        if group and number in ENDING_SIGNALS:
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


def _room(limit: int) -> int:
    """How many descriptors of ``limit`` are free for processes. Some are left to the rest of the
    program, and to the starting of processes."""
    try:
        used = len(os.listdir("/dev/fd"))
    except OSError:
        used = 32
    return max(DESCRIPTORS, limit - used - min(64, max(16, limit // 8)))
