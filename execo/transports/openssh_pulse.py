"""Whether a master still runs: it is asked, and has to answer.

ssh asks a silent host by itself (ServerAliveInterval in ssh_config(5)). A master that was stopped,
or hangs in a system call, asks nobody any more, and its clients would wait for ever. A master that
runs says hello to whoever connects to its socket (PROTOCOL.mux of OpenSSH): nobody else is needed
for that, neither its host nor one more process.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable

from execo._core.loop import Loop
from execo._core.stream import Reader
from execo._core.timer import Timer

__all__ = ["ANSWERS_WITHIN", "QUIET", "Pulse"]

QUIET = 5.0
"""Seconds without a word after which a master is asked when it is given a command."""

ANSWERS_WITHIN = 5.0
"""Seconds that it has to answer then. Nothing is lost by impatience: it carries nothing else."""


class Pulse:
    """That of one master. All on the I/O thread, save ``quiet``.

    :param loop: the I/O thread
    :param path: the master's socket
    :param stopped: called when it has not answered, after which nobody is asked any more
    """

    def __init__(self, loop: Loop, path: str, stopped: Callable[[], object]) -> None:
        self._loop = loop
        self._path = path
        self._stopped = stopped
        self._last = time.monotonic()
        self._knock: Reader | None = None
        self._over = False
        self._watch = Timer(loop)
        self._asked = 0.0  # when it was, the last time that somebody watched
        self._questions = 0  # without an answer

    @property
    def quiet(self) -> bool:
        """It has said nothing for a while."""
        return time.monotonic() - self._last > QUIET

    def beat(self) -> None:
        """It has said something."""
        self._last = time.monotonic()

    def ask(self) -> None:
        """Have it say hello, unless it has yet to answer. It does so as soon as it runs."""
        if self._knock is not None or self._over:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as knock:
            knock.setblocking(False)
            knock.connect(self._path)  # it is full, or gone: that is no answer either
            self._knock = Reader(knock.detach(), self._hear, self._hung_up)
            self._knock.start(self._loop)

    def check(self, needed: Callable[[], bool]) -> None:
        """Ask, and call ``stopped`` if it does not answer in a few seconds.

        :param needed: False by then: it does not matter
        """
        asked = time.monotonic()
        self.ask()

        def look() -> None:
            if self._last < asked and not self._over and needed():
                self._stop()

        self._loop.call_later(ANSWERS_WITHIN, look)

    def watch(self, interval: float, count: int, needed: Callable[[], bool]) -> None:
        """Ask every ``interval`` seconds of silence, for as long as it is ``needed``; call
        ``stopped`` after ``count`` questions without an answer."""
        if self._watch.runs or self._over:
            return
        self._questions = 0

        def look() -> None:
            if self._over or not needed():
                return
            if self._last >= self._asked:
                self._questions = 0
            # Counted in looks, not in time: this script may have been stopped itself.
            if self._questions >= count:
                self._stop()
                return
            now = time.monotonic()
            silence = now - self._last
            if silence >= interval:
                self._questions += 1
                self._asked = now
                self.ask()
                self._watch.set(interval, look)
            else:
                self._watch.set(interval - silence, look)

        self._watch.set(interval, look)

    def end(self) -> None:
        """It is over: nothing is asked any more."""
        self._over = True
        self._watch.cancel()
        self._close()

    def _stop(self) -> None:
        self.end()
        self._stopped()

    def _hear(self, data: bytes) -> None:
        self.beat()
        self._close()

    def _hung_up(self, error: OSError | None) -> None:
        self._knock = None

    def _close(self) -> None:
        knock, self._knock = self._knock, None
        if knock is not None:
            knock.close()
