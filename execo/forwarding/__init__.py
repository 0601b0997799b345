"""What is behind :class:`~execo.port_forwarder.PortForwarder`: a port that listens here, and the
TCP connections that are carried over the connection with a host."""

from __future__ import annotations

__all__: list[str] = []
