"""The socket under an SSH connection: reading blocks one thread, writing blocks nobody.

paramiko reads a connection in a thread of its own, which may wait for ever, and writes from
whichever thread has something to say. What the system does not take at once waits here and is sent
by the I/O thread, so that a host that has stopped reading holds up nobody; how much can wait is
bounded by the windows of the channels.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import Protocol

from execo._core.loop import Loop, owned

from .base import is_loopback

__all__ = ["AnyWire", "Wire"]

# What is written goes out at once; and a host that has lost its power, which would never say so, is
# found out by the system within about two minutes, without any wake-up of ours.
_OPTIONS = [
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *(
        (socket.IPPROTO_TCP, getattr(socket, name), value)
        for name, value in (
            ("TCP_KEEPIDLE", 60),
            ("TCP_KEEPINTVL", 15),
            ("TCP_KEEPCNT", 4),
            ("TCP_USER_TIMEOUT", 120_000),
        )
        if hasattr(socket, name)
    ),
]

_LEAST_READ = 4096
_MOST_READ = 256 * 1024


class AnyWire(Protocol):
    """What a session needs of what is under it: a :class:`Wire`, or what does as well.

    - ``heard``: when something last came (monotonic)
    - ``has_reader``: a thread reads it, see :meth:`release`
    - ``problem``: why it has ended, if it knows more than the thread that reads
    - ``is_loopback``: it does not leave this machine
    """

    heard: float
    has_reader: bool
    problem: str

    @property
    def is_loopback(self) -> bool: ...

    def settimeout(self, timeout: float | None) -> None: ...
    def recv(self, size: int) -> bytes: ...
    def send(self, data: bytes) -> int: ...
    def close(self) -> None: ...
    def release(self) -> None: ...


class Wire:
    """What paramiko is given as its socket. Methods may be called from any thread.

    It reads as much as there is with one system call and gives it out in the small pieces that
    paramiko asks for: each call would also be a fight for the interpreter lock.

    ``heard`` is when something last came (monotonic). While ``has_reader`` is set, the descriptor
    stays open after :meth:`close`, until :meth:`release`.

    :param sock: a connected socket, from now on owned by this object
    """

    def __init__(self, loop: Loop, sock: socket.socket) -> None:
        sock.settimeout(None)
        for level, option, value in _OPTIONS:
            with contextlib.suppress(OSError):  # a socket of another kind, in a test
                sock.setsockopt(level, option, value)
        self.heard = time.monotonic()
        self.has_reader = False
        self.problem = ""
        self._loop = loop
        self._sock = sock
        self._read = b""
        self._position = 0
        self._size = _LEAST_READ
        self._backlog = bytearray()
        self._lock = threading.Lock()
        self._closed = False
        owned.add(self)

    @property
    def is_loopback(self) -> bool:
        """The other side is this machine."""
        try:
            return is_loopback(self._sock.getpeername()[0])
        except (OSError, AttributeError, IndexError, TypeError):
            return False  # over, or no socket of a network

    # -- what paramiko calls --------------------------------------------------------------------

    def settimeout(self, timeout: float | None) -> None:
        """Does nothing: paramiko would wake ten times a second to look around."""

    def recv(self, size: int) -> bytes:
        """Up to ``size`` bytes; blocks until there are some. Empty at the end."""
        if self._position == len(self._read):
            if self._closed:
                return b""
            self._read = self._sock.recv(self._size)
            self.heard = time.monotonic()
            self._position = 0
            got = len(self._read)
            if got == self._size:
                self._size = min(_MOST_READ, self._size * 4)
            elif got < self._size // 8:
                self._size = max(_LEAST_READ, self._size // 4)
            if got <= size:
                self._position = got
                return self._read
        start = self._position
        self._position = min(len(self._read), start + size)
        return self._read[start : self._position]

    def send(self, data: bytes) -> int:
        """Take all of ``data``; does not block.

        :raises OSError: if the connection is lost
        """
        with self._lock:
            if self._closed:
                raise BrokenPipeError("the connection is closed")
            sent = 0
            if not self._backlog:
                with contextlib.suppress(BlockingIOError):
                    sent = self._sock.send(data, socket.MSG_DONTWAIT)
                if sent < len(data):
                    self._loop.call_soon(self._watch)
            if sent < len(data):
                self._backlog += memoryview(data)[sent:]
        return len(data)

    def close(self) -> None:
        """End it: the thread that reads sees the end. The descriptor is closed when nobody does."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        # Not while a thread may be about to read: its number could be somebody else's by then.
        if not self.has_reader:
            self._loop.call_soon(self._release)

    def release(self) -> None:
        """Nobody reads any more."""
        self.has_reader = False
        self.close()
        self._loop.call_soon(self._release)

    # -- the I/O thread -------------------------------------------------------------------------

    def _watch(self) -> None:
        if not self._closed:
            self._loop.add_writer(self._sock, self._flush)

    def _flush(self) -> None:
        with self._lock:
            try:
                sent = self._sock.send(self._backlog, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError:
                self._backlog.clear()  # the thread that reads finds the same, and tells
            else:
                del self._backlog[:sent]
            if not self._backlog:
                self._loop.remove_writer(self._sock)

    def _release(self) -> None:
        # Here alone: the loop must not watch a number that is somebody else's by now.
        owned.discard(self)
        if self._sock.fileno() >= 0:
            self._loop.remove_writer(self._sock)
            self._sock.close()

    def close_inherited(self) -> None:
        """In a forked child: close the copy, which the parent goes on to use."""
        self._sock.close()
