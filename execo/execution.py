"""One run of an action: what is left to start, to end, to be released."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ._core.latch import Latch
from ._core.pool import Strand
from ._core.runtime import Runtime
from .config import configuration
from .delivery import call_handlers
from .errors import Reason
from .lifecycle import Run
from .log import logger
from .process_base import ProcessBase, start_all
from .transports.base import ENDING_SIGNALS

if TYPE_CHECKING:
    from .action_base import Action

__all__ = ["Execution"]


class Execution:
    """One run of an action: what is left to start, to end, to be released.

    The methods and all state belong to the I/O thread, save ``begin`` (the caller's thread) and
    ``_start`` (the caller's thread or a worker).
    """

    def __init__(self, action: Action, runtime: Runtime) -> None:
        self.action = action
        self.runtime = runtime
        self.requested = True
        self.end_latch = Latch()
        self.release_latch = Latch()
        self.start_date: float | None = None
        self.end_date: float | None = None
        self._children = list(action._children())
        self._unwatched = Counter(map(id, self._children))  # one may be there twice
        self._waiting: deque[ProcessBase | Action] = deque()
        self._to_end = len(self._children)
        self._to_release = len(self._children) + 1  # one more for its own end
        # Read in the user's thread: what was set to nonsense is an error of start().
        self._fanout = len(self._children) if action.fanout is None else int(action.fanout)
        self._most_logs = int(configuration["max_failure_logs"])
        self._killed: tuple[int, float | None] | None = None
        self._failures: Counter[Reason] = Counter()
        self._strand: Strand | None = None

    def begin(self) -> None:
        """Start as many children as may run at a time."""
        self.start_date = time.time()
        self._waiting.extend(self._children[self._fanout :])
        self._call_handlers("start")
        if self._children:
            self._start(self._children[: self._fanout])
        else:
            self.runtime.loop.call_soon(self._end)

    def kill(self, number: int, after: float | None) -> None:
        """Signal the children that run; give up those that wait, if it is meant to end them."""
        if self.end_latch.fired:
            return
        if number in ENDING_SIGNALS:
            self._killed = (number, after)
            waiting, self._waiting = self._waiting, deque()
            for child in waiting:
                self._watch(child)
        for child in self._children:
            child._kill_on_loop(number, after)

    def cancel(self) -> None:
        """Give up before the start, with all children."""
        self.requested = False
        self._started(self._children, {})
        if not self._children:
            self._end()

    def admit_failure(self, reason: Reason) -> bool:
        """Count a failure; False when enough were logged one by one."""
        self._failures[reason] += 1
        return self._failures.total() <= self._most_logs

    def _start(self, children: list[ProcessBase | Action]) -> None:
        begun: _Begun = {}
        try:
            if self._killed is None:
                _start_children(children, begun)
        finally:
            # What has not begun, for whatever reason, is given up there: the action still ends.
            self.runtime.loop.call_soon(self._started, children, begun)

    def _started(self, children: list[ProcessBase | Action], begun: _Begun) -> None:
        for child in children:
            if self._killed is not None and _run_of(child) is not None:
                child._kill_on_loop(*self._killed)
            self._watch(child, begun.get(id(child)))

    def _watch(self, child: ProcessBase | Action, run: Run | Execution | None = None) -> None:
        """Hear of the end of its run; one that was not started is given up.

        :param run: the one that was started: a handler may have reset the child since
        """
        if not self._unwatched[id(child)]:
            return
        self._unwatched[id(child)] -= 1
        if run is None:
            child._cancel(self.runtime)
            run = _run_of(child)
        assert run is not None
        call_soon = self.runtime.loop.call_soon
        run.end_latch.add(self._child_ended)
        run.release_latch.add(lambda: call_soon(self._released_one))

    def _child_ended(self) -> None:
        self._to_end -= 1
        if self._waiting:
            self.runtime.workers.submit(self._start, [self._waiting.popleft()])
        elif self._to_end == 0:
            self._end()

    def _end(self) -> None:
        self.end_date = time.time()
        self.end_latch.fire()
        if self._failures.total() > self._most_logs:
            self._on_strand(self._log_summary)
        self.runtime.loop.call_soon(self._released_one)

    def _released_one(self) -> None:
        """A child is released, or the action has ended."""
        self._to_release -= 1
        if self._to_release == 0:
            # After the handlers of all children: the action's sums up what these have collected.
            self._call_handlers("end")
            if self._strand is not None:
                self._strand.submit(self.release_latch.fire)
            else:
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


_Begun = dict[int, Run | Execution]
"""What children have begun, by their id()."""


def _run_of(child: ProcessBase | Action) -> Run | Execution | None:
    return child._run if isinstance(child, ProcessBase) else child._execution


def _start_children(children: Sequence[ProcessBase | Action], begun: _Begun) -> None:
    processes = [child for child in children if isinstance(child, ProcessBase)]
    if processes:
        begun.update(zip(map(id, processes), start_all(processes), strict=True))
    for child in children:
        if not isinstance(child, ProcessBase):
            child.start()
            if child._execution is not None:
                begun[id(child)] = child._execution
