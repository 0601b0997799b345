"""What runs inside a job, so that it does not outlive the script that it was submitted for."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["LEASE_ENDS", "RENEWED", "Lease", "job_script"]

RENEWED = "USR1"
"""The signal that says: the script is there."""

LEASE_ENDS = "USR2"
"""The signal that says: the script is gone, as it seems."""

# It ends with its child: one that is left keeps some schedulers waiting before the nodes are free.
# A step is a sleep that signals end early. Long ones, where the lease is: nobody wants a process
# each second on nodes that measure something.
SCRIPT = """#!/bin/sh
# Holds the nodes for a script of execo, as long as that says that it is there.
trap 'left={seconds}' USR1
trap 'kill $!; wait; exit 143' TERM
trap '[ $left -lt {grace} ] || left={grace}' USR2
left={first}
while [ $left -gt 0 ]; do
    sleep {step} & wait $!
    left=$((left - {step}))
done
"""


@dataclass(frozen=True)
class Lease:
    """How long a job goes on without a word from its script.

    - ``seconds``: after the last renewal
    - ``first``: after its start
    - ``grace``: after the connection of the script has ended
    - ``pause``: between renewals
    """

    seconds: float

    @property
    def first(self) -> float:
        return min(self.seconds, 120.0)

    @property
    def grace(self) -> float:
        return min(self.seconds / 2, 120.0)

    @property
    def pause(self) -> float:
        return min(self.seconds / 5, 40.0)


def job_script(lease: Lease | None, walltime: float) -> str:
    """For ``/bin/sh``; a single line where there is no lease."""
    if lease is None:
        return f"sleep {round(walltime) + 60}"  # the scheduler is to end it
    return SCRIPT.format(
        seconds=_whole(lease.seconds),
        first=_whole(lease.first),
        grace=_whole(lease.grace),
        step=10 if lease.seconds >= 300 else 1,
    )


def _whole(seconds: float) -> int:
    return max(1, round(seconds))
