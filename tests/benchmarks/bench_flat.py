"""After ten thousand processes: as many descriptors and threads as before, and as much memory.

Local processes, and commands on ten embedded hosts, on ten of a real sshd, and on these by the ssh
command. Counted from after the first hundreds, each time when connections that nobody uses are
closed and threads without work have ended, and after the C library has given back what it holds in
reserve. Each process prints a line and has a handler.
"""

from __future__ import annotations

import ctypes
import gc
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from harness import Bench, Numbers, body, main
from ssh_server import server, serving

if TYPE_CHECKING:
    from execo import Action

PROCESSES = 10_000
WARM_UP = 900
AT_ONCE = 50
HOSTS = 10
MEMORY = 5.0
"""Megabytes by which it may grow."""

SETTLES = 30.0


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def threads() -> int:
    return len(os.listdir("/proc/self/task"))


def memory() -> float:
    """Of this process, in megabytes."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def trim() -> None:
    """Give back what Python and the C library hold in reserve, as far as they can."""
    gc.collect()
    release = getattr(ctypes.CDLL(None), "malloc_trim", None)  # of the GNU library alone
    if release is not None:
        release(0)


def settle() -> Numbers:
    """What is there when all that ends by itself has ended."""
    from execo import transports

    transports.close_idle()
    nap = threading.Event()
    lowest = (threads(), descriptors())
    since = begin = time.monotonic()
    # Threads without work end after five seconds.
    while time.monotonic() - since < 7 and time.monotonic() - begin < SETTLES:
        nap.wait(0.1)
        now = (threads(), descriptors())
        if now < lowest:
            lowest, since = now, time.monotonic()
    trim()
    return {
        "threads": lowest[0],
        "descriptors": lowest[1],
        "memory": memory(),
        "blocks": sys.getallocatedblocks(),
    }


def run(make: Callable[[], Action], scale: float) -> Numbers:
    def some(count: int) -> None:
        for _ in range(max(1, count // AT_ONCE)):
            action = make().run()
            assert action.ok, action
            assert all(one.stdout == "x\n" for one in action.processes)

    some(WARM_UP)
    before = settle()
    count = round(PROCESSES * scale)
    some(count)
    after = settle()
    return {
        "count": count,
        **{f"{key} before": value for key, value in before.items()},
        **{f"{key} after": value for key, value in after.items()},
    }


@body
def local(scale: float) -> Numbers:
    from execo import Local, ParallelActions, ProcessOutputHandler

    class Nothing(ProcessOutputHandler):
        pass

    handler = Nothing()

    def make() -> Action:
        args = {"stdout_handlers": [handler]}
        return ParallelActions([Local("echo x", process_args=args) for _ in range(AT_ONCE)])

    return run(make, scale)


def remote(hosts: list[object], params: dict[str, object], scale: float) -> Numbers:
    from execo import ProcessOutputHandler, Remote

    class Nothing(ProcessOutputHandler):
        pass

    handler = Nothing()

    def make() -> Action:
        args = {"stdout_handlers": [handler]}
        return Remote("echo x", hosts * (AT_ONCE // HOSTS), params, process_args=args)

    return run(make, scale)


@body
def embedded(scale: float) -> Numbers:
    from execo.testing import Cluster

    with Cluster(HOSTS) as cluster:
        return remote(list(cluster.hosts), cluster.params, scale)


def real_hosts() -> list[object]:
    from execo import Host

    here = server()
    return [
        Host(f"127.0.1.{1 + at}", here["user"], here["keyfile"], here["port"])
        for at in range(HOSTS)
    ]


@body
def real(scale: float) -> Numbers:
    return remote(real_hosts(), {}, scale)


@body
def openssh(scale: float) -> Numbers:
    return remote(real_hosts(), {"transport": "openssh"}, scale)


def figures(bench: Bench) -> None:
    """What ten thousand processes leave in the script."""
    with serving(0):
        for name in (local, embedded, real, openssh):
            (numbers,) = bench.measure(name.__name__, rounds=1)
            what = f"{name.__name__}, {numbers['count']:.0f} processes"
            for key in ("descriptors", "threads"):
                before, after = numbers[f"{key} before"], numbers[f"{key} after"]
                bench.at_most(f"{what}, {key} after / before", after, before, 1.0, "")
            # Objects that live, each in one: free of what the interpreter holds in reserve.
            before, after = numbers["blocks before"], numbers["blocks after"]
            bench.at_most(f"{what}, blocks in use after / before", after, before, 1.02, "")
            before, after = numbers["memory before"], numbers["memory after"]
            bench.show(f"{what}, memory after / before", after, before, "MB")
            bench.below(f"{what}, memory, growth", after - before, MEMORY, "MB")


if __name__ == "__main__":
    main(figures, rounds=1)
