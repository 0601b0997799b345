"""What all actions have in common."""

from __future__ import annotations

import re
import signal
from collections.abc import Generator, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal, Self
from weakref import ref

from . import observing
from ._core.runtime import Runtime, get_runtime
from .config import configuration
from .delivery import call_handlers
from .errors import ProcessesFailed, Reason
from .execution import Execution
from .expect import WINDOW, ExpectOutputHandler, Patterns, search_all
from .gathering import Groups, gather
from .handlers import check_lifecycle_handlers
from .host import Host
from .output import STDOUT
from .policy import Pace, Retry, checked_retry, failure_limit
from .process_base import ProcessBase, checked_signal, force_after, wait_released
from .report import Stats
from .time_utils import Duration, get_seconds

__all__ = ["Action", "ActionLifecycleHandler"]


class ActionLifecycleHandler:
    """Is told when an action starts, ends and is reset. Subclass it and pass instances as
    ``lifecycle_handlers``.

    ``start`` and ``end`` run on a thread of the handler pool; ``wait()`` returns after ``end``.
    (execo 2.8.2)
    """

    def start(self, action: Action) -> None:
        """The action has started."""

    def end(self, action: Action) -> None:
        """The action has ended."""

    def reset(self, action: Action) -> None:
        """The action goes back to its initial state. Runs in the thread that calls reset()."""


class Action(AbstractContextManager["Action"]):
    """What all actions have in common.

    As a context manager an action is killed at the end of the block, without waiting for it.
    (execo 2.8.2, where not said otherwise)

    :param lifecycle_handlers: told of its start and end
    :param name: for messages and reports; default: its class and number
    :param default_expect_timeout: seconds to wait for an expected output; None = no limit
    :param fanout: how many of its children (processes, or actions for an action made of actions)
      run at a time; None = all at once (new)
    :param start_rate: how many of its children start a second at the most, evenly from the first
      on; may be below 1; None = no limit (new)
    :param retry: start again what could not be started, see :class:`Retry`; in an action made of
      actions, for those that have none of their own (new)
    :param max_failures: how many of its children may fail, a number or a percentage of them
      (``"10%"``). When more have, what has not started is given up, in the actions that it is made
      of too: it ends as ``cancelled``, and its ``message`` says why. What runs goes on. 0 = the
      first failure is too much; None = no limit (new)
    :raises TypeError: for a policy of a wrong type
    :raises ValueError: for a fanout below 1, a rate that is not positive, a number of failures
      below 0, what is no percentage from 0 to 100
    """

    _execution: Execution | None = None
    _parent_ref: ref[Action] | None = None
    _purpose: Any = None
    """What it was started for, as far as somebody observes."""
    _chosen: Sequence[ProcessBase | Action] | None = None
    """The children that the next start() concerns; None = all."""

    def __init__(
        self,
        lifecycle_handlers: Iterable[ActionLifecycleHandler] | None = None,
        name: str | None = None,
        default_expect_timeout: Duration | None = None,
        *,
        fanout: int | None = None,
        start_rate: float | None = None,
        retry: Retry | None = None,
        max_failures: int | str | None = None,
    ) -> None:
        if fanout is not None and (not isinstance(fanout, int) or fanout < 1):
            raise ValueError(f"fanout is a number of children, at least 1: not {fanout!r}")
        self.lifecycle_handlers: list[Any] = check_lifecycle_handlers(lifecycle_handlers)
        self.name = name if name is not None else f"{type(self).__name__} 0x{id(self):x}"
        self.default_expect_timeout = get_seconds(default_expect_timeout)
        self.fanout = fanout
        # Tried now, so that what is wrong is told where it was written.
        if start_rate is not None:
            Pace(start_rate)
        failure_limit(max_failures, 0)
        self.start_rate = start_rate
        self.retry = checked_retry(retry)
        self.max_failures = max_failures

    # -- what has happened --------------------------------------------------------------------

    @property
    def processes(self) -> list[ProcessBase]:
        """All its processes, those of the actions that it is made of too, in order."""
        raise NotImplementedError

    @property
    def started(self) -> bool:
        """True from ``start()`` on."""
        return self._execution is not None and self._execution.requested

    @property
    def running(self) -> bool:
        """Started and not ended."""
        return self.started and not self.ended

    @property
    def ended(self) -> bool:
        """True once all its processes have ended."""
        return self._execution is not None and self._execution.end_latch.fired

    @property
    def ok(self) -> bool:
        """True while no process has failed in a way that is not ignored."""
        return all(process.ok for process in self.processes)

    @property
    def finished_ok(self) -> bool:
        """Started, ended and ok."""
        return self.started and self.ended and self.ok

    @property
    def failed(self) -> list[ProcessBase]:
        """Its processes that are not ok (new)."""
        return [process for process in self.processes if not process.ok]

    @property
    def ok_hosts(self) -> list[Host]:
        """The hosts on which all its processes are ``finished_ok``, each once, in order (new)."""
        bad = {p.host for p in self.processes if hasattr(p, "host") and not p.finished_ok}
        return [host for host in _hosts_of(self.processes) if host not in bad]

    @property
    def failed_hosts(self) -> list[Host]:
        """The hosts on which at least one of its processes is not ok, each once, in order. Those
        that are neither here nor in ``ok_hosts`` are not done (new)."""
        return _hosts_of(self.failed)

    def by_reason(self) -> dict[Reason, list[ProcessBase]]:
        """Its processes that are not ok, by their ``reason`` (new)."""
        found: dict[Reason, list[ProcessBase]] = {}
        for process in self.failed:
            if process.reason is not None:
                found.setdefault(process.reason, []).append(process)
        return found

    def gather(self, stream: int = STDOUT) -> Groups:
        """Its processes by what they have printed so far, the equal ones together, see
        :func:`execo.gathering.gather` (new).

        :param stream: STDOUT, STDERR, or ``STDOUT | STDERR``: one after the other
        """
        return gather(self.processes, stream)

    def stats(self) -> Stats:
        """Its statistics as of now, frozen; those of the actions that it is made of beside."""
        return self._dated(Stats.merge((p.stats() for p in self.processes), name=self.name))

    # -- what can be done ---------------------------------------------------------------------

    def start(self) -> Self:
        """Start its processes and return, see ``Process.start()``; those beyond ``fanout`` start
        as others end. A second call does nothing."""
        if configuration["progress"] and self._execution is None:
            from .progress import show_all  # only for those who want it

            show_all()
        if observing.observers and self._execution is None:
            purpose = observing.label.get()
            if purpose is not self._purpose:  # most often neither is there
                self._purpose = purpose
        runtime = get_runtime(configuration["switch_interval"])
        runtime.run_unbroken(self._begin, runtime)
        return self

    def wait(self, timeout: Duration | None = None, *, check: bool = False) -> Self:
        """Block until all its processes have ended and all handlers have returned.

        In a handler it waits for the end only.

        :param timeout: seconds to wait at the most; None = no limit. Look at ``ended`` then
        :param check: raise :class:`~execo.errors.ProcessesFailed` if some have failed
        :raises ValueError: if it was not started
        """
        execution = self._execution
        if execution is None:
            raise ValueError(f"{self!r} was not started: call start() or run()")
        self._disown(execution)
        wait_released(self, execution.end_latch, execution.release_latch, get_seconds(timeout))
        return self.raise_if_failed() if check else self

    def run(self, timeout: Duration | None = None, *, check: bool = False) -> Self:
        """``start()`` and ``wait(timeout)``."""
        return self.start().wait(timeout, check=check)

    def kill(
        self, sig: int = signal.SIGTERM, auto_force_kill_timeout: Duration | bool | None = True
    ) -> Self:
        """Send all its running processes a signal, see ``Process.kill()``.

        What had not started yet is given up, if the signal is meant to end processes: it ends
        as cancelled. Returns when the signals are sent.
        """
        number = checked_signal(sig)
        after = force_after(number, auto_force_kill_timeout)
        execution = self._execution
        if execution is not None and not execution.runtime.gone:
            execution.runtime.loop.run_sync(self._kill_on_loop, number, after)
        return self

    def expect(
        self,
        regexes: Patterns,
        timeout: Duration | Literal[False] | None = False,
        stream: int = STDOUT,
        backtrack: bool = True,
        expect_output_handler: ExpectOutputHandler | None = None,
        *,
        window: int = WINDOW,
    ) -> list[tuple[ProcessBase, int | None, re.Match[str] | None]]:
        """Block until each of its processes has printed something, all at once (execo 2.8.2: one
        after the other).

        The parameters are those of :meth:`Process.expect() <execo.process.ProcessBase.expect>`;
        ``timeout`` is for all together. What ``fanout`` holds back is waited for.

        :returns: for each process, in order, the index of the pattern and the match, or None
        :raises ValueError: if it was not started; see there for the rest
        """
        if self._execution is None:
            raise ValueError(f"{self!r} was not started: call start() before expect()")
        limit = self.default_expect_timeout if timeout is False else timeout
        outputs = [(process, stream) for process in self.processes]
        matches = search_all(
            outputs, expect_output_handler, regexes, limit, backtrack=backtrack, window=window
        )
        return [(outputs[i][0], *match) for i, match in enumerate(matches)]

    def reset(self) -> Self:
        """Back to its initial state, to be started again; kills it and waits if it runs."""
        execution = self._execution
        if self.running:
            self.kill()
        if execution is not None:
            self._disown(execution)
            wait_released(self, execution.end_latch, execution.release_latch, None)
        call_handlers(self, "reset")
        for child in self._children():
            child.reset()
        if self._execution is execution:  # else another thread was quicker, and has started it
            self._execution = None
            self._chosen = None
        return self

    def retry_failed(self) -> Self:
        """Start again those of its processes that are not ok, and those alone; returns as
        ``start()`` does. Does nothing if all are ok. (new)

        The processes are the same objects: they are reset, and what is known of them then belongs
        to the new run. Commands and names of files stay as they were, with what their expressions
        gave; input that was written is not written again. The policies of the action hold anew, a
        percentage for what is started now. Its lifecycle handlers are told of a start and an end,
        not of a reset. Blocks while handlers of the last run are at work.

        :raises ValueError: if it was not started, or has not ended
        """
        if self._execution is None:
            raise ValueError(f"{self!r} was not started: call start() or run()")
        if self.running or any(process.running for process in self.processes):
            raise ValueError(f"{self!r} has not ended: call wait() before retry_failed()")
        self.wait()
        if not self.ok:
            self._choose_failed()
            self.start()
        return self

    def raise_if_failed(self) -> Self:
        """Raise :class:`~execo.errors.ProcessesFailed` if processes have ended and are not ok."""
        failed = [process for process in self.failed if process.ended]
        if failed:
            raise ProcessesFailed(failed)
        return self

    # -- for coroutines and blocks ------------------------------------------------------------

    def __await__(self) -> Generator[Any, None, Self]:
        """``await action`` waits as ``wait()`` does, without blocking the coroutine's loop.

        :raises ValueError: if it was not started
        """
        execution = self._execution
        if execution is None:
            raise ValueError(f"{self!r} was not started: call start() before await")
        self._disown(execution)
        yield from execution.release_latch.__await__()
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.kill()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}: {self._state_text()}>"

    # -- for the rest of the house ------------------------------------------------------------

    @property
    def _parent(self) -> Action | None:
        """The action that it is part of. Not held: that one holds it."""
        return None if self._parent_ref is None else self._parent_ref()

    @_parent.setter
    def _parent(self, action: Action) -> None:
        self._parent_ref = ref(action)

    def _begin(self, runtime: Runtime) -> None:
        with runtime.lock:
            if self._execution is not None:
                return
            self._execution = execution = Execution(self, runtime)
        execution.begin()

    def _children(self) -> Sequence[ProcessBase | Action]:
        return self.processes

    def _state_text(self) -> str:
        processes = self.processes
        ended = sum(process.ended for process in processes)
        failed = sum(not process.ok for process in processes)
        if not self.started:
            text = f"not started, {len(processes)} processes"
        elif not self.ended:
            text = f"running, {ended} of {len(processes)} processes ended"
        else:
            text = f"ended, {len(processes)} processes"
        return f"{text}, {failed} failed" if failed else text

    def _dated(self, stats: Stats) -> Stats:
        """``stats`` of an action without processes has the dates of the action itself."""
        execution = self._execution
        if stats.num_processes or execution is None:
            return stats
        return Stats(
            name=stats.name,
            start_date=execution.start_date,
            end_date=execution.end_date,
            sub_stats=stats.sub_stats,
        )

    def _kill_on_loop(self, number: int, after: float | None) -> None:
        if self._execution is not None:
            self._execution.kill(number, after)

    def _give_up_start(self, why: str) -> None:
        """Give up what has not started of it; on the I/O thread."""
        if self._execution is not None:
            self._execution.give_up(why)

    def _cancel(self, runtime: Runtime, why: str) -> None:
        """Give it up before its start; on the I/O thread."""
        if self._execution is None:
            self._execution = Execution(self, runtime)
            self._execution.cancel(why)

    def _retry_policy(self) -> Retry | None:
        """Its own, or that of the action which it is part of and which runs it."""
        action, parent = self, self._parent
        while action.retry is None and parent is not None and parent.running:
            action, parent = parent, parent._parent
        return action.retry

    def _choose_failed(self) -> None:
        """Back to its initial state with what has failed; only that is started next."""
        chosen = [child for child in self._children() if not child.ok]
        for child in dict.fromkeys(chosen):
            if isinstance(child, Action):
                child._choose_failed()
            else:
                child.reset()
        self._chosen = chosen
        self._execution = None

    def _disown(self, execution: Execution) -> None:
        """Where nobody would ever see its end, end it now, as its processes."""
        if execution.runtime.gone and not execution.end_latch.fired:
            for process in self.processes:
                if process._run is not None:
                    process._run.disown()
            execution.end_latch.fired = execution.release_latch.fired = True

    def _running_handlers(self) -> str:
        execution = self._execution
        strands = [None if execution is None else execution._strand]
        found = [f"handler {s.running!r}" for s in strands if s is not None and s.running]
        found += [text for process in self.processes if (text := process._running_handlers())]
        return ", ".join(found[:3])

    def _admit_failure(self, reason: Reason) -> bool:
        """Count a failed process; whether it is to be logged on its own. On the I/O thread."""
        root, parent = self, self._parent
        while parent is not None and parent.running:
            root, parent = parent, parent._parent
        if root._execution is None or root._execution.end_latch.fired:
            return True
        return root._execution.admit_failure(reason)


def _hosts_of(processes: Iterable[ProcessBase]) -> list[Host]:
    return list(dict.fromkeys(p.host for p in processes if hasattr(p, "host")))
