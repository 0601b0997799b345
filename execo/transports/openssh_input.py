"""What a command is to read: held until its terminal is ready, kept while it may be sent again."""

from __future__ import annotations

import termios
from collections.abc import Callable

from execo._core.loop import Loop

from .base import Channel

__all__ = ["Input"]

_TERMINAL_LOOK = 0.02


class Input:
    """The way of input from a process to its local ssh. All on the I/O thread.

    :param loop: the I/O thread
    :param pty: ssh has a terminal
    """

    def __init__(self, loop: Loop, pty: bool) -> None:
        self._loop = loop
        self._local: Channel | None = None
        self._early: list[bytes | None] = []  # for a terminal that is not ready; None: its end
        self._again: list[bytes | None] = []  # likewise, what the ssh before was given
        self._pty = pty
        self._ready = not pty
        self._looks = False
        self.late = False  # what is written now comes after the end
        self._ended = False
        self._kept: list[bytes | None] | None = None
        self._told = 0  # bytes that the process was told to be written
        self._repeated = 0  # of these, those that the next ssh has yet to take

    def connect(self, local: Channel) -> None:
        """This is the ssh that takes it, from what was kept on."""
        self._local = local
        kept, self._kept = self._kept, None
        if self._ready:
            for data in kept or ():
                self._pass(data)
        elif kept:
            self._again = kept  # its terminal is another one, and not ready either
            self._look_soon()

    def keep(self) -> None:
        """Keep what is written: the command may have to be sent again."""
        self._kept = []

    def settle(self) -> None:
        """The command was sent: what is kept is needed no more."""
        self._kept = None

    def disconnect(self) -> None:
        """There is no ssh at the moment."""
        self._local = None
        self._repeated, self._told = self._told, 0
        self._ready = not self._pty

    def put(self, data: bytes | None) -> None:
        """Pass ``data`` on, None for the end."""
        if not self._ready:
            # Before ssh has its terminal in raw mode an end of file would be lost, and a long line
            # cut.
            self._early.append(data)
            self._look_soon()
            return
        self.late = self._ended and data is not None
        self._ended = self._ended or data is None
        if self._kept is not None and not self.late:
            self._kept.append(data)
        self._pass(data)
        self.late = False

    def _pass(self, data: bytes | None) -> None:
        if self._local is None:
            return
        if data is None:
            self._local.close_stdin()
        else:
            self._local.write(data)

    def written(self, count: int, tell: Callable[[int], object]) -> None:
        """Tell of ``count`` written bytes, save of those that were told before."""
        again = min(count, self._repeated)
        self._repeated -= again
        self._told += count
        if count > again:
            tell(count - again)

    def drop(self) -> bool:
        """The command is over; True if input for its terminal is lost."""
        lost = bool(self._early or self._again)
        self._early.clear()
        self._again.clear()
        self._ready = True
        return lost

    def _look_soon(self) -> None:
        if not self._looks:
            self._looks = True
            self._loop.call_later(0, self._look_terminal)

    def _look_terminal(self) -> None:
        if self._ready:
            return
        fd = None if self._local is None else self._local.descriptors[0]
        raw = False
        if fd is None:
            raw = self._local is not None  # it is over
        if fd is not None:
            try:
                raw = not termios.tcgetattr(fd)[3] & termios.ICANON
            except (OSError, termios.error):
                raw = True  # gone: the local channel says so
        if not raw:
            # Nothing tells of it, so one has to look.
            self._loop.call_later(_TERMINAL_LOOK, self._look_terminal)
            return
        self._looks, self._ready = False, True
        again, self._again = self._again, []
        for data in again:
            self._pass(data)
        early, self._early = self._early, []
        for data in early:
            self.put(data)
