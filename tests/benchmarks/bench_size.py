"""What processes cost that do nothing: memory before the start, time while they sleep."""

from __future__ import annotations

import resource
import time
import tracemalloc
from collections.abc import Callable

from harness import Bench, Numbers, body, main

OBJECTS = 10_000
SLEEPERS = 1000
SECONDS = 5.0


def size_of(make: Callable[[], object], scale: float) -> float:
    """Kilobytes of one object."""
    count = max(100, round(OBJECTS * scale))
    make()  # what is made once, for all of them
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    kept = [make() for _ in range(count)]
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return (after - before) / len(kept) / 1000


@body
def objects(scale: float) -> Numbers:
    from execo import Local, Process

    return {
        "process": size_of(lambda: Process("true"), scale),
        "local": size_of(lambda: Local("true"), scale),
    }


@body
def sleepers(scale: float) -> Numbers:
    from execo import Process

    processes = [Process("sleep 1000").start() for _ in range(max(10, round(SLEEPERS * scale)))]
    time.sleep(1)  # what their start has left to do
    before, begin = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    time.sleep(SECONDS)
    after, end = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    killed = time.perf_counter()
    for process in processes:
        process.kill()
    for process in processes:
        process.wait()
    seconds = time.perf_counter() - killed
    assert all(process.exit_code == -15 for process in processes)
    return {"idle": busy / (end - begin) * 100, "kill": seconds}


@body
def sleepers_action(scale: float) -> Numbers:
    from execo import Local, ParallelActions

    count = max(10, round(SLEEPERS * scale))
    action = ParallelActions([Local("sleep 1000") for _ in range(count)]).start()
    time.sleep(1)
    begin = time.perf_counter()
    action.kill().wait()
    seconds = time.perf_counter() - begin
    assert all(process.exit_code == -15 for process in action.processes)
    return {"kill": seconds}


def figures(bench: Bench) -> None:
    """What processes cost that do nothing."""
    (sizes,) = bench.measure("objects", rounds=1)
    bench.below("a Process that was not started", sizes["process"], 3, "KB")
    bench.show("a Local that was not started", sizes["local"], unit="KB")
    idle, action = bench.measure("sleepers", "sleepers_action")
    count = max(10, round(SLEEPERS * bench.scale))
    bench.below(f"{count} sleeping processes, of one core", idle["idle"], 0.5, "%")
    bench.show(f"kill() and wait() of {count}, one by one", idle["kill"])
    bench.show(f"kill() and wait() of a ParallelActions of {count}", action["kill"])


if __name__ == "__main__":
    main(figures, rounds=3)
