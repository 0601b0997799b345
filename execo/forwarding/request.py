"""What a port forwarder asks for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from execo.transports.base import Exec

__all__ = ["Listen", "place"]


@dataclass(frozen=True, slots=True)
class Listen(Exec):
    """Listen here, and carry each TCP connection to ``to_host``:``to_port`` as seen from the
    target. ``command`` says the same in words.

    :param transport: the name of the transport that reaches the target
    :param bind: the address to listen on; empty or ``*``: all
    :param port: the port to listen on
    :param on_listening: called on the I/O thread when it listens and the target lets us in
    """

    transport: str = ""
    bind: str = ""
    port: int = 0
    to_host: str = ""
    to_port: int = 0
    on_listening: Callable[[], object] | None = None


def place(address: str, port: int) -> str:
    """``address:port``, with the brackets that an IPv6 address needs there."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
