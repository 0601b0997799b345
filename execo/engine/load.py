"""Reading the folder of a run: on any machine, while it is written, and after any crash."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from execo.errors import ExecoError

from .combination import HashableDict, revived
from .entries import State
from .line_file import read_lines
from .manifest import FORMAT, MANIFEST
from .run import OUTPUTS, ActionRow, ProcessRow, ResultRow, Run, output_name
from .saved_sweep import saved_sweep
from .shared_ledger import JOURNAL, ledger_of

__all__ = ["EVENTS", "RESULTS", "LoadError", "first_numbers", "load", "states_of"]

EVENTS = "events.jsonl"
RESULTS = "results.jsonl"

_MISTAKES = (AttributeError, IndexError, KeyError, TypeError, ValueError, RecursionError)

_MISSING = object()


class LoadError(ExecoError):
    """A folder holds no record that can be read: says which, and why."""


def load(folder: str | os.PathLike[str]) -> Run:
    """The run whose record is in a folder, as far as it has come; nothing is written there.

    ``ended`` and ``error`` in the manifest say how it has ended, if it has.

    The folder of a ``ParamSweeper`` is read, too, if it is the folder itself or
    directly within: combinations, states, and the results that the record itself does not have.
    Lines that cannot be read are passed over, and named in ``faults``; a last line that was not
    written to its end does not count. (new)

    :param folder: of a :class:`~execo.engine.Record`, or a copy of it
    :raises FileNotFoundError: there is no such folder, or nothing of a run in it
    :raises LoadError: it was written by a newer version, and in another form
    """
    path = Path(folder)
    if not any((path / name).exists() for name in (MANIFEST, EVENTS, JOURNAL)):
        raise FileNotFoundError(f"{path}: no record of a run: neither {MANIFEST} nor {EVENTS}")
    faults: list[str] = []
    manifest = _manifest(path, faults)
    events = _Events(faults)
    for number, record in read_lines(path / EVENTS, faults):
        events.take(number, record)
    if events.end is not None:
        manifest |= {"ended": events.end["at"], "error": events.end.get("error")}
    results = list(_results(path, faults))
    combinations, states, sweep_results = _sweeps(path, faults)
    # A script that is killed between the two has told its sweeper alone.
    have = {_same(row) for row in results}
    results += [row for row in sweep_results if _same(row) not in have]
    told: dict[HashableDict, str] = {}
    for row in results:
        if told.get(row.combination) != "done":
            told[row.combination] = row.state
    combinations += [one for one in told if one not in states]
    states |= {one: state for one, state in told.items() if one not in states}
    return Run(
        folder=path,
        manifest=manifest,
        processes=events.processes(path),
        actions=events.action_rows(),
        results=results,
        combinations=combinations,
        states=states,
        faults=faults,
    )


def _same(row: ResultRow) -> tuple[Any, ...]:
    """Equal for two rows that tell of the same."""
    return row.combination, row.state, row.attempt if row.state == "failed" else None


def states_of(folder: Path) -> dict[HashableDict, str]:
    """The states of the combinations of the sweepers there, without locks, and writing nothing."""
    return _sweeps(folder, [])[1]


def first_numbers(folder: Path) -> tuple[int, int, int, int]:
    """Those that come after what is in the folder: process, action, text, combination."""
    events = _Events([])
    for number, record in read_lines(folder / EVENTS, []):
        events.take(number, record)
    tables: tuple[Iterable[int], ...] = (
        *(events.rows, events.actions),
        *(events.texts, events.combinations),
    )
    process, action, text, combination = (max(table, default=-1) + 1 for table in tables)
    # A script that is killed may leave an output whose line was still to come.
    named = [one.name.partition(".")[0] for one in (folder / OUTPUTS).glob("*.std*")]
    process = max([process, *(int(name) + 1 for name in named if name.isdecimal())])
    return process, action, text, combination


def _manifest(folder: Path, faults: list[str]) -> dict[str, Any]:
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        if not isinstance(manifest, dict):
            raise ValueError("not an object")
    except (OSError, ValueError, RecursionError) as exc:
        if not isinstance(exc, FileNotFoundError) or (folder / EVENTS).exists():
            faults.append(f"{MANIFEST}: {exc}")
        return {}
    form = manifest.get("format")
    if form != FORMAT:
        raise LoadError(f"{folder}: format of the record: {form!r} there, {FORMAT!r} here")
    return manifest


def _get(record: dict[str, Any], name: str, *kinds: type, default: Any = _MISSING) -> Any:
    """A value of one of these types, exactly: a line may be damaged, and still be JSON.

    :raises KeyError: there is none, and no default
    :raises TypeError: it is of another type
    """
    value = record.get(name, default)
    if value is _MISSING:
        raise KeyError(name)
    if type(value) not in kinds and value is not default:
        raise TypeError(f"{name} is {value!r:.80}")
    return value


_LOST = "the script that ran it came to its end before it, or was killed"


class _Events:
    """What the lines lead to."""

    def __init__(self, faults: list[str]) -> None:
        self.faults = faults
        self.rows: dict[int, dict[str, Any]] = {}
        self.actions: dict[int, dict[str, Any]] = {}
        self.texts: dict[int, str] = {}
        self.combinations: dict[int, HashableDict] = {}
        self.end: dict[str, Any] | None = None
        """How the last part has ended, if it has."""
        self._latest: float | None = None  # when something was last said

    def take(self, number: int, record: dict[str, Any]) -> None:
        try:
            handler = _HANDLERS.get(_get(record, "do", str))
            if handler is None:
                raise ValueError("unknown")
            handler(self, record)
            self._latest = _if(record.get("at"), float, int) or self._latest
        except _MISTAKES as exc:
            self.faults.append(_senseless(EVENTS, number, record, exc))

    def processes(self, folder: Path) -> list[ProcessRow]:
        """The rows, in order; what the outputs of those that have no end have come to."""
        for number, row in self.rows.items():
            if row["action"] not in self.actions:
                row["action"] = None  # its line is damaged
            if row.get("outcome", "running") in ("running", "lost"):
                for stream in ("stdout", "stderr"):
                    try:
                        size = (folder / output_name(number, stream)).stat().st_size
                    except OSError:
                        continue
                    row[f"{stream}_size"] = size
        return [ProcessRow(**row) for row in self.rows.values()]

    def action_rows(self) -> list[ActionRow]:
        """Likewise."""
        for row in self.actions.values():
            if row["parent"] not in self.actions:
                row["parent"] = None
        return [ActionRow(**row) for row in self.actions.values()]

    def _text(self, value: Any) -> str:
        if isinstance(value, str):
            return value
        if "is" in value:
            number = _get(value, "is", int)
            return self.texts.get(number, f"(text {number}, whose line is lost)")
        return f"{_get(value, 'text', str)}..."

    def _start(self, record: dict[str, Any]) -> None:
        number = _get(record, "n", int)
        row: dict[str, Any] = {
            "number": number,
            "cmd": self._text(record.get("name", record["cmd"])),
            "host": _get(record, "host", str, default=None),
            "action": _get(record, "in", int, default=None),
            "start": _get(record, "at", float, int, default=None),
        }
        if "for" in record:
            row["combination"] = self.combinations.get(record["for"])
        self.rows[number] = row

    def _end(self, record: dict[str, Any]) -> None:
        row = self.rows[_get(record, "n", int)]
        out, err = record.get("sizes", (0, 0))
        if type(out) is not int or type(err) is not int:
            raise TypeError(f"sizes are {out!r:.80}, {err!r:.80}")
        row |= {
            "end": _get(record, "at", float, int, default=None),
            "outcome": _get(record, "outcome", str),
            "exit_code": _get(record, "code", int, default=None),
            "stdout_size": out,
            "stderr_size": err,
            "message": _get(record, "why", str, default=""),
            "truncated": _get(record, "cut", bool, default=False),
            "stdout": _get(record, "stdout", str, default=None),
            "stderr": _get(record, "stderr", str, default=None),
        }

    def _begin(self, record: dict[str, Any]) -> None:
        number = _get(record, "a", int)
        self.actions[number] = {
            "number": number,
            "name": self._text(record["name"]),
            "parent": _get(record, "in", int, default=None),
            "start": _get(record, "at", float, int, default=None),
        }

    def _finish(self, record: dict[str, Any]) -> None:
        failed = _get(record, "failed", int)
        end = _get(record, "at", float, int, default=None)
        self.actions[_get(record, "a", int)] |= {"end": end, "ok": failed == 0}

    def _keep_text(self, record: dict[str, Any]) -> None:
        self.texts[_get(record, "n", int)] = _get(record, "is", str)

    def _combination(self, record: dict[str, Any]) -> None:
        self.combinations[_get(record, "n", int)] = _combination(record["is"])

    def _open(self, record: dict[str, Any]) -> None:
        self.end = None
        # Another script goes on: the one before is gone, and nobody knows what came of what it ran.
        for row in self.rows.values():
            if "outcome" not in row:
                row |= {"outcome": "lost", "end": self._latest, "message": _LOST}
        for action in self.actions.values():
            if "end" not in action:
                action |= {"end": self._latest, "ok": False}

    def _close(self, record: dict[str, Any]) -> None:
        error = _get(record, "error", str, default=None)
        self.end = {"at": _get(record, "at", float, int), "error": error}


def _senseless(name: str, number: int, record: dict[str, Any], exc: Exception) -> str:
    what = f"{type(exc).__name__}: {exc}"
    return f"{name}, line {number}: it makes no sense ({what}), and is passed over: {record!r:.200}"


def _combination(value: Any) -> HashableDict:
    found = revived(value)
    if not isinstance(found, HashableDict):
        raise TypeError(f"{value!r:.80} is no combination")
    hash(found)
    return found


_HANDLERS = {
    "open": _Events._open,
    "close": _Events._close,
    "text": _Events._keep_text,
    "combination": _Events._combination,
    "start": _Events._start,
    "end": _Events._end,
    "begin": _Events._begin,
    "finish": _Events._finish,
}


def _results(folder: Path, faults: list[str]) -> Iterable[ResultRow]:
    for number, record in read_lines(folder / RESULTS, faults):
        try:
            hosts = _get(record, "hosts", list, default=())
            if not all(type(host) is str for host in hosts):
                raise TypeError(f"hosts are {hosts!r:.80}")
            yield ResultRow(
                combination=_combination(record["for"]),
                state=_get(record, "state", str),
                result=record.get("result"),
                start=_get(record, "start", float, int, default=None),
                end=_get(record, "end", float, int, default=None),
                reason=_get(record, "reason", str, default=None),
                attempt=_get(record, "attempt", int, default=1),
                hosts=tuple(hosts),
            )
        except _MISTAKES as exc:
            faults.append(_senseless(RESULTS, number, record, exc))


# -- sweepers within -----------------------------------------------------------------------------


def _sweeps(
    folder: Path, faults: list[str]
) -> tuple[list[HashableDict], dict[HashableDict, str], list[ResultRow]]:
    """The combinations of all sweepers there, their states, and what came of them."""
    combinations: list[HashableDict] = []
    states: dict[HashableDict, str] = {}
    rows: list[ResultRow] = []
    for journal in (folder / JOURNAL, *sorted(folder.glob(f"*/{JOURNAL}"))):
        if not journal.exists():
            continue
        # Not by opening a sweeper: that takes locks and may write.
        ledger = ledger_of(journal, faults)
        ledger.set_sweep(saved_sweep(journal.parent, faults) or list(ledger.entries))
        for one in ledger.of(*State):
            entry = ledger.entries[one]
            combinations.append(one)
            states[one] = entry.state.value
            if entry.state in (State.DONE, State.FAILED, State.SKIPPED):
                rows.append(
                    ResultRow(
                        combination=one,
                        state=entry.state.value,
                        result=entry.result,
                        start=_if(entry.began, float, int),
                        end=_if(entry.ended, float, int),
                        reason=_if(entry.reason, str),
                        attempt=max(1, entry.attempts),
                    )
                )
    return list(dict.fromkeys(combinations)), states, rows


def _if(value: Any, *kinds: type) -> Any:
    return value if type(value) in kinds else None
