"""What the pool knows of one host, and what waits for the gateway to one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from execo.errors import ProcessError

from .base import Target
from .dial_through import beyond
from .ssh_connection import SESSIONS, Command, Lessee, SshConnection

__all__ = ["FIRST_PAUSE", "BehindGateway", "PooledHost"]

FIRST_PAUSE = 1.0
"""Seconds until a further connection is tried where one could not be made; it grows."""


class PooledHost:
    """The connections with one target, and the commands and lessees that wait for one."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.connections: list[SshConnection] = []
        self.waiting: deque[Command] = deque()
        self.lessees: deque[Lessee] = deque()
        self.room = SESSIONS - 1
        self.barred = False  # no further connection for now: the last one could not be made
        self.pause = FIRST_PAUSE

    @property
    def wanted(self) -> bool:
        """Somebody waits for a connection."""
        return bool(self.waiting or self.lessees)

    def refuse_all(self, error: ProcessError) -> None:
        """None of those that wait gets a connection."""
        waiting, self.waiting = self.waiting, deque()
        for command in waiting:
            command.refuse(error)
        lessees, self.lessees = self.lessees, deque()
        for lessee in lessees:
            lessee.refuse(error)


class BehindGateway:
    """A connection that waits for its gateway to be ready: a lessee of it, until then.

    :param on_reachable: called when it is
    """

    def __init__(
        self, connection: SshConnection, gateway: Target, on_reachable: Callable[[], object]
    ) -> None:
        self.target = gateway
        self._on_reachable = on_reachable
        self._connection = connection

    def leased(self, connection: SshConnection) -> None:
        connection.give_back(self)  # its channel takes a lease of its own
        self._on_reachable()

    def lost(self, error: ProcessError) -> None:
        """It is given back at once."""

    def refuse(self, error: ProcessError) -> None:
        self._connection.fail(beyond(self._connection.target, error))
