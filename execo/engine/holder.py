"""Who holds a combination: a process, told by what no other one on its host has ever had."""

from __future__ import annotations

import functools
import os
import socket
from dataclasses import dataclass
from pathlib import Path

__all__ = ["NOBODY", "Holder", "this_process"]


@dataclass(frozen=True)
class Holder:
    """A process, as it is written into a journal.

    - ``host``: its name, to show
    - ``boot``: of the host's kernel, and of the process table in it (a container has its own):
      where it is equal, pids mean the same
    - ``pid``, ``start``: the process, and when it was started, by the host's own count
    - ``beat``: seconds after which it gives a sign of life at the latest, while it holds something;
      None if it gives none
    """

    host: str
    boot: str
    pid: int
    start: int
    beat: float | None = None

    def there(self) -> bool | None:
        """Whether it runs; None if that cannot be seen from here: it is on another machine, or in
        another container, or its user hides it (``hidepid`` of ``/proc``)."""
        if not self.boot or self.boot != _boot():
            return None
        start = _start_of(self.pid)
        if start is None and _exists(self.pid):
            return None
        return start == self.start

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


NOBODY = Holder("a host that is not known", "", 0, 0)
"""The line that says who it is was lost."""


def this_process(beat: float | None) -> Holder:
    """Anew in a forked child."""
    pid = os.getpid()
    return Holder(socket.gethostname(), _boot(), pid, _start_of(pid) or 0, beat)


@functools.lru_cache(1)
def _boot() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return ""  # not Linux: nobody can be seen


def _start_of(pid: int) -> int | None:
    """Clock ticks from the boot to its start; -1 of a dead one that its parent has not seen, None
    if there is no such process to be seen."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    fields = stat.rpartition(b")")[2].split()
    if len(fields) < 20:
        return None
    return -1 if fields[0] in (b"Z", b"X") else int(fields[19])


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        pass  # of another user
    return True
