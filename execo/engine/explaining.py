"""Tells what happened to a combination."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from execo.time_utils import format_date, format_duration

from .entries import Entry, Ledger

__all__ = ["explanation"]

_TOLD = {
    "take": "handed out",
    "done": "done",
    "skip": "skipped",
    "cancel": "cancelled",
    "fail": "failed",
    "free": "taken back",
    "reset": "all that were {} were reset",
}


def explanation(entry: Entry, records: Iterable[Any], ledger: Ledger) -> str:
    """Lines of text: its state, and what the lines of a journal say of it."""
    lines = [f"{dict(entry.combination)!r}: {entry.state.value}{_sum_of(entry)}"]
    for record in records if entry.number is not None else ():
        if not isinstance(record, dict):
            continue
        if record.get("n") == entry.number or (record.get("do") == "reset" and len(lines) > 1):
            at = record.get("at")
            when = format_date(at) if isinstance(at, (int, float)) else "at some time"
            lines.append(f"  {when} {_told(record)}, by {ledger.who(record.get('by'))}")
    return "\n".join(lines)


def _sum_of(entry: Entry) -> str:
    facts = []
    if entry.place is None:
        facts.append("no part of the sweep any more")
    if entry.attempts:
        facts.append(f"attempt {entry.attempts}")
    if entry.took is not None:
        facts.append(f"took {format_duration(entry.took)}")
    if entry.late:
        facts.append("done by one from whom it had been taken back")
    if entry.reason:
        facts.append(entry.reason)
    return f" ({', '.join(facts)})" if facts else ""


def _told(record: dict[str, Any]) -> str:
    marks = [name for name in ("again", "late", "old") if record.get(name)]
    why = f": {record['why']}" if "why" in record else ""
    result = f", result {record['result']!r:.200}" if "result" in record else ""
    what = _TOLD.get(str(record.get("do")), str(record.get("do")))
    told = what.format(", ".join(map(str, record.get("states", ()))))
    return told + "".join(f" ({mark})" for mark in marks) + why + result
