"""What is known of one command's run: what its ssh writes of itself, what its master says of it."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import replace

from .ssh_messages import MasterEvent, SshLog, read_log

__all__ = ["Record"]


class Record:
    """The record of one command. On the I/O thread, save ``begin``.

    - ``follows``: it is told of the command's start and exit, see :data:`.ssh_messages.FOLLOW`
    - ``by_master``: it is its master who tells
    """

    def __init__(self) -> None:
        self.follows = False
        self.by_master = False
        self._file = ""
        self._seen = 0  # how long it was at the last look
        self._heard = SshLog()
        self._heard_at = 0.0

    def begin(self, file: str, *, follows: bool, by_master: bool) -> None:
        """Its ssh is going to be started, and writes of itself into ``file``."""
        self._file, self.follows, self.by_master = file, follows, by_master

    def hear(self, event: MasterEvent) -> None:
        """Its master says something of it."""
        self._heard_at = time.monotonic()
        if event is MasterEvent.COMMAND:
            self._heard = replace(self._heard, accepted=True)
        elif event is MasterEvent.COMPLETE:
            self._heard = replace(self._heard, complete=True)
        elif event in (MasterEvent.EXITED, MasterEvent.DIED):
            died = event is MasterEvent.DIED
            self._heard = replace(self._heard, exited=True, by_signal=died)

    @property
    def sent(self) -> bool:
        """Its master was about to send it."""
        return self._heard.accepted

    @property
    def complete(self) -> bool:
        """Whether its output has come to its end."""
        return self._heard.complete if self.by_master else read_log(self.text()).complete

    def read(self) -> SshLog:
        """What ssh has written of it, and with a master, what that has."""
        log = read_log(self.text())
        return replace(self._heard, messages=log.messages) if self.by_master else log

    def text(self) -> str:
        """What its ssh has written."""
        try:
            with open(self._file, "rb") as file:
                return file.read().decode("utf-8", "replace")
        except OSError:
            return ""

    def grown(self) -> bool:
        """Whether its ssh has written more since the last look."""
        try:
            size = os.stat(self._file).st_size
        except OSError:
            return False  # ssh has not made it yet
        grown, self._seen = size != self._seen, size
        return grown

    def age(self, running: float) -> float:
        """Seconds since ssh has last written of itself: since it has started the command.

        :param running: seconds since ssh was started
        """
        if self.by_master and self._heard_at:
            return time.monotonic() - self._heard_at
        try:
            # By the wall clock, which may have been set since.
            return min(running, time.time() - os.stat(self._file).st_mtime)
        except OSError:
            return running

    def end(self) -> None:
        """Its ssh has ended, and what it wrote was read."""
        if self._file:
            with contextlib.suppress(FileNotFoundError):  # it has written nothing
                os.unlink(self._file)
