"""What is known of each combination of a sweep: the state that the lines of a journal lead to.

A line is an object with ``do`` (what happened), ``at`` (unix time), ``by`` (the number of the
holder that wrote it) and ``n`` (the number of the combination). The first line of a combination
brings it along, as ``c``; the first of a holder is ``open``, and tells who it is.
"""

from __future__ import annotations

import enum
import heapq
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .combination import HashableDict, plain, revived
from .holder import Holder

__all__ = ["Entry", "Ledger", "State"]


class State(enum.Enum):
    """Where a combination stands."""

    TODO = "to do"
    IN_PROGRESS = "in progress"
    DONE = "done"
    SKIPPED = "skipped"
    FAILED = "failed"


@dataclass(slots=True, eq=False)
class Entry:
    """One combination.

    - ``place``: in the order of the sweep; None if it is of an earlier sweep alone
    - ``number``: how the journal calls it; None before its first line
    - ``holder``: the number of who works on it; of one that has ended, of who has ended it
    - ``attempts``: how often it was handed out; ``failures``: how often it has failed
    - ``began``, ``ended``: unix times of the last attempt, by the clock of its holder
    - ``late``: done by one from whom it had been taken back
    """

    combination: HashableDict
    place: int | None = None
    number: int | None = None
    state: State = State.TODO
    holder: int | None = None
    attempts: int = 0
    failures: int = 0
    began: float | None = None
    ended: float | None = None
    result: Any = None
    reason: str | None = None
    late: bool = False


class Ledger:
    """All entries, and what is to be done next. One thread at a time."""

    def __init__(self) -> None:
        self.entries: dict[HashableDict, Entry] = {}
        self.holders: list[Holder] = []
        self.heard: list[float] = []
        """By holder: when its last line was read here, by this process's monotonic clock."""
        self.held: list[set[Entry]] = []
        """By holder: what it works on."""
        self.counts: Counter[State] = Counter()
        self._order: list[Entry] = []
        self._numbered: list[Entry] = []
        self._todo: list[tuple[int, int]] = []
        self._replay = False

    # -- the sweep -----------------------------------------------------------------------------

    def set_sweep(self, combinations: Iterable[HashableDict]) -> None:
        """These are the combinations, in this order. What is known of them stays known."""
        for entry in self._order:
            entry.place = None
        self._order = []
        for one in combinations:
            entry = self._of(one)
            if entry.place is None:
                entry.place = len(self._order)
                self._order.append(entry)
        self.counts = Counter(entry.state for entry in self._order)
        self._todo = [
            (entry.failures, entry.place)
            for entry in self._order
            if entry.state is State.TODO and entry.place is not None
        ]
        heapq.heapify(self._todo)

    def of(self, *states: State) -> list[HashableDict]:
        """The combinations of the sweep in these states, in order."""
        return [entry.combination for entry in self._order if entry.state in states]

    def __len__(self) -> int:
        return len(self._order)

    def next(self) -> Entry | None:
        """The one to be handed out next: in the order of the sweep, those that have failed after
        all others."""
        while self._todo:
            failures, place = self._todo[0]
            entry = self._order[place]
            if entry.state is State.TODO and entry.failures == failures:
                return entry
            heapq.heappop(self._todo)  # its state has changed since
        return None

    # -- lines ---------------------------------------------------------------------------------

    def replay(self, records: list[Any]) -> list[str]:
        """What happened before this process had opened the journal. Who skips a combination means
        the scripts that run then: another one, later, shall try it."""
        self._replay = True
        try:
            return self.follow(records)
        finally:
            self._replay = False

    def follow(self, records: list[Any]) -> list[str]:
        """Apply lines; gives what is wrong with those that make no sense, which are passed over."""
        now = time.monotonic()
        faults = []
        for record in records:
            try:
                by = record.get("by")
                getattr(self, f"_{record['do']}")(record)
                if by is not None:
                    self.heard[by] = now
            except (AttributeError, IndexError, KeyError, TypeError, ValueError) as exc:
                faults.append(f"{record!r:.200} ({type(exc).__name__}: {exc})")
        return faults

    def line(self, what: str, entry: Entry, by: int, **more: Any) -> dict[str, Any]:
        """The record of what happens to an entry. To be appended and followed before the next one
        is made: the first one of an entry gives it the next number."""
        record = {"do": what, "at": round(time.time(), 3), "by": by}
        if entry.number is None:
            record |= {"n": len(self._numbered), "c": plain(entry.combination)}
        else:
            record["n"] = entry.number
        return record | more

    def _entry(self, record: dict[str, Any]) -> Entry:
        number: int = record["n"]
        if "c" not in record:
            return self._numbered[number]
        if number != len(self._numbered):
            raise ValueError(f"the next one is {len(self._numbered)}")
        entry = self._of(revived(record["c"]))
        entry.number = number
        self._numbered.append(entry)
        return entry

    def _of(self, combination: HashableDict) -> Entry:
        entry = self.entries.get(combination)
        if entry is None:
            entry = self.entries[combination] = Entry(combination)
        return entry

    def _move(self, entry: Entry, state: State) -> None:
        if entry.state is State.IN_PROGRESS and entry.holder is not None:
            self.held[entry.holder].discard(entry)
        if entry.place is not None:
            self.counts[entry.state] -= 1
            self.counts[state] += 1
            if state is State.TODO:
                heapq.heappush(self._todo, (entry.failures, entry.place))
        entry.state = state

    def _open(self, record: dict[str, Any]) -> None:
        if record["by"] != len(self.holders):
            raise ValueError(f"the next holder is {len(self.holders)}")
        who = {name: record[name] for name in ("host", "boot", "pid", "start")}
        self.holders.append(Holder(**who))
        self.heard.append(0.0)
        self.held.append(set())

    def _beat(self, record: dict[str, Any]) -> None:
        """Its holder is alive: :meth:`follow` has noted when."""

    def _torn(self, record: dict[str, Any]) -> None:
        """The line before it was not written to its end."""

    def _take(self, record: dict[str, Any]) -> None:
        entry = self._entry(record)
        self._move(entry, State.IN_PROGRESS)
        entry.holder = record["by"]
        entry.attempts += 1
        entry.began, entry.ended, entry.reason = record["at"], None, None
        self.held[record["by"]].add(entry)

    def _done(self, record: dict[str, Any]) -> None:
        entry = self._entry(record)
        if entry.state is State.DONE:
            return  # it counts once
        self._move(entry, State.DONE)
        entry.holder, entry.ended = record["by"], record["at"]
        entry.result, entry.late = record.get("result"), record.get("late", False)

    def _skip(self, record: dict[str, Any]) -> None:
        entry = self._entry(record)
        self._move(entry, State.TODO if self._replay else State.SKIPPED)
        entry.ended, entry.reason = record["at"], record.get("why")

    def _cancel(self, record: dict[str, Any]) -> None:
        entry = self._entry(record)
        self._move(entry, State.TODO)
        entry.ended, entry.reason = record["at"], record.get("why")

    _free = _cancel  # by somebody else, since its holder is gone

    def _fail(self, record: dict[str, Any]) -> None:
        entry = self._entry(record)
        entry.failures += 1
        self._move(entry, State.TODO if record.get("again") else State.FAILED)
        entry.holder, entry.ended, entry.reason = record["by"], record["at"], record.get("why")

    def _reset(self, record: dict[str, Any]) -> None:
        states = {State(name) for name in record["states"]}
        for entry in self.entries.values():
            if entry.state in states:
                entry.failures = 0
                self._move(entry, State.TODO)
