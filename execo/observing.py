"""Who is told of every process and action of this interpreter, without being a handler of each.

Handlers are the user's and may take their time; an observer is one of ours, a record of a run for
one, and is called where things happen. While there is none, this costs a look at an empty tuple.
"""

from __future__ import annotations

import os
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

from ._core.locks import new_lock
from .log import logger

if TYPE_CHECKING:
    from .execution import Execution
    from .lifecycle import Run

__all__ = ["Observer", "label", "observe", "tell", "unobserve"]


class Observer(Protocol):
    """Is called on the I/O thread, save ``action_started`` (the thread that starts the action): it
    must not block. One that raises is told of nothing more."""

    def process_started(self, run: Run, /) -> None:
        """It runs. One that cannot be started ends without."""

    def process_printed(self, run: Run, stream: int, data: bytes, /) -> None:
        """A piece of its output."""

    def process_ended(self, run: Run, /) -> None:
        """It has ended; nobody who waits for that has seen it yet."""

    def action_started(self, execution: Execution, /) -> None:
        """It has begun; none of its processes has."""

    def action_ended(self, execution: Execution, /) -> None:
        """It has ended, or was given up before its start; likewise."""


observers: tuple[Observer, ...] = ()
"""To be looked at as ``observing.observers``: it is another one after each change."""

label: ContextVar[Any] = ContextVar("execo_label", default=None)
"""What is started in this context is for this: a combination of parameters."""

_lock = new_lock()
_hooked = False


def observe(observer: Observer) -> None:
    """Tell it of all that starts from now on, and of the end of what runs."""
    global observers, _hooked
    with _lock:
        if not _hooked:
            _hooked = True
            # A forked child is another interpreter: its processes are none of the parent's record.
            os.register_at_fork(after_in_child=_forget_all)
        observers = (*observers, observer)


def unobserve(observer: Observer) -> None:
    """Tell it of nothing more."""
    global observers
    with _lock:
        observers = tuple(one for one in observers if one is not observer)


def tell(what: str, subject: object, *more: object) -> None:
    """Call the method ``what`` of all observers."""
    for observer in observers:
        try:
            getattr(observer, what)(subject, *more)
        except Exception:
            # What is observed shall not suffer from it.
            logger.exception("internal error: %r cannot take %r, and ends", observer, what)
            unobserve(observer)


def _forget_all() -> None:
    global observers
    observers = ()
