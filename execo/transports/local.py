"""The local transport: commands are children of this process.

What can start is spawned before ``open_all()`` returns, so that its pid and the errors of starting
it are there then. What waits for descriptors is spawned by a worker when others have ended. Nothing
is spawned on the I/O thread: loading a program may take as long as its file server likes.
"""

from __future__ import annotations

import errno
import os
import resource
import signal
import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

from execo._core.child import raise_descriptor_limit
from execo._core.latch import Latch
from execo._core.runtime import Runtime
from execo._core.sessions import Sessions, signal_strays
from execo._core.watchdog import Watchdog
from execo.config import configuration
from execo.errors import CancelledError
from execo.log import logger

from .base import Channel, Exec, Request, Sink, not_supported
from .local_channel import NO_ROOM, LocalChannel

__all__ = ["LocalTransport"]

DESCRIPTORS = 4
"""Descriptors that a running child takes here: stdin, stdout, stderr and its pidfd."""

_RETRY_INTERVAL = 0.1
_LONGEST_INTERVAL = 2.0
_RETRIES = 50
_ANNOUNCE_AFTER = 5.0
_DESCRIPTORS = ("descriptors", "-n")
_PROCESSES = ("places in the table of processes", "-u")


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
        self._vain = 0  # how often nothing could start, while nothing ran
        self._lacking = _DESCRIPTORS
        self._retrying = False  # on the I/O thread
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

    @property
    def crowded(self) -> bool:
        """True while channels wait for descriptors. Any thread."""
        return bool(self._queue)

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
        self.loop.call_soon(self._retry_soon)
        self._arm_announce()
        return False

    def postpone(self, channel: LocalChannel, number: int) -> bool:
        """Put back a channel for which the system had no room. False: it never will have.

        :param number: the system's error
        """
        with self._lock:
            self._lacking = _PROCESSES if number == errno.EAGAIN else _DESCRIPTORS
            if self._used == DESCRIPTORS:
                # For all that wait together: a thousand of them are not to be patient in turn.
                self._vain += 1
                if self._vain > _RETRIES:
                    if not self._queue:
                        self._vain = 0
                    return False
            self._used -= DESCRIPTORS
            self._starting -= 1
            self._budget = max(DESCRIPTORS, self._used)
            self._queue.appendleft(channel)
            channel.queued = True
        self.loop.call_soon(self._retry_soon)
        self._arm_announce()
        return True

    def _retry_soon(self) -> None:
        # Not only when one of ours ends: it may run for ever, and the rest of the program may have
        # needed for a moment what was found taken.
        if not self._retrying:
            self._retrying = True
            self.loop.call_later(_RETRY_INTERVAL, self._retry, _RETRY_INTERVAL)

    def _retry(self, interval: float) -> None:
        with self._lock:
            free = _free(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
            self._most = max(DESCRIPTORS, free + self._used)
            self._budget = min(self._most, self._budget + DESCRIPTORS)
        self._spawn_next()
        with self._lock:
            self._retrying = bool(self._queue)
        if self._retrying:
            interval = min(interval * 1.5, _LONGEST_INTERVAL)
            self.loop.call_later(interval, self._retry, interval)

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
            lacking = self._lacking
            self._announced = waiting > 0
        if waiting:
            self.runtime.sweeper.submit(
                logger.warning,
                "%d processes wait for free %s while %d run; they start as others end. "
                "Raise the limit (ulimit %s) to run more at once",
                waiting,
                lacking[0],
                used,
                lacking[1],
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
                        if exc.errno in NO_ROOM:
                            raise
                        self._unwatched = True
                        logger.warning(
                            "cannot start the watchdog (%s): local processes will outlive this "
                            "script if it is killed",
                            exc,
                        )
        return self.started_watchdog

    def guard_path(self, path: str) -> Callable[[], object]:
        """Have the watchdog remove a file or folder, if this script is lost before the function
        that is returned is called. Any thread but the I/O thread.

        :param path: absolute; its name begins with ``execo-`` or ``.execo-``
        """
        try:
            watchdog = self.watchdog()
        except OSError:
            watchdog = None  # no descriptor left: it stays, if it comes to that
        if watchdog is None:
            return _nothing
        return partial(watchdog.release_path, *watchdog.claim_path(path))

    # -- the end ------------------------------------------------------------------------------

    def settle(self, channel: LocalChannel, *, runs: bool) -> None:
        """The start of an admitted channel is over."""
        with self._lock:
            self._starting -= 1
            if runs:
                self._vain = 0
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

    def close_idle(self) -> None:
        """Does nothing: nothing is kept."""

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


def _nothing() -> None:
    pass


def _room(limit: int) -> int:
    return max(DESCRIPTORS, _free(limit))


def _free(limit: int) -> int:
    """How many descriptors of ``limit`` are free for processes. Some are left to the rest of the
    program, and to the starting of processes."""
    try:
        used = len(os.listdir("/dev/fd"))
    except OSError:
        used = 32
    return limit - used - min(64, max(16, limit // 8))
