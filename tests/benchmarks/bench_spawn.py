"""Starting many local processes: 1000 times ``true``.

Beside it: bare ``subprocess.Popen(...).communicate()`` with three pipes, one after the other, which
is the floor of what Python does; execo 2.8.2; ClusterShell with its default fanout of 64.
"""

from __future__ import annotations

import time

from harness import Bench, Numbers, body, main, raise_limit

COMMANDS = 1000


def count(scale: float) -> int:
    return max(10, round(COMMANDS * scale))


@body
def start_all(scale: float) -> Numbers:
    from execo import Process

    Process("true").run()  # the I/O thread and the watchdog start once, not a thousand times
    begin = time.perf_counter()
    processes = [Process("true").start() for _ in range(count(scale))]
    for process in processes:
        process.wait()
    seconds = time.perf_counter() - begin
    assert all(process.finished_ok for process in processes)
    return {"seconds": seconds}


@body
def one_by_one(scale: float) -> Numbers:
    from execo import Process

    Process("true").run()
    begin = time.perf_counter()
    processes = [Process("true").run() for _ in range(count(scale))]
    seconds = time.perf_counter() - begin
    assert all(process.finished_ok for process in processes)
    return {"seconds": seconds}


@body
def action(scale: float) -> Numbers:
    from execo import Local, ParallelActions

    Local("true").run()
    begin = time.perf_counter()
    parallel = ParallelActions([Local("true") for _ in range(count(scale))]).run()
    seconds = time.perf_counter() - begin
    assert parallel.finished_ok
    return {"seconds": seconds}


@body
def bare_popen(scale: float) -> Numbers:
    from subprocess import PIPE, Popen

    Popen(["true"], stdin=PIPE, stdout=PIPE, stderr=PIPE).communicate()
    begin = time.perf_counter()
    for _ in range(count(scale)):
        process = Popen(["true"], stdin=PIPE, stdout=PIPE, stderr=PIPE)
        process.communicate()
        assert process.returncode == 0
    return {"seconds": time.perf_counter() - begin}


@body
def peer_execo2(scale: float) -> Numbers:
    from execo import Process  # version 2.8.2: this body runs in the interpreter of the peers

    raise_limit()
    Process("true").run()
    begin = time.perf_counter()
    processes = [Process("true").start() for _ in range(count(scale))]
    for process in processes:
        process.wait()
    seconds = time.perf_counter() - begin
    assert all(process.finished_ok for process in processes)
    return {"seconds": seconds}


@body
def peer_clustershell(scale: float) -> Numbers:
    from ClusterShell.Task import task_self

    raise_limit()
    task = task_self()
    task.shell("true")
    task.run()
    begin = time.perf_counter()
    workers = [task.shell("true") for _ in range(count(scale))]
    task.run()
    seconds = time.perf_counter() - begin
    # A worker without a node keeps its code for itself; task.max_retcode() is for nodes.
    assert all(worker.retcode() == 0 for worker in workers)
    return {"seconds": seconds}


def figures(bench: Bench) -> None:
    """Starting many local processes."""
    n = count(bench.scale)
    all_at_once, single, as_action, floor, execo2, clustershell = (
        numbers["seconds"]
        for numbers in bench.measure(
            "start_all",
            "one_by_one",
            "action",
            "bare_popen",
            "peer_execo2",
            "peer_clustershell",
        )
    )
    what = f"{n} start(), then wait() for all"
    bench.at_most(f"{what} / bare Popen", all_at_once, floor, 1.2)
    bench.faster(f"{what} / execo 2.8.2", all_at_once, execo2, 8)
    bench.faster(f"{what} / ClusterShell", all_at_once, clustershell, 2)
    bench.show(f"{n} Process.run(), one by one / bare Popen", single, floor)
    bench.show(f"ParallelActions of {n} Local, run() / bare Popen", as_action, floor)


if __name__ == "__main__":
    main(figures, rounds=5)
