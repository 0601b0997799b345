"""What runs behind the user's script: the I/O thread, the threads for user code, the transports.

There is one runtime in a process. It starts at the first use, starts anew in a forked child, and
ends with the interpreter: nothing at import, no message and no hang at exit.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Callable
from typing import Any

from execo.log import logger

from .locks import ForkSafeLock
from .loop import Loop, owned
from .pool import Pool, Strand, leave_strand

__all__ = ["Runtime", "get_runtime"]


class Runtime:
    """The threads of this process and what runs on them. Made by :func:`get_runtime` alone.

    - ``loop``: the I/O thread
    - ``pool``: threads for user code
    - ``spawner``: a strand that starts queued processes, one after the other
    - ``sweeper``: a strand that looks through the system's table of processes
    - ``transports``: name -> the transport that is in use (filled by its registry, under ``lock``)
    - ``at_exit``: called at the end of the interpreter, the last one first
    """

    def __init__(self) -> None:
        self.owner = os.getpid()
        self.lock = threading.Lock()
        self.loop = Loop()
        self.pool = Pool(self.loop)
        self.spawner = Strand(self.pool, lambda: "the start of processes")
        self.sweeper = Strand(self.pool, lambda: "the search for left processes")
        self.transports: dict[str, Any] = {}
        self.at_exit: list[Callable[[], None]] = []

    @property
    def foreign(self) -> bool:
        """True in a forked child of the process that made this runtime."""
        return self.owner != os.getpid()

    def stop(self) -> None:
        """Run the ``at_exit`` callbacks, which end what still runs, then end the I/O thread."""
        for callback in reversed(self.at_exit):
            try:
                callback()
            except Exception:
                logger.exception("internal error at exit; the end goes on")
        self.loop.stop()


_lock = ForkSafeLock()
_current: Runtime | None = None
_left_behind: list[Runtime] = []
_hooked = False
_exiting = False


def get_runtime(switch_interval: float | None = None) -> Runtime:
    """The runtime of this process, which the first call starts. Blocks for some milliseconds then.

    :param switch_interval: seconds for ``sys.setswitchinterval`` if this call starts it; None
      leaves the interpreter's setting alone
    :raises RuntimeError: at the end of the interpreter, when nothing can be started any more
    """
    runtime = _current
    return runtime if runtime is not None else _start(switch_interval)


def _start(switch_interval: float | None) -> Runtime:
    global _current, _hooked
    with _lock:
        if _current is None:
            if _exiting:
                raise RuntimeError("the interpreter is exiting: no process can be started")
            if not _hooked:
                _hooked = True
                os.register_at_fork(after_in_child=_after_fork)
                atexit.register(_at_exit)
            if switch_interval is not None:
                sys.setswitchinterval(switch_interval)
            _current = Runtime()
        return _current


def _at_exit() -> None:
    global _current, _exiting
    _exiting = True
    runtime = _current
    # A forked child that leaves through sys.exit() comes by here; it must end nobody's processes.
    if runtime is not None and not runtime.foreign:
        runtime.stop()
        _current = None


def _after_fork() -> None:
    global _current
    runtime, _current = _current, None
    for holder in list(owned):
        holder.close_inherited()
    owned.clear()
    leave_strand()
    if runtime is not None:
        runtime.loop.abandon()
        # Kept: what it refers to must not be torn down by the collector of this process.
        _left_behind.append(runtime)
