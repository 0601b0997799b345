"""The hosts of an experiment: each combination gets some that no other one has meanwhile."""

from __future__ import annotations

from collections.abc import Iterable

from execo.errors import ExecoError
from execo.host import Host, Hosts, get_hosts_list

__all__ = ["HostPool", "NotEnoughHosts"]


class NotEnoughHosts(ExecoError):
    """Combinations need more hosts than there are, or than are left."""


class HostPool:
    """Hosts that are free, taken, or set aside. Belongs to one thread.

    :param hosts: see :func:`~execo.host.get_hosts_list`; each address and port counts once
    """

    def __init__(self, hosts: Hosts) -> None:
        # Two users of one machine would disturb each other all the same.
        places: dict[tuple[str, int | None], Host] = {}
        for host in get_hosts_list(hosts):
            places.setdefault((host.address, host.port), host)
        self.hosts = list(places.values())
        self.set_aside: dict[Host, str] = {}
        """Host -> why it is not given out any more."""
        self._free = list(self.hosts)

    @property
    def size(self) -> int:
        """How many there are that have not been set aside, free or not."""
        return len(self.hosts) - len(self.set_aside)

    @property
    def free(self) -> int:
        """How many can be taken now."""
        return len(self._free)

    def take(self, count: int) -> list[Host] | None:
        """So many hosts, those that have been free the longest; None if fewer are free."""
        if count > len(self._free):
            return None
        taken, self._free = self._free[:count], self._free[count:]
        return taken

    def give_back(self, hosts: Iterable[Host]) -> None:
        """They are free again, if they have not been set aside."""
        self._free.extend(host for host in hosts if host not in self.set_aside)

    def put_aside(self, host: Host, why: str) -> bool:
        """It is not given out any more. False if it was not before, or is none of these hosts."""
        if host in self.set_aside or host not in self.hosts:
            return False
        self.set_aside[host] = why
        self._free = [one for one in self._free if one != host]
        return True
