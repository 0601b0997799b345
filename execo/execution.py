"""One run of an action: what is left to start, to end, to be released."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any
from weakref import ref

from . import observing
from ._core.latch import Latch
from ._core.pool import Strand
from ._core.runtime import Runtime
from .config import configuration
from .delivery import call_handlers
from .errors import Reason
from .lifecycle import Run
from .log import logger
from .policy import Pace, Retry, checked_retry, failure_limit
from .process_base import ProcessBase, start_all
from .transports.base import ENDING_SIGNALS

if TYPE_CHECKING:
    from asyncio import TimerHandle

    from .action_base import Action

__all__ = ["Execution"]


class Execution:
    """One run of an action: what is left to start, to end, to be released.

    The methods and all state belong to the I/O thread, save ``begin`` (the caller's thread) and
    ``_start`` (the caller's thread or a worker).
    """

    def __init__(self, action: Action, runtime: Runtime) -> None:
        self._action: Action | None = action
        self._past: ref[Action] | None = None
        self.runtime = runtime
        self.requested = True
        self.end_latch = Latch()
        self.release_latch = Latch()
        self.start_date: float | None = None
        self.end_date: float | None = None
        self._children = list(action._children() if action._chosen is None else action._chosen)
        self._unwatched = Counter(map(id, self._children))  # one may be there twice
        self._waiting: deque[ProcessBase | Action] = deque()
        self._to_end = len(self._children)
        self._to_release = len(self._children) + 1  # one more for its own end
        # Read in the user's thread: what was set to nonsense is an error of start().
        self._fanout = len(self._children) if action.fanout is None else int(action.fanout)
        self._free = self._fanout
        self._pace = None if action.start_rate is None else Pace(action.start_rate)
        self._pace_timer: TimerHandle | None = None
        self._retry = checked_retry(action._retry_policy())
        self._max_failures = action.max_failures
        self._limit = failure_limit(self._max_failures, len(self._children))
        self._failed_children = 0
        self._most_logs = int(configuration["max_failure_logs"])
        self._killed: tuple[int, float | None] | None = None
        self._given_up = ""  # why nothing is started any more
        self._failures: Counter[Reason] = Counter()
        self._strand: Strand | None = None

    @property
    def action(self) -> Action:
        """Whose run it is: held until it is released, and known as long as somebody else has it.

        :raises ReferenceError: when nobody has it any more
        """
        action = self._action
        if action is None and self._past is not None:
            action = self._past()
        if action is None:
            raise ReferenceError("the action of this run is gone")
        return action

    def begin(self) -> None:
        """Start as many children as may run at a time."""
        self.start_date = time.time()
        if observing.observers:
            observing.tell("action_started", self)
        self._call_handlers("start")
        if not self._children:
            self.runtime.loop.call_soon(self._end)
            return
        self._waiting.extend(self._children)
        first = self._next()
        if self._pace is not None:
            self.runtime.loop.call_soon(self._advance)
        self._start(first)

    def kill(self, number: int, after: float | None) -> None:
        """Signal the children that run; give up those that wait, if it is meant to end them."""
        if self.end_latch.fired:
            return
        if number in ENDING_SIGNALS:
            self._killed = (number, after)
            self._give_up_waiting(KILLED)
        for child in self._children:
            child._kill_on_loop(number, after)

    def give_up(self, why: str) -> None:
        """Give up what has not started; what has goes on."""
        if self.end_latch.fired:
            return
        self._give_up_waiting(why)
        for child in self._children:
            child._give_up_start(why)

    def cancel(self, why: str) -> None:
        """Give up before the start, with all children."""
        self.requested = False
        self._given_up = why
        self._started(self._children, {})
        if not self._children:
            self._end()

    def admit_failure(self, reason: Reason) -> bool:
        """Count a failure; False when enough were logged one by one."""
        self._failures[reason] += 1
        return self._failures.total() <= self._most_logs

    def _next(self) -> list[ProcessBase | Action]:
        """Those that may start now."""
        count = min(self._free, len(self._waiting))
        if self._pace is not None:
            count = self._pace.take(self.runtime.loop.time(), count)
        self._free -= count
        return [self._waiting.popleft() for _ in range(count)]

    def _advance(self) -> None:
        if children := self._next():
            self.runtime.workers.submit(self._start, children)
        if self._pace is not None and self._pace_timer is None and self._waiting and self._free:
            pause = self._pace.pause(self.runtime.loop.time())
            self._pace_timer = self.runtime.loop.call_later(pause, self._on_pace)

    def _on_pace(self) -> None:
        self._pace_timer = None
        self._advance()

    def _give_up_waiting(self, why: str) -> None:
        self._given_up = self._given_up or why
        waiting, self._waiting = self._waiting, deque()
        if self._pace_timer is not None:
            self._pace_timer.cancel()
        for child in waiting:
            self._watch(child)

    def _start(self, children: list[ProcessBase | Action]) -> None:
        begun: _Begun = {}
        try:
            if not self._given_up:
                _start_children(children, begun, self._retry)
        finally:
            # What has not begun, for whatever reason, is given up there: the action still ends.
            self.runtime.loop.call_soon(self._started, children, begun)

    def _started(self, children: list[ProcessBase | Action], begun: _Begun) -> None:
        for child in children:
            if self._killed is not None and _run_of(child) is not None:
                child._kill_on_loop(*self._killed)
            elif self._given_up:
                child._give_up_start(self._given_up)
            self._watch(child, begun.get(id(child)))

    def _watch(self, child: ProcessBase | Action, run: Run | Execution | None = None) -> None:
        """Hear of the end of its run; one that was not started is given up.

        :param run: the one that was started: a handler may have reset the child since
        """
        if not self._unwatched[id(child)]:
            return
        self._unwatched[id(child)] -= 1
        if run is None:
            child._cancel(self.runtime, self._given_up or KILLED)
            run = _run_of(child)
        assert run is not None
        call_soon = self.runtime.loop.call_soon
        run.end_latch.add(partial(self._child_ended, child, run))
        run.release_latch.add(lambda: call_soon(self._released_one))

    def _child_ended(self, child: ProcessBase | Action, run: Run | Execution) -> None:
        self._to_end -= 1
        self._free += 1
        if self._limit is not None and not self._given_up and not _went_well(child, run):
            self._failed_children += 1
            if self._failed_children > self._limit:
                self._fail_fast()
        if self._waiting:
            self._advance()
        elif self._to_end == 0:
            self._end()

    def _fail_fast(self) -> None:
        kind = "processes" if isinstance(self._children[0], ProcessBase) else "actions"
        why = (
            f"{self._failed_children} of {len(self._children)} {kind} of {self.action.name!r} "
            f"failed, more than max_failures={self._max_failures!r}"
        )
        if self._to_end:
            self._on_strand(logger.warning, "what has not started is given up: %s", why)
        self.give_up(why)

    def _end(self) -> None:
        if self.end_latch.fired:
            return  # in the middle of giving up the last ones
        self.end_date = max(time.time(), self.start_date or 0.0)  # the clock may have been set back
        if observing.observers:
            observing.tell("action_ended", self)
        self.end_latch.fire()
        if self._failures.total() > self._most_logs:
            self._on_strand(self._log_summary)
        if self._retry is not None:
            self._log_retries()
        self.runtime.loop.call_soon(self._released_one)

    def _released_one(self) -> None:
        """A child is released, or the action has ended."""
        self._to_release -= 1
        if self._to_release == 0:
            # After the handlers of all children: the action's sums up what these have collected.
            self._call_handlers("end")
            if self._strand is not None:
                self._strand.submit(self._release)
            else:
                self._release()

    def _release(self) -> None:
        """As :meth:`~execo.lifecycle.Run.release`."""
        if self._action is not None:
            self._past = ref(self._action)
            self._action = None
        self._strand = None
        self.release_latch.fire()

    def _call_handlers(self, name: str) -> None:
        if self.action.lifecycle_handlers and self.requested:
            self._on_strand(call_handlers, self.action, name)

    def _on_strand(self, function: Any, *args: Any) -> None:
        if self._strand is None:
            self._strand = Strand(self.runtime.pool, lambda: repr(self.action))
        self._strand.submit(function, *args)

    def _log_summary(self) -> None:
        reasons = ", ".join(f"{n} {reason}" for reason, n in self._failures.most_common())
        logger.warning(
            "%d of %d processes of %r failed: %s; only the first %d were logged one by one",
            self._failures.total(),
            len(self.action.processes),
            self.action,
            reasons,
            self._most_logs,
        )

    def _log_retries(self) -> None:
        again = [p for p in self._children if isinstance(p, ProcessBase) and p.attempts > 1]
        if again:
            self._on_strand(
                logger.info,
                "%d of %d processes of %r were started again; %d of them are ok",
                len(again),
                len(self._children),
                self.action,
                sum(process.ok for process in again),
            )


KILLED = "its action was killed"
"""Why what waited was given up, most often."""

_Begun = dict[int, Run | Execution]
"""What children have begun, by their id()."""


def _run_of(child: ProcessBase | Action) -> Run | Execution | None:
    return child._run if isinstance(child, ProcessBase) else child._execution


def _went_well(child: ProcessBase | Action, run: Run | Execution) -> bool:
    # Of that run: a handler may have reset the child since.
    if isinstance(child, ProcessBase) and isinstance(run, Run):
        return child._as_of(run).ok
    return child.ok


def _start_children(
    children: Sequence[ProcessBase | Action], begun: _Begun, retry: Retry | None
) -> None:
    processes = [child for child in children if isinstance(child, ProcessBase)]
    if processes:
        begun.update(zip(map(id, processes), start_all(processes, retry), strict=True))
    for child in children:
        if not isinstance(child, ProcessBase):
            child.start()
            if child._execution is not None:
                begun[id(child)] = child._execution
