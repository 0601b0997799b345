"""A latch: something that happens once, to wait for and to be told of.

It costs 56 bytes until somebody waits, where an Event and its Condition cost kilobytes; processes
have several, and most of them are never waited for.
"""

from __future__ import annotations

import _thread
import contextlib
import threading
from collections.abc import Callable, Generator
from typing import Any

from execo.log import logger

from .locks import new_lock

__all__ = ["Latch", "clip"]

# One lock for all latches: it is held for a few instructions, never while a callback runs.
_lock = new_lock()


def clip(timeout: float) -> float:
    """``timeout`` within what a lock takes: a huge one would be an OverflowError."""
    return min(max(0.0, timeout), threading.TIMEOUT_MAX)


class Latch:
    """Open until :meth:`fire`. Every method may be called from any thread."""

    __slots__ = ("_callbacks", "fired")

    def __init__(self) -> None:
        self.fired = False
        self._callbacks: list[Callable[[], object]] | None = None

    def fire(self) -> None:
        """Let all waiters go and run the callbacks in this thread. A second call does nothing."""
        with _lock:
            if self.fired:
                return
            self.fired = True
            callbacks, self._callbacks = self._callbacks, None
        for callback in callbacks or ():
            try:
                callback()
            except BaseException:
                # The others wait, too.
                logger.exception("internal error in a callback; the others are called")

    def add(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` when the latch fires: in the firing thread, or now if it has fired."""
        with _lock:
            if not self.fired:
                if self._callbacks is None:
                    self._callbacks = []
                self._callbacks.append(callback)
                return
        callback()

    def discard(self, callback: Callable[[], object]) -> None:
        """Forget ``callback``, if it is still there."""
        with _lock:
            if self._callbacks and callback in self._callbacks:
                self._callbacks.remove(callback)

    def wait(self, timeout: float | None = None) -> bool:
        """Block until the latch has fired, at most ``timeout`` seconds. True if it has."""
        if self.fired:
            return True
        woken = _thread.allocate_lock()
        woken.acquire()
        self.add(woken.release)
        done = woken.acquire(timeout=-1 if timeout is None else clip(timeout))
        if not done:
            self.discard(woken.release)
        return self.fired

    def __await__(self) -> Generator[Any, None, None]:
        """Wait in a coroutine, of whatever asyncio loop."""
        import asyncio

        loop = asyncio.get_running_loop()
        future = loop.create_future()

        def resolve() -> None:
            if not future.done():
                future.set_result(None)

        def fired() -> None:
            # The coroutine's loop may be closed by now: nobody waits there any more.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(resolve)

        self.add(fired)
        try:
            yield from future
        finally:
            self.discard(fired)
