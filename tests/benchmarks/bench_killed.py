"""A script is ended by SIGKILL: how soon all that it has started is gone, here and on hosts.

Each script runs nine commands, a third of which ignore SIGTERM; all have children, on hosts some
in sessions of their own. Two scripts are killed at the same moment. What counts *here* are
children, the ssh of the transports openssh and taktuk, and masters; *on hosts*, which are one real
sshd on loopback, the commands and their children.
"""

from __future__ import annotations

import contextlib
import os
import select
import statistics
import sys
import time

from harness import ROOT, Bench, main

sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from invariants import wait_until  # noqa: E402 - it is where the line above says
from killed import Victim, command_line  # noqa: E402
from sshd import RealSshd  # noqa: E402

KILLS = 100
AT_ONCE = 2
HERE, THERE = 1.0, 5.0
PATIENCE = 20.0
TRANSPORTS = ("local", "paramiko", "openssh", "taktuk")

SCRIPT = r"""
import time
stubborn = f"trap '' TERM HUP; sleep {word} & {apart}sleep {word} & echo ready; sleep {word}; :"
meek = f"sleep {word} & {apart}sleep {word} & echo ready; sleep {word}; :"
actions = [command(text).start() for text in (meek, stubborn, f"cd /; {meek}")]
for action in actions:
    for process in action.processes:
        if process.expect("ready", timeout=60)[0] is None:
            sys.exit(f"not ready: {process.dump()}")
step("ready")
time.sleep(600)
"""

COMMANDS = 9
EACH = 4
"""Processes of a command: its shell and three sleep."""


class Pids:
    """Some processes, and when the last of them has ended."""

    def __init__(self, pids: list[int]) -> None:
        self._poll = select.poll()
        self._open: set[int] = set()
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                descriptor = os.pidfd_open(pid)
                self._open.add(descriptor)
                self._poll.register(descriptor, select.POLLIN)

    def wait(self, deadline: float) -> float:
        """The moment, on the monotonic clock; infinite if one is still there at the deadline."""
        while self._open and (left := deadline - time.monotonic()) > 0:
            for descriptor, _ in self._poll.poll(left * 1000):
                self._poll.unregister(descriptor)
                self._open.discard(descriptor)
                os.close(descriptor)
        missing = bool(self._open)
        for descriptor in self._open:
            os.close(descriptor)
        self._open.clear()
        return float("inf") if missing else time.monotonic()


def kill(transport: str, sshd: RealSshd, count: int) -> list[tuple[float, float]]:
    """Seconds until nothing is left here and on hosts, of each of ``count`` scripts."""
    victims = [Victim(transport, sshd, script=SCRIPT) for _ in range(count)]
    try:
        waits: list[tuple[Pids, Pids]] = []
        for victim in victims:
            victim.wait_step("ready")
            # A command is ready a moment before its last sleep is.
            if not wait_until(lambda v=victim: len(v.there()) >= COMMANDS * EACH, PATIENCE):  # type: ignore[misc]
                raise RuntimeError(f"not all of it runs: {victim.errors.read_text()}")
            there = victim.there()
            here = [pid for pid in victim.here() if "execo-watchdog" not in command_line(pid)]
            waits.append((Pids(here), Pids(there)))
        begin = time.monotonic()
        for victim in victims:
            victim.popen.kill()
        deadline = begin + PATIENCE
        # One after the other, those that end first before the others: none is taken for later than
        # the latest of its side.
        ended_here = [here.wait(deadline) - begin for here, _ in waits]
        ended_there = [there.wait(deadline) - begin for _, there in waits]
        taken = list(zip(ended_here, ended_there, strict=True))
        # And nobody has come since.
        quiet = [wait_until(lambda v=one: not (v.there() or v.here()), PATIENCE) for one in victims]  # type: ignore[misc]
        return [t if ok else (float("inf"),) * 2 for t, ok in zip(taken, quiet, strict=True)]
    finally:
        for victim in victims:
            victim.close()


def figures(bench: Bench) -> None:
    """SIGKILL of the script: what it leaves, and for how long."""
    kills = max(AT_ONCE, round(KILLS * bench.scale))
    with RealSshd() as sshd:
        sshd.hosts()
        for transport in TRANSPORTS:
            taken: list[tuple[float, float]] = []
            while len(taken) < kills:
                taken += kill(transport, sshd, min(AT_ONCE, kills - len(taken)))
            sides = [("here", 0, HERE), ("on hosts", 1, THERE)]
            if transport == "local":
                sides = sides[:1]
            elif transport == "paramiko":
                sides = sides[1:]  # it has no children here
            for side, at, limit in sides:
                seconds = [one[at] for one in taken]
                what = f"{transport}, {kills} kills, gone {side}"
                bench.show(f"{what}, median", statistics.median(seconds))
                bench.below(f"{what}, worst", max(seconds), limit, "s")
                late = sum(one >= limit for one in seconds)
                bench.show(f"{what}, in time", kills - late, kills, "")


if __name__ == "__main__":
    main(figures, rounds=1)
