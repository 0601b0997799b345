"""Small helpers of execo 2.8.2, for scripts that import them from here. execo uses none of them."""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Hashable, Iterable
from typing import Any, ParamSpec, TypeVar

from .log import compact_output
from .ports import get_port
from .time_utils import Duration, get_seconds

__all__ = [
    "compact_output",
    "do_once",
    "get_port",
    "intr_event_wait",
    "is_string",
    "memoize",
    "name_from_cmdline",
    "singleton_to_collection",
]

P = ParamSpec("P")
T = TypeVar("T")

_LONGEST_NAME = 39


def memoize(obj: Callable[P, T]) -> Callable[P, T]:
    """A decorator that keeps what a function has returned, and returns it again for equal
    arguments. (execo 2.8.2)

    Any thread may call the function; two at once may both call it. The attribute ``cache`` of the
    result is the dict of what is kept.

    :param obj: the function; arguments that cannot be hashed are told apart by their ``repr()``
    """
    cache: dict[Hashable, T] = {}

    @functools.wraps(obj)
    def memoized(*args: P.args, **kwargs: P.kwargs) -> T:
        key: Hashable = (args, tuple(sorted(kwargs.items())))
        try:
            hash(key)
        except TypeError:
            key = repr(key)
        if key not in cache:
            cache[key] = obj(*args, **kwargs)
        return cache[key]

    memoized.cache = cache  # type: ignore[attr-defined]
    return memoized


class _Once:
    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.results: list[Any] = []


_once: dict[Hashable, _Once] = {}


def _renew_locks() -> None:
    for once in _once.values():
        once.lock = threading.RLock()


# In a forked child nobody lets go of what another thread was at.
os.register_at_fork(after_in_child=_renew_locks)


def do_once(key: Hashable, func: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    """Call a function at the first call with ``key`` in this process; return what it has returned
    from then on. (execo 2.8.2)

    From any thread: others with the same key wait for the first one. A call that raises does not
    count.

    :param key: what is to be done once
    :param func: the function, whichever it is at later calls
    :param args: its arguments
    """
    # One call of setdefault() is one step for all threads.
    once = _once.setdefault(key, _Once())
    with once.lock:
        if not once.results:
            once.results.append(func(*args, **kwargs))
        result: T = once.results[0]
        return result


def singleton_to_collection(arg: Any) -> Any:
    """A single object as a list of it; a text counts as one. (execo 2.8.2)

    :param arg: the object; what can be iterated over is returned as it is, None gives no element
    """
    if arg is None:
        return []
    return [arg] if is_string(arg) or not isinstance(arg, Iterable) else arg


def name_from_cmdline(cmdline: str | Iterable[str]) -> str:
    """The name that a process gets from its command: on one line, at most 39 characters. (execo
    2.8.2)

    :param cmdline: a text or words
    """
    text = cmdline if isinstance(cmdline, str) else " ".join(map(str, cmdline))
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_NAME else line[: _LONGEST_NAME - 3] + "..."


def is_string(s: object) -> bool:
    """Whether something is a ``str``. (execo 2.8.2)"""
    return isinstance(s, str)


def intr_event_wait(event: threading.Event, timeout: Duration | None = None) -> bool:
    """``event.wait(timeout)``, which Ctrl-C interrupts in the main thread. (execo 2.8.2)

    :param event: the event
    :param timeout: seconds, or what :func:`~execo.time_utils.get_seconds` takes; None = no limit
    :returns: whether the event is set
    """
    return event.wait(get_seconds(timeout))
