"""A recorded run, as it was read back: what the pictures, the report and the analysis start from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .combination import HashableDict

__all__ = ["ActionRow", "ProcessRow", "ResultRow", "Run"]


@dataclass(frozen=True, slots=True)
class ProcessRow:
    """One process of a run. Times are unix times, None while it had not come to that.

    - ``number``: from 0 on, in the order of their starts
    - ``action``: the number of the action that it belonged to
    - ``host``: the address; None for a local one
    - ``cmd``: the command; its name where it has one that is not the command
    - ``outcome``: ``ok``, ``running`` (the record ends before it), or the reason of the failure
    - ``stdout_size``, ``stderr_size``: bytes
    """

    number: int
    cmd: str
    host: str | None = None
    action: int | None = None
    start: float | None = None
    end: float | None = None
    outcome: str = "running"
    exit_code: int | None = None
    stdout_size: int = 0
    stderr_size: int = 0
    combination: HashableDict | None = None

    @property
    def ok(self) -> bool:
        return self.outcome == "ok"


@dataclass(frozen=True, slots=True)
class ActionRow:
    """One action of a run. ``parent``: the number of the action that it belonged to."""

    number: int
    name: str
    parent: int | None = None
    start: float | None = None
    end: float | None = None
    ok: bool | None = None


@dataclass(frozen=True, slots=True)
class ResultRow:
    """What one attempt at a combination gave. ``state``: ``done``, ``failed`` or ``skipped``."""

    combination: HashableDict
    state: str
    result: Any = None
    start: float | None = None
    end: float | None = None
    reason: str | None = None
    attempt: int = 1
    hosts: Sequence[str] = ()


@dataclass(frozen=True)
class Run:
    """A run, read from its folder. See :func:`execo.engine.load`.

    - ``manifest``: what was run, when, from which sources, on what
    - ``combinations``: of the sweep, in order; with ``states``: combination -> ``to do``,
      ``in progress``, ``done``, ``skipped`` or ``failed``
    - ``faults``: lines that could not be read, by file and line
    """

    folder: Path
    manifest: Mapping[str, Any] = field(default_factory=dict)
    processes: Sequence[ProcessRow] = ()
    actions: Sequence[ActionRow] = ()
    results: Sequence[ResultRow] = ()
    combinations: Sequence[HashableDict] = ()
    states: Mapping[HashableDict, str] = field(default_factory=dict)
    faults: Sequence[str] = ()
