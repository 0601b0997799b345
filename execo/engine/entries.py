"""What is known of each combination of a sweep: the state that the lines of a journal lead to.

A line is an object with ``do`` (what happened), ``at`` (unix time), ``by`` (the number of the
holder that wrote it) and ``n`` (the number of the combination). The first line of a combination
brings it along, as ``c``, and so does the one that says it is done: one damaged line hides no
others. The first line of a holder is ``open``, and tells who it is.
"""

from __future__ import annotations

import enum
import heapq
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .combination import HashableDict, plain, revived
from .holder import NOBODY, Holder

__all__ = ["Entry", "Ledger", "State"]


class State(enum.Enum):
    """Where a combination stands."""

    TODO = "to do"
    IN_PROGRESS = "in progress"
    DONE = "done"
    SKIPPED = "skipped"
    FAILED = "failed"

    # That of Enum is ten times as slow, and states are keys here.
    __hash__ = object.__hash__


# An Enum looks its members up anew each time, which is half of what a line costs.
_TODO, _IN_PROGRESS, _DONE, _SKIPPED, _FAILED = State
_BY_NAME = {state.value: state for state in State}


@dataclass(slots=True, eq=False)
class Entry:
    """One combination.

    - ``place``: in the order of the sweep; None if it is of an earlier sweep alone
    - ``number``: how the journal calls it; None before its first line
    - ``holder``: the number of who works on it; of one that has ended, of who has ended it
    - ``attempts``: how often it was handed out; ``failures``: how often it has failed
    - ``began``, ``ended``: unix times of the last attempt, by the clock of its holder
    - ``took``: seconds that it took, whatever was done to that clock meanwhile; None if another
      process than its holder has ended it
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
    took: float | None = None
    result: Any = None
    reason: str | None = None
    late: bool = False


class Ledger:
    """All entries, and what is to be done next. One thread at a time."""

    def __init__(self) -> None:
        self.entries: dict[HashableDict, Entry] = {}
        self.holders: dict[int, Holder] = {}
        self.heard: dict[int, float] = {}
        """By holder: when its last line was read here, by this process's monotonic clock."""
        self.held: dict[int, set[Entry]] = {}
        """By holder: what it works on, of those who work on something."""
        self.lost: set[tuple[int, Entry]] = set()
        """What was taken back from a holder: it may not know yet."""
        self.imported = False
        """Whether what execo 2 has left is in."""
        self.counts = dict.fromkeys(State, 0)
        self._order: list[Entry] = []
        self._numbered: dict[int, Entry] = {}
        self._next_number = 0
        # To be done next: what was never handed out, from this place on, or what has come back.
        self._fresh = 0
        self._back: list[tuple[int, int]] = []
        self._sets: dict[State, set[HashableDict]] = {}
        self._replay = False
        self._do = {
            "open": self._open,
            "beat": self._beat,
            "take": self._take,
            "done": self._done,
            "skip": self._skip,
            "cancel": self._cancel,
            "free": self._free,
            "fail": self._fail,
            "reset": self._reset,
            "imported": self._imported,
        }

    # -- the sweep -----------------------------------------------------------------------------

    def set_sweep(self, combinations: Iterable[HashableDict]) -> None:
        """These are the combinations, in this order. What is known of them stays known."""
        for entry in self._order:
            entry.place = None
        order: list[Entry] = []
        entries = self.entries
        for one in combinations:
            entry = entries.get(one)  # type: ignore[assignment]
            if entry is None:
                entry = entries[one] = Entry(one)
            elif entry.place is not None:
                continue
            entry.combination = one  # 1 and True are equal: as it was given now
            entry.place = len(order)
            order.append(entry)
        self._order = order
        self.counts = dict.fromkeys(State, 0)
        for entry in order:
            self.counts[entry.state] += 1
        self._sets = {}
        self._fresh = 0
        self._back = [
            (entry.failures, place)
            for place, entry in enumerate(order)
            if entry.failures and entry.state is _TODO
        ]
        heapq.heapify(self._back)

    def of(self, *states: State) -> list[HashableDict]:
        """The combinations of the sweep in these states, in order."""
        return [entry.combination for entry in self._order if entry.state in states]

    def set_of(self, state: State) -> set[HashableDict]:
        """The same of one state, as a set. It is kept from the first time on: scripts ask for what
        remains in each turn."""
        if state not in self._sets:
            self._sets[state] = set(self.of(state))
        return set(self._sets[state])

    def __len__(self) -> int:
        return len(self._order)

    def next(self) -> Entry | None:
        """The one to be handed out next: in the order of the sweep, those that have failed after
        all others."""
        order, back, fresh = self._order, self._back, self._fresh
        while fresh < len(order) and not _is_fresh(order[fresh]):
            fresh += 1
        self._fresh = fresh
        while back:
            failures, place = back[0]
            entry = order[place]
            if entry.state is _TODO and entry.failures == failures:
                if fresh == len(order) or (failures, place) < (0, fresh):
                    return entry
                break
            heapq.heappop(back)  # its state has changed since
        return order[fresh] if fresh < len(order) else None

    # -- lines ---------------------------------------------------------------------------------

    def replay(self, records: Iterable[Any]) -> list[tuple[int, str]]:
        """What happened before this process had opened the journal. Who skips a combination means
        the scripts that run then: another one, later, shall try it."""
        self._replay = True
        try:
            return self.follow(records)
        finally:
            self._replay = False

    def follow(self, records: Iterable[Any]) -> list[tuple[int, str]]:
        """Apply lines; gives what is wrong with those that make no sense, which are passed over,
        with their places among ``records``. None stands for a line that was damaged."""
        now = time.monotonic()
        faults = []
        for at, record in enumerate(records):
            try:
                self._do[record["do"]](record)
                self.heard[record["by"]] = now
            except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as exc:
                if record is not None:
                    faults.append((at, f"{record!r:.200} ({type(exc).__name__}: {exc})"))
        return faults

    def line(self, what: str, entry: Entry, by: int, **more: Any) -> dict[str, Any]:
        """The record of what happens to an entry. To be appended and followed before the next one
        is made: the first one of an entry gives it the next number."""
        record = {"do": what, "at": round(time.time(), 3), "by": by}
        record["n"] = self._next_number if entry.number is None else entry.number
        if entry.number is None or what == "done":
            record["c"] = plain(entry.combination)
        record.update(more)
        return record

    def _entry(self, record: dict[str, Any]) -> Entry:
        number = record["n"]
        known = self._numbered.get(number)
        # Where it is known, what a done line brings along is not looked at: that takes time.
        if known is not None and ("c" not in record or record["do"] == "done"):
            return known
        if type(number) is not int or number < 0:
            raise ValueError(f"n is a number, not {number!r}")
        if "c" not in record:
            raise ValueError(f"the line that says which combination {number} is was lost")
        combination = revived(record["c"])
        if type(combination) is not HashableDict:
            raise ValueError("c is no combination")
        entry = self.entries.get(combination)
        if entry is None:
            entry = self.entries[combination] = Entry(combination)
        if known is not None and known is not entry:
            known.number = None  # another journal was added behind this one
        entry.number = number
        self._numbered[number] = entry
        if number >= self._next_number:
            self._next_number = number + 1
        return entry

    def _move(self, entry: Entry, state: State) -> None:
        before = entry.state
        if before is _IN_PROGRESS and entry.holder is not None:
            mates = self.held[entry.holder]
            mates.discard(entry)
            if not mates:
                del self.held[entry.holder]
        entry.state = state
        if entry.place is None:
            return
        self.counts[before] -= 1
        self.counts[state] += 1
        if before in self._sets:
            self._sets[before].discard(entry.combination)
        if state in self._sets:
            self._sets[state].add(entry.combination)
        if state is _TODO and (entry.failures or entry.place < self._fresh):
            heapq.heappush(self._back, (entry.failures, entry.place))

    def _open(self, record: dict[str, Any]) -> None:
        by, beat = record["by"], record.get("beat")
        if type(by) is not int or by < 0 or type(beat) not in (int, float, type(None)):
            raise ValueError("by and beat are numbers")
        who = str(record["host"]), str(record["boot"]), int(record["pid"]), int(record["start"])
        self.holders[by] = Holder(*who, beat)

    def _beat(self, record: dict[str, Any]) -> None:
        """Its holder is alive: :meth:`follow` notes when."""

    def _imported(self, record: dict[str, Any]) -> None:
        self.imported = True

    def _take(self, record: dict[str, Any]) -> None:
        by, at, entry = record["by"], record["at"], self._entry(record)
        if type(by) is not int:
            raise TypeError("by is a number")
        if entry.state is _DONE:
            return  # it stays so
        self._move(entry, _IN_PROGRESS)
        entry.holder = by
        entry.attempts += 1
        entry.began = at
        entry.ended = entry.took = entry.reason = None
        held = self.held.get(by)
        if held is None:
            self.held[by] = {entry}
        else:
            held.add(entry)
        if self.lost:
            self.lost.discard((by, entry))

    def _done(self, record: dict[str, Any]) -> None:
        by, entry = record["by"], self._entry(record)
        if entry.state is _DONE:
            return  # it counts once
        self._end(entry, _DONE, record)
        entry.holder = by
        entry.result, entry.late = record.get("result"), record.get("late", False)

    def _skip(self, record: dict[str, Any]) -> None:
        self._end(self._entry(record), _TODO if self._replay else _SKIPPED, record)

    def _cancel(self, record: dict[str, Any]) -> None:
        self._end(self._entry(record), _TODO, record)

    def _free(self, record: dict[str, Any]) -> None:
        """By somebody else, since its holder is gone."""
        entry = self._entry(record)
        self._lose(entry)
        self._end(entry, _TODO, record)

    def _fail(self, record: dict[str, Any]) -> None:
        by, entry = record["by"], self._entry(record)
        if entry.state is _DONE:
            return
        entry.failures += 1
        self._end(entry, _TODO if record.get("again") else _FAILED, record)
        entry.holder = by

    def _end(self, entry: Entry, state: State, record: dict[str, Any]) -> None:
        if entry.state is _DONE:
            return
        self._move(entry, state)
        entry.ended, entry.took = record.get("at"), record.get("took")
        entry.reason = record.get("why")

    def _lose(self, entry: Entry) -> None:
        if entry.state is _IN_PROGRESS and entry.holder is not None:
            self.lost.add((entry.holder, entry))

    def _reset(self, record: dict[str, Any]) -> None:
        states = {_BY_NAME[name] for name in record["states"]} - {_DONE}
        for entry in self.entries.values():
            if entry.state in states:
                self._lose(entry)
                entry.failures = 0
                self._move(entry, _TODO)

    def next_holder(self) -> int:
        """A number that no line is by, not even by one whose ``open`` was lost."""
        return 1 + max((by for by in self.heard if type(by) is int), default=-1)

    def who(self, number: object) -> Holder:
        """The holder of that number."""
        return self.holders.get(number, NOBODY) if isinstance(number, int) else NOBODY


def _is_fresh(entry: Entry) -> bool:
    return entry.state is _TODO and not entry.failures
