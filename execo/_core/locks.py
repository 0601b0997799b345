"""What threads and forks must agree on."""

from __future__ import annotations

import logging  # noqa: F401 - see fork_gate
import os
import threading

__all__ = ["ForkGate", "fork_gate", "new_lock"]


def new_lock() -> threading.Lock:
    """A lock that is free in a forked child, whoever held it: that thread is not there any more.

    A plain lock, since Ctrl-C can come between any two lines of a context manager in Python and
    leave it locked for ever. Never destroyed; for module level.
    """
    lock = threading.Lock()
    os.register_at_fork(after_in_child=lock._at_fork_reinit)  # type: ignore[attr-defined]
    return lock


class ForkGate:
    """``with gate``: no fork of this process by another thread until the end of the block.

    A child forked in the middle of the start of a process has copies of its pipes: the other ends
    never see their end of file, and the start waits for the child. One forked in the middle of an
    import waits for ever for the thread that was at it. Many threads may be inside at a time; a
    fork waits for them, but no longer than PATIENCE, since the loading of a program may hang.
    """

    PATIENCE = 10.0

    def __init__(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._inside = 0
        self._forks = 0
        os.register_at_fork(
            before=self._before_fork,
            after_in_parent=self._after_fork,
            after_in_child=self._renew,
        )

    def __enter__(self) -> None:
        with self._changed:
            while self._forks:
                self._changed.wait()
            self._inside += 1

    def __exit__(self, *exc_info: object) -> None:
        with self._changed:
            self._inside -= 1
            if not self._inside and self._forks:
                self._changed.notify_all()

    def _before_fork(self) -> None:
        with self._changed:
            self._forks += 1
            self._changed.wait_for(lambda: not self._inside, self.PATIENCE)

    def _after_fork(self) -> None:
        with self._changed:
            self._forks -= 1
            self._changed.notify_all()

    def _renew(self) -> None:
        self._changed = threading.Condition(threading.Lock())
        self._inside = self._forks = 0


fork_gate = ForkGate()
"""The gate of this process.

What is to be done before a fork is done in the reverse of the order in which it was registered, and
``logging`` takes its lock then. It must register before the gate: a fork that held that lock while
it waits here would wait for a thread inside that waits for the lock."""
