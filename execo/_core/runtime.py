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

from .locks import fork_gate, new_lock
from .loop import Loop, owned
from .pool import Pool, Strand, leave_strand
from .room import NO_ROOM
from .starter import Starter, deferring_interrupts

__all__ = ["Runtime", "current_runtime", "get_runtime"]

HANDLER_THREADS = 4
"""Threads for user code that are started as soon as there is work for them."""


class Runtime:
    """The threads of this process and what runs on them. Made by :func:`get_runtime` alone.

    - ``loop``: the I/O thread
    - ``pool``: threads for user code
    - ``workers``: threads that start processes and do what else may block
    - ``questions``: a strand of the pool that asks the user for secrets, one at a time
    - ``sweeper``: a strand of these that looks through the system's table of processes
    - ``transports``: name -> the transport that is in use (filled by its registry, under ``lock``)
    - ``exiting``: what ends now is ended by the end of the script
    - ``at_exit``: called at the end of the interpreter, the last one first
    """

    def __init__(self) -> None:
        self.owner = os.getpid()
        self.lock = threading.RLock()
        self.exiting = False
        self.stopped = False
        self.loop = Loop()
        # Apart from user code, whose handlers may hold up each other, but not us. One thread is
        # there from the start: at the end of the interpreter none can be added.
        try:
            self.workers = Pool(self.loop, "execo-worker", 2, kept=1)
        except BaseException:  # no thread can be started; a signal handler raises
            self.loop.stop()
            raise
        self.pool = Pool(self.loop, "execo-handler", HANDLER_THREADS, fallback=self.workers)
        self.questions = Strand(self.pool, lambda: "the questions for secrets")
        self.sweeper = Strand(self.workers, lambda: "the search for left processes")
        self.transports: dict[str, Any] = {}
        self._starter: Starter | None = None
        self.at_exit: list[Callable[[], None]] = []

    @property
    def foreign(self) -> bool:
        """True in a forked child of the process that made this runtime."""
        return self.owner != os.getpid()

    @property
    def gone(self) -> bool:
        """True where nothing that it runs will ever be seen to end: in a forked child, and at
        the end of the interpreter."""
        return self.stopped or self.foreign

    def run_unbroken(
        self, function: Callable[..., object], *args: Any, brief: bool = False
    ) -> None:
        """Run ``function(*args)`` so that no signal can break it off in the middle, and wait.

        If a Ctrl-C ends the wait, what was asked is finished all the same. See ``starter``.

        :param brief: it takes no longer than a Ctrl-C may wait
        """
        if threading.current_thread() is not threading.main_thread():
            function(*args)
            return
        if brief and deferring_interrupts(function, *args):
            return
        starter = self._starter
        if starter is None or not starter.free:
            # Still at work for a call whose wait was interrupted: the next one shall not wait.
            if starter is not None:
                starter.end()
            try:
                starter = self._starter = Starter()
            except RuntimeError:  # no thread can be started: out of memory, or the interpreter ends
                function(*args)
                return
        starter.run(function, *args)

    def end_all(self) -> None:
        """End what runs. What is started meanwhile is refused, afterwards all goes on as before."""
        self._close_transports()
        with self.lock:
            self.transports.clear()
            self.at_exit.clear()
        self.exiting = False

    def stop(self) -> None:
        """End what runs, then the I/O thread."""
        self._close_transports()
        self.loop.stop()
        self.stopped = True

    def _close_transports(self) -> None:
        self.exiting = True
        for callback in reversed(self.at_exit):
            try:
                callback()
            except Exception:
                logger.exception("internal error at exit; the end goes on")


_TOO_LATE = "the interpreter is exiting: no process can be started"
_NO_THREAD = (
    "execo needs some of its own; end others, or raise the limit (ulimit -u), and start again"
)
_NO_DESCRIPTOR = "execo needs some; close others, or raise the limit (ulimit -n), and start again"
_lock = new_lock()
_current: Runtime | None = None
_left_behind: list[Runtime] = []
_hooked = False
_exiting = False


def get_runtime(switch_interval: float | None = None) -> Runtime:
    """The runtime of this process, which the first call starts. Blocks for some milliseconds then.

    :param switch_interval: seconds for ``sys.setswitchinterval`` if this call starts it; None
      leaves the interpreter's setting alone
    :raises RuntimeError: at the end of the interpreter, when nothing can be started any more; if
      its threads cannot be started
    :raises OSError: if there are no descriptors for it. It can be called again
    """
    runtime = _current
    return runtime if runtime is not None else _start(switch_interval)


def current_runtime() -> Runtime | None:
    """The runtime of this process, if it has been started."""
    return _current


def _start(switch_interval: float | None) -> Runtime:
    global _hooked
    with fork_gate, _lock:
        if _current is None:
            if _exiting:
                raise RuntimeError(_TOO_LATE)
            if not _hooked:
                _hooked = True
                os.register_at_fork(after_in_child=_after_fork)
                atexit.register(_at_exit)
            if switch_interval is not None:
                sys.setswitchinterval(switch_interval)
            try:
                # A Ctrl-C in the middle would leave threads behind that nobody knows.
                main = threading.current_thread() is threading.main_thread()
                if not (main and deferring_interrupts(_make)):
                    _make()
            except RuntimeError as exc:
                # Python 3.12 and later start no thread any more when they say so.
                if "shutdown" in str(exc):
                    raise RuntimeError(_TOO_LATE) from exc
                raise RuntimeError(f"{exc}: {_NO_THREAD}") from exc
            except OSError as exc:
                if exc.errno not in NO_ROOM:
                    raise
                raise OSError(exc.errno, f"{os.strerror(exc.errno)}: {_NO_DESCRIPTOR}") from exc
        assert _current is not None
        return _current


def _make() -> None:
    global _current
    _current = Runtime()


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
