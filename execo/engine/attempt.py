"""One attempt at one combination, as the code that measures it sees it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, TypeVar

from execo.action_base import Action
from execo.errors import ExecoError
from execo.host import Host
from execo.time_utils import Duration, get_seconds

from .combination import HashableDict

__all__ = ["Attempt", "AttemptCancelled", "AttemptTimeout"]

AnAction = TypeVar("AnAction", bound=Action)


class AttemptCancelled(ExecoError):
    """The experiment is being stopped: this attempt does not count."""


class AttemptTimeout(ExecoError):
    """What was to be run took too long, and was killed."""


class Attempt:
    """One attempt at one combination: ``attempt["size"]`` is the level of a factor.

    - ``combination``: all factors
    - ``hosts``: its hosts; nobody else in this run has them meanwhile
    - ``number``: from 1 on, the earlier runs included
    - ``actions``: those that :meth:`run` has started
    """

    def __init__(
        self, combination: HashableDict, hosts: Sequence[Host] = (), number: int = 1
    ) -> None:
        self.combination = combination
        self.hosts = list(hosts)
        self.number = number
        self.actions: list[Action] = []
        self._lock = threading.Lock()
        self._running: list[Action] = []
        self._cancelled = False

    def __getitem__(self, factor: Any) -> Any:
        return self.combination[factor]

    @property
    def cancelled(self) -> bool:
        """Whether the experiment is being stopped, and does not wait for this attempt."""
        return self._cancelled

    def run(self, action: AnAction, timeout: Duration | None = None) -> AnAction:
        """Start an action and wait for its end. What is started in this way ends when the
        experiment is stopped; other actions do with the script.

        :param timeout: seconds; then it is killed
        :raises ProcessesFailed: processes of it are not ok
        :raises AttemptTimeout: it took longer
        :raises AttemptCancelled: the experiment is being stopped
        """
        with self._lock:
            self._check()
            self.actions.append(action)
            self._running.append(action)
            # Within the lock: who cancels shall find it started, and kill it.
            action.start()
        try:
            action.wait(timeout)
            late = not action.ended
            if late:
                action.kill().wait()
        except BaseException:
            action.kill()
            raise
        finally:
            with self._lock:
                self._running.remove(action)
        self._check()
        if late:
            raise AttemptTimeout(f"{action.name} took longer than {get_seconds(timeout):g} s")
        action.raise_if_failed()
        return action

    def cancel(self) -> None:
        """Kill what runs, and let nothing more start. From any thread."""
        with self._lock:
            self._cancelled = True
            running = list(self._running)
        for action in running:
            action.kill()

    def _check(self) -> None:
        if self._cancelled:
            raise AttemptCancelled("the experiment is being stopped")
