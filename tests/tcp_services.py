"""Small TCP services on loopback, and clients for them."""

from __future__ import annotations

import contextlib
import hashlib
import socket
import threading
from collections.abc import Callable, Iterator

__all__ = ["TIMEOUT", "connect", "digest", "echo", "read_all", "refusing_port", "serve"]

TIMEOUT = 60.0
"""Seconds: a hang, not a speed."""

Handler = Callable[[socket.socket], object]


@contextlib.contextmanager
def serve(handler: Handler, *, address: str = "127.0.0.1") -> Iterator[int]:
    """The port of a service that calls ``handler`` for each connection, in a thread of its own.
    What is still open at the end is closed."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    listening = socket.create_server((address, 0), family=family, backlog=256)
    sockets: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def one(sock: socket.socket) -> None:
        with contextlib.suppress(OSError), sock:
            handler(sock)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = listening.accept()
                sockets.append(sock)
                threads.append(threading.Thread(target=one, args=(sock,)))
                threads[-1].start()

    accepting = threading.Thread(target=accept)
    accepting.start()
    try:
        yield listening.getsockname()[1]
    finally:
        # A close alone does not wake who waits there.
        for sock in [listening, *sockets]:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        accepting.join(TIMEOUT)
        for thread in threads:
            thread.join(TIMEOUT)
        listening.close()


def echo(sock: socket.socket) -> None:
    """Send back what comes."""
    while data := sock.recv(1 << 16):
        sock.sendall(data)


def digest(sock: socket.socket) -> None:
    """Read all until the end, then answer with its SHA-256."""
    sock.sendall(hashlib.sha256(read_all(sock)).digest())


def connect(port: int, address: str = "127.0.0.1") -> socket.socket:
    return socket.create_connection((address, port), timeout=TIMEOUT)


def read_all(sock: socket.socket) -> bytes:
    """Everything until the end."""
    parts = []
    while data := sock.recv(1 << 18):
        parts.append(data)
    return b"".join(parts)


@contextlib.contextmanager
def refusing_port() -> Iterator[int]:
    """A port that is taken, and where nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()[1]
