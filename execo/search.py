"""The search for a pattern in one output, and what wakes those who search.

It is linear in the output: a match is looked for in what has come since the last look and in the
*window* before it, so that a pattern may be spread over several pieces.
"""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING

from ._core.latch import Latch
from ._core.locks import new_lock
from ._core.pool import wait as wait_for
from .log import logger
from .output import START, Place

if TYPE_CHECKING:
    from .reading import Reading

__all__ = ["Match", "Search", "Waker"]

Match = tuple[int | None, re.Match[str] | None]
"""The index of the pattern that was found and its match; None and None if none was."""

_CONTEXT = 64
r"""Characters before the place where a match may begin: what ``^``, ``\b`` and lookbehind see."""

_FIRST_PIECE = 4 * 1024
_LARGEST_PIECE = 1024 * 1024

_claims = new_lock()


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
        # The end of the last match, and what is before it, as context.
        self._mark: Place = START if source is None else (source.first, 0)
        self._before = ""
        # What was read, up to _place, as far as it is still needed.
        self._text = ""
        self._place = self._mark
        self._start = 0  # where in it a match may begin
        self._mark_at = 0  # where in it the mark is; below 0 = it is not in it any more
        self._searched = 0  # up to where it was searched: no match begins a window before that
        self._piece = _FIRST_PIECE
        self._goal = 0
        self._lost = 0
        self._waker: Waker | None = None

    def begin(
        self, patterns: tuple[re.Pattern[str], ...], window: int, backtrack: bool, waker: Waker
    ) -> None:
        """Get ready to look for ``patterns`` after the last match, or in what comes from now on.

        :raises RuntimeError: if somebody waits for its result already
        """
        with _claims:
            if self._waker is not None:
                raise RuntimeError(
                    f"an expect() on {self.reading.run.process!r} is under way with this "
                    "ExpectOutputHandler: give each thread one of its own"
                )
            self._waker = waker
        source = self.reading.source(self.stream)
        if not backtrack:
            self._before, self._mark = ("", START) if source is None else source.tail(_CONTEXT)
        if not backtrack or (patterns, window) != (self._patterns, self._window):
            # Else it goes on: who asks again and again for the same does not search it all again.
            self._rewind()
        self._patterns, self._window = patterns, window
        self._piece = max(_FIRST_PIECE, window)
        self._lost = 0
        self.result = (None, None)
        self._goal = 0 if source is None else source.size
        self.reading.watch(self.wake)

    def end(self, waker: Waker) -> None:
        """``waker`` does not wait any more."""
        if self._waker is not waker:
            return
        self.reading.unwatch(self.wake)
        self._waker = None
        if self._lost:
            logger.warning(
                "%r printed faster than its output was searched: %d bytes were passed over",
                self.reading.run.process,
                self._lost,
            )

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
            # No more than it needs: of a million short matches none must pay for the rest.
            ahead = len(self._text) - max(self._start, self._searched)
            come = ahead > self._window or self._read()
            if not come and self._searched == len(self._text):
                return self.over
            index, found = self._first()
            if found is not None and (not come or self._is_settled(found, last)):
                self._take(index, found)
                return True
            # One that is not settled is found once more, or another one.
            done = len(self._text) if found is None else found.start()
            self._searched = max(self._searched, done)
            self._forget()
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
        text, place, lost = source.read(self._place, self._piece)
        if lost:
            if self._searched < len(self._text):
                return False  # first what is in front of the gap
            # What is on both sides of the gap is no match.
            self._lost += lost
            self._text, self._start, self._searched, self._mark_at = "", 0, 0, -1
        if place == self._place:
            return False
        self._place = place
        self._piece = min(2 * self._piece, _LARGEST_PIECE)
        self._text += text
        return True

    def _first(self) -> Match:
        """Of several, what comes first in the output."""
        first: Match = (None, None)
        begin = max(self._start, self._searched - self._window)
        for index, pattern in enumerate(self._patterns):
            found = pattern.search(self._text, begin)
            if found is not None and (first[1] is None or found.start() < first[1].start()):
                first = index, found
        return first

    def _is_settled(self, found: re.Match[str], last: bool) -> bool:
        """Whether nothing that has come behind the text can make it longer, or no match, or
        another one the first."""
        if found.start() + self._window < len(self._text):
            return True
        source = self.reading.source(self.stream)
        size = 0 if source is None else source.size
        return self._place[0] >= (self._goal if last else size)

    def _take(self, index: int | None, found: re.Match[str]) -> None:
        self.result = (index, found)
        end = self._start = self._searched = found.end()
        if self._mark_at >= 0:
            self._mark = _moved(self._mark, self._text[self._mark_at : end], 1)
        else:
            self._mark = _moved(self._place, self._text[end:], -1)
        self._mark_at = end
        self._before = self._text[max(0, end - _CONTEXT) : end]
        self._forget()

    def _forget(self) -> None:
        """Drop what no match can begin in any more."""
        surplus = max(self._start, self._searched - self._window) - _CONTEXT
        # Not each time: that would move all of it for every piece.
        if surplus > self._window:
            self._text = self._text[surplus:]
            self._start = max(0, self._start - surplus)
            self._searched -= surplus
            self._mark_at -= surplus

    def _rewind(self) -> None:
        self._place, self._text = self._mark, self._before
        self._start = self._searched = self._mark_at = len(self._before)


def _moved(place: Place, text: str, sign: int) -> Place:
    """The place that many bytes and characters behind ``place``, or before it."""
    size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogateescape"))
    return place[0] + sign * size, place[1] + sign * len(text)


class Waker:
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
