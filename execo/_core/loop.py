"""The I/O thread: one asyncio loop in a daemon thread, driven by plain callbacks.

It needs no signal handler and no main thread. State that changes while processes run belongs to
this thread: others hand it work with :meth:`Loop.call_soon` and :meth:`Loop.run_sync`.
"""

from __future__ import annotations

import _thread
import selectors
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from execo.log import logger

if TYPE_CHECKING:
    import asyncio

__all__ = ["Loop", "Owned", "owned"]

T = TypeVar("T")


class Owned(Protocol):
    """Something of ours that holds descriptors, which a forked child must give up."""

    def close_inherited(self) -> None:
        """Close the copies of the descriptors, and nothing else. Runs in the forked child."""


owned: set[Owned] = set()
"""All open holders of descriptors, for a forked child. Adding and discarding are atomic."""


def _new_event_loop(selector: selectors.BaseSelector) -> asyncio.SelectorEventLoop:
    import asyncio  # 20 ms, which nobody should pay who only imports execo

    class EventLoop(asyncio.SelectorEventLoop):
        def __del__(self) -> None:
            # The owner closes its loop in Loop.stop(). A forked child must not: close() takes the
            # wake-up socket out of the epoll that it shares with its parent, which goes deaf.
            pass

    return EventLoop(selector)


class Loop:
    """One I/O thread and its loop; the runtime makes it."""

    def __init__(self) -> None:
        self._inbox: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._woken = False
        self._stopped = False
        self.poller: Any = None  # what watches children where the system has no pidfds
        self._selector = selectors.DefaultSelector()
        try:
            self._aio = _new_event_loop(self._selector)
        except BaseException:
            self._selector.close()  # no more descriptors: those that it has had are given back
            raise
        self._aio.set_debug(False)
        self._aio.set_exception_handler(_log_internal_error)
        # Methods of the asyncio loop, for the I/O thread only.
        self.add_reader = self._aio.add_reader
        self.remove_reader = self._aio.remove_reader
        self.add_writer = self._aio.add_writer
        self.remove_writer = self._aio.remove_writer
        self.call_later = self._aio.call_later
        self.time = self._aio.time
        self._thread = threading.Thread(target=self._run, name="execo-io", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # it cannot be started
            self._aio.close()
            raise
        except BaseException:  # a signal handler's: it runs, or is about to
            self._aio.call_soon_threadsafe(self._aio.stop)
            raise

    # -- from any thread ----------------------------------------------------------------------

    def call_soon(self, function: Callable[..., object], *args: Any) -> None:
        """Run ``function(*args)`` on the I/O thread, in the order of the calls. Does not block.

        After the end of the loop (the interpreter is exiting) the call is dropped.
        """
        self._inbox.append((function, args))
        # One wake-up (a system call, and a fight for the interpreter lock) serves many calls.
        if not self._woken and not self._stopped:
            self._woken = True
            try:
                self._aio.call_soon_threadsafe(self._drain)
            except RuntimeError:
                pass  # it has closed between the look and the call: the interpreter is exiting
            except BaseException:
                self._woken = False  # Ctrl-C: a wake-up too many is better than none ever again
                raise

    def run_sync(self, function: Callable[..., T], *args: Any) -> T | None:
        """Run ``function(*args)`` on the I/O thread and give back its result.

        Blocks for as long as the call takes; functions given here never block. None if the loop
        has ended.
        """
        if self.in_thread():
            return function(*args)
        result: list[T] = []
        done = _thread.allocate_lock()
        done.acquire()

        def call() -> None:
            try:
                result.append(function(*args))
            finally:
                done.release()

        self.call_soon(call)
        # The thread is looked at again: it may have taken its last look at the inbox already.
        while not done.acquire(timeout=1.0):
            if not self._thread.is_alive():
                return None
        return result[0] if result else None

    def in_thread(self) -> bool:
        """True on the I/O thread."""
        return _thread.get_ident() == self._thread.ident

    # -- the thread ---------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._aio.run_forever()
        finally:
            self._drain()
            self._aio.close()

    def _drain(self) -> None:
        # Lowered first: a call that comes while we work wakes us again instead of being left.
        self._woken = False
        inbox = self._inbox
        for _ in range(len(inbox)):
            function, args = inbox.popleft()
            try:
                function(*args)
            except BaseException:
                logger.exception("internal error in the I/O thread; it goes on")

    # -- the end ------------------------------------------------------------------------------

    def stop(self) -> None:
        """End the loop and its thread. Runs at the end of the interpreter, in the main thread."""
        self.call_soon(self._aio.stop)
        self._stopped = True
        self._thread.join(5.0)

    def abandon(self) -> None:
        """In a forked child: close this child's copies of the descriptors, touch nothing else."""
        self._stopped = True
        self._selector.close()
        for name in ("_ssock", "_csock"):
            sock = getattr(self._aio, name, None)
            if sock is not None:
                sock.close()


def _log_internal_error(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    logger.error(
        "internal error in the I/O thread; it goes on: %s",
        context.get("message"),
        exc_info=context.get("exception"),
    )
