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

__all__ = ["EVENTS", "RESULTS", "LoadError", "first_numbers", "load"]

EVENTS = "events.jsonl"
RESULTS = "results.jsonl"

_MISTAKES = (AttributeError, IndexError, KeyError, TypeError, ValueError)


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
    for record in read_lines(path / EVENTS, faults):
        events.take(record)
    if events.end is not None:
        manifest |= {"ended": events.end["at"], "error": events.end.get("error")}
    results = list(_results(path, faults))
    combinations, states, sweep_results = _sweeps(path, faults)
    have = {row.combination for row in results}
    results += [row for row in sweep_results if row.combination not in have]
    for row in results:
        if row.combination not in states:
            combinations.append(row.combination)
            states[row.combination] = row.state
    return Run(
        folder=path,
        manifest=manifest,
        processes=events.processes(path),
        actions=[ActionRow(**row) for row in events.actions.values()],
        results=results,
        combinations=combinations,
        states=states,
        faults=faults,
    )


def first_numbers(folder: Path) -> tuple[int, int, int, int]:
    """Those that come after what is in the folder: process, action, text, combination."""
    events = _Events([])
    for record in read_lines(folder / EVENTS, []):
        events.take(record)
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
        faults.append(f"{MANIFEST}: {exc}")
        return {}
    form = manifest.get("format")
    if form != FORMAT:
        raise LoadError(f"{folder}: format of the record: {form!r} there, {FORMAT!r} here")
    return manifest


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

    def take(self, record: dict[str, Any]) -> None:
        handler = _HANDLERS.get(record.get("do", ""))
        try:
            if handler is None:
                raise ValueError("unknown")
            handler(self, record)
        except _MISTAKES as exc:
            what = f"{type(exc).__name__}: {exc}"
            self.faults.append(f"{EVENTS}: a line that makes no sense: {record!r:.200} ({what})")

    def processes(self, folder: Path) -> list[ProcessRow]:
        """The rows, in order; what the outputs of those that have no end have come to."""
        for number, row in self.rows.items():
            if row.get("outcome", "running") == "running":
                for stream in ("stdout", "stderr"):
                    try:
                        size = (folder / output_name(number, stream)).stat().st_size
                    except OSError:
                        continue
                    row[f"{stream}_size"] = size
        return [ProcessRow(**row) for row in self.rows.values()]

    def _text(self, value: Any) -> str:
        if isinstance(value, dict):
            return self.texts[value["is"]] if "is" in value else f"{value['text']}..."
        return str(value)

    def _start(self, record: dict[str, Any]) -> None:
        row: dict[str, Any] = {
            "number": record["n"],
            "cmd": self._text(record.get("name", record["cmd"])),
            "host": record.get("host"),
            "action": record.get("in"),
            "start": record["at"],
        }
        if "for" in record:
            row["combination"] = self.combinations[record["for"]]
        self.rows[record["n"]] = row

    def _end(self, record: dict[str, Any]) -> None:
        row = self.rows[record["n"]]
        out, err = record.get("sizes", (0, 0))
        row |= {
            "end": record["at"],
            "outcome": record["outcome"],
            "exit_code": record.get("code"),
            "stdout_size": out,
            "stderr_size": err,
            "message": record.get("why", ""),
            "truncated": record.get("cut", False),
            "stdout": record.get("stdout"),
            "stderr": record.get("stderr"),
        }

    def _begin(self, record: dict[str, Any]) -> None:
        self.actions[record["a"]] = {
            "number": record["a"],
            "name": self._text(record["name"]),
            "parent": record.get("in"),
            "start": record["at"],
        }

    def _finish(self, record: dict[str, Any]) -> None:
        self.actions[record["a"]] |= {"end": record["at"], "ok": record["failed"] == 0}

    def _keep_text(self, record: dict[str, Any]) -> None:
        self.texts[record["n"]] = record["is"]

    def _combination(self, record: dict[str, Any]) -> None:
        self.combinations[record["n"]] = revived(record["is"])

    def _open(self, record: dict[str, Any]) -> None:
        self.end = None

    def _close(self, record: dict[str, Any]) -> None:
        self.end = {"at": record["at"], "error": record.get("error")}


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
    for record in read_lines(folder / RESULTS, faults):
        try:
            yield ResultRow(
                combination=revived(record["for"]),
                state=record["state"],
                result=record.get("result"),
                start=record.get("start"),
                end=record["end"],
                reason=record.get("reason"),
                attempt=record.get("attempt", 1),
                hosts=tuple(record.get("hosts", ())),
            )
        except _MISTAKES as exc:
            what = f"{type(exc).__name__}: {exc}"
            faults.append(f"{RESULTS}: a line that makes no sense: {record!r:.200} ({what})")


# -- sweepers within -----------------------------------------------------------------------------


def _sweeps(
    folder: Path, faults: list[str]
) -> tuple[list[HashableDict], dict[HashableDict, str], list[ResultRow]]:
    """The combinations of all sweepers there, their states, and what came of them."""
    combinations: list[HashableDict] = []
    states: dict[HashableDict, str] = {}
    rows: list[ResultRow] = []
    for place in (folder, *sorted(one for one in folder.iterdir() if one.is_dir())):
        if not (place / JOURNAL).exists():
            continue
        # Not by opening a sweeper: that takes locks and may write.
        ledger = ledger_of(place / JOURNAL, faults)
        ledger.set_sweep(saved_sweep(place, faults) or list(ledger.entries))
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
                        start=entry.began,
                        end=entry.ended,
                        reason=entry.reason,
                        attempt=max(1, entry.attempts),
                    )
                )
    return list(dict.fromkeys(combinations)), states, rows
