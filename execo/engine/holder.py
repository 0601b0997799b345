"""Who holds a combination: a process, told by what no other one on its host has ever had."""

from __future__ import annotations

import functools
import os
import socket
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Holder", "this_process"]


@dataclass(frozen=True)
class Holder:
    """A process, as it is written into a journal.

    - ``host``: its name, to show
    - ``boot``: of the host's kernel, and of the process table in it (a container has its own):
      where it is equal, pids mean the same
    - ``pid``, ``start``: the process, and when it was started, by the host's own count
    """

    host: str
    boot: str
    pid: int
    start: int

    @property
    def near(self) -> bool:
        """Whether :attr:`alive` can tell: its pid is one of ours."""
        return bool(self.boot) and self.boot == _boot()

    @property
    def alive(self) -> bool:
        """Whether it runs. Only if it is :attr:`near`."""
        return _start_of(self.pid) == self.start

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def this_process() -> Holder:
    """Anew in a forked child."""
    return _holder(os.getpid())


@functools.lru_cache(1)
def _holder(pid: int) -> Holder:
    return Holder(socket.gethostname(), _boot(), pid, _start_of(pid) or 0)


@functools.lru_cache(1)
def _boot() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return ""  # not Linux: nobody is near


def _start_of(pid: int) -> int | None:
    """Clock ticks from the boot to its start; None if there is no such process, or a dead one."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    fields = stat.rpartition(b")")[2].split()
    return None if fields[0] in (b"Z", b"X") else int(fields[19])
