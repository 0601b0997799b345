"""What is left of a session whose leader was told to end: found, signalled, waited for.

A process group is not enough. ``timeout 5 cmd`` and job control put processes into other groups
of the session, and some of a group may ignore the signal that ended its leader. So a signalled
leader stays a zombie, which keeps its number from being given to somebody else, until nobody of
its session is left, or the patience with them is over and they are killed.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable

from .runtime import Runtime

__all__ = ["Sessions", "session_members"]

_FIRST_LOOK = 0.02
_LAST_LOOK = 1.0


def session_members(sessions: set[int]) -> dict[int, int]:
    """The live processes of these sessions, zombies apart: pid -> session. Linux; else empty.

    Reads one small file for each process of the machine: not for the I/O thread.
    """
    members: dict[int, int] = {}
    try:
        names = os.listdir("/proc")
    except OSError:
        return members
    for name in names:
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                # The second field is the name of the program, which may hold blanks and ')'.
                fields = file.read().rpartition(b")")[2].split()
            session = int(fields[3])
        except (OSError, IndexError, ValueError):
            continue  # it has ended meanwhile
        if session in sessions and fields[0] not in (b"Z", b"X"):
            members[int(name)] = session
    return members


def signal_strays(leaders: dict[int, int]) -> None:
    """Send its signal (leader -> signal) to all of a session that is not in its leader's group."""
    for pid, session in session_members(set(leaders)).items():
        with contextlib.suppress(OSError):
            if os.getpgid(pid) != session:
                os.kill(pid, leaders[session])


class Sessions:
    """Signals strays and waits for survivors, many sessions with one look. For the I/O thread."""

    def __init__(self, runtime: Runtime) -> None:
        self._loop = runtime.loop
        self._sweeper = runtime.sweeper
        self._strays: dict[int, int] = {}
        self._lingering: dict[int, tuple[float | None, Callable[[], object]]] = {}
        self._interval = _FIRST_LOOK
        self._looking = False

    def signal_strays(self, leader: int, number: int) -> None:
        """Signal what has left the leader's process group but not its session. Returns at once."""
        if not self._strays:
            self._loop.call_soon(self._send_strays)
        self._strays[leader] = number

    def _send_strays(self) -> None:
        strays, self._strays = self._strays, {}
        self._sweeper.submit(signal_strays, strays)

    def linger(self, leader: int, patience: float, on_empty: Callable[[], object]) -> None:
        """Call ``on_empty`` once nobody is left of the session of ``leader``, a zombie.

        After ``patience`` seconds the survivors are killed.
        """
        self._lingering[leader] = (self._loop.time() + patience, on_empty)
        self._interval = _FIRST_LOOK
        self._look()

    def _look(self) -> None:
        if not self._looking and self._lingering:
            self._looking = True
            self._sweeper.submit(self._find, set(self._lingering))

    def _find(self, leaders: set[int]) -> None:
        members = session_members(leaders)
        self._loop.call_soon(self._found, leaders, members)

    def _found(self, leaders: set[int], members: dict[int, int]) -> None:
        self._looking = False
        alive = set(members.values())
        for leader in leaders - alive:
            _, on_empty = self._lingering.pop(leader)
            on_empty()
        now = self._loop.time()
        for pid, leader in members.items():
            deadline, on_empty = self._lingering[leader]
            if deadline is not None and now >= deadline:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
        if self._lingering:
            self._interval = min(self._interval * 2, _LAST_LOOK)
            self._loop.call_later(self._interval, self._look)
