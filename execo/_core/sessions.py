"""What is left of a session whose leader was told to end: found, signalled, waited for.

A process group is not enough. ``timeout 5 cmd`` and job control put processes into other groups
of the session, and some of a group may ignore the signal that ended its leader. So a signalled
leader stays a zombie, which keeps its number from being given to somebody else, until nobody of
its session is left, or the patience with them is over and they are killed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

from .runtime import Runtime

if TYPE_CHECKING:
    from asyncio import TimerHandle

__all__ = ["Sessions", "session_members", "signal_strays"]

_FIRST_LOOK = 0.02
_LAST_LOOK = 1.0
_NO_ROOM = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})


def session_members(sessions: set[int]) -> dict[int, int]:
    """The live processes of these sessions, zombies apart: pid -> session. Linux; else empty.

    Reads one small file for each process of the machine: not for the I/O thread.

    :raises OSError: if it cannot look, out of descriptors for one
    """
    members: dict[int, int] = {}
    if not os.path.isdir("/proc/self/fd"):
        return members
    for name in os.listdir("/proc"):
        if name.isdigit() and (session := _session_of(int(name))) in sessions:
            members[int(name)] = session
    return members


def _session_of(pid: int) -> int:
    """The session of a live process, or -1."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The second field is the name of the program, which may hold blanks and ')'.
            fields = file.read().rpartition(b")")[2].split()
    except OSError as exc:
        if exc.errno in _NO_ROOM:
            raise  # to take it for ended would be to forget it
        return -1
    return -1 if fields[0] in (b"Z", b"X") else int(fields[3])


def _signal_member(pid: int, session: int, number: int) -> None:
    """Signal a process that was seen in ``session``, and nobody who has its number by now."""
    with contextlib.suppress(OSError):
        if not hasattr(os, "pidfd_open"):
            os.kill(pid, number)
            return
        fd = os.pidfd_open(pid)
        try:
            if _session_of(pid) == session:
                signal.pidfd_send_signal(fd, number)
        finally:
            os.close(fd)


def signal_strays(leaders: dict[int, int]) -> None:
    """Send its signal (leader -> signal) to all of a session that is not in its leader's group.

    Not for the I/O thread. What cannot be looked at is left to the KILL of the survivors.
    """
    try:
        members = session_members(set(leaders))
    except OSError:
        return
    for pid, session in members.items():
        with contextlib.suppress(OSError):
            if os.getpgid(pid) != session:
                _signal_member(pid, session, leaders[session])


class Sessions:
    """Signals strays and waits for survivors, many sessions with one look. For the I/O thread."""

    def __init__(self, runtime: Runtime) -> None:
        self._loop = runtime.loop
        self._sweeper = runtime.sweeper
        self._strays: dict[int, int] = {}
        self._lingering: dict[int, tuple[float, Callable[[], object]]] = {}
        self._timer: TimerHandle | None = None
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
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._look()

    def _look(self) -> None:
        self._timer = None
        if not self._looking and self._lingering:
            self._looking = True
            self._sweeper.submit(self._find, set(self._lingering))

    def _find(self, leaders: set[int]) -> None:
        try:
            members = session_members(leaders)
        except OSError:
            leaders, members = set(), {}  # another time
        self._loop.call_soon(self._found, leaders, members)

    def _found(self, leaders: set[int], members: dict[int, int]) -> None:
        self._looking = False
        alive = set(members.values())
        for leader in leaders - alive:
            _, on_empty = self._lingering.pop(leader)
            on_empty()
        now = self._loop.time()
        for pid, leader in members.items():
            if now >= self._lingering[leader][0]:
                _signal_member(pid, leader, signal.SIGKILL)
        if self._lingering and self._timer is None:
            self._interval = min(self._interval * 2, _LAST_LOOK)
            self._timer = self._loop.call_later(self._interval, self._look)
