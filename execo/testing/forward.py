"""Port forwarding: a channel that is carried on to a TCP server of this machine."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading

import paramiko

from execo.transports.base import is_loopback

from .session import LOST

__all__ = ["carry", "is_here"]

_CHUNK = 1 << 16


def is_here(address: str) -> bool:
    """Whether an address is on loopback: a cluster leads nowhere else."""
    return address == "localhost" or is_loopback(address)


def carry(channel: paramiko.Channel, target: socket.socket) -> None:
    """Copy both ways until both have ended, in two threads; closes both."""

    def there() -> None:
        with contextlib.suppress(*LOST):
            while data := channel.recv(_CHUNK):
                target.sendall(data)
        with contextlib.suppress(OSError):
            if channel.closed and not channel.eof_received:
                # Nobody takes the answer: a reset, for a service that is blocked in the middle of
                # it. The shutdown wakes the other thread.
                target.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                target.shutdown(socket.SHUT_RDWR)
            else:
                target.shutdown(socket.SHUT_WR)

    def back() -> None:
        with contextlib.suppress(*LOST):
            while data := target.recv(_CHUNK):
                channel.sendall(data)
            channel.shutdown_write()
        thread.join()
        target.close()
        with contextlib.suppress(*LOST):
            channel.close()

    thread = threading.Thread(target=there, name="forward", daemon=True)
    thread.start()
    threading.Thread(target=back, name="forward back", daemon=True).start()
