"""Actions that run commands."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .action import Action, ActionLifecycleHandler
from .process import Process, ProcessBase
from .time_utils import Duration

__all__ = ["Local"]


class Local(Action):
    """A command on this machine: an action around one :class:`~execo.process.Process`.

    :param cmd: the command, see there
    :param process_args: keyword arguments for the process, ``{"shell": True}`` for one
    :param lifecycle_handlers: see :class:`~execo.action.Action`
    :param name: for messages and reports; default: the command, shortened (execo 2.8.2: the class
      and a number)
    :param default_expect_timeout: see :class:`~execo.action.Action`
    """

    def __init__(
        self,
        cmd: str | Sequence[str],
        process_args: Mapping[str, Any] | None = None,
        lifecycle_handlers: Iterable[ActionLifecycleHandler] | None = None,
        name: str | None = None,
        default_expect_timeout: Duration | None = None,
    ) -> None:
        self.process = Process(cmd, **(process_args or {}))
        self.process._action = self
        super().__init__(
            lifecycle_handlers,
            self.process.name if name is None else name,
            default_expect_timeout,
        )

    @property
    def processes(self) -> list[ProcessBase]:
        return [self.process]

    def write(self, data: str | bytes) -> int:
        """Write to its stdin, see :meth:`~execo.process.ProcessBase.write`."""
        return self.process.write(data)
