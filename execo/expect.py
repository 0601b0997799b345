r"""Waiting for what processes print.

Searching is done by the thread that waits, in what the process's capture holds: the I/O thread
only wakes it.

Each reader (a thread, the handlers of a process, an :class:`ExpectOutputHandler`) has its own place
in each output: the end of its last match.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from ._core.pool import current_strand
from .config import configuration
from .handlers import ProcessOutputHandler
from .log import logger, style
from .output import STDERR, STDOUT
from .search import Match, Search, Waker
from .time_utils import Duration, get_seconds

if TYPE_CHECKING:
    from .lifecycle import Run
    from .process_base import ProcessBase

__all__ = [
    "WINDOW",
    "ExpectOutputHandler",
    "Match",
    "Patterns",
    "compile_patterns",
    "search_all",
    "watch_outputs",
]

WINDOW = 64 * 1024
"""Characters before new output in which a match may begin."""

Patterns = str | re.Pattern[str] | Sequence[str | re.Pattern[str]]
"""A regular expression or several: texts (``re.MULTILINE``) or compiled patterns."""


def compile_patterns(regexes: Any) -> tuple[re.Pattern[str], ...]:
    """One or several regular expressions, compiled; texts with ``re.MULTILINE``.

    :raises re.error: for a text that is no regular expression
    :raises TypeError: for what is neither text nor a pattern for text
    :raises ValueError: if there are none
    """
    if isinstance(regexes, (str, re.Pattern)):
        regexes = (regexes,)
    if isinstance(regexes, bytes) or not isinstance(regexes, Iterable):
        raise TypeError(f"patterns are texts or compiled patterns, or a list of them: {regexes!r}")
    patterns = tuple(_compile(one) if isinstance(one, str) else one for one in regexes)
    for pattern in patterns:
        if not isinstance(pattern, re.Pattern) or not isinstance(pattern.pattern, str):
            raise TypeError(f"a pattern is a text, or compiled from a text: not {pattern!r}")
    if not patterns:
        raise ValueError("no pattern to look for")
    return patterns


def _compile(text: str) -> re.Pattern[str]:
    try:
        return re.compile(text, re.MULTILINE)
    except re.error as exc:
        # Its own message has the place alone, and there may be several patterns.
        raise re.error(f"{exc.msg}: no regular expression: {text!r}", text, exc.pos) from None


class _Expectation:
    """One call of ``expect``: the searches in all its outputs, and their common deadline.

    :raises re.error: see :func:`compile_patterns`
    :raises TypeError: likewise
    :raises ValueError: likewise, and for a wrong window
    """

    def __init__(
        self,
        outputs: Sequence[tuple[ProcessBase, int]],
        reader: object,
        regexes: Any,
        timeout: Duration | None,
        backtrack: bool,
        window: int,
    ) -> None:
        self._patterns = compile_patterns(regexes)
        if isinstance(window, bool) or not isinstance(window, int) or window < 1:
            raise ValueError(f"a window is a number of characters, at least 1: not {window!r}")
        self._seconds = get_seconds(timeout)
        self._outputs = outputs
        self._reader = reader
        self._backtrack = backtrack
        self._window = window
        self._waker = Waker()
        self._tells = [partial(self._waker.wake, index) for index in range(len(outputs))]
        self._searches: dict[int, Search] = {}

    def run(self) -> None:
        """Look at whatever has something new, until all are done or the time is over."""
        deadline = None if self._seconds is None else time.monotonic() + self._seconds
        try:
            for tell in self._tells:
                tell()
            count = len(self._outputs)
            while count:
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                for one in self._waker.take(left):
                    search = self._begin(one) if isinstance(one, int) else one
                    if search is not None and search.waited_for and search.look(last=left == 0):
                        search.end(self._waker)
                        count -= 1
                if left == 0:
                    return
        finally:
            for search in self._searches.values():
                search.end(self._waker)
            for (process, _), tell in zip(self._outputs, self._tells, strict=True):
                process._tell_no_more(tell)

    def _begin(self, index: int) -> Search | None:
        """Begin the search in one output; None if its process has not started."""
        if index in self._searches:
            return None  # told of a start that was seen already
        process, stream = self._outputs[index]
        run = process._run_or_tell(self._tells[index])
        if run is None:
            return None
        search = self._searches[index] = run.reading.search(self._reader, stream)
        search.begin(self._patterns, self._window, self._backtrack, self._waker)
        return search

    def matches(self) -> list[Match]:
        """What was found."""
        found = map(self._searches.get, range(len(self._outputs)))
        return [(None, None) if search is None else search.result for search in found]

    def fail(self) -> None:
        """Set ``expect_fail`` of those that have no match."""
        what = " or ".join(repr(pattern.pattern) for pattern in self._patterns)
        unlogged: list[ProcessBase] = []
        for index, (process, _) in enumerate(self._outputs):
            search = self._searches.get(index)
            if search is not None and search.result[0] is not None:
                continue
            run: Run | None = None if search is None else search.reading.run
            if self._seconds is None or (search is not None and search.over):
                limit = "to its end"
            else:
                limit = f"within {self._seconds:g} s" if self._seconds > 0 else "so far"
            if process._expect_failed(run, f"did not print {what} {limit}"):
                unlogged.append(process if run is None else process._as_of(run))
        _log_failures(unlogged)


def search_all(
    outputs: Sequence[tuple[ProcessBase, int]],
    handler: ExpectOutputHandler | None,
    regexes: Any,
    timeout: Duration | None,
    *,
    backtrack: bool = True,
    window: int = WINDOW,
) -> list[Match]:
    """The first match in each of several outputs. Blocks until each has one or can have none any
    more, at most ``timeout`` seconds. A process without one has failed (``expect_fail``).

    :param outputs: processes and their streams; what its action has not started yet is waited for
    :param handler: whose places in the outputs these are; None = those of this thread or, in a
      handler, those of all handlers of its process or action
    :raises RuntimeError: if another thread is waiting with the same handler
    :raises re.error: see :func:`compile_patterns`
    :raises TypeError: likewise
    :raises ValueError: likewise, and for a wrong stream or a window below 1
    """
    for _, stream in outputs:
        if stream not in (STDOUT, STDERR):
            raise ValueError(f"a stream is STDOUT (1) or STDERR (2), not {stream!r}")
    # Not the number of the thread: the next one gets that of one that has ended.
    reader = handler or current_strand() or threading.current_thread()
    once = list(dict.fromkeys(outputs))  # a process may be twice in an action
    expectation = _Expectation(once, reader, regexes, timeout, backtrack, window)
    if handler is not None:
        for process, stream in once:
            handler.watch(process, stream)
    expectation.run()
    expectation.fail()
    found = dict(zip(once, expectation.matches(), strict=True))
    return [found[output] for output in outputs]


def _log_failures(processes: list[ProcessBase]) -> None:
    """Tell of those that had ended: nothing else will."""
    most = int(configuration["max_failure_logs"])
    for process in processes[:most]:
        if logger.isEnabledFor(logging.WARNING):
            logger.warning("%s", style.emph("failed: ") + process.dump())
    if len(processes) > most:
        logger.warning(
            "%d processes did not print what was expected; the first %d are logged one by one",
            len(processes),
            most,
        )


class ExpectOutputHandler(ProcessOutputHandler):
    """Waits for what several outputs print: of each process in whose ``stdout_handlers`` or
    ``stderr_handlers`` it is. (execo 2.8.2)

    It knows an output from the start of the process on, or, if it was added later, from the first
    output after that.
    """

    def __init__(self) -> None:
        self._outputs: dict[tuple[ProcessBase, int], None] = {}
        self._lock = threading.Lock()

    def read(self, process: ProcessBase, stream: int, string: str, eof: bool, error: bool) -> None:
        """Notes where the output comes from; searching is done by the thread that expects."""
        self.watch(process, stream)

    def watch(self, process: ProcessBase, stream: int) -> None:
        """Wait for this output, too."""
        with self._lock:
            self._outputs[process, stream] = None

    def expect(
        self, regexes: Patterns, timeout: Duration | None = None, *, window: int = WINDOW
    ) -> dict[tuple[ProcessBase, int], Match]:
        """Block until each of its outputs has printed one of ``regexes`` or has ended.

        :param regexes: see :meth:`Process.expect() <execo.process.ProcessBase.expect>`
        :param timeout: seconds to wait at the most; None = no limit
        :param window: see there
        :returns: for each (process, stream) the index of the pattern and the match, see there
        :raises RuntimeError: if another thread is waiting with it
        """
        with self._lock:
            # What was reset and not started again prints nothing.
            outputs = [one for one in self._outputs if one[0]._run is not None]
        matches = search_all(outputs, self, regexes, timeout, window=window)
        return dict(zip(outputs, matches, strict=True))


def watch_outputs(process: ProcessBase) -> None:
    """Tell the :class:`ExpectOutputHandler` among the handlers of a process that it starts."""
    for stream, handlers in ((STDOUT, process.stdout_handlers), (STDERR, process.stderr_handlers)):
        for handler in handlers:
            if isinstance(handler, ExpectOutputHandler):
                handler.watch(process, stream)
