"""10 000 processes, 100 at a time, with 1024 descriptors.

The soft limit of open descriptors is 1024, which the product may raise; in the second run the hard
one is 1024 as well. Descriptors and memory are looked at when a tenth of the processes has ended
and at the end.
"""

from __future__ import annotations

import os
import resource
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from harness import Bench, Numbers, body, main

if TYPE_CHECKING:
    from execo.process import ProcessBase

PROCESSES = 10_000
FANOUT = 100
LIMIT = 1024
MEMORY_GROWTH = 8.0
"""Kilobytes that an ended process may keep: its outcome, which the script will look at."""


def memory() -> float:
    """Resident megabytes of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def run(scale: float, hard: bool) -> Numbers:
    from execo import Local, ParallelActions, ProcessLifecycleHandler

    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (LIMIT, LIMIT if hard else most))
    count = max(2 * FANOUT, round(PROCESSES * scale))
    action = ParallelActions([Local("true") for _ in range(count)], fanout=FANOUT)
    early: list[tuple[int, float]] = []

    class Sample(ProcessLifecycleHandler):
        def end(self, process: ProcessBase) -> None:
            early.append((len(os.listdir("/proc/self/fd")), memory()))

    action.processes[count // 10].lifecycle_handlers.append(Sample())
    most_descriptors = 0
    done = threading.Event()

    def watch() -> None:
        nonlocal most_descriptors
        while not done.wait(0.01):
            most_descriptors = max(most_descriptors, len(os.listdir("/proc/self/fd")))

    watcher = threading.Thread(target=watch)
    watcher.start()
    begin = time.perf_counter()
    action.run()
    seconds = time.perf_counter() - begin
    done.set()
    watcher.join()
    assert action.finished_ok, repr(action)
    return {
        "seconds": seconds,
        "descriptors": most_descriptors,
        "early": early[0][0],
        "late": len(os.listdir("/proc/self/fd")),
        "growth": (memory() - early[0][1]) * 1000 / (count * 0.9),
        "memory": memory(),
    }


@body
def soft_limit(scale: float) -> Numbers:
    return run(scale, False)


@body
def hard_limit(scale: float) -> Numbers:
    return run(scale, True)


def figures(bench: Bench) -> None:
    """Many processes, a hundred at a time."""
    count = max(2 * FANOUT, round(PROCESSES * bench.scale))
    soft, hard = bench.measure("soft_limit", "hard_limit")
    for name, numbers in (("soft", soft), ("hard", hard)):
        what = f"{count} by {FANOUT}, {name} limit {LIMIT}"
        bench.show(f"{what}: all ok after", numbers["seconds"])
        bench.below(f"{what}: most descriptors", numbers["descriptors"], LIMIT, "")
        bench.below(f"{what}: growth of each", numbers["growth"], MEMORY_GROWTH, "KB")
        bench.show(f"{what}: memory at the end", numbers["memory"], unit="MB")


if __name__ == "__main__":
    main(figures, rounds=1)
