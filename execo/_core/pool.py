"""The threads that run user code: strands keep it in order, the pool lends them threads.

A strand is a queue of calls which are run one at a time and in order, for one process or action.
The pool runs strands on a few threads and adds threads while the ones it has are blocked in user
code, so that a handler which waits for another process cannot starve that process's handlers.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from execo.log import logger

from .latch import Latch
from .loop import Loop

__all__ = ["Pool", "Strand", "current_strand", "leave_strand", "wait"]

MOST_THREADS = 512
"""Threads at the most, when user code blocks all the others."""

GROW_INTERVAL = 0.05
"""Seconds without progress after which one more thread is added."""

IDLE_TIME = 5.0
"""Seconds after which a thread without work ends."""

BURST = 64
"""Calls of one strand that are run before others get their turn."""


class _Thread(threading.local):
    strand: Strand | None = None


_thread = _Thread()


def current_strand() -> Strand | None:
    """The strand whose call runs in this thread, or None."""
    return _thread.strand


def leave_strand() -> None:
    """In a child that was forked in a handler: the handler's queue is the parent's."""
    _thread.strand = None


class Strand:
    """Calls that are run in order, never two at a time. Methods may be called from any thread.

    :param pool: lends the thread
    :param label: what it belongs to, for messages

    ``running`` is what the user's code in it is, for messages; its callers set it. ``on_wait`` is
    called with True when a call in it begins to wait for a process, and with False when it goes
    on: what the strand holds up must not be what the call waits for.
    """

    __slots__ = ("__weakref__", "_calls", "_pool", "_scheduled", "label", "on_wait", "running")

    def __init__(self, pool: Pool, label: Callable[[], str]) -> None:
        self._pool = pool
        self._calls: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._scheduled = False
        self.label = label
        self.running: object = None
        self.on_wait: Callable[[bool], object] | None = None

    def submit(self, function: Callable[..., object], *args: Any) -> None:
        """Run ``function(*args)`` after what was submitted before. Does not block."""
        with self._pool.lock:
            self._calls.append((function, args))
            if self._scheduled:
                return
            self._scheduled = True
        self._pool.schedule(self)

    def run_some(self) -> bool:
        """Run up to BURST calls; True if more are left. Only for the pool."""
        for _ in range(BURST):
            with self._pool.lock:
                if not self._calls:
                    self._scheduled = False
                    return False
                function, args = self._calls.popleft()
            self._run(function, args)
        return True

    def _run(self, function: Callable[..., object], args: tuple[Any, ...]) -> None:
        try:
            function(*args)
        except BaseException:
            # sys.exit() in a handler too: it must not take a thread of the pool along.
            logger.exception("a handler of %s failed", self.label())


class Pool:
    """A few threads; more while they are blocked.

    :param loop: its timer looks after the growth
    :param name: how its threads are called, before a number
    :param threads: how many are started as soon as there is work for them
    :param kept: how many are started at once and never end
    :param fallback: does the work when no thread can be started: out of memory, or at the end of
      the interpreter, which allows no new ones
    :raises RuntimeError: if those that are kept cannot be started
    """

    def __init__(
        self, loop: Loop, name: str, threads: int, *, kept: int = 0, fallback: Pool | None = None
    ) -> None:
        self.lock = threading.Lock()
        self._loop = loop
        self._name = name
        self._most_at_once = threads
        self._kept = kept
        self._fallback = fallback
        self._work = threading.Condition(self.lock)
        self._queue: deque[Strand] = deque()
        self._threads = 0
        self._idle = 0
        self._taken = 0
        self._watched = False
        self._number = 0
        for _ in range(kept):
            if not self._add_thread():
                raise RuntimeError("can't start new thread")

    def submit(self, function: Callable[..., object], *args: Any) -> None:
        """Run ``function(*args)`` on a thread, beside all else."""
        Strand(self, lambda: self._name).submit(function, *args)

    def schedule(self, strand: Strand) -> None:
        """Run ``strand`` on a thread as soon as there is one."""
        with self.lock:
            self._queue.append(strand)
            if self._idle >= len(self._queue):
                self._work.notify()
                return
            if self._threads < self._most_at_once and self._add_thread():
                return
            if not self._threads and self._fallback is not None:
                self._queue.pop()
                self._fallback.schedule(strand)
                return
            if self._watched:
                return
            self._watched = True
        self._loop.call_soon(self._watch_growth)

    def _watch_growth(self) -> None:
        self._loop.call_later(GROW_INTERVAL, self._grow, self._taken)

    def _grow(self, taken_before: int) -> None:
        with self.lock:
            waiting = bool(self._queue)
            if waiting and self._taken == taken_before and self._threads < MOST_THREADS:
                self._add_thread()
            self._watched = waiting
        if waiting:
            self._watch_growth()

    def _add_thread(self) -> bool:
        name = f"{self._name}-{self._number + 1}"
        try:
            threading.Thread(target=self._run, name=name, daemon=True).start()
        except RuntimeError:
            return False
        self._number += 1
        self._threads += 1
        return True

    def _next(self) -> Strand | None:
        """The next strand to run; None after a time without any."""
        with self.lock:
            self._idle += 1
            found = self._work.wait_for(lambda: self._queue, IDLE_TIME)
            while not found and self._threads <= self._kept:
                found = self._work.wait_for(lambda: self._queue)
            # Lowered under the same lock that takes the strand: a thread that is counted as idle
            # is one that will look at the queue again.
            self._idle -= 1
            if not found:
                self._threads -= 1
                return None
            self._taken += 1
            return self._queue.popleft()

    def _run(self) -> None:
        while (strand := self._next()) is not None:
            _thread.strand = strand
            more = strand.run_some()
            _thread.strand = None
            if more:
                self.schedule(strand)
            del strand  # with all that its calls have been about


def wait(latch: Latch, timeout: float | None) -> bool:
    """Block until ``latch`` has fired, at most ``timeout`` seconds. True if it has.

    In a handler this tells the handler's strand, see :class:`Strand`.
    """
    strand = current_strand()
    if strand is None or strand.on_wait is None:
        return latch.wait(timeout)
    strand.on_wait(True)
    try:
        return latch.wait(timeout)
    finally:
        strand.on_wait(False)
