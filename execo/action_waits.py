"""Of several actions: waiting for them; which hosts of one were good."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

from ._core.latch import Latch
from ._core.pool import current_strand
from ._core.pool import wait as wait_for
from .action_base import Action
from .host import Host
from .hostset import expand
from .time_utils import Duration, get_seconds

__all__ = ["filter_bad_hosts", "wait_all_actions", "wait_any_actions", "wait_multiple_actions"]

T = TypeVar("T", bound=str | Host)


def wait_any_actions(actions: Iterable[Action], timeout: Duration | None = None) -> list[Action]:
    """Block until at least one of the actions has ended.

    :param actions: started actions
    :param timeout: seconds to wait at the most; None = no limit
    :returns: those that have ended, in the order given; empty if the timeout came first, or if
      no actions were given
    :raises TypeError: for what is no action
    :raises ValueError: if one was not started
    """
    return _wait(list(actions), timeout, 1)


def wait_all_actions(actions: Iterable[Action], timeout: Duration | None = None) -> list[Action]:
    """Block until all of the actions have ended.

    :param actions: started actions
    :param timeout: seconds to wait at the most; None = no limit
    :returns: those that have ended, in the order given
    :raises TypeError: for what is no action
    :raises ValueError: if one was not started
    """
    actions = list(actions)
    return _wait(actions, timeout, len(actions))


wait_multiple_actions = wait_any_actions
"""The reference document's name of :func:`wait_any_actions`."""


def _wait(actions: list[Action], timeout: Duration | None, enough: int) -> list[Action]:
    pending: list[tuple[Action, Latch]] = []
    for action in actions:
        if not isinstance(action, Action):
            raise TypeError(f"this waits for actions; {action!r} has a wait() of its own, or none")
        execution = action._execution
        if execution is None:
            raise ValueError(f"{action!r} was not started: call start() first")
        action._disown(execution)
        latch = execution.end_latch if current_strand() is not None else execution.release_latch
        pending.append((action, latch))
    done = Latch()
    # Counted down rather than looked through: a thousand ends are not a million looks. Taking
    # one from an iterator is atomic; each callback takes one, the last one gets the default.
    countdown = iter(range(min(enough, len(pending)) - 1))

    def count() -> None:
        if next(countdown, None) is None:
            done.fire()

    if pending:
        for _, latch in pending:
            latch.add(count)
        wait_for(done, get_seconds(timeout))
        for _, latch in pending:
            latch.discard(count)
    return [action for action, latch in pending if latch.fired]


def filter_bad_hosts(action: Action, hosts: T | Iterable[T] | None) -> list[T]:
    """The hosts on which no process of ``action`` has failed, in the order given. (execo 2.8.2)

    :param action: the action
    :param hosts: as the action got them: names, Hosts, or a single one, which may be a range; the
      entries come back as they are
    :raises ValueError: for what cannot be a host, and for a range among several entries
    """
    given: Any = expand(hosts) if isinstance(hosts, str) else hosts
    if given is None or isinstance(given, Host):
        given = [] if given is None else [given]
    bad = {Host(process.host) for process in action.failed if hasattr(process, "host")}
    addresses = {host.address for host in bad}
    return [
        host
        for host in given
        if (host not in bad if isinstance(host, Host) else Host(host).address not in addresses)
    ]
