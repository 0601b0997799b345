"""Actions made of actions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Unpack

from .action_base import Action, ActionLifecycleHandler
from .policy import PolicyArgs, Retry
from .process_base import ProcessBase
from .report import Stats
from .time_utils import Duration

__all__ = ["ParallelActions", "SequentialActions"]


class _ActionGroup(Action):
    """An action made of actions."""

    def __init__(
        self,
        actions: Iterable[Action],
        lifecycle_handlers: Iterable[ActionLifecycleHandler] | None = None,
        name: str | None = None,
        default_expect_timeout: Duration | None = None,
        *,
        fanout: int | None = None,
        hide_subactions: bool = False,
        **policy: Unpack[PolicyArgs],
    ) -> None:
        super().__init__(lifecycle_handlers, name, default_expect_timeout, fanout=fanout, **policy)
        self.actions = list(actions)
        self.hide_subactions = hide_subactions
        for action in self.actions:
            if not isinstance(action, Action):
                raise TypeError(f"{type(self).__name__} is made of actions, not of {action!r}")
            action._parent = self

    @property
    def processes(self) -> list[ProcessBase]:
        return [process for action in self.actions for process in action.processes]

    def stats(self) -> Stats:
        parts = [action.stats() for action in self.actions]
        keep = not self.hide_subactions
        return self._dated(Stats.merge(parts, name=self.name, keep_parts=keep))

    def _children(self) -> Sequence[ProcessBase | Action]:
        return self.actions


class ParallelActions(_ActionGroup):
    """Runs actions at once; with ``fanout``, at most so many of them at a time.

    :param actions: the actions
    :param lifecycle_handlers: see :class:`Action`, as all that follow
    :param name: see there
    :param default_expect_timeout: see there
    :param fanout: see there
    :param hide_subactions: reports show their sum only; also an attribute
    :param policy: ``start_rate``, ``retry`` and ``max_failures``, see there
    :raises TypeError: for what is no action
    """


class SequentialActions(_ActionGroup):
    """Runs actions one after the other, the next one also when one has failed, unless
    ``max_failures`` says otherwise: 0 stops at the first action that is not ok. ``kill()`` ends the
    one that runs and gives up the rest.

    :param actions: the actions
    :param lifecycle_handlers: see :class:`Action`, as all that follow
    :param name: see there
    :param default_expect_timeout: see there
    :param hide_subactions: reports show their sum only; also an attribute
    :param start_rate: see there
    :param retry: see there
    :param max_failures: see there
    :raises TypeError: for what is no action
    """

    def __init__(
        self,
        actions: Iterable[Action],
        lifecycle_handlers: Iterable[ActionLifecycleHandler] | None = None,
        name: str | None = None,
        default_expect_timeout: Duration | None = None,
        *,
        hide_subactions: bool = False,
        start_rate: float | None = None,
        retry: Retry | None = None,
        max_failures: int | str | None = None,
    ) -> None:
        super().__init__(
            actions,
            lifecycle_handlers,
            name,
            default_expect_timeout,
            fanout=1,
            hide_subactions=hide_subactions,
            start_rate=start_rate,
            retry=retry,
            max_failures=max_failures,
        )
