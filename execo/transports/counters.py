"""What the transports are doing, in numbers: :func:`execo.transports.statistics`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from execo.errors import Reason

__all__ = ["ConnectionStatistics", "Counters", "Statistics"]


@dataclass(frozen=True, slots=True)
class ConnectionStatistics:
    """The SSH connections of this process. All are numbers; ``str()`` shows those that are not 0.

    Now:

    :param hosts: targets that have a connection, or wait for one
    :param queued: connections that wait for their turn to be made
    :param dialling: on the way to a host that has not answered yet
    :param silent: the same for longer than a quarter of a second: these hold up no others
    :param setting_up: agreeing on keys and logging in, or about to
    :param ready: logged in
    :param idle: of these, used by nobody
    :param commands_waiting: commands that wait for a connection
    :param commands_running: commands that hosts have started and that have not exited
    :param channels: open channels: commands, guards, forwarded connections

    Since the start of the script:

    :param made: connections that were let in
    :param lost: of these, broken by the host or the network
    :param replaced: made to a host after one to it was lost
    :param failed_connect: could not be made: no way to the host
    :param failed_auth: could not be made: not let in
    :param failed_host_key: could not be made: the host's key was not accepted
    :param failed_otherwise: could not be made for another reason
    :param dial_retries: times that a host has hung up before its first word (MaxStartups) and was
      tried again
    :param idle_closed: closed since nobody used them for ``idle_limit``
    :param keepalive_losses: of the lost ones, those that had stopped to answer
    :param resubmitted: commands sent once more, since they had certainly not started
    """

    hosts: int = 0
    queued: int = 0
    dialling: int = 0
    silent: int = 0
    setting_up: int = 0
    ready: int = 0
    idle: int = 0
    commands_waiting: int = 0
    commands_running: int = 0
    channels: int = 0
    made: int = 0
    lost: int = 0
    replaced: int = 0
    failed_connect: int = 0
    failed_auth: int = 0
    failed_host_key: int = 0
    failed_otherwise: int = 0
    dial_retries: int = 0
    idle_closed: int = 0
    keepalive_losses: int = 0
    resubmitted: int = 0

    @property
    def failed(self) -> int:
        """Connections that could not be made, for whatever reason."""
        return self.failed_connect + self.failed_auth + self.failed_host_key + self.failed_otherwise

    def __str__(self) -> str:
        numbers = [(one.name, getattr(self, one.name)) for one in fields(self)]
        return ", ".join(f"{_words(name)}: {number}" for name, number in numbers if number) or "-"

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self}>"


@dataclass(frozen=True, slots=True)
class Statistics:
    """What the transports are doing. ``print()`` shows a line for each.

    :param connections: of the in-process transport, ``paramiko``
    :param others: what other transports say of themselves, by their names
    """

    connections: ConnectionStatistics
    others: Mapping[str, Mapping[str, int]]

    def __str__(self) -> str:
        lines = [f"paramiko: {self.connections}"]
        for name, numbers in sorted(self.others.items()):
            said = ", ".join(f"{_words(key)}: {number}" for key, number in numbers.items())
            lines.append(f"{name}: {said or '-'}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        # Not the zeros of all fields: at a prompt this is what one sees.
        return f"<{type(self).__name__} {'; '.join(str(self).splitlines())}>"


def _words(name: str) -> str:
    return name.replace("_", " ")


_FAILURES = {
    Reason.CONNECT: "failed_connect",
    Reason.AUTH: "failed_auth",
    Reason.HOST_KEY: "failed_host_key",
}


class Counters:
    """What is counted since the start. Belongs to the I/O thread."""

    def __init__(self) -> None:
        self.made = self.lost = self.replaced = 0
        self.failed_connect = self.failed_auth = self.failed_host_key = self.failed_otherwise = 0
        self.dial_retries = self.idle_closed = self.keepalive_losses = self.resubmitted = 0

    def count_failure(self, reason: Reason) -> None:
        """A connection could not be made."""
        name = _FAILURES.get(reason, "failed_otherwise")
        setattr(self, name, getattr(self, name) + 1)
