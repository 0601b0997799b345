"""Thousands of hosts connected at once, which are one real sshd on loopback: ``true``, twice.

With the default settings: up to 5000 hosts beside bare paramiko in 64 threads, whose sockets have a
long time-out. The server takes 2 MB of memory for each. Times grow with the number of hosts, since
the machine has its server's processes to run too: what is wanted is that each host costs no more at
5000 than at 500, compared with the same growth of the floor.
"""

from __future__ import annotations

import ssh_bodies
from harness import Bench, Numbers, main
from ssh_server import HOSTS, serving

SIZES = (500, 1000, 2500, 5000)

BODIES = (ssh_bodies.ours.__name__, ssh_bodies.bare_paramiko.__name__)


def figures(bench: Bench) -> None:
    """Thousands of hosts."""
    sizes = [max(4, round(size * bench.scale)) for size in SIZES]
    measured: list[tuple[Numbers, Numbers]] = []
    with serving(0):
        for n in sizes:
            mine, floor = bench.measure(*BODIES, rounds=1, scale=n / HOSTS)
            measured.append((mine, floor))
            bench.at_most(f"{n} hosts, first / bare paramiko", mine["first"], floor["first"], 1.25)
            bench.at_most(f"{n} hosts, next / bare paramiko", mine["next"], floor["next"], 1.2)
            bench.below(f"{n} hosts, CPU of a next command", mine["cpu"] / n * 1000, 0.8, "ms")
        for what in ("first", "next"):
            each = [mine[what] / n * 1000 for n, (mine, _) in zip(sizes, measured, strict=True)]
            name = f"{what}, of a host: {sizes[-1]} hosts / {sizes[0]}"
            bench.at_most(name, each[-1], each[0], 1.2, "ms")
            floors = [floor[what] / n * 1000 for n, (_, floor) in zip(sizes, measured, strict=True)]
            bench.show(f"{what}, the same of bare paramiko", floors[-1], floors[0], "ms")
        (kept,) = bench.measure(ssh_bodies.ours_kept.__name__, rounds=1, scale=sizes[-1] / HOSTS)
        bench.below(f"{sizes[-1]} hosts, memory of each", kept["memory"], 100, "KB")
        bench.below(f"{sizes[-1]} hosts, idle, of one core", kept["idle"], 0.5, "%")


if __name__ == "__main__":
    main(figures, rounds=1)
