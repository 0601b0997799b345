"""The threads that run user code: strands keep it in order, the pool lends them threads.

A strand is a queue of calls which are run one at a time and in order, for one process or action.
The pool runs strands on a few threads and adds threads while the ones it has are blocked in user
code, so that a handler which waits for another process cannot starve that process's handlers.
"""

from __future__ import annotations

import contextvars
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from execo.log import logger

from .latch import Latch, clip
from .loop import Loop

__all__ = ["Pool", "Strand", "current_strand", "leave_strand", "wait"]

THREADS = 4
"""Threads that are started as soon as there is work for them."""

MOST_THREADS = 512
"""Threads at the most, when user code blocks all the others."""

GROW_INTERVAL = 0.05
"""Seconds without progress after which one more thread is added."""

IDLE_TIME = 5.0
"""Seconds after which a thread without work ends."""

BURST = 64
"""Calls of one strand that are run before others get their turn."""

_current: contextvars.ContextVar[Strand | None] = contextvars.ContextVar("strand", default=None)


def current_strand() -> Strand | None:
    """The strand whose call runs in this thread, or None."""
    return _current.get()


def leave_strand() -> None:
    """In a child that was forked in a handler: the handler's queue is the parent's."""
    _current.set(None)


class Strand:
    """Calls that are run in order, never two at a time. Methods may be called from any thread.

    :param pool: lends the thread
    :param label: what it belongs to, for messages

    ``running`` is what the user's code in it is, for messages; its callers set it.
    """

    __slots__ = ("_calls", "_changed", "_pool", "_scheduled", "label", "running")

    def __init__(self, pool: Pool, label: Callable[[], str]) -> None:
        self._pool = pool
        self._calls: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._scheduled = False
        self._changed: threading.Condition | None = None
        self.label = label
        self.running: object = None

    def submit(self, function: Callable[..., object], *args: Any) -> None:
        """Run ``function(*args)`` after what was submitted before. Does not block."""
        with self._pool.lock:
            self._calls.append((function, args))
            if self._scheduled:
                if self._changed is not None:
                    self._changed.notify_all()
                return
            self._scheduled = True
        self._pool.schedule(self)

    def run_some(self) -> bool:
        """Run up to BURST calls; True if more are left. Only for the pool and for a wait."""
        for _ in range(BURST):
            with self._pool.lock:
                if not self._calls:
                    self._scheduled = False
                    return False
                function, args = self._calls.popleft()
            self._run(function, args)
        return True

    def pump_until(self, latch: Latch, timeout: float | None) -> bool:
        """Run this strand's calls, inside one of them, until ``latch`` fires.

        Without it a handler that waits for its own process would wait for ever: the output
        behind the current call fills the queue, and the process is held up.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._pool.lock:
            if self._changed is None:
                self._changed = threading.Condition(self._pool.lock)
        changed = self._changed

        def notify() -> None:
            with changed:
                changed.notify_all()

        latch.add(notify)
        while not latch.fired:
            with changed:
                if not self._calls and not latch.fired:
                    left = None if deadline is None else deadline - time.monotonic()
                    if left is not None and left <= 0:
                        break
                    changed.wait(None if left is None else clip(left))
                    continue
                if latch.fired:
                    break
                function, args = self._calls.popleft()
            self._run(function, args)
            if deadline is not None and time.monotonic() >= deadline:
                break
        latch.discard(notify)
        return latch.fired

    def _run(self, function: Callable[..., object], args: tuple[Any, ...]) -> None:
        try:
            function(*args)
        except BaseException:
            # sys.exit() in a handler too: it must not take a thread of the pool along.
            logger.exception("a handler of %s failed", self.label())


class Pool:
    """A few threads for user code; more while they are blocked.

    :param loop: its timer looks after the growth
    """

    def __init__(self, loop: Loop) -> None:
        self.lock = threading.Lock()
        self._loop = loop
        self._strands: queue.SimpleQueue[Strand] = queue.SimpleQueue()
        self._threads = 0
        self._idle = 0
        self._taken = 0
        self._watched = False
        self._number = 0

    def schedule(self, strand: Strand) -> None:
        """Run ``strand`` on a thread as soon as there is one."""
        self._strands.put(strand)
        with self.lock:
            enough = self._idle > 0 and self._strands.qsize() <= self._idle
            if enough:
                return
            if self._threads < THREADS:
                self._add_thread()
                return
            if self._watched:
                return
            self._watched = True
        self._loop.call_soon(self._watch_growth)

    def _watch_growth(self) -> None:
        self._loop.call_later(GROW_INTERVAL, self._grow, self._taken)

    def _grow(self, taken_before: int) -> None:
        with self.lock:
            waiting = not self._strands.empty()
            if waiting and self._taken == taken_before and self._threads < MOST_THREADS:
                self._add_thread()
            self._watched = waiting
        if waiting:
            self._watch_growth()

    def _add_thread(self) -> None:
        self._threads += 1
        self._number += 1
        name = f"execo-handler-{self._number}"
        threading.Thread(target=self._work, name=name, daemon=True).start()

    def _work(self) -> None:
        while True:
            with self.lock:
                self._idle += 1
            try:
                strand = self._strands.get(timeout=IDLE_TIME)
            except queue.Empty:
                strand = None
            with self.lock:
                self._idle -= 1
                self._taken += 1
                if strand is None:
                    if not self._strands.empty():
                        continue
                    self._threads -= 1
                    return
            token = _current.set(strand)
            try:
                more = strand.run_some()
            finally:
                _current.reset(token)
            if more:
                self.schedule(strand)


def wait(latch: Latch, timeout: float | None) -> bool:
    """Block until ``latch`` has fired, at most ``timeout`` seconds. True if it has.

    In a handler the calls queued behind it are run meanwhile, see :meth:`Strand.pump_until`.
    """
    strand = current_strand()
    if strand is None:
        return latch.wait(timeout)
    return strand.pump_until(latch, timeout)
