"""Commands on a thousand hosts, which are one real sshd, by tools that keep their connections.

*First* is the first run of ``true`` in a script, *next* the same once more, *later* the median of
five more: what a tool does behind its first commands is over then. Beside it parallel-ssh, with 64
and 100 hosts at a time; asyncssh, which connects to 64 at a time; and bare paramiko in 64 threads.
"""

from __future__ import annotations

import ssh_bodies
from harness import Bench, main
from ssh_server import HOSTS, serving

MANY = 1000


def figures(bench: Bench) -> None:
    """A thousand hosts."""
    n = max(10, round(MANY * bench.scale))
    names = [*ssh_bodies.IN_PROCESS, "bare_paramiko"]
    with serving(0):
        mine, *others = bench.measure("ours", *names, scale=n / HOSTS)
    labels = [*ssh_bodies.IN_PROCESS.values(), "bare paramiko"]
    for label, other in zip(labels, others, strict=True):
        floor = label == "bare paramiko"
        for which, most in (("first", 1.25 if floor else 1.1), ("next", 1.2 if floor else 1.0)):
            bench.at_most(f"{n} hosts, {which} / {label}", mine[which], other[which], most)
        most = 1.2 if floor else 1.0
        bench.at_most(f"{n} hosts, later / {label}", mine["later"], other["later"], most)


if __name__ == "__main__":
    main(figures, rounds=3)
