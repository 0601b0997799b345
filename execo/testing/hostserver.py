"""One host of a cluster: its listening socket, its connections, and what is wrong with it."""

from __future__ import annotations

import contextlib
import errno
import selectors
import socket
import subprocess
import threading
import time

import paramiko

from .connection import Connection
from .settings import Fault, Settings
from .wire import Wire

__all__ = ["HostServer", "bind"]

_BACKLOG = 1024
_GARBAGE = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"
_TOO_MANY = b"Exceeded MaxStartups\r\n"  # OpenSSH 9.2's words
_PATIENCE = 5.0
"""Seconds in which a child that is being started has run exec."""


class HostServer:
    """Listens, and serves each connection in a thread of its own.

    ``accept()`` belongs to the thread that waits for connections, the rest to the one that reads
    the orders.

    :param sock: bound, not listening yet
    :param home: the host's home folder
    :param settings: those of the cluster
    :param keys: the host's private key, and the public key that may log in
    :param selector: where the listening socket is registered, with this object as its data
    """

    def __init__(
        self,
        sock: socket.socket,
        home: str,
        settings: Settings,
        keys: tuple[paramiko.PKey, paramiko.PKey],
        selector: selectors.BaseSelector,
    ) -> None:
        self.address: tuple[str, int] = sock.getsockname()
        self.running: set[subprocess.Popen[bytes]] = set()
        self._home, self._settings, self._keys = home, settings, keys
        self._selector = selector
        self._lock = threading.Lock()
        self._fault: Fault | None = None
        self._connections: set[Connection] = set()
        self._held: list[socket.socket] = []
        self._listening = False
        self._sock = sock
        self._listen()

    @property
    def connections(self) -> int:
        """How many connections are logged in."""
        with self._lock:
            return sum(one.is_authenticated() for one in self._connections)

    # -- new connections ----------------------------------------------------------------------

    def accept(self) -> None:
        """Take a connection that waits, if there is one."""
        try:
            sock, _ = self._sock.accept()
        except OSError:
            return  # gone again, or we have stopped listening
        with self._lock, contextlib.suppress(OSError):
            match self._fault:
                case Fault.SILENT | Fault.FREEZE:
                    self._held.append(sock)
                case Fault.GARBAGE | Fault.DROP | Fault.REFUSE:
                    with sock:
                        if self._fault is Fault.GARBAGE:
                            sock.sendall(_GARBAGE)
                case _:
                    self._serve(sock)

    def _serve(self, sock: socket.socket) -> None:
        limit = self._settings.max_startups
        starting = sum(not one.is_authenticated() for one in self._connections)
        if limit is not None and starting >= limit:
            with sock:
                sock.sendall(_TOO_MANY)
            return
        try:
            wire = Wire(sock)
        except OSError:  # the client has left already
            sock.close()
            return
        connection = Connection(
            wire, self._settings, self._home, self._keys, self.running, self._ended
        )
        self._connections.add(connection)
        try:
            connection.serve()
        except RuntimeError:  # the system has no thread left
            self._connections.discard(connection)
            sock.close()

    def _ended(self, connection: Connection) -> None:
        with self._lock:
            self._connections.discard(connection)

    # -- faults -------------------------------------------------------------------------------

    def set_fault(self, fault: Fault | None) -> None:
        """See :class:`Fault`; None = healthy."""
        with self._lock:
            if fault is Fault.CLOSE:
                for connection in self._connections:
                    connection.wire.hang_up()
                self._drop_held()
                return
            self._fault = fault
            if fault is Fault.REFUSE:
                self._stop_listening()
            else:
                self._listen()
            for connection in self._connections:
                if fault is Fault.FREEZE:
                    connection.wire.freeze()
                else:
                    connection.wire.thaw()
            if fault is None:
                held, self._held = self._held, []
                for sock in held:
                    self._serve(sock)

    def _drop_held(self) -> None:
        for sock in self._held:
            sock.close()
        self._held = []

    def _listen(self) -> None:
        if not self._listening:
            self._sock.listen(_BACKLOG)
            self._sock.setblocking(False)
            self._selector.register(self._sock, selectors.EVENT_READ, self)
            self._listening = True

    def _stop_listening(self) -> None:
        if self._listening:
            self._selector.unregister(self._sock)
            self._sock.close()
            # Bound and not listening: connections are refused, and the port stays ours.
            self._sock = _bind_again(self.address)
            self._listening = False


def _bind_again(address: tuple[str, int]) -> socket.socket:
    # A command that is being started has a copy of the socket that was closed, until its exec.
    deadline = time.monotonic() + _PATIENCE
    nap = threading.Event()
    while True:
        try:
            return bind(address)
        except OSError as exc:
            if exc.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                raise
            nap.wait(0.005)


def bind(address: tuple[str, int]) -> socket.socket:
    """A socket bound to an address; port 0 = a free one."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except BaseException:
        sock.close()
        raise
    return sock
