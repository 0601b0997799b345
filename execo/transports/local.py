"""The local transport: commands are children of this process.

A process without a limit is spawned in the thread that asks for it, so that its pid and the
errors of starting it are there when ``start()`` returns. What waits for descriptors is spawned
later, by one thread, when others have ended. Nothing is spawned on the I/O thread, which a
program on a dead NFS server would stop.
"""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence

from execo._core.child import Child, raise_descriptor_limit, spawn
from execo._core.latch import Latch
from execo._core.runtime import Runtime
from execo._core.sessions import Sessions, session_members
from execo._core.stream import Reader, Writer
from execo._core.watchdog import Watchdog
from execo.config import configuration
from execo.errors import CancelledError, ProcessError, SpawnError
from execo.log import logger

from .base import ENDING_SIGNALS, Channel, Exec, Request, Sink, not_supported

__all__ = ["LocalTransport"]

DESCRIPTORS = 4
"""Descriptors that a running child takes here: stdin, stdout, stderr and its pidfd."""

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
        limit = raise_descriptor_limit()
        self._lock = threading.Lock()
        self._used = 0
        self._most = self._budget = max(DESCRIPTORS, limit - _open_descriptors() - _spare(limit))
        self._queue: deque[LocalChannel] = deque()
        self._announced = False
        self._watchdog: Watchdog | None = None
        self._unwatched = False
        self._closed = False
        # Running, or held for what survives of their session. Belongs to the I/O thread.
        self._live: set[LocalChannel] = set()
        self._empty: Latch | None = None

    def open_all(self, pairs: Sequence[tuple[Request, Sink]]) -> list[Channel]:
        channels: list[Channel] = []
        for request, sink in pairs:
            if not isinstance(request, Exec):
                raise not_supported("local", request)
            channel = LocalChannel(self, request, sink)
            sink.on_open(channel)
            channels.append(channel)
            if self._closed:
                # The next step of a sequence whose step was ended by the end of the script.
                channel.refuse(CancelledError("not started: the interpreter is exiting"))
            elif self._admit(channel):
                channel.spawn()
        return channels

    # -- descriptors --------------------------------------------------------------------------

    def _admit(self, channel: LocalChannel) -> bool:
        with self._lock:
            if not self._queue and self._used + DESCRIPTORS <= self._budget:
                self._used += DESCRIPTORS
                return True
            self._queue.append(channel)
            first, self._announced = not self._announced, True
        if first:
            self.loop.call_soon(self.loop.call_later, _ANNOUNCE_AFTER, self._announce)
        return False

    def postpone(self, channel: LocalChannel) -> bool:
        """Put back a channel for which the system had no room. False: it never will have."""
        with self._lock:
            self._used -= DESCRIPTORS
            if self._used == 0:
                channel.retries += 1
                if channel.retries > _RETRIES:
                    return False
                # None of ours will end and make room; others may.
                self.loop.call_soon(self.loop.call_later, _RETRY_INTERVAL, self._spawn_next)
            self._budget = max(DESCRIPTORS, self._used)
            self._queue.appendleft(channel)
        return True

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
                if not channel.cancelled:
                    self._used += DESCRIPTORS
                    self.runtime.spawner.submit(channel.spawn)

    def _announce(self) -> None:
        with self._lock:
            waiting = sum(not channel.cancelled for channel in self._queue)
            used = self._used // DESCRIPTORS
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
        if self._watchdog is None and not self._unwatched:
            with self._lock:
                if self._watchdog is None:
                    try:
                        self._watchdog = Watchdog()
                    except OSError as exc:
                        if exc.errno in _NO_ROOM:
                            raise
                        self._unwatched = True
                        logger.warning(
                            "cannot start the watchdog (%s): local processes will outlive this "
                            "script if it is killed",
                            exc,
                        )
        return self._watchdog

    # -- the end ------------------------------------------------------------------------------

    def add(self, channel: LocalChannel) -> None:
        self._live.add(channel)

    def remove(self, channel: LocalChannel) -> None:
        self._live.discard(channel)
        if self._empty is not None and not any(not c.request.detach for c in self._live):
            self._empty.fire()

    def close(self) -> None:
        """End what runs: TERM to all at once, KILL after ``term_timeout``, or at a Ctrl-C."""
        self._closed = True
        try:
            if not self._end_all(signal.SIGTERM, float(configuration["term_timeout"])):
                self._end_all(signal.SIGKILL, 2.0)
        except KeyboardInterrupt:
            self._end_all(signal.SIGKILL, 2.0)
        finally:
            if self._watchdog is not None:
                self._watchdog.close()

    def _end_all(self, number: int, patience: float) -> bool:
        empty = self.loop.run_sync(self._signal_all, number)
        if empty is None or empty.fired:
            return True
        leaders = set(self.loop.run_sync(self._leaders) or ())
        for pid in session_members(leaders):
            try:
                os.kill(pid, number)
            except OSError:
                continue
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
            if not channel.request.detach:
                channel.send_signal(number)
        if not any(not c.request.detach for c in self._live):
            self._empty.fire()
        return self._empty


class LocalChannel:
    """One child, from the request to the last descriptor closed."""

    def __init__(self, transport: LocalTransport, request: Exec, sink: Sink) -> None:
        self.request = request
        self.pid: int | None = None
        self.start_date: float | None = None
        self.waited = 0.0
        self.failed = False
        self.cancelled = False
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
        self._exited = False
        self._told_to_end = False

    # -- starting: any thread but the I/O thread ----------------------------------------------

    def spawn(self) -> None:
        """Start the child, or tell the sink why it cannot be started."""
        request = self.request
        command = request.command
        argv = ["/bin/sh", "-c", command] if isinstance(command, str) else list(command)
        try:
            watchdog = None if request.detach else self._transport.watchdog()

            def before(inode: int) -> None:
                if watchdog is not None:
                    self._slot = watchdog.claim(inode)

            child = spawn(
                argv,
                cwd=request.cwd,
                env=_environment(request.env),
                pty=request.pty,
                before=before,
            )
        except BaseException as exc:
            self._release_slot()
            no_room = isinstance(exc, OSError) and exc.errno in _NO_ROOM
            if no_room and self._transport.postpone(self):
                return
            if not no_room:
                self._loop.call_soon(self._transport.release)
            self.refuse(_spawn_error(exc, argv, request.cwd))
            if not isinstance(exc, Exception):
                raise  # Ctrl-C: the process has failed, and the script gets its interrupt
            return
        if self._slot is not None and watchdog is not None:
            watchdog.started(self._slot, child.pid)
        self._child = child
        self._stdin = Writer(
            child.stdin,
            self._sink.on_written,
            self._sink.on_write_error,
            eof=b"\x04" if request.pty else None,
        )
        for stream, fd in ((1, child.stdout), (2, child.stderr)):
            self._readers.append(self._reader(stream, fd))
        self.process = child.popen
        self.waited = time.monotonic() - self._opened
        self.start_date = child.start_date
        self.pid = child.pid
        self._loop.call_soon(self._begin)

    def refuse(self, error: ProcessError) -> None:
        """It will not be started."""
        self.failed = True
        self._loop.call_soon(self._sink.on_error, error)

    def _reader(self, stream: int, fd: int) -> Reader:
        sink = self._sink

        def on_data(data: bytes) -> None:
            sink.on_data(stream, data)

        def on_eof(error: OSError | None) -> None:
            sink.on_eof(stream, error)
            self._closed()

        return Reader(fd, on_data, on_eof)

    # -- running: the I/O thread --------------------------------------------------------------

    def _begin(self) -> None:
        assert self._child is not None and self._stdin is not None
        self._transport.add(self)
        self._sink.on_start()
        self._stdin.start(self._loop)
        for reader in self._readers:
            reader.start(self._loop)
        self._child.watch(self._loop, self._on_exit)

    def write(self, data: bytes) -> None:
        if self._stdin is not None:
            self._stdin.write(data)

    def close_stdin(self) -> None:
        if self._stdin is not None:
            self._stdin.end()

    def send_signal(self, number: int) -> None:
        if self._child is None or self._exited:
            return
        try:
            self._child.send_signal(number, group=self.request.group)
            if number == signal.SIGTERM:
                # A stopped process would see the TERM when somebody continues it: never.
                self._child.send_signal(signal.SIGCONT, group=self.request.group)
        except OSError as exc:
            self._transport.runtime.sweeper.submit(
                logger.warning,
                "cannot send signal %d to %r (pid %s): %s",
                number,
                self.request.command,
                self.pid,
                exc.strerror,
            )
        if self.request.group and number in ENDING_SIGNALS:
            self._told_to_end = True
            self._transport.sessions.signal_strays(self._child.pid, number)

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
        if self.pid is not None:
            self.send_signal(signal.SIGKILL)
        elif not self.cancelled and not self.failed:
            # A start that is under way goes on: its on_start comes, with what was asked meanwhile.
            with self._transport._lock:
                queued = self in self._transport._queue
                self.cancelled = queued
            if queued:
                self._sink.on_error(CancelledError("given up while it waited for its start"))

    def _on_exit(self) -> None:
        assert self._child is not None and self._stdin is not None
        self._exited = True
        patience = self.request.kill_timeout
        if self._told_to_end and patience is not None:
            status = self._child.status()
            self._transport.sessions.linger(self._child.pid, patience, self._reap)
        else:
            status = self._reap()
        if self._stdin.pending:
            self._sink.on_write_error(BrokenPipeError(errno.EPIPE, "it ended before it read all"))
        self._stdin.close()
        if status is None:
            message = "its exit status is lost: another part of this program has waited for it"
            self._sink.on_exit(None, SpawnError(message))
        else:
            self._sink.on_exit(status)
        self._closed()

    def _reap(self) -> int | None:
        assert self._child is not None
        status = self._child.reap()
        self._release_slot()
        self._transport.remove(self)
        self._closed()
        return status

    def _release_slot(self) -> None:
        slot, self._slot = self._slot, None
        if slot is not None and self._transport._watchdog is not None:
            self._transport._watchdog.release(slot)

    def _closed(self) -> None:
        child = self._child
        if child is not None and child.reaped and not any(r.open for r in self._readers):
            self._child = None
            self._readers = []
            self._transport.release()


def _environment(changes: Mapping[str, str | None] | None) -> dict[str, str] | None:
    if not changes:
        return None
    merged = {**os.environ, **{k: v for k, v in changes.items() if v is not None}}
    return {k: v for k, v in merged.items() if k not in changes or changes[k] is not None}


def _open_descriptors() -> int:
    try:
        return len(os.listdir("/dev/fd"))
    except OSError:
        return 32


def _spare(limit: int) -> int:
    """Descriptors that are left to the rest of the program, and to the starting of processes."""
    return min(64, max(16, limit // 8))


def _spawn_error(exc: BaseException, argv: Sequence[str], cwd: str | None) -> SpawnError:
    error = SpawnError(_explain(exc, argv, cwd), command=" ".join(map(str, argv)))
    error.__cause__ = exc
    return error


def _explain(exc: BaseException, argv: Sequence[str], cwd: str | None) -> str:
    name = argv[0] if argv else ""
    start = f"cannot start {name!r}"
    if not isinstance(exc, OSError):
        if "null byte" in str(exc):
            return f"{start}: there is a NUL byte in the command, its environment or its folder"
        return f"{start}: {str(exc) or type(exc).__name__}"
    if cwd is not None and exc.filename == cwd and name != cwd:
        return f"{start}: its folder (cwd) {cwd!r}: {exc.strerror}"
    place = os.path.join(cwd or "", name)
    match exc.errno:
        case errno.ENOENT if "/" not in name:
            return f"{start}: command not found; install it, or give its full path"
        case errno.ENOENT if os.path.exists(place):
            return f"{start}: the interpreter that its first line names does not exist"
        case errno.ENOENT:
            return f"{start}: no such file"
        case errno.EACCES if os.path.isdir(place):
            return f"{start}: it is a folder"
        case errno.EACCES:
            return f"{start}: permission denied; is it executable (chmod +x)?"
        case errno.ENOEXEC:
            return f"{start}: not a program; a script needs a first line like #!/bin/sh"
        case errno.E2BIG:
            return f"{start}: its arguments or its environment are too long for the system"
        case errno.EMFILE | errno.ENFILE:
            return f"{start}: no free descriptors; raise the limit (ulimit -n)"
        case _:
            return f"{start}: {exc.strerror or exc}"
