"""What those who expect output have of one run of a process: their places, and the output itself.

Where all output is kept anyway, they read that. Where it is not, the last of it is kept for them
from their first question on.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from ._core.locks import new_lock
from .output import STDOUT, Capture, Place
from .search import Search

if TYPE_CHECKING:
    from .lifecycle import Run

__all__ = ["KEPT", "Reading", "Recent"]

KEPT = 1024 * 1024
"""Bytes of an output kept for those who expect something in it, where it is not kept anyway."""

# One lock for all: it is held for a few instructions, or while a piece is decoded.
_lock = new_lock()


class Reading:
    """The searches in the output of ``run``, and what is kept for them alone."""

    def __init__(self, run: Run) -> None:
        self.run = run
        # A process that runs for long is not to keep all who have ever read along.
        self._searches: WeakKeyDictionary[object, dict[int, Search]] = WeakKeyDictionary()
        self._recent: dict[int, Recent] = {}
        self._watchers: tuple[Callable[[], object], ...] = ()

    # -- on the I/O thread ----------------------------------------------------------------------

    def add(self, stream: int, data: bytes) -> None:
        """Output has come."""
        if stream in self._recent:
            self._recent[stream].append(data)
        self.tell()

    def finish(self, stream: int) -> None:
        """No more output will come."""
        if stream in self._recent:
            self._recent[stream].finish()

    def tell(self) -> None:
        """Call the watchers."""
        for watcher in self._watchers:
            watcher()

    # -- in the reader's thread -----------------------------------------------------------------

    def search(self, reader: object, stream: int) -> Search:
        """The search of ``reader`` in ``stream``, made at the first call."""
        # Two threads with one handler are to find the same one, so that one is refused.
        searches = self._searches.setdefault(reader, {})
        search = searches.get(stream)
        if search is None:
            if not self.run.keeps_all(stream) and not self.run.runtime.gone:
                self.run.runtime.loop.run_sync(self._keep_recent, stream)
            search = searches.setdefault(stream, Search(self, stream))
        return search

    def source(self, stream: int) -> Capture | Recent | None:
        """Where the output can be read; None before the first of it."""
        capture = self.run.stdout if stream == STDOUT else self.run.stderr
        return self._recent.get(stream, capture)

    def watch(self, watcher: Callable[[], object]) -> None:
        """Call ``watcher`` on the I/O thread when there is output, or its end."""
        with _lock:
            self._watchers += (watcher,)

    def unwatch(self, watcher: Callable[[], object]) -> None:
        """Call it no more."""
        with _lock:
            self._watchers = tuple(one for one in self._watchers if one != watcher)

    def _keep_recent(self, stream: int) -> None:
        if stream in self._recent:
            return
        capture = self.run.stdout if stream == STDOUT else self.run.stderr
        whole = capture is None or not capture.dropped
        before = 0 if capture is None or whole else capture.size + capture.dropped
        recent = self._recent[stream] = Recent(before, KEPT)
        if capture is not None and whole:
            recent.append(capture.data)
        if self.run.is_over(stream):
            recent.finish()


class Recent:
    """The last output of a stream that is not kept as a whole, for those who read along.

    ``append`` and ``finish`` belong to the I/O thread, the rest to any thread.

    :param first: the bytes that came before
    :param most: bytes kept, at least
    """

    def __init__(self, first: int, most: int) -> None:
        self.first = first
        self._most = most
        self._data = bytearray()
        self._finished = False

    def append(self, data: bytes) -> None:
        """Keep ``data``, and forget the oldest."""
        with _lock:
            self._data += data
            # Not each time: that would move all of it for every piece.
            if len(self._data) > 2 * self._most:
                self.first += len(self._data) - self._most
                del self._data[: -self._most]

    def finish(self) -> None:
        """Nothing more will come."""
        self._finished = True

    @property
    def size(self) -> int:
        """Bytes that have come, kept or not."""
        with _lock:
            return self.first + len(self._data)

    def tail(self, most: int) -> tuple[str, Place]:
        """As :meth:`Capture.tail`."""
        with _lock:
            # A few bytes more: it may begin in the middle of a character, which gives rubbish.
            piece = self._data[-4 * (most + 2) :]
            size = self.first + len(self._data)
            text, used = codecs.utf_8_decode(piece, "surrogateescape", self._finished)
        return text[-most:], (size - len(piece) + used, 0)

    def read(self, place: Place, most: int) -> tuple[str, Place, int]:
        """As :meth:`Capture.read`; what is not kept any more is lost."""
        with _lock:
            size = max(place[0], self.first)
            begin = size - self.first
            piece = self._data[begin : begin + most]
            whole = self._finished and begin + len(piece) == len(self._data)
        text, used = codecs.utf_8_decode(piece, "surrogateescape", whole)
        return text, (size + used, 0), size - place[0]
