"""What a ParamSweeper costs, beside that of execo 2.8.2 in the same run.

A pair is a ``get_next()`` and the ``done()`` of what it gave. Of many workers each is a process
with a sweeper of its own, that does nothing else: they are as much in each other's way as they can.
"""

from __future__ import annotations

import gc
import os
import tempfile
import time
from collections.abc import Callable
from multiprocessing import get_context
from typing import Any

from harness import Bench, Numbers, body, main

COMBINATIONS = 100_000
PAIRS = 1000
HELD = 1000
WORKERS = 50
SECONDS = 4.0


def ours() -> tuple[Any, Any]:
    from execo.engine import ParamSweeper, sweep

    return ParamSweeper, sweep


def theirs() -> tuple[Any, Any]:
    from execo_engine import ParamSweeper, sweep

    return ParamSweeper, sweep


def combinations(sweep: Callable[..., Any], number: int) -> Any:
    parameters = {"tool": ["gzip", "bzip2"], "level": range(1, 6), "size": range(number // 10)}
    return sweep(parameters)


def pairs(classes: tuple[Any, Any], number: int, held: int) -> Numbers:
    """Milliseconds for a pair, by the clock and of the processor."""
    sweeper_class, sweep = classes
    with tempfile.TemporaryDirectory() as folder:
        sweeper = sweeper_class(folder, combinations(sweep, number))
        if held:
            sweeper.get_next_batch(held)
        sweeper.done(sweeper.get_next())
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(PAIRS):
            sweeper.done(sweeper.get_next())
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        return {"ms": wall / PAIRS * 1000, "cpu": cpu / PAIRS * 1000}


@body
def alone(scale: float) -> Numbers:
    return pairs(ours(), round(COMBINATIONS * scale), 0)


@body
def peer_alone(scale: float) -> Numbers:
    return pairs(theirs(), round(COMBINATIONS * scale), 0)


@body
def few(scale: float) -> Numbers:
    return pairs(ours(), max(2 * PAIRS, round(COMBINATIONS * scale / 50)), 0)


@body
def with_held(scale: float) -> Numbers:
    return pairs(ours(), round(COMBINATIONS * scale), HELD)


@body
def peer_with_held(scale: float) -> Numbers:
    return pairs(theirs(), round(COMBINATIONS * scale), HELD)


def work(
    classes: tuple[Any, Any],
    folder: str,
    number: int,
    seconds: float,
    ready: Any,
    go: Any,
    found: Any,
) -> None:
    sweeper_class, sweep = classes
    sweeper = sweeper_class(folder, combinations(sweep, number))
    ready.put(1)
    go.wait()
    end = time.monotonic() + seconds
    done = 0
    while time.monotonic() < end and (one := sweeper.get_next()):
        sweeper.done(one)
        done += 1
    found.put((done, time.monotonic() - end + seconds))


def contending(classes: tuple[Any, Any], scale: float) -> Numbers:
    """Pairs in a second, of all workers together."""
    fork = get_context("fork")
    number = max(1000, round(COMBINATIONS * scale))
    workers = max(2, round(WORKERS * scale))
    with tempfile.TemporaryDirectory() as folder:
        ready, found, go = fork.Queue(), fork.Queue(), fork.Event()
        gc.freeze()
        arguments = (classes, folder, number, max(1.0, SECONDS * scale), ready, go, found)
        processes = [fork.Process(target=work, args=arguments) for _ in range(workers)]
        for process in processes:
            process.start()
        for _ in processes:
            ready.get()
        go.set()
        counts = [found.get() for _ in processes]
        for process in processes:
            process.join()
        done, seconds = sum(count for count, _ in counts), max(took for _, took in counts)
        return {"rate": done / seconds, "ms": seconds / done * 1000}


@body
def workers(scale: float) -> Numbers:
    return contending(ours(), scale)


@body
def peer_workers(scale: float) -> Numbers:
    return contending(theirs(), scale)


def opening(classes: tuple[Any, Any], scale: float) -> Numbers:
    """Seconds to open a folder where all is done: each was handed out before."""
    sweeper_class, sweep = classes
    number = round(COMBINATIONS * scale)
    with tempfile.TemporaryDirectory() as folder:
        given = combinations(sweep, number)
        pid = os.fork()
        if not pid:  # so that this process opens it as a new one does
            sweeper = sweeper_class(folder, given)
            while batch := sweeper.get_next_batch(1000):
                sweeper.done_batch(batch)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        wall, cpu = time.perf_counter(), time.process_time()
        sweeper = sweeper_class(folder, given)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        assert len(sweeper.get_done()) == number
        return {"s": wall, "cpu": cpu}


@body
def opened(scale: float) -> Numbers:
    return opening(ours(), scale)


@body
def peer_opened(scale: float) -> Numbers:
    return opening(theirs(), scale)


def figures(bench: Bench) -> None:
    """A ParamSweeper and that of execo 2.8.2."""
    number = round(COMBINATIONS * bench.scale)
    one, peer = bench.measure("alone", "peer_alone")
    bench.below(f"a pair, of {number} combinations", one["ms"], 0.5, "ms")
    bench.faster("the same, beside execo 2.8.2", one["ms"], peer["ms"], 1.5, "ms")
    bench.show("the same, of the processor", one["cpu"], peer["cpu"], "ms CPU")
    (small,) = bench.measure("few")
    bench.at_most("the same, beside a fiftieth of them", one["cpu"], small["cpu"], 1.5, "ms CPU")
    held, peer_held = bench.measure("with_held", "peer_with_held")
    bench.at_most(f"{HELD} in progress, beside none", held["cpu"], one["cpu"], 1.5, "ms CPU")
    bench.faster("the same, beside execo 2.8.2", held["ms"], peer_held["ms"], 5, "ms")
    many, peer_many = bench.measure("workers", "peer_workers")
    count = max(2, round(WORKERS * bench.scale))
    bench.faster(f"{count} workers, a pair of any", many["ms"], peer_many["ms"], 3, "ms")
    bench.show("the same, pairs in a second", many["rate"], peer_many["rate"], "/s")
    again, peer_again = bench.measure("opened", "peer_opened")
    bench.below(f"opening it, {number} done", again["s"], 1.0, "s")
    bench.show("the same, beside execo 2.8.2", again["cpu"], peer_again["cpu"], "s CPU")


if __name__ == "__main__":
    main(figures, rounds=3)
