"""What the user writes to the stdin of a process.

Nothing here blocks the I/O thread, and nothing blocks the user for ever: what the process does not
read yet waits in memory. A script that writes faster than its process reads is held up past
:data:`LIMIT`; if the process reads nothing at all for :data:`PATIENCE` seconds, the script goes on
and the memory grows, with one warning.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING
from weakref import ref

from ._core.latch import Latch
from ._core.pool import current_strand
from .log import logger
from .outcome import State

if TYPE_CHECKING:
    from .lifecycle import Run
    from .transports.base import Channel

__all__ = ["LIMIT", "PATIENCE", "Feed"]

LIMIT = 16 * 1024 * 1024
"""Bytes that may wait in memory before write() waits, too."""

PATIENCE = 10.0
"""Seconds in which the process must read something for write() to go on waiting."""


class Feed:
    """The stdin of one run. ``write`` belongs to the user's threads, the rest to the I/O thread."""

    def __init__(self, run: Run) -> None:
        self._loop = run.runtime.loop
        self._run = ref(run)  # which holds this
        self._early: list[bytes] = []
        self._closed = False
        self._ended = False
        self._lock = threading.Lock()
        self._asked = 0
        self._written = 0
        self._room: Latch | None = None
        self._warned = False
        self._stuck_at = -1  # bytes written when patience ended: it reads nothing

    def write(self, data: bytes) -> None:
        """Queue ``data``; may block for a while, see the module."""
        with self._lock:
            self._asked += len(data)
            self._loop.call_soon(self._write, data)
        # A handler must not wait: its process may be held up until the handler returns.
        while self._asked - self._written > LIMIT and current_strand() is None:
            if self._written == self._stuck_at:
                return  # patience is for all writes together
            with self._lock:
                if self._room is None or self._room.fired:
                    self._room = Latch()
                room = self._room
            before = self._written
            if self._closed or before + LIMIT >= self._asked:
                return
            if not room.wait(PATIENCE) and self._written == before:
                self._stuck_at = before
                if not self._warned:
                    self._warned = True
                    waiting = self._asked - self._written
                    run = self._run()
                    whose = None if run is None else run.process
                    logger.warning("%r reads nothing: %d bytes wait", whose, waiting)
                return

    def end(self) -> None:
        """End of file after all that was written."""
        self._ended = True
        run = self._run()
        if run is not None and run.channel is not None and run.state is not State.STARTING:
            run.channel.close_stdin()

    def start(self, channel: Channel) -> None:
        """The process runs: give it what was written before."""
        for data in self._early:
            channel.write(data)
        self._early.clear()
        if self._ended:
            channel.close_stdin()

    def on_written(self, count: int) -> None:
        """The process has taken ``count`` bytes."""
        self._written += count
        if self._room is not None and self._asked - self._written <= LIMIT // 2:
            self._room.fire()

    def close(self) -> None:
        """Nobody reads any more."""
        self._closed = True
        if self._early:
            self._early.clear()
            run = self._run()
            if run is not None:
                run.write_error = run.error is None
        if self._room is not None:
            self._room.fire()

    def _write(self, data: bytes) -> None:
        run = self._run()
        if run is None:
            return  # it has ended, and nobody can see that this came too late
        if run.state is State.STARTING:
            self._early.append(data)
        elif run.channel is not None and not self._closed:
            run.channel.write(data)
        else:
            run.write_error = True
