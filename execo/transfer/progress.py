"""How far transfers are: what has been counted of each, and the callbacks that are told."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

from execo._core.latch import Latch
from execo._core.loop import Loop
from execo.action_base import Action, ActionLifecycleHandler
from execo.handlers import ProcessLifecycleHandler
from execo.log import logger
from execo.process_base import ProcessBase

__all__ = [
    "NO_METER",
    "Measured",
    "Meter",
    "Progress",
    "ProgressCallback",
    "action_teller",
    "process_teller",
    "summed",
]

INTERVAL = 0.25
"""Seconds between two calls of a callback, and between two points of a rate."""

WINDOW = 3.0
"""Seconds that a rate is the mean of, while files are on their way."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a transfer is, of one process or of an action.

    :param transferred: bytes of files that have passed so far. Folders, and several files, travel
      as an archive, whose entries count too. With rsync: the bytes of both directions, which are
      fewer than those of the files where a part is there already
    :param total: bytes that there are in all; None while that is not known: a folder that is
      fetched, and a transfer that has not begun. With rsync: those of the files
    :param rate: bytes a second: over the last 3 seconds, and of the whole transfer when it has
      ended
    :param ended: nothing more will pass. Whether it went well is said by ``ok``
    """

    transferred: int = 0
    total: int | None = None
    rate: float = 0.0
    ended: bool = False


ProgressCallback = Callable[[Any, Progress], object]
"""Takes the process, or the action, and how far it is."""


class Meter:
    """Counts what passes of one transfer. Written on the I/O thread, read from any.

    :param total: bytes that there are in all, if that is known
    """

    def __init__(self, total: int | None = None) -> None:
        self.total = total
        self.transferred = 0
        self.source: str | None = None  # the host that has passed it on
        self.begin: float | None = None  # monotonic, as all that follows
        self.end: float | None = None
        # A new tuple for each point: whoever reads it meanwhile has a whole one.
        self._points: tuple[tuple[float, int], ...] = ()

    def start(self) -> None:
        """Bytes may pass from now on."""
        self.begin = time.monotonic()
        self._points = ((self.begin, 0),)

    def add(self, count: int) -> None:
        """So many bytes more have passed."""
        self.set(self.transferred + count)

    def set(self, transferred: int) -> None:
        """So many bytes have passed."""
        self.transferred = transferred
        now = time.monotonic()
        points = self._points
        if points and now - points[-1][0] >= INTERVAL:
            # One point older than the window stays: what is between is the window.
            late = [i for i, (when, _) in enumerate(points) if when <= now - WINDOW]
            self._points = (*points[late[-1] if late else 0 :], (now, transferred))

    def stop(self) -> None:
        """Nothing more will pass."""
        if self.begin is not None and self.end is None:
            self.end = time.monotonic()

    def progress(self) -> Progress:
        """As of now."""
        return Progress(self.transferred, self.total, self._rate(), self.end is not None)

    def _rate(self) -> float:
        points = self._points
        if self.begin is None or not points:
            return 0.0
        if self.end is not None:
            return _per_second(self.transferred, self.end - self.begin)
        now = time.monotonic()
        since, count = next(
            (point for point in reversed(points) if point[0] <= now - WINDOW), points[0]
        )
        return _per_second(self.transferred - count, now - since)


NO_METER = Meter()
"""Of what has not begun. Nobody counts in it."""


class Measured(ProcessBase):
    """A process that tells how far it is."""

    _meter = NO_METER

    @property
    def transferred(self) -> int:
        """Bytes that have passed so far, see :class:`~execo.transfer.Progress` (new)."""
        return self._meter.transferred

    @property
    def total(self) -> int | None:
        """Bytes that there are in all; None while that is not known (new)."""
        return self._meter.total

    @property
    def progress(self) -> Progress:
        """How far it is (new)."""
        return replace(self._meter.progress(), total=self.total, ended=self.ended)

    def reset(self) -> Self:
        super().reset()
        self._meter = NO_METER
        return self


def summed(meters: Sequence[Meter], totals: Sequence[int | None], *, ended: bool) -> Progress:
    """The progress of an action: that of all its transfers together."""
    done = sum(meter.transferred for meter in meters)
    total = None if None in totals else sum(each for each in totals if each is not None)
    if ended:
        begins = [meter.begin for meter in meters if meter.begin is not None]
        ends = [meter.end for meter in meters if meter.end is not None]
        rate = _per_second(done, max(ends) - min(begins)) if begins and ends else 0.0
    else:
        rate = sum(meter.progress().rate for meter in meters if meter.end is None)
    return Progress(done, total, rate, ended)


def _per_second(count: int, seconds: float) -> float:
    return count / seconds if seconds > 0 else 0.0


# -- callbacks --------------------------------------------------------------------------------


def process_teller(callback: ProgressCallback) -> ProcessLifecycleHandler:
    """What tells ``callback`` of a process, as one of its lifecycle handlers.

    :raises TypeError: if it cannot be called
    """
    return _ProcessTeller(_Callback(callback))


def action_teller(callback: ProgressCallback) -> ActionLifecycleHandler:
    """What tells ``callback`` of an action, as one of its lifecycle handlers.

    :raises TypeError: if it cannot be called
    """
    return _ActionTeller(_Callback(callback))


class _Callback:
    """What somebody wants to have called, for one action or all its processes."""

    def __init__(self, function: Any) -> None:
        if not callable(function):
            raise TypeError(f"progress is what is called with (action, progress): not {function!r}")
        self._function: ProgressCallback = function
        self._said = False

    def tell(self, subject: ProcessBase | Action, progress: Progress) -> bool:
        """On the handler pool. False if it raises, which is logged once: a mistake in it is one for
        all hosts, and at all times."""
        try:
            self._function(subject, progress)
        except BaseException:
            if not self._said:
                self._said = True
                text = "progress callback %r failed for %r; this is logged once"
                logger.exception(text, self._function, subject)
            return False
        return True


class _ProcessTeller(ProcessLifecycleHandler):
    def __init__(self, callback: _Callback) -> None:
        self._callback = callback

    def start(self, process: ProcessBase) -> None:
        run = process._run
        if run is not None:
            submit = run.delivery.strand.submit
            _Ticker(process, self._callback, run.runtime.loop, run.end_latch, submit).begin()

    def end(self, process: ProcessBase) -> None:
        self._callback.tell(process, _progress_of(process))


class _ActionTeller(ActionLifecycleHandler):
    def __init__(self, callback: _Callback) -> None:
        self._callback = callback

    def start(self, action: Action) -> None:
        execution = action._execution
        if execution is not None:
            submit = execution._on_strand
            loop = execution.runtime.loop
            _Ticker(action, self._callback, loop, execution.end_latch, submit).begin()

    def end(self, action: Action) -> None:
        self._callback.tell(action, _progress_of(action))


class _Ticker:
    """Tells a callback of one run, now and then, while it goes on and something changes.

    By a timer and not by what arrives: that nothing arrives is worth being told, too. The methods
    belong to the I/O thread, save :meth:`begin` and :meth:`_tell`, which runs on the handler pool.
    """

    def __init__(
        self,
        subject: ProcessBase | Action,
        callback: _Callback,
        loop: Loop,
        over: Latch,
        submit: Callable[..., object],
    ) -> None:
        self._subject = subject
        self._callback = callback
        self._loop = loop
        self._over = over
        self._submit = submit
        self._busy = False  # a call waits or runs: a slow callback is told less often
        self._failed = False
        self._last = Progress()

    def begin(self) -> None:
        """From any thread."""
        self._loop.call_soon(self._later)

    def _later(self) -> None:
        self._loop.call_later(INTERVAL, self._tick)

    def _tick(self) -> None:
        if self._over.fired or self._failed:
            return
        if not self._busy:
            now = _progress_of(self._subject)
            if now != self._last:
                self._last, self._busy = now, True
                self._submit(self._tell, now)
        self._later()

    def _tell(self, progress: Progress) -> None:
        # One that fails is told of the end all the same, and of nothing else.
        self._failed = not self._callback.tell(self._subject, progress)
        self._busy = False


def _progress_of(subject: Any) -> Progress:
    progress: Progress = subject.progress
    return progress
