r"""Waiting for what processes print.

Searching is done by the thread that waits, in what the process's capture holds: the I/O thread
only wakes it. It is linear in the output: a match is looked for in what has come since the last
look and in the *window* before it, so that a pattern may be spread over several pieces.

Each reader (a thread, or an :class:`ExpectOutputHandler`) has its own place in each output: the
end of its last match.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Union

from ._core.latch import Latch
from ._core.pool import wait as wait_for
from .config import configuration
from .handlers import ProcessOutputHandler
from .log import logger, style
from .output import START, STDERR, STDOUT, Place
from .time_utils import Duration, get_seconds

if TYPE_CHECKING:
    from .process_base import ProcessBase
    from .reading import Reading

__all__ = [
    "WINDOW",
    "ExpectOutputHandler",
    "Match",
    "Patterns",
    "Search",
    "compile_patterns",
    "search_all",
    "watch_outputs",
]

WINDOW = 64 * 1024
"""Characters before new output in which a match may begin."""

Match = tuple[int | None, "re.Match[str] | None"]
"""The index of the pattern that was found and its match; None and None if none was."""

Patterns = Union[str, "re.Pattern[str]", Sequence[Union[str, "re.Pattern[str]"]]]
"""A regular expression or several: texts (``re.MULTILINE``) or compiled patterns."""

_FIRST_PIECE = 4 * 1024
_LARGEST_PIECE = 1024 * 1024


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
    patterns = tuple(
        re.compile(one, re.MULTILINE) if isinstance(one, str) else one for one in regexes
    )
    for pattern in patterns:
        if not isinstance(pattern, re.Pattern) or not isinstance(pattern.pattern, str):
            raise TypeError(f"a pattern is a text, or compiled from a text: not {pattern!r}")
    if not patterns:
        raise ValueError("no pattern to look for")
    return patterns


class Search:
    """The search of one reader in one stream of one run; the next one goes on where it ended.

    Belongs to the thread of its reader, save ``wake``.
    """

    def __init__(self, reading: Reading, stream: int) -> None:
        self.reading = reading
        self.stream = stream
        self.result: Match = (None, None)
        self.over = False
        """Nothing more will come."""
        self._patterns: tuple[re.Pattern[str], ...] = ()
        self._window = 0
        source = reading.source(stream)
        # The end of the last match, and the character before it, for ^ and \b.
        self._mark: Place = START if source is None else (source.first, 0)
        self._before = ""
        # What was read, up to _place, as far as it is still needed.
        self._text = ""
        self._place = self._mark
        self._start = 0  # where in it a match may begin
        self._searched = 0  # up to where it was searched in vain
        self._piece = _FIRST_PIECE
        self._goal = 0
        self._lost = 0
        self._waker: _Waker | None = None

    def begin(
        self, patterns: tuple[re.Pattern[str], ...], window: int, backtrack: bool, waker: _Waker
    ) -> None:
        """Get ready to look for ``patterns`` after the last match, or in what comes from now on."""
        source = self.reading.source(self.stream)
        if not backtrack:
            self._mark, self._before = (START if source is None else source.end), ""
        if not backtrack or (patterns, window) != (self._patterns, self._window):
            # Else it goes on: who asks again and again for the same does not search it all again.
            self._rewind()
        self._patterns, self._window = patterns, window
        self._piece = _FIRST_PIECE
        self._lost = 0
        self.result = (None, None)
        self._goal = 0 if source is None else source.size
        self._waker = waker
        self.reading.watch(self.wake)

    def end(self) -> None:
        """Nobody waits any more."""
        self.reading.unwatch(self.wake)
        if self._waker is not None and self._lost:
            logger.warning(
                "%r printed faster than its output was searched: %d bytes were passed over",
                self.reading.run.process,
                self._lost,
            )
        self._waker = None

    @property
    def waited_for(self) -> bool:
        """Whether somebody waits for its result."""
        return self._waker is not None

    def wake(self) -> None:
        """Something has come, or ended. On the I/O thread."""
        waker = self._waker
        if waker is not None:
            waker.wake(self)

    def look(self, last: bool) -> bool:
        """Search a piece of what has come; True if a match was found, or nothing more will come.

        :param last: search all that had come when the search began
        """
        while True:
            # Before reading: nothing comes after it.
            self.over = self.reading.run.is_over(self.stream)
            if not self._read():
                return self.over
            if self._find():
                return True
            if not last:
                # The others are to have their turn, however much this one prints.
                self.wake()
                return False
            if self._place[0] >= self._goal:
                return False

    def _read(self) -> bool:
        source = self.reading.source(self.stream)
        if source is None:
            return False
        self._lost += max(0, source.first - self._place[0])
        text, place = source.read(self._place, self._piece)
        if place == self._place:
            return False
        self._place = place
        self._piece = min(2 * self._piece, _LARGEST_PIECE)
        if len(self._text) > 2 * self._window:
            kept = self._window + 1
            self._text = self._text[-kept:]
            self._start, self._searched = 1, len(self._text)
        self._text += text
        return True

    def _find(self) -> bool:
        best: re.Match[str] | None = None
        begin = max(self._start, self._searched - self._window)
        for index, pattern in enumerate(self._patterns):
            found = pattern.search(self._text, begin)
            # Of several, what comes first in the output: else the cuts between pieces would decide.
            if found is not None and (best is None or found.start() < best.start()):
                best = found
                self.result = (index, found)
        self._searched = len(self._text)
        if best is None:
            return False
        end = best.end()
        rest = self._text[end:]
        size = len(rest) if rest.isascii() else len(rest.encode("utf-8", "surrogateescape"))
        self._mark = (self._place[0] - size, self._place[1] - len(rest))
        self._before = self._text[max(0, end - 1) : end]
        self._rewind()
        return True

    def _rewind(self) -> None:
        self._place, self._text = self._mark, self._before
        self._start = self._searched = len(self._before)


class _Waker:
    """Says what there is to look at: searches, and processes (their index) that have started."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ready: dict[Search | int, None] = {}
        self._latch = Latch()

    def wake(self, one: Search | int) -> None:
        """There is ``one``. From any thread."""
        with self._lock:
            self._ready[one] = None
            latch = self._latch
        latch.fire()

    def take(self, timeout: float | None) -> list[Search | int]:
        """What there is; waits for some at most ``timeout`` seconds."""
        wait_for(self._latch, timeout)
        with self._lock:
            ready, self._ready, self._latch = list(self._ready), {}, Latch()
        return ready


def search_all(
    outputs: Sequence[tuple[ProcessBase, int]],
    reader: object,
    regexes: Any,
    timeout: Duration | None,
    *,
    backtrack: bool = True,
    window: int = WINDOW,
) -> list[Match]:
    """The first match in each of several outputs. Blocks until each has one or can have none any
    more, at most ``timeout`` seconds. A process without one has failed (``expect_fail``).

    :param outputs: processes and their streams; what its action has not started yet is waited for
    :param reader: whose places in the outputs these are
    :raises re.error: see :func:`compile_patterns`
    :raises TypeError: likewise
    :raises ValueError: likewise, and for a wrong stream or a window below 1
    """
    patterns = compile_patterns(regexes)
    if isinstance(window, bool) or not isinstance(window, int) or window < 1:
        raise ValueError(f"a window is a number of characters, at least 1: not {window!r}")
    for _, stream in outputs:
        if stream not in (STDOUT, STDERR):
            raise ValueError(f"a stream is STDOUT (1) or STDERR (2), not {stream!r}")
    seconds = get_seconds(timeout)
    searches: dict[int, Search] = {}
    waker = _Waker()

    def begin(index: int) -> Search | None:
        process, stream = outputs[index]
        run = process._run_or_tell(partial(waker.wake, index))
        if run is None:
            return None
        search = searches[index] = run.reading.search(reader, stream)
        search.begin(patterns, window, backtrack, waker)
        return search

    try:
        _look_until_done(waker, len(outputs), begin, seconds)
    finally:
        for search in searches.values():
            search.end()
    matches: list[Match] = []
    unlogged: list[ProcessBase] = []
    for index, (process, _) in enumerate(outputs):
        found = searches.get(index)
        matches.append((None, None) if found is None else found.result)
        if matches[-1][0] is None:
            what = " or ".join(repr(pattern.pattern) for pattern in patterns)
            over = seconds is None or (found is not None and found.over)
            why = f"did not print {what} " + ("to its end" if over else f"within {seconds:g} s")
            if process._expect_failed(why):
                unlogged.append(process)
    _log_failures(unlogged)
    return matches


def _look_until_done(
    waker: _Waker, count: int, begin: Callable[[int], Search | None], seconds: float | None
) -> None:
    """Look at whatever has something new, until all ``count`` are done or the time is over."""
    deadline = None if seconds is None else time.monotonic() + seconds
    for index in range(count):
        waker.wake(index)
    while count:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        for one in waker.take(left):
            search = begin(one) if isinstance(one, int) else one
            if search is not None and search.waited_for and search.look(last=left == 0):
                search.end()
                count -= 1
        if left == 0:
            return


def _log_failures(processes: list[ProcessBase]) -> None:
    """Tell of those that had ended: nothing else will."""
    most = int(configuration["max_failure_logs"])
    for process in processes[:most]:
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
        """
        with self._lock:
            outputs = list(self._outputs)
        matches = search_all(outputs, self, regexes, timeout, window=window)
        return dict(zip(outputs, matches, strict=True))


def watch_outputs(process: ProcessBase) -> None:
    """Tell the :class:`ExpectOutputHandler` among the handlers of a process that it starts."""
    for stream, handlers in ((STDOUT, process.stdout_handlers), (STDERR, process.stderr_handlers)):
        for handler in handlers:
            if isinstance(handler, ExpectOutputHandler):
                handler.watch(process, stream)
