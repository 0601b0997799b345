"""Programs for ClusterShell: ``execo.clustershell`` beside the library, on one real sshd.

``true`` on 100 and 1000 nodes, a first time and once more in the same process; 1000 local workers;
and the events of 10 MB of lines from each of 100 nodes, whose output is not gathered. The programs
are the same but for their imports, and the settings are the defaults: a window of 64.

The memory is that of the program with its children, the library's ``ssh`` processes: what they
share counts once (PSS), the largest sum of those that are taken while it runs.
"""

from __future__ import annotations

import contextlib
import os
import resource
import threading
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Self

import ssh_bodies
from harness import Bench, Numbers, body, main, raise_limit
from ssh_server import HOSTS, addresses, server, serving, ssh_options, wait_for_quiet

MANY = 1000
LOCAL = 1000
LINES = 10_000_000
"""Bytes of output of each node."""
LINE = 99
"""Bytes of a line, without its end."""


def ours() -> ModuleType:
    from execo import clustershell

    return clustershell


def original() -> SimpleNamespace:
    from ClusterShell.Event import EventHandler
    from ClusterShell.NodeSet import NodeSet
    from ClusterShell.Task import task_self

    raise_limit()
    return SimpleNamespace(EventHandler=EventHandler, NodeSet=NodeSet, task_self=task_self)


# -- the programs -----------------------------------------------------------------------------


def connected(cs: Any) -> Any:
    task = cs.task_self()
    task.set_info("ssh_user", server()["user"])
    task.set_info("ssh_options", " ".join(ssh_options()))
    return task


@body
def ours_nodes(scale: float) -> Numbers:
    begin = ssh_bodies.when_quiet()
    cs = ours()
    task = connected(cs)
    targets = cs.NodeSet.fromlist(addresses(scale))

    def run() -> None:
        task.run("true", nodes=targets)
        assert task.max_retcode() == 0

    return ssh_bodies.twice(run, begin)


def local(cs: Any, scale: float) -> Numbers:
    task = cs.task_self()
    task.run("true", key="first")  # what starts once
    number = max(10, round(LOCAL * scale))
    begin = time.perf_counter()
    for key in range(number):
        task.shell("true", key=key)
    task.resume()
    seconds = time.perf_counter() - begin
    assert [(code, len(keys)) for code, keys in task.iter_retcodes()] == [(0, number)]
    return {"seconds": seconds}


@body
def ours_local(scale: float) -> Numbers:
    return local(ours(), scale)


@body
def peer_local(scale: float) -> Numbers:
    return local(original(), scale)


class Scales:
    """Weighs this process and its children, in KiB, while a block runs."""

    def __init__(self) -> None:
        self.most = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.5):
            self.most = max(self.most, sum(map(pss, [os.getpid(), *children()])))


def children() -> list[int]:
    found: list[int] = []
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):
            found += map(int, (task / "children").read_text().split())
    return found


def pss(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0  # it has ended
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))


def events(cs: Any, scale: float) -> Numbers:
    wait_for_quiet()
    task = connected(cs)
    task.set_default("stdout_msgtree", False)
    targets = addresses(scale)

    class Counting(cs.EventHandler):  # type: ignore[misc]
        lines = 0
        size = 0

        def ev_read(self, worker: Any, node: str, sname: str, msg: bytes) -> None:
            self.lines += 1
            self.size += len(msg)

    handler = Counting()
    command = f"yes {'x' * LINE} | head -c {LINES}"
    begin = time.perf_counter()
    with Scales() as scales:
        task.run(command, nodes=cs.NodeSet.fromlist(targets), handler=handler)
    seconds = time.perf_counter() - begin
    lines = LINES // (LINE + 1) * len(targets)
    assert (handler.lines, handler.size) == (lines, lines * LINE)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": seconds, "memory": peak / 1024, "together": scales.most / 1024}


@body
def ours_events(scale: float) -> Numbers:
    return events(ours(), scale)


@body
def peer_events(scale: float) -> Numbers:
    return events(original(), scale)


# -- the figures ------------------------------------------------------------------------------


def nodes(bench: Bench, number: int, rounds: int) -> None:
    mine, other = bench.measure(
        ours_nodes.__name__,
        ssh_bodies.peer_clustershell.__name__,
        rounds=rounds,
        scale=number / HOSTS,
    )
    for what, times in (("first", 4), ("next", 25)):
        bench.faster(f"{number} nodes, {what} / ClusterShell", mine[what], other[what], times)


def figures(bench: Bench) -> None:
    """Programs for ClusterShell."""
    with serving(0):
        nodes(bench, max(4, round(HOSTS * bench.scale)), bench.rounds)
        # Once: the peer takes minutes.
        nodes(bench, max(8, round(MANY * bench.scale)), 1)
        mine, other = bench.measure("ours_local", "peer_local")
        what = f"{max(10, round(LOCAL * bench.scale))} local workers"
        bench.faster(f"{what} / ClusterShell", mine["seconds"], other["seconds"], 2)
        mine, other = bench.measure("ours_events", "peer_events", rounds=1)
        what = f"{LINES / 1e6:g} MB of lines of each node"
        bench.at_most(f"{what}, events / ClusterShell", mine["seconds"], other["seconds"], 1.0)
        bench.at_most(f"{what}, peak memory", mine["together"], other["together"], 1.0, "MB")
        bench.show(f"{what}, without children", mine["memory"], other["memory"], "MB")


if __name__ == "__main__":
    main(figures, rounds=3)
