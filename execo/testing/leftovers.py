"""Ends what the commands of a cluster have left running."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

__all__ = ["kill_leftovers"]

_ROUNDS = 20


def kill_leftovers(folder: str) -> None:
    """Kill every process whose HOME is in ``folder``, the cluster's.

    Linux only: elsewhere there is no /proc, and what a command has put into a session of its own
    survives. Repeated, since a process may start another one while it is being looked for.
    """
    for _ in range(_ROUNDS):
        found = list(_processes(f"HOME={folder}/".encode()))
        if not found:
            return
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)


def _processes(mark: bytes) -> Iterator[int]:
    for proc in Path("/proc").glob("[0-9]*"):
        # Gone since, or another user's.
        with contextlib.suppress(OSError):
            environ = (proc / "environ").read_bytes()
            if any(one.startswith(mark) for one in environ.split(b"\0")):
                yield int(proc.name)
