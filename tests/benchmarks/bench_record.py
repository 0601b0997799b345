"""What the record of a run costs: 1000 short processes with it, and the same without.

Once as processes alone (``true``), once as actions with output (``Local("echo ...")``). In each
interpreter rounds with and without take turns, so that what else the machine does falls on both.
That only ever adds, so what is compared are the means of the fastest third of each; the figures are
medians over the interpreters. The time with a record ends when all of it is on the disk. CPU time
is that of the script and of its commands together: on a busy machine it says more than the clock.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from harness import Bench, Numbers, body, main

COMMANDS = 1000
TURNS = 12


def count(scale: float) -> int:
    return max(10, round(COMMANDS * scale))


def cpu_time() -> float:
    return sum(os.times()[:4])


def processes_alone(number: int) -> None:
    from execo import Process

    processes = [Process("true").start() for _ in range(number)]
    assert all(process.wait().finished_ok for process in processes)


def actions_with_output(number: int) -> None:
    from execo import Local, ParallelActions

    actions = [Local(f"echo {index}") for index in range(number)]
    assert ParallelActions(actions, fanout=40).run().finished_ok


def timed(function: Callable[[], object]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), cpu_time()
    function()
    return time.perf_counter() - wall, cpu_time() - cpu


def fastest(times: list[tuple[float, float]], which: int) -> float:
    ordered = sorted(one[which] for one in times)
    return statistics.mean(ordered[: max(1, len(ordered) // 3)])


def in_turns(work: Callable[[int], None], number: int) -> Numbers:
    from execo.engine import Record, load

    work(10)  # the threads and the watchdog start once
    plain: list[tuple[float, float]] = []
    recorded: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as parent:
        for turn in range(TURNS):
            folder = Path(parent, str(turn))
            record = Record(folder)

            def with_record(record: Record = record) -> None:
                work(number)
                record.close()

            def with_it(record: Record = record, inner: Callable[[], None] = with_record) -> None:
                record.open()
                recorded.append(timed(inner))

            def without() -> None:
                plain.append(timed(lambda: work(number)))

            # Neither is always the first.
            for one in (with_it, without) if turn % 2 else (without, with_it):
                one()
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        size -= (folder / "manifest.json").stat().st_size
        begin = time.perf_counter()
        run = load(folder)
        read = time.perf_counter() - begin
        assert len(run.processes) == number
        assert all(process.ok for process in run.processes)
    ratios = [fastest(recorded, k) / fastest(plain, k) for k in (0, 1)]
    return {
        "wall": 100 * (ratios[0] - 1),
        "cpu": 100 * (ratios[1] - 1),
        "seconds": fastest(plain, 0),
        "cpu_seconds": fastest(plain, 1),
        "bytes": size / number,
        "load": read,
    }


@body
def alone(scale: float) -> Numbers:
    return in_turns(processes_alone, count(scale))


@body
def actions(scale: float) -> Numbers:
    return in_turns(actions_with_output, count(scale))


def figures(bench: Bench) -> None:
    """What the record of a run costs."""
    for name, found in zip(("true", "actions"), bench.measure("alone", "actions"), strict=True):
        bench.show(f"{name}: {count(bench.scale)} without a record", found["seconds"])
        bench.show("  CPU time, of the commands too", found["cpu_seconds"])
        bench.below("  what the record adds, by the clock", found["wall"], 5, "%")
        bench.below("  what the record adds, CPU time", found["cpu"], 5, "%")
        bench.below("  size for each process", found["bytes"], 1000, "B")
        bench.show("  load()", found["load"])


if __name__ == "__main__":
    main(figures, rounds=3)
