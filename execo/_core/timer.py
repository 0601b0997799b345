"""A call in the future, of which there is never more than one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .loop import Loop

if TYPE_CHECKING:
    from asyncio import TimerHandle

__all__ = ["Timer"]


class Timer:
    """One call on the I/O thread, which replaces that of before. All on the I/O thread.

    A loop keeps what it is to call, and all that hangs on it, until the time has come, though it
    would do nothing any more: what is over cancels its call, or ten thousand of them stay for
    minutes.
    """

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._handle: TimerHandle | None = None

    @property
    def runs(self) -> bool:
        """A call is to come."""
        return self._handle is not None

    def set(self, seconds: float, function: Callable[..., object], *args: Any) -> None:
        """Call ``function(*args)`` in so many seconds, and not what was to be called before."""
        self.cancel()
        self._handle = self._loop.call_later(seconds, self._call, function, args)

    def cancel(self) -> None:
        """Call nothing."""
        handle, self._handle = self._handle, None
        if handle is not None:
            handle.cancel()

    def _call(self, function: Callable[..., object], args: tuple[Any, ...]) -> None:
        self._handle = None
        function(*args)
