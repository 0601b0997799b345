"""The first and the next command of a host with the transport openssh, beside a fresh ssh.

The first connects, as an ssh of its own does; the next ones go over the connection that is there.
"""

from __future__ import annotations

import statistics
import subprocess
import time
from collections.abc import Callable

from harness import Bench, Numbers, body, main
from ssh_server import addresses, hosts, server, serving, ssh_options, wait_for_quiet

RUNS = 15


def seconds(run: Callable[[], None]) -> float:
    begin = time.perf_counter()
    run()
    return time.perf_counter() - begin


@body
def ours(scale: float) -> Numbers:
    from execo import SshProcess, transports

    wait_for_quiet()
    (host,) = hosts(scale)[:1]

    def run() -> None:
        assert SshProcess("true", host, {"transport": "openssh"}).run().ok

    run()  # what is there once
    first, after = [], []
    for _ in range(RUNS):
        transports.close_idle()
        first.append(seconds(run))
        after.append(seconds(run))
    return {"first": statistics.median(first), "next": statistics.median(after)}


@body
def fresh_ssh(scale: float) -> Numbers:
    wait_for_quiet()
    here = server()
    command = ["ssh", *ssh_options(), "-l", here["user"], addresses(scale)[0], "true"]

    def run() -> None:
        subprocess.run(command, stdin=subprocess.DEVNULL, check=True)

    return {"seconds": statistics.median(seconds(run) for _ in range(RUNS))}


def figures(bench: Bench) -> None:
    """One command after the other with the transport openssh."""
    with serving(0):
        mine, ssh = bench.measure("ours", "fresh_ssh")
        bench.at_most("first command / a fresh ssh", mine["first"], ssh["seconds"], 1.15)
        bench.faster("next command / a fresh ssh", mine["next"], ssh["seconds"], 4)


if __name__ == "__main__":
    main(figures, rounds=3)
