"""ParamSweeper: hands out the combinations of a sweep, to many processes, and remembers in a folder
what became of each."""

from __future__ import annotations

import json
import os
import threading
import time
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from execo.log import logger
from execo.time_utils import format_date, format_duration

from .combination import HashableDict, checked, decode, encode
from .entries import Entry, Ledger, State
from .holder import this_process
from .journal import Journal
from .old_sweeper import old_folder

__all__ = ["ParamSweeper", "SweepCounts", "SweepStats"]

Filter = Callable[[Any], Iterable[Mapping[Any, Any]]]

JOURNAL = "journal.jsonl"
SWEEPS = "sweeps.jsonl"

LOOK = 1.0
"""Seconds between two looks at whether holders are still there, while there is something to do."""


class SweepStats(NamedTuple):
    """The combinations of a sweep by their states. (execo 2.8.2)"""

    sweeps: set[HashableDict]
    remaining: set[HashableDict]
    skipped: set[HashableDict]
    inprogress: set[HashableDict]
    done: set[HashableDict]


class SweepCounts(NamedTuple):
    """As :class:`SweepStats`, in numbers."""

    sweeps: int
    remaining: int
    skipped: int
    inprogress: int
    done: int


class ParamSweeper:
    """Hands out combinations, each to one caller, and keeps in a folder what became of them. Any
    number of processes, on any machines that share the folder, may use it at once.

    ::

        sweeper = ParamSweeper("results/sweep", sweep({"size": [1, 2, 4], "kind": ["a", "b"]}))
        while combination := sweeper.get_next():
            try:
                sweeper.done(combination, result=measure(**combination))
            except Exception as exc:
                sweeper.failed(combination, str(exc))

    Run again, it goes on where it was: what is *done* is never handed out again, what was skipped
    or in progress is. What a process holds that is gone (killed, say) is handed out again: at once
    when it was on this machine, and after ``lease`` seconds without a sign of life when it was on
    another one. All methods may be called from any thread, and block for some microseconds, or as
    long as another process holds the lock.

    The folder has one file, ``journal.jsonl``, to which lines are added and nothing else. When
    :meth:`done` has returned, it is there even if the script is killed at once; a power cut loses
    the last second. A folder of execo 2 is taken over at first use. (execo 2.8.2; ``name`` and
    what comes after it, :meth:`failed`, :meth:`explain`, :attr:`results` are new or mean more)

    :param persistence_dir: the folder, made when it is missing
    :param sweeps: the combinations, in the order in which they are to be handed out (see
      :func:`sweep`), each a dict of None, bool, int, float, str, and tuples and dicts of
      these. None or empty: those that were saved
    :param save_sweeps: save them, for who opens the folder without
    :param name: to show; the name of the folder by default
    :param retries: how often one that has failed is handed out again, after all others
    :param lease: seconds; None: what others hold on other machines stays theirs for ever
    :raises TypeError: a combination holds anything else, by its factor
    :raises EOFError: no combinations, and none were saved
    :raises OSError: the folder cannot be used, or its locks would not hold (NFS with ``nolock``)
    """

    def __init__(
        self,
        persistence_dir: str | os.PathLike[str],
        sweeps: Iterable[Mapping[Any, Any]] | None = None,
        save_sweeps: bool = False,
        name: str | None = None,
        *,
        retries: int = 0,
        lease: float | None = 60.0,
    ) -> None:
        self.folder = Path(persistence_dir)
        self.name = name or self.folder.resolve().name
        self.retries = retries
        self.lease = lease
        self._journal = Journal(self.folder / JOURNAL)
        self._ledger = Ledger()
        self._by: int | None = None
        self._pid = 0
        self._looked = -LOOK
        self._beating = False
        self._finalizer = weakref.finalize(self, self._journal.close)
        with self._journal.locked():
            records = self._journal.read()
            self._complain(self._ledger.replay(records))
            if not records:
                self._take_over()
            self.set_sweeps(sweeps, save_sweeps)

    def close(self) -> None:
        """Write what is in memory to the disk, and close the files; what is held stays held as
        long as this process lives. Happens by itself when nobody uses it any more."""
        self._finalizer()

    # -- what is to be done --------------------------------------------------------------------

    def set_sweeps(
        self, sweeps: Iterable[Mapping[Any, Any]] | None = None, save_sweeps: bool = False
    ) -> None:
        """Take other combinations, in their order; what is known of those that stay is kept.

        :raises EOFError: none are given, and none were saved
        """
        given = [checked(one) for one in sweeps] if sweeps is not None else []
        with self._journal.locked():
            found = given or self._saved()
            if given and save_sweeps:
                self._save(given)
            self._ledger.set_sweep(found)

    def _saved(self) -> list[HashableDict]:
        try:
            lines = (self.folder / SWEEPS).read_text().splitlines()
        except FileNotFoundError:
            old = old_folder(self.folder)
            if old is None or not old.sweeps:
                raise EOFError(
                    f"{self.folder}: no combinations were given, and none were saved there"
                ) from None
            return old.sweeps
        return [decode(line) for line in lines]

    def _save(self, combinations: list[HashableDict]) -> None:
        path = self.folder / SWEEPS
        new = path.with_suffix(f".{os.getpid()}.new")
        with new.open("w") as file:
            file.writelines(encode(one) + "\n" for one in combinations)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)

    def _take_over(self) -> None:
        """What execo 2 has left in the folder, which stays there."""
        old = old_folder(self.folder)
        if old is None:
            return
        for fault in old.faults:
            logger.warning("%s; the rest of it is done again", fault)
        for one in dict.fromkeys(old.done):
            entry = self._ledger.entries.setdefault(one, Entry(one))
            self._write(self._ledger.line("done", entry, self._me(), old=True))
        logger.info("%s: took over %d that execo 2 has done", self.folder, len(old.done))

    # -- handing out ---------------------------------------------------------------------------

    def get_next(self, filtr: Filter | None = None) -> HashableDict | None:
        """A combination that nobody else works on, which is then *in progress*; None if there is
        none.

        :param filtr: is given the remaining ones, and gives those that may be taken, the first one
          first; the order of the sweep without
        """
        batch = self.get_next_batch(1, filtr)
        return batch[0] if batch else None

    def get_next_batch(self, num_combs: int, filtr: Filter | None = None) -> list[HashableDict]:
        """As :meth:`get_next`: so many, or fewer if there are no more."""
        with self._up_to_date():
            ledger = self._ledger
            nothing_left = ledger.counts[State.TODO] < num_combs
            if nothing_left or time.monotonic() - self._looked > LOOK:
                self._free_what_the_gone_held()
            wished = self._wished(filtr) if filtr is not None else None
            taken: list[HashableDict] = []
            while len(taken) < num_combs:
                entry = ledger.next() if wished is None else next(wished, None)
                if entry is None:
                    break
                self._write(ledger.line("take", entry, self._me()))
                taken.append(entry.combination)
            if taken:
                self._beat()
            return taken

    def _wished(self, filtr: Filter) -> Iterator[Entry]:
        for one in filtr(dict.fromkeys(self._ledger.of(State.TODO)).keys()):
            entry = self._known(one)
            if entry.state is State.TODO:
                yield entry

    # -- what became of it ---------------------------------------------------------------------

    def done(self, combination: Mapping[Any, Any], *, result: Any = None) -> None:
        """It is done, and never handed out again. When this returns it stays so, whatever becomes
        of this process. One that was taken back meanwhile counts all the same, once.

        :param result: what came out, kept with it: anything that JSON has
        :raises ValueError: there is no such combination
        :raises TypeError: a result that JSON lacks
        """
        self._done([combination], result)

    def done_batch(self, combinations: Iterable[Mapping[Any, Any]]) -> None:
        """:meth:`done` for each."""
        self._done(combinations, None)

    def _done(self, combinations: Iterable[Mapping[Any, Any]], result: Any) -> None:
        more = {"result": _checked_result(result)} if result is not None else {}
        with self._up_to_date():
            me = self._me()
            for entry in self._distinct(combinations):
                # Handed out once, and not ours any more: it was taken back.
                late = entry.attempts > 0 and entry not in self._ledger.held[me]
                again = entry.state is State.DONE
                mark = {"again": True} if again else {"late": True} if late else {}
                self._write(self._ledger.line("done", entry, me, **more, **mark))

    def failed(
        self,
        combination: Mapping[Any, Any],
        reason: str | None = None,
        *,
        retry: bool | None = None,
    ) -> None:
        """It has failed. It comes again, after all others, as often as ``retries`` says; then it
        stays failed (and counts among the skipped ones) until :meth:`reset`.

        :param reason: for :meth:`explain` and reports
        :param retry: True or False decide by themselves
        """
        with self._up_to_date():
            for entry in self._mine([combination], "failed"):
                again = entry.failures < self.retries if retry is None else retry
                why = {} if reason is None else {"why": str(reason)}
                mark = {"again": True} if again else {}
                self._write(self._ledger.line("fail", entry, self._me(), **why, **mark))

    def skip(self, combination: Mapping[Any, Any]) -> None:
        """Nobody who has the folder open now gets it again, unless they :meth:`reset`. Who opens it
        later does."""
        self.skip_batch([combination])

    def skip_batch(self, combinations: Iterable[Mapping[Any, Any]]) -> None:
        """:meth:`skip` for each."""
        self._tell("skip", combinations)

    def cancel(self, combination: Mapping[Any, Any]) -> None:
        """It is not done after all: anybody may get it again."""
        self.cancel_batch([combination])

    def cancel_batch(self, combinations: Iterable[Mapping[Any, Any]]) -> None:
        """:meth:`cancel` for each."""
        self._tell("cancel", combinations)

    def _tell(self, what: str, combinations: Iterable[Mapping[Any, Any]]) -> None:
        with self._up_to_date():
            for entry in self._mine(combinations, what):
                self._write(self._ledger.line(what, entry, self._me()))

    def reset(self, reset_inprogress: bool = False) -> None:
        """What was skipped or has failed is to be done again; with ``reset_inprogress``, also what
        is in progress, by whomever."""
        states = [State.SKIPPED, State.FAILED, *([State.IN_PROGRESS] if reset_inprogress else [])]
        with self._up_to_date():
            names = [state.value for state in states]
            self._write({"do": "reset", "at": time.time(), "by": self._me(), "states": names})

    # -- looking -------------------------------------------------------------------------------

    def update(self) -> None:
        """Read what others have written, and take back what those held who are gone. Every other
        method reads by itself."""
        with self._up_to_date():
            self._free_what_the_gone_held()

    full_update = update

    def get_sweeps(self) -> set[HashableDict]:
        """All combinations."""
        with self._up_to_date():
            return set(self._ledger.of(*State))

    def get_remaining(self) -> set[HashableDict]:
        """Those that nobody has yet."""
        return self._in(State.TODO)

    def get_inprogress(self) -> set[HashableDict]:
        """Those that somebody works on."""
        return self._in(State.IN_PROGRESS)

    def get_skipped(self) -> set[HashableDict]:
        """Those that are not handed out: skipped, or failed for good."""
        return self._in(State.SKIPPED, State.FAILED)

    def get_failed(self) -> set[HashableDict]:
        """Those that have failed for good."""
        return self._in(State.FAILED)

    def get_done(self) -> set[HashableDict]:
        """Those that are done."""
        return self._in(State.DONE)

    def _in(self, *states: State) -> set[HashableDict]:
        with self._up_to_date():
            return set(self._ledger.of(*states))

    def stats(self) -> SweepStats:
        """All of these, at one moment."""
        with self._up_to_date():
            of = self._ledger.of
            skipped = of(State.SKIPPED, State.FAILED)
            kinds = (of(*State), of(State.TODO), skipped, of(State.IN_PROGRESS), of(State.DONE))
            return SweepStats(*map(set, kinds))

    def counts(self) -> SweepCounts:
        """How many there are of these; quick however many there are."""
        with self._up_to_date():
            of = self._ledger.counts
            skipped = of[State.SKIPPED] + of[State.FAILED]
            total = len(self._ledger)
            return SweepCounts(
                total, of[State.TODO], skipped, of[State.IN_PROGRESS], of[State.DONE]
            )

    @property
    def results(self) -> dict[HashableDict, Any]:
        """Done combination -> its result, None where none was given; in the order of the sweep."""
        with self._up_to_date():
            entries = self._ledger.entries
            return {one: entries[one].result for one in self._ledger.of(State.DONE)}

    def entry(self, combination: Mapping[Any, Any]) -> Entry:
        """What is known of one: its state, attempts, times, reason and result. A snapshot is not
        made: read it, do not change it.

        :raises ValueError: there is no such combination
        """
        with self._up_to_date():
            return self._known(combination)

    def holders(self) -> dict[HashableDict, str]:
        """Combination in progress -> who works on it."""
        with self._up_to_date():
            who = self._ledger.holders
            return {
                one.combination: str(who[one.holder])
                for held in self._ledger.held
                for one in held
                if one.holder is not None
            }

    def explain(self, combination: Mapping[Any, Any]) -> str:
        """Lines of text: its state, what happened to it, when and by whom, and whether it would be
        handed out. Reads the whole journal.

        :raises ValueError: there is no such combination
        """
        with self._up_to_date():
            entry = self._known(combination)
            lines = [f"{dict(entry.combination)!r}: {entry.state.value}{_verdict(entry)}"]
            if entry.number is not None:
                with Journal(self._journal.path) as all_of_it:
                    records = all_of_it.read()
                for record in records:
                    if isinstance(record, dict) and record.get("n") == entry.number:
                        who = self._ledger.holders[record["by"]]
                        lines.append(f"  {format_date(record['at'])} {_told(record)}, by {who}")
            return "\n".join(lines)

    def __str__(self) -> str:
        with self._up_to_date():
            counts = self._ledger.counts
            skipped = counts[State.SKIPPED] + counts[State.FAILED]
            return (
                f"{self.name} <{len(self._ledger)} total, {counts[State.DONE]} done,"
                f" {skipped} skipped, {counts[State.IN_PROGRESS]} in progress,"
                f" {counts[State.TODO]} remaining>"
            )

    def __repr__(self) -> str:
        return f"<ParamSweeper {self.name!r} in {str(self.folder)!r}>"

    # -- the journal ---------------------------------------------------------------------------

    @contextmanager
    def _up_to_date(self) -> Iterator[None]:
        with self._journal.locked():
            self._complain(self._ledger.follow(self._journal.read()))
            yield

    def _complain(self, faults: Collection[str]) -> None:
        for fault in faults:
            logger.warning(
                "%s: a line that makes no sense is passed over: %s", self._journal.path, fault
            )

    def _write(self, record: dict[str, Any]) -> None:
        self._journal.append(record)
        self._complain(self._ledger.follow([record]))

    def _me(self) -> int:
        """The number of this process in the journal, where a new one says who it is."""
        if self._by is None or self._pid != os.getpid():
            who = this_process()
            self._by, self._pid, self._beating = len(self._ledger.holders), os.getpid(), False
            self._write(
                {
                    "do": "open",
                    "at": round(time.time(), 3),
                    "by": self._by,
                    "host": who.host,
                    "boot": who.boot,
                    "pid": who.pid,
                    "start": who.start,
                }
            )
        return self._by

    def _known(self, combination: Mapping[Any, Any]) -> Entry:
        key = combination if isinstance(combination, HashableDict) else HashableDict(combination)
        entry = self._ledger.entries.get(key)
        if entry is None:
            raise ValueError(f"{self.name} has no combination {dict(combination)!r:.200}")
        return entry

    def _distinct(self, combinations: Iterable[Mapping[Any, Any]]) -> Iterable[Entry]:
        return dict.fromkeys(map(self._known, combinations))

    def _mine(self, combinations: Iterable[Mapping[Any, Any]], what: str) -> list[Entry]:
        """Those of which one may say what became of them: nobody else works on them."""
        mine = []
        for entry in self._distinct(combinations):
            if entry.state is State.DONE:
                logger.warning(
                    "%s: %r is done, and stays so (%s)", self.name, entry.combination, what
                )
            elif entry.state is State.IN_PROGRESS and entry.holder != self._me():
                holder = self._ledger.holders[entry.holder or 0]
                logger.warning(
                    "%s: %r was taken back, and is held by %s now (%s does not count)",
                    *(self.name, entry.combination, holder, what),
                )
            else:
                mine.append(entry)
        return mine

    # -- who is gone, and that one is not ----------------------------------------------------------

    def _free_what_the_gone_held(self) -> None:
        self._looked = time.monotonic()
        ledger = self._ledger
        for number, held in enumerate(ledger.held):
            if not held or (number == self._by and self._pid == os.getpid()):
                continue
            why = self._gone(number)
            if why is not None:
                freed = list(held)
                for entry in freed:
                    self._write(ledger.line("free", entry, self._me(), why=why))
                logger.info("%s: %d given back: %s", self.name, len(freed), why)

    def _gone(self, number: int) -> str | None:
        holder = self._ledger.holders[number]
        if holder.near:
            return None if holder.alive else f"{holder} is gone"
        silent = time.monotonic() - self._ledger.heard[number]
        if self.lease is None or silent < self.lease:
            return None
        return f"{holder} has given no sign of life for {format_duration(silent)}"

    def _beat(self) -> None:
        """Say now and then that this process is alive, as long as it holds something."""
        if self._beating or self.lease is None:
            return
        try:
            threading.Thread(
                target=_keep_beating,
                args=(weakref.ref(self), self.lease / 4),
                name="execo-sweeper",
                daemon=True,
            ).start()
            self._beating = True
        except RuntimeError:
            pass  # the interpreter ends, and with it what it holds

    def _beat_once(self) -> bool:
        """Whether there will be another one."""
        with self._journal.locked():
            if not self._beating or self._by is None or self._pid != os.getpid():
                return False
            self._complain(self._ledger.follow(self._journal.read()))
            self._beating = bool(self._ledger.held[self._by])
            if self._beating:
                self._write({"do": "beat", "at": round(time.time(), 3), "by": self._by})
            return self._beating


def _keep_beating(sweeper: weakref.ref[ParamSweeper], pause: float) -> None:
    """In a thread that ends with the sweeper, or when it holds nothing any more."""
    nap = threading.Event()
    while True:
        nap.wait(pause)
        there = sweeper()
        try:
            if there is None or not there._beat_once():
                return
        except OSError as exc:
            # Closed, or the folder is out of reach for now: others may take what is held here.
            logger.debug("no sign of life: %s", exc)
            if there is not None and there._journal.closed:
                return
        del there


def _checked_result(result: Any) -> Any:
    try:
        json.dumps(result)
    except (TypeError, ValueError) as exc:
        raise TypeError(f"a result is what JSON has, dicts, lists, text, numbers: {exc}") from exc
    return result


def _verdict(entry: Entry) -> str:
    """Whether it would be handed out, and the sum of what is known."""
    facts = []
    if entry.place is None:
        facts.append("no part of the sweep any more")
    if entry.attempts:
        facts.append(f"attempt {entry.attempts}")
    if entry.began is not None and entry.ended is not None:
        facts.append(f"took {format_duration(max(0.0, entry.ended - entry.began))}")
    if entry.late:
        facts.append("done by one from whom it had been taken back")
    if entry.reason:
        facts.append(entry.reason)
    return f" ({', '.join(facts)})" if facts else ""


_TOLD = {
    "take": "handed out",
    "done": "done",
    "skip": "skipped",
    "cancel": "cancelled",
    "fail": "failed",
    "free": "taken back",
}


def _told(record: dict[str, Any]) -> str:
    marks = [name for name in ("again", "late", "old") if record.get(name)]
    why = f": {record['why']}" if "why" in record else ""
    result = f", result {record['result']!r:.200}" if "result" in record else ""
    told = str(_TOLD.get(record["do"], record["do"]))
    return told + "".join(f" ({mark})" for mark in marks) + why + result
