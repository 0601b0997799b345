"""Timers of a task."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import EngineIllegalOperationError
from .event import method_of

if TYPE_CHECKING:
    from .engine import Engine
    from .event import EventHandler

__all__ = ["EngineBaseTimer", "EngineTimer"]


class EngineBaseTimer:
    """Something that is due in a while. Times are those of the monotonic clock: setting the
    system's clock changes nothing. (ClusterShell: the system's clock)

    :param fire_delay: seconds until it is due; negative = never
    :param interval: seconds until it is due again; 0 or negative = it is due once
    :param autoclose: the run does not wait for it
    """

    engine: Engine | None = None
    due: tuple[Any, ...] | None = None
    _over = False

    def __init__(self, fire_delay: float, interval: float = -1.0, autoclose: bool = False) -> None:
        self.fire_delay = fire_delay
        self.interval = interval
        self.autoclose = autoclose

    def invalidate(self) -> None:
        """Be due no more. From any thread; a second call does nothing."""
        self._over = True
        if self.engine is not None:
            self.engine.remove_timer(self)

    def is_valid(self) -> bool:
        """Whether it will be due."""
        return self.engine is not None and not self._over

    def set_nextfire(self, fire_delay: float, interval: float = -1) -> None:
        """Be due in ``fire_delay`` seconds, and then every ``interval`` seconds.

        :raises EngineIllegalOperationError: if it is valid no more
        """
        if not self.is_valid() or self.engine is None:
            raise EngineIllegalOperationError(
                "Operation on invalid timer: it was invalidated, or its run is over"
            )
        self.fire_delay = fire_delay
        self.interval = interval
        self.engine.schedule(self, fire_delay)

    def _fire(self) -> None:
        """It is due."""


class EngineTimer(EngineBaseTimer):
    """A timer that calls ``handler.ev_timer(timer)``; see :meth:`~execo.clustershell.Task.timer`.

    - ``eh``: the handler
    """

    def __init__(
        self, fire_delay: float, interval: float, autoclose: bool, handler: EventHandler
    ) -> None:
        super().__init__(fire_delay, interval, autoclose)
        self.eh = handler

    def _fire(self) -> None:
        method = method_of(self.eh, "ev_timer")
        if method is not None:
            method(self)
