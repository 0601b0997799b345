"""Free TCP ports of this machine."""

from __future__ import annotations

import errno
import itertools
import os
import socket

from ._core.locks import new_lock
from .config import configuration

__all__ = ["get_port"]

_lock = new_lock()
_tried = 0


def get_port() -> int:
    """The next free local TCP port of ``configuration["port_range"]``, round robin. (execo 2.8.2)

    Free means that nothing listens there on any IPv4 address now. Thread-safe; does not block.
    Nothing keeps another program from taking it before you do.

    :raises ValueError: if ``configuration["port_range"]`` is no range of ports
    :raises OSError: if none is free
    """
    global _tried
    try:
        first, last = map(int, configuration["port_range"])
    except (TypeError, ValueError):
        first, last = 1, 0
    if not 0 < first <= last < 65536:
        raise ValueError(
            'configuration["port_range"] is the first and the last port, as in (25500, 26700): '
            f"not {configuration['port_range']!r}"
        )
    size = last - first + 1
    with _lock:
        for place in itertools.islice(itertools.count(_tried), size):
            _tried = place + 1
            # Forked children, which go on from the same place, do not all get the same port.
            port = first + (place + 97 * os.getpid()) % size
            if _is_free(port):
                return port
    text = f'no port from {first} to {last} is free; widen configuration["port_range"]'
    raise OSError(errno.EADDRINUSE, f"{os.strerror(errno.EADDRINUSE)}: {text}")


def _is_free(port: int) -> bool:
    with socket.socket() as sock:
        # As who will listen there: what lingers after the end of a connection is not in the way.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind(("", port))
        except OSError:
            return False
        return True
