"""The socket of one connection, which can be frozen and hung up from another thread."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Any

__all__ = ["Wire"]


class Wire:
    """Has the methods of a socket that paramiko uses. :meth:`freeze`, :meth:`thaw` and
    :meth:`hang_up` are for any thread; the rest is paramiko's.
    """

    def __init__(self, sock: socket.socket) -> None:
        # What is sent is a whole message: it never gains from waiting for more.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sock = sock
        self._flowing = threading.Event()
        self._flowing.set()
        self.client: tuple[str, int] = sock.getpeername()[:2]
        self.server: tuple[str, int] = sock.getsockname()[:2]

    def freeze(self) -> None:
        """Let nothing through, in both directions, until :meth:`thaw` or :meth:`hang_up`."""
        self._flowing.clear()

    def thaw(self) -> None:
        """Let all through again."""
        self._flowing.set()

    def hang_up(self) -> None:
        """End the connection now.

        The socket is shut down and not closed: its number could be another connection's before
        the thread that reads it has noticed.
        """
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)
        self._flowing.set()

    def recv(self, size: int) -> bytes:
        """Read; what comes while the wire is frozen waits here."""
        data = self._sock.recv(size)
        self._flowing.wait()
        return data

    def send(self, data: bytes) -> int:
        """Write, once the wire is not frozen."""
        self._flowing.wait()
        return self._sock.send(data)

    def settimeout(self, seconds: float | None) -> None:
        """As the socket's."""
        self._sock.settimeout(seconds)

    def getpeername(self) -> Any:
        """As the socket's."""
        return self.client

    def close(self) -> None:
        """Close the socket. For the thread that reads it."""
        self._flowing.set()
        self._sock.close()
