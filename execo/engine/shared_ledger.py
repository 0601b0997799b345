"""The ledger that all who use a folder have in common: a journal, who writes there, who is gone."""

from __future__ import annotations

import gc
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from execo.log import logger
from execo.time_utils import format_duration

from .combination import HashableDict
from .entries import Entry, Ledger, State
from .heartbeat import Heartbeat
from .holder import this_process
from .journal import Journal

__all__ = ["JOURNAL", "SharedLedger", "ledger_of"]

JOURNAL = "journal.jsonl"

LOOK = 1.0
"""Seconds between two looks at whether holders are still there, while there is something to do."""

BEATS = 4
"""Signs of life in a lease."""

T = TypeVar("T")


class SharedLedger:
    """Of one process. All but :meth:`run`, :meth:`close` and what is read of it is for what
    :meth:`run` calls.

    :param lease: seconds; None: what others hold on other machines stays theirs for ever
    """

    def __init__(self, path: Path, lease: float | None) -> None:
        self.ledger = Ledger()
        self.lease = lease
        self._journal = Journal(path)
        self._by: int | None = None
        self._forked = 0
        self._looked = -LOOK
        self._spoke = 0.0
        self._began: dict[Entry, float] = {}
        self._heartbeat: Heartbeat | None = None
        # Between two changes all that is known here agrees with the journal. If one is broken off,
        # by a Ctrl-C for one, it is made anew.
        self._sound = True
        self._sweep: list[HashableDict] = []
        self._opened_at = 0
        self._finalizer = weakref.finalize(self, self._journal.close)
        self._journal.run(self._replay)

    @property
    def path(self) -> Path:
        """Of the journal."""
        return self._journal.path

    @property
    def look(self) -> bool:
        """Whether this process may only look."""
        return self._journal.look

    def close(self) -> None:
        """Write what is in memory to the disk, and close the file."""
        if self._heartbeat is not None:
            self._heartbeat.stop()
        self._finalizer()

    # -- reading -------------------------------------------------------------------------------

    def run(self, work: Callable[[], T]) -> T:
        """Call ``work`` with the lock held, and all read that was written. It may call this
        again, and so may a signal handler.

        :raises RuntimeError: by a signal handler that has broken into a change
        :raises OSError: the folder cannot be used any more
        """
        return self._journal.run(lambda: self._up_to_date(work))

    def _up_to_date(self, work: Callable[[], T]) -> T:
        if not self._sound:
            if self._journal.nested:
                raise RuntimeError(
                    f"{self.path}: a signal handler has called it while it was being called. Let"
                    " the handler set a flag, or raise"
                )
            self._make_anew()
        self._sound = False
        while records := self._journal.read():
            self._complain(self.ledger.follow(records))
        self._sound = True
        return work()

    @contextmanager
    def change(self) -> Iterator[None]:
        """What is done within is done whole, or undone by reading everything again."""
        self._sound = False
        yield
        self._sound = True

    def _replay(self) -> None:
        with self.change(), _no_collections():
            while records := self._journal.read(self._opened_at or None):
                self._complain(self.ledger.replay(records))
            self._opened_at = self._journal.read_to

    def _make_anew(self) -> None:
        self.ledger = Ledger()
        self._began = {}
        self._journal.rewind()
        if self._opened_at:
            self._replay()
        with self.change(), _no_collections():
            while records := self._journal.read():
                self._complain(self.ledger.follow(records))
            self.ledger.set_sweep(self._sweep)

    def set_sweep(self, combinations: list[HashableDict]) -> None:
        """These are the combinations."""
        with self.change(), _no_collections():
            self._sweep = combinations
            self.ledger.set_sweep(combinations)

    def records(self) -> Iterator[Any]:
        """All lines of the journal; those that are damaged were told of."""
        with Journal(self.path, look=True, tell=lambda _: None) as journal:
            while records := journal.read():
                yield from records

    def _complain(self, faults: Iterable[tuple[int, str]]) -> None:
        for at, fault in faults:
            self._journal.complain(self._journal.line + at, f"it makes no sense: {fault}")

    # -- writing -------------------------------------------------------------------------------

    def take(self, entry: Entry) -> bool:
        """It is handed out, if it still is to be done."""
        with self.change():
            if entry.state is not State.TODO:
                return False
            self.write("take", entry)
            self._began[entry] = time.monotonic()
        if self.lease is not None and self._heartbeat is not None:
            self._heartbeat.start()
        return True

    def end(self, what: str, entry: Entry, **more: Any) -> None:
        """Something else happens to an entry."""
        began = self._began.pop(entry, None)
        if began is not None and entry in self.mine:
            more["took"] = round(time.monotonic() - began, 4)
        self.write(what, entry, **more)

    def write(self, what: str, entry: Entry, **more: Any) -> None:
        """Append a line about an entry."""
        self._append(self.ledger.line(what, entry, self.me(), **more))

    def note(self, what: str, **more: Any) -> None:
        """Append a line about all of them."""
        self._append({"do": what, "at": round(time.time(), 3), "by": self.me(), **more})

    def _append(self, record: dict[str, Any]) -> None:
        self._journal.append(record)
        self._spoke = time.monotonic()
        for _, fault in self.ledger.follow((record,)):
            raise AssertionError(fault)

    @property
    def mine(self) -> set[Entry]:
        """What this process works on."""
        if self._by is None or self._forked != self._journal.forked:
            return set()
        return self.ledger.held.get(self._by, set())

    def lost(self, entry: Entry) -> bool:
        """Whether this process had it until it was taken back."""
        return (self.me(), entry) in self.ledger.lost

    def me(self) -> int:
        """The number of this process in the journal, where a new one says who it is."""
        if self._by is not None and self._forked == self._journal.forked:
            return self._by
        by, beat = self.ledger.next_holder(), self.lease and self.lease / BEATS
        who = this_process(beat)
        before = self._journal.changed()
        self._append(
            {
                "do": "open",
                "at": round(time.time(), 3),
                "by": by,
                "host": who.host,
                "boot": who.boot,
                "pid": who.pid,
                "start": who.start,
                **({} if beat is None else {"beat": beat}),
            }
        )
        # So long nobody has written, by the clock of the file system: silence that this process has
        # not witnessed. A script that ends before the lease would never see one expire.
        quiet = time.monotonic() - max(0.0, self._journal.changed() - before)
        for number in self.ledger.held:
            self.ledger.heard[number] = min(quiet, self.ledger.heard.get(number, quiet))
        self._began = {}
        self._heartbeat = None if beat is None else Heartbeat(beat, self._beat)
        self._by, self._forked = by, self._journal.forked
        return by

    # -- who is gone, and that one is not ----------------------------------------------------------

    def free_what_the_gone_held(self, *, now: bool = False) -> bool:
        """Whether there was anything. Once in a while, unless it is to be looked ``now``.

        Of a process that can be seen, it is free when that has ended; of one that cannot, when it
        has said nothing for the lease, or for as long as it needs for as many signs of life.
        """
        if not now and time.monotonic() - self._looked < LOOK:
            return False
        self._looked = time.monotonic()
        if self.look or not self.ledger.held:
            return False
        me = self.me()
        found = False
        for number, held in list(self.ledger.held.items()):
            why = None if number == me else self._gone(number)
            if why is None:
                continue
            found, freed = True, list(held)
            with self.change():
                for entry in freed:
                    self.write("free", entry, why=why)
            logger.info("%s: %d given back: %s", self.path.parent, len(freed), why)
        return found

    def _gone(self, number: int) -> str | None:
        holder = self.ledger.who(number)
        there = holder.there()
        if there is not None:
            return None if there else f"{holder} is gone"
        silent = time.monotonic() - self.ledger.heard.get(number, 0.0)
        if self.lease is None or (holder.boot and holder.beat is None):
            return None  # it gives no signs of life
        if silent < max(self.lease, BEATS * (holder.beat or 0.0)):
            return None
        return f"{holder} has given no sign of life for {format_duration(silent)}"

    def _beat(self) -> bool:
        """On its thread: whether there will be another one."""
        return not self._journal.closed and self.run(self._beat_once)

    def _beat_once(self) -> bool:
        heartbeat = self._heartbeat
        if heartbeat is None:
            return False
        if not self.mine:
            heartbeat.pausing()
            return False
        # Whatever else this process has written says the same.
        if time.monotonic() - self._spoke > heartbeat.pause / 2:
            with self.change():
                self.note("beat")
        return True


@contextmanager
def _no_collections() -> Iterator[None]:
    """Of garbage, while a million objects are made that are none: it would look at all of them
    again and again."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def ledger_of(path: Path, faults: list[str]) -> Ledger:
    """What all lines of a journal lead to. Takes no lock and writes nothing: it may be a copy, on a
    disk that cannot be written. A missing one is empty.

    :param faults: is told of lines that are none, by file and line
    """
    ledger = Ledger()
    with Journal(path, look=True, tell=faults.append) as journal, _no_collections():
        while records := journal.read():
            for at, fault in ledger.follow(records):
                journal.complain(journal.line + at, f"it makes no sense: {fault}")
    return ledger
