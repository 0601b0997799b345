"""What is known of the things that are shown, at little cost however large they are.

The methods of a row are called by one thread at a time. What they ask of its thing may block.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from execo._core.locks import fork_gate
from execo.hostset import fold
from execo.log import logger
from execo.outcome import State
from execo.time_utils import format_duration

from .lines import Line
from .paces import Pace, Seldom, number_of_bytes

if TYPE_CHECKING:
    from execo.process_base import ProcessBase

__all__ = ["ActionRow", "Row", "SweepRow", "TransferRow", "check", "row_of"]

MOST_FOLDED = 500
"""Hosts that have failed and are written as ``node[1-9]``; of more, only the first ones are."""

SAMPLE = 100
"""Combinations that were done before, of which it is asked how long they took."""


class Row:
    """One thing that is shown.

    :param thing: an action, a process or a sweeper
    """

    def __init__(self, thing: Any) -> None:
        self.thing = thing
        self.processes: Sequence[ProcessBase] = ()
        """Those of whose starts and ends it wants to be told."""
        self._last: Line | None = None
        self._broken = False

    def look(self) -> None:
        """Look at all of it."""
        try:
            self._look()
        except Exception as exc:  # noqa: BLE001 - as in known()
            self._break(exc)

    def _look(self) -> None:
        pass

    def started(self, process: ProcessBase) -> None:
        """One of them runs."""

    def ended(self, process: ProcessBase) -> None:
        """One of them has ended."""

    def line(self, *, last: bool = False) -> Line:
        """As of now.

        :param last: the last time, whatever it costs
        """
        raise NotImplementedError

    def known(self, *, last: bool = False) -> Line:
        """As :meth:`line`; if its thing cannot tell any more, what it told last."""
        if not self._broken:
            try:
                self._last = self.line(last=last)
            except Exception as exc:  # noqa: BLE001 - what a sweeper of the user's own raises
                # At the end: it was closed meanwhile, which is its right.
                self._break(exc, silent=last)
        return self._last or Line(type(self.thing).__name__, "?")

    def _break(self, exc: Exception, *, silent: bool = False) -> None:
        if not self._broken and not silent:
            kind = type(self.thing).__name__
            logger.warning("progress of a %s is not shown any more: %r", kind, exc)
        self._broken = True


class ActionRow(Row):
    """An action, or one process."""

    def __init__(self, thing: Any) -> None:
        super().__init__(thing)
        # By the id() of a process. What is told of one may come late: each says how it is now.
        self._running: set[int] = set()
        self._ended: set[int] = set()
        self._given_up: set[int] = set()
        self._failed: dict[int, str] = {}
        self._pace = Pace()
        self._names = Seldom(self._folded)

    def _look(self) -> None:
        self.processes = _processes_of(self.thing)
        for known in (self._running, self._ended, self._given_up, self._failed):
            known.clear()
        for process in self.processes:
            # Not by its properties, which cost more: there may be ten thousand.
            state = process._outcome.state
            if state is State.ENDED:
                self.ended(process)
            elif state in (State.RUNNING, State.DRAINING):
                self._running.add(id(process))
        start, _ = self._dates()
        self._pace.begin(len(self._ended), start)

    def started(self, process: ProcessBase) -> None:
        self._forget(id(process))
        self._running.add(id(process))

    def ended(self, process: ProcessBase) -> None:
        self._forget(id(process))
        self._ended.add(id(process))
        if process._outcome.reason is None:
            return  # most; what follows costs more
        if process.cancelled:
            self._given_up.add(id(process))
        elif not process.ok:
            host = getattr(process, "host", None)
            self._failed[id(process)] = "" if host is None else host.address

    def _forget(self, number: int) -> None:
        self._running.discard(number)
        self._ended.discard(number)
        self._given_up.discard(number)
        self._failed.pop(number, None)

    def line(self, *, last: bool = False) -> Line:
        ended, bad = len(self._ended), len(self._failed) + len(self._given_up)
        total = len(self.processes)
        return Line(
            name=str(self.thing.name),
            count=f"{ended}/{total}",
            parts=((ended - bad) / total, bad / total) if total else None,
            now=f"{len(self._running)} running" if self._running else "",
            failed=self._what_failed(last=last),
            time=self._time(self._pace.left(ended, total)),
        )

    def _time(self, left: float | None) -> str:
        start, end = self._dates()
        if end is not None and start is not None:
            return f"in {format_duration(end - start)}"
        if left is not None:
            return f"{format_duration(left)} left"
        return "" if start is None else format_duration(max(0.0, time.time() - start))

    def _dates(self) -> tuple[float | None, float | None]:
        run = getattr(self.thing, "_execution", self.thing)
        return getattr(run, "start_date", None), getattr(run, "end_date", None)

    def _what_failed(self, *, last: bool) -> str:
        words = []
        if self._failed:
            words.append(f"{len(self._failed)} failed{self._names.ask(last=last)}")
        if self._given_up:
            words.append(f"{len(self._given_up)} given up")
        return ", ".join(words)

    def _folded(self) -> str:
        hosts = list(dict.fromkeys(filter(None, self._failed.values())))
        more = ", ..." if len(hosts) > MOST_FOLDED else ""
        with fork_gate:  # it may import: no child is forked in the middle of that
            return f": {fold(hosts[:MOST_FOLDED])}{more}" if hosts else ""


class TransferRow(ActionRow):
    """Put, Get and the like, and their processes."""

    def __init__(self, thing: Any) -> None:
        super().__init__(thing)
        self._progress = Seldom(lambda: self.thing.progress)

    def _look(self) -> None:
        super()._look()
        self._progress = Seldom(lambda: self.thing.progress)  # when it has ended, say

    def line(self, *, last: bool = False) -> Line:
        progress = self._progress.ask(last=last)
        line = super().line(last=last)
        if progress is None or (not progress.transferred and progress.total is None):
            return line  # not begun, or by a tool that does not tell
        done, total = progress.transferred, progress.total
        bad = line.parts[1] if line.parts is not None else 0.0
        well = min(done / total if total else 1.0, 1.0) if total is not None else None
        left = None
        if total is not None and progress.rate > 0 and not progress.ended:
            left = max(0.0, total - done) / progress.rate
        return Line(
            name=line.name,
            count=number_of_bytes(done, total),
            # What has failed did not come: the bar is full if that is all that lacks.
            parts=None if well is None else (min(well, 1 - bad), bad),
            now=f"{number_of_bytes(round(progress.rate))}/s, {line.count}",
            failed=line.failed,
            time=self._time(left),
        )


class SweepRow(Row):
    """A sweeper: what has ``counts()``, or at least ``stats()``, as execo's ParamSweeper has."""

    def __init__(self, thing: Any) -> None:
        super().__init__(thing)
        self._counts = Seldom(self._count, least=0.5)
        self._pace = Pace()
        self._begun = False
        self._duration: float | None = None

    def _count(self) -> tuple[int, int, int, int, int]:
        """All, remaining, skipped, in progress, done."""
        counts = getattr(self.thing, "counts", None)
        numbers = counts()[:5] if counts is not None else map(len, self.thing.stats()[:5])
        total, remaining, skipped, running, done = numbers
        return total, remaining, skipped, running, done

    def line(self, *, last: bool = False) -> Line:
        total, remaining, skipped, running, done = self._counts.ask(last=last)
        if not self._begun:
            self._begun = True
            self._pace.begin(done + skipped)
            self._duration = _mean_duration(self.thing) if done else None
        left = self._pace.left(done + skipped, total)
        if left is None and self._duration is not None and running:
            # Nothing has ended since this began: as long as those before.
            left = self._duration * (remaining + running / 2) / running
        return Line(
            name=str(getattr(self.thing, "name", "") or type(self.thing).__name__),
            count=f"{done}/{total}",
            parts=(done / total, skipped / total) if total else None,
            now=f"{running} running" if running else "",
            failed=f"{skipped} failed or skipped" if skipped else "",
            time=self._time(left, over=not remaining and not running),
        )

    def _time(self, left: float | None, *, over: bool) -> str:
        if over or left is None:
            return f"in {self._pace.elapsed()}" if over else self._pace.elapsed()
        return f"{format_duration(left)} left"


def check(thing: Any) -> None:
    """:raises TypeError: if it is nothing that can be shown"""
    row_of(thing)


def row_of(thing: Any) -> Row:
    """A row of the kind that the thing is.

    :raises TypeError: if it is none
    """
    # By what they have: their rooms are above this one.
    if not isinstance(thing, type):
        if hasattr(thing, "_outcome") or hasattr(thing, "_execution"):
            # Of the class: this property of an action adds up all its processes.
            return TransferRow(thing) if hasattr(type(thing), "progress") else ActionRow(thing)
        if callable(getattr(thing, "stats", None)) and callable(getattr(thing, "get_next", None)):
            return SweepRow(thing)
    raise TypeError(f"what is shown is an action, a process or a sweeper: not {thing!r:.200}")


def _processes_of(thing: Any) -> Sequence[ProcessBase]:
    found: Sequence[ProcessBase] = thing.processes if hasattr(thing, "_execution") else [thing]
    return found


def _mean_duration(sweeper: Any) -> float | None:
    """Seconds that combinations took which were done before; None = that is not known."""
    entry, done = getattr(sweeper, "entry", None), getattr(sweeper, "get_done", None)
    if entry is None or done is None:
        return None
    found = []
    for combination in islice(done(), SAMPLE):
        known = entry(combination)
        if known.began is not None and known.ended is not None:
            found.append(max(0.0, known.ended - known.began))
    return sum(found) / len(found) if found else None
