"""ParamSweeper: hands out the combinations of a sweep, to many processes, and remembers in a folder
what became of each."""

from __future__ import annotations

import copy
import functools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar

from execo.log import logger

from .combination import HashableDict, checked
from .entries import Entry, State
from .explaining import explanation
from .old_sweeper import old_folder
from .saved_sweep import save_sweep, saved_sweep
from .shared_ledger import JOURNAL, SharedLedger

__all__ = ["ParamSweeper", "SweepCounts", "SweepStats"]

Filter = Callable[[Any], Iterable[Mapping[Any, Any]]]

P = ParamSpec("P")
T = TypeVar("T")


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


def _shared(
    method: Callable[Concatenate[ParamSweeper, P], T],
) -> Callable[Concatenate[ParamSweeper, P], T]:
    """A method that is run with the lock held, and knows all that others have written."""

    @functools.wraps(method)
    def run(self: ParamSweeper, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._shared.run(functools.partial(method, self, *args, **kwargs))

    return run


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
    :param lease: seconds, see above; a sign of life is given four times in them. None: none is, and
      what processes on different machines hold stays theirs for ever, here and there
    :raises TypeError: a combination holds anything else, by its factor
    :raises EOFError: no combinations, and none were saved
    :raises OSError: the folder cannot be used, or its locks would not hold (NFS with ``nolock``).
      One that may be read and not written can be looked at
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
        if retries < 0:
            raise ValueError(f"retries={retries}: it cannot be negative")
        if lease is not None and not lease > 0:
            raise ValueError(f"lease={lease}: it must be above 0, or None")
        self.folder = Path(os.path.abspath(persistence_dir))
        self.name = name or self.folder.resolve().name
        self.retries = retries
        self.lease = lease
        self._shared = SharedLedger(self.folder / JOURNAL, lease)
        try:
            self._begin(None if sweeps is None else list(sweeps), save_sweeps)
        except BaseException:
            self.close()
            raise

    @_shared
    def _begin(self, sweeps: list[Mapping[Any, Any]] | None, save_sweeps: bool) -> None:
        self._take_over()
        self.set_sweeps(sweeps, save_sweeps)

    def close(self) -> None:
        """Write what is in memory to the disk, and close the file; what is held stays held as
        long as this process lives. Happens by itself when nobody uses it any more."""
        self._shared.close()

    # -- what is to be done --------------------------------------------------------------------

    def set_sweeps(
        self, sweeps: Iterable[Mapping[Any, Any]] | None = None, save_sweeps: bool = False
    ) -> None:
        """Take other combinations, in their order; what is known of those that stay is kept.

        :raises EOFError: none are given, and none were saved
        """
        given = [checked(one) for one in sweeps] if sweeps is not None else []
        self._set_sweeps(given, save_sweeps)

    @_shared
    def _set_sweeps(self, given: list[HashableDict], save_sweeps: bool) -> None:
        found = given or self._saved()
        if given and save_sweeps:
            save_sweep(self.folder, given)
        self._shared.set_sweep(found)

    def _saved(self) -> list[HashableDict]:
        faults: list[str] = []
        found = saved_sweep(self.folder, faults)
        for fault in faults:
            logger.warning("%s", fault)
        if found is None:
            old = old_folder(self.folder)
            found = [] if old is None else old.sweeps
        if not found:
            raise EOFError(
                f"{self.folder}: no combinations were given, and none were saved there "
                "(save_sweeps=True)"
            )
        return found

    def _take_over(self) -> None:
        """What execo 2 has left in the folder, which stays there. Broken off, it goes on here."""
        shared = self._shared
        ledger = shared.ledger
        old = None if ledger.imported else old_folder(self.folder)
        if old is None:
            return
        for fault in old.faults:
            logger.warning("%s; the rest of it is done again", fault)
        entries = [ledger.entries.setdefault(one, Entry(one)) for one in dict.fromkeys(old.done)]
        with shared.change():
            for entry in entries:
                if shared.look:
                    entry.state = State.DONE
                elif entry.state is not State.DONE:
                    shared.write("done", entry, old=True)
            if not shared.look:
                shared.note("imported")
        logger.info("%s: took over %d that execo 2 has done", self.folder, len(entries))

    # -- handing out ---------------------------------------------------------------------------

    def get_next(self, filtr: Filter | None = None) -> HashableDict | None:
        """A combination that nobody else works on, which is then *in progress*; None if there is
        none.

        :param filtr: is given the set of the remaining ones, and gives those that may be taken, the
          first one first; the order of the sweep without. Others wait for it meanwhile
        """
        batch = self.get_next_batch(1, filtr)
        return batch[0] if batch else None

    @_shared
    def get_next_batch(self, num_combs: int, filtr: Filter | None = None) -> list[HashableDict]:
        """As :meth:`get_next`: so many, or fewer if there are no more."""
        free = self._shared.free_what_the_gone_held
        free(now=self._shared.ledger.counts[State.TODO] < num_combs)
        taken = self._take(num_combs, filtr)
        missing = num_combs - len(taken)
        # There are others, and the filter would have none of them.
        if missing > 0 and free(now=True):
            taken += self._take(missing, filtr)
        return taken

    def _take(self, number: int, filtr: Filter | None) -> list[HashableDict]:
        shared = self._shared
        wished = None if filtr is None else self._wished(filtr)
        taken: list[HashableDict] = []
        while len(taken) < number:
            entry = shared.ledger.next() if wished is None else next(wished, None)
            if entry is None:
                break
            if shared.take(entry):
                # A copy: scripts change theirs.
                taken.append(HashableDict(entry.combination))
        return taken

    def _wished(self, filtr: Filter) -> Iterator[Entry]:
        ledger = self._shared.ledger
        left = _InOrder(ledger.set_of(State.TODO))
        left.order = ledger.of(State.TODO)
        return (self._known(one) for one in filtr(left))

    # -- what became of it ---------------------------------------------------------------------

    def done(self, combination: Mapping[Any, Any], *, result: Any = None) -> None:
        """It is done, and never handed out again. When this returns it stays so, whatever becomes
        of this process. One that was taken back meanwhile counts all the same, once.

        :param result: what came out, kept with it: anything that JSON has, and as it comes back
          from JSON. NaN and infinities are written as Python does
        :raises ValueError: there is no such combination
        :raises TypeError: a result that JSON lacks
        """
        more = {} if result is None else {"result": _through_json(result)}
        self._done([combination], more)

    def done_batch(self, combinations: Iterable[Mapping[Any, Any]]) -> None:
        """:meth:`done` for each."""
        self._done(list(combinations), {})

    @_shared
    def _done(self, combinations: list[Mapping[Any, Any]], more: dict[str, Any]) -> None:
        entries = self._distinct(combinations)
        shared = self._shared
        with shared.change():
            for entry in entries:
                again = entry.state is State.DONE
                mark = {"again": True} if again else {"late": True} if shared.lost(entry) else {}
                shared.end("done", entry, **more, **mark)

    @_shared
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
        entries = self._distinct([combination])
        why = {} if reason is None else {"why": str(reason)}
        with self._shared.change():
            for entry in self._ours(entries, "failed"):
                again = entry.failures < self.retries if retry is None else retry
                mark = {"again": True} if again else {}
                self._shared.end("fail", entry, **why, **mark)

    def skip(self, combination: Mapping[Any, Any]) -> None:
        """Nobody who has the folder open now gets it again, unless they :meth:`reset`. Who opens it
        later does."""
        self.skip_batch([combination])

    def skip_batch(self, combinations: Iterable[Mapping[Any, Any]]) -> None:
        """:meth:`skip` for each."""
        self._tell("skip", list(combinations))

    def cancel(self, combination: Mapping[Any, Any]) -> None:
        """It is not done after all: anybody may get it again."""
        self.cancel_batch([combination])

    def cancel_batch(self, combinations: Iterable[Mapping[Any, Any]]) -> None:
        """:meth:`cancel` for each."""
        self._tell("cancel", list(combinations))

    @_shared
    def _tell(self, what: str, combinations: list[Mapping[Any, Any]]) -> None:
        entries = self._distinct(combinations)
        with self._shared.change():
            for entry in self._ours(entries, what):
                self._shared.end(what, entry)

    @_shared
    def reset(self, reset_inprogress: bool = False) -> None:
        """What was skipped or has failed is to be done again; with ``reset_inprogress``, also what
        is in progress, by whomever."""
        states = [State.SKIPPED, State.FAILED, *([State.IN_PROGRESS] if reset_inprogress else [])]
        with self._shared.change():
            self._shared.note("reset", states=[state.value for state in states])

    @_shared
    def take_back(self) -> None:
        """What is in progress, by whomever, is to be done again: for who knows that nobody else
        works on it. What was skipped or has failed stays so. (new)"""
        with self._shared.change():
            self._shared.note("reset", states=[State.IN_PROGRESS.value])

    # -- looking -------------------------------------------------------------------------------

    @_shared
    def update(self) -> None:
        """Read what others have written, and take back what those held who are gone. Every other
        method reads by itself."""
        self._shared.free_what_the_gone_held(now=True)

    full_update = update

    @_shared
    def get_sweeps(self) -> set[HashableDict]:
        """All combinations."""
        return set(self._shared.ledger.of(*State))

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

    @_shared
    def _in(self, *states: State) -> set[HashableDict]:
        return set().union(*map(self._shared.ledger.set_of, states))

    @_shared
    def stats(self) -> SweepStats:
        """All of these, at one moment."""
        return SweepStats(
            sweeps=self.get_sweeps(),
            remaining=self.get_remaining(),
            skipped=self.get_skipped(),
            inprogress=self.get_inprogress(),
            done=self.get_done(),
        )

    @_shared
    def counts(self) -> SweepCounts:
        """How many there are of these; quick however many there are."""
        ledger = self._shared.ledger
        of = ledger.counts
        skipped = of[State.SKIPPED] + of[State.FAILED]
        return SweepCounts(
            len(ledger), of[State.TODO], skipped, of[State.IN_PROGRESS], of[State.DONE]
        )

    @property
    def results(self) -> dict[HashableDict, Any]:
        """Done combination -> its result, None where none was given; in the order of the sweep."""
        return self._results()

    @_shared
    def _results(self) -> dict[HashableDict, Any]:
        ledger = self._shared.ledger
        return {one: ledger.entries[one].result for one in ledger.of(State.DONE)}

    @_shared
    def entry(self, combination: Mapping[Any, Any]) -> Entry:
        """What is known of one now: its state, attempts, times, reason and result.

        :raises ValueError: there is no such combination
        """
        return copy.copy(self._known(combination))

    @_shared
    def holders(self) -> dict[HashableDict, str]:
        """Combination in progress -> who works on it."""
        ledger = self._shared.ledger
        return {
            one.combination: str(ledger.who(number))
            for number, held in list(ledger.held.items())
            for one in list(held)
        }

    @_shared
    def explain(self, combination: Mapping[Any, Any]) -> str:
        """Lines of text: its state, what happened to it, when and by whom. Reads the whole journal.

        :raises ValueError: there is no such combination
        """
        entry = self._known(combination)
        return explanation(entry, self._shared.records(), self._shared.ledger)

    @_shared
    def __str__(self) -> str:
        ledger = self._shared.ledger
        counts = ledger.counts
        skipped = counts[State.SKIPPED] + counts[State.FAILED]
        return (
            f"{self.name} <{len(ledger)} total, {counts[State.DONE]} done,"
            f" {skipped} skipped, {counts[State.IN_PROGRESS]} in progress,"
            f" {counts[State.TODO]} remaining>"
        )

    def __repr__(self) -> str:
        return f"<ParamSweeper {self.name!r} in {str(self.folder)!r}>"

    # -- entries -------------------------------------------------------------------------------

    def _known(self, combination: Mapping[Any, Any]) -> Entry:
        key = combination if isinstance(combination, HashableDict) else HashableDict(combination)
        entry = self._shared.ledger.entries.get(key)
        if entry is None:
            raise ValueError(f"{self.name} has no combination {dict(combination)!r:.200}")
        return entry

    def _distinct(self, combinations: Iterable[Mapping[Any, Any]]) -> list[Entry]:
        return list(dict.fromkeys(map(self._known, combinations)))

    def _ours(self, entries: Iterable[Entry], what: str) -> Iterator[Entry]:
        """Those of which this process may say what became of them. Anybody may of what another one
        holds (a child that its parent has given it to), save who has held it before."""
        shared = self._shared
        for entry in entries:
            if entry.state is State.DONE:
                logger.warning(
                    "%s: %r is done, and stays so (%s)", self.name, entry.combination, what
                )
            elif entry.state is State.IN_PROGRESS and shared.lost(entry):
                holder = shared.ledger.who(entry.holder)
                logger.warning(
                    "%s: %r was taken back, and is held by %s now (%s does not count)",
                    *(self.name, entry.combination, holder, what),
                )
            else:
                yield entry


class _InOrder(set[HashableDict]):
    """A set that is iterated in an order: filters that sort keep it, where they see no
    difference."""

    order: list[HashableDict] | None = None

    def __iter__(self) -> Iterator[HashableDict]:
        if self.order is None:  # a copy of it
            return super().__iter__()
        if len(self) == len(self.order):
            return iter(self.order)
        return (one for one in self.order if one in self)


def _through_json(result: Any) -> Any:
    """What others will read; and what the caller changes later, he does not change here."""
    try:
        return json.loads(json.dumps(result))
    except (TypeError, ValueError, RecursionError) as exc:
        raise TypeError(f"a result is what JSON has, dicts, lists, text, numbers: {exc}") from exc
