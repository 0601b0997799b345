"""Sockets that listen on this machine."""

from __future__ import annotations

import errno
import socket

__all__ = ["bound_sockets"]

_NOT_HERE = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})


def bound_sockets(address: str, port: int) -> list[socket.socket]:
    """Sockets that are bound to ``port`` and do not listen yet, one for each address that
    ``address`` stands for; as ssh, all if it is empty or ``*``.

    Blocks while a name is looked up.

    :raises OSError: if the port is taken on one of them, or none is an address of this machine
    """
    places = socket.getaddrinfo(
        None if address in ("", "*") else address,
        port,
        type=socket.SOCK_STREAM,
        flags=socket.AI_PASSIVE,
    )
    sockets: list[socket.socket] = []
    missing: OSError | None = None
    try:
        for family, kind, protocol, _, where in dict.fromkeys(places):
            try:
                sockets.append(_bound(family, kind, protocol, where))
            except OSError as exc:
                # A name may stand for an IPv6 address where the machine has none.
                if exc.errno not in _NOT_HERE:
                    raise
                missing = exc
        if not sockets:
            raise missing or OSError(errno.EADDRNOTAVAIL, "it stands for no address")
    except OSError:
        for one in sockets:
            one.close()
        raise
    return sockets


def _bound(family: int, kind: int, protocol: int, where: object) -> socket.socket:
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setblocking(False)
        # Connections of a forwarder that has ended linger on for a minute: not in our way.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # IPv4 has its own
        sock.bind(where)  # type: ignore[arg-type]
    except OSError:
        sock.close()
        raise
    return sock
