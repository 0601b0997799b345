"""A recorded run, as it was read back: what pictures, reports and the analysis start from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .combination import HashableDict
from .frames import to_frame

__all__ = ["OUTPUTS", "ActionRow", "ProcessRow", "ResultRow", "Run", "output_name"]

OUTPUTS = "outputs"


def output_name(number: int, stream: str) -> str:
    """Where an output is within the folder of a run: ``outputs/17.stdout``."""
    return f"{OUTPUTS}/{number}.{stream}"


@dataclass(frozen=True, slots=True)
class ProcessRow:
    """One process of a run. Times are unix times, None while it had not come to that.

    - ``number``: from 0 on, in the order of their starts
    - ``action``: the number of the action that it belonged to
    - ``host``: the address; None for a local one
    - ``cmd``: the command; its name where it has one that is not the command
    - ``outcome``: ``ok``, ``running`` (the record ends before it), ``lost`` (so did that of its
      script, and another one went on in the same folder), or the reason of the failure
    - ``stdout_size``, ``stderr_size``: bytes that it has printed
    - ``message``: why it has failed, in words
    - ``truncated``: not all of what it has printed was recorded
    - ``stdout``, ``stderr``: short ones; see :meth:`Run.output` for any
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
    message: str = ""
    truncated: bool = False
    stdout: str | None = field(default=None, repr=False)
    stderr: str | None = field(default=None, repr=False)

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

    def output(self, process: ProcessRow, stream: str = "stdout") -> bytes:
        """What a process has printed, as far as it was recorded.

        :param process: one of ``processes``
        :param stream: ``stdout`` or ``stderr``
        :raises ValueError: for another stream
        :raises OSError: its file cannot be read
        """
        if stream not in ("stdout", "stderr"):
            raise ValueError(f"a stream is stdout or stderr, not {stream!r}")
        text: str | None = getattr(process, stream)
        if text is not None:
            return text.encode()
        try:
            return (self.folder / output_name(process.number, stream)).read_bytes()
        except FileNotFoundError:
            return b""

    def to_frame(self, what: str = "results") -> Any:
        """The rows as a pandas DataFrame, in their order.

        :param what: ``results``: a row for each, with a column for each factor, ``state``,
          ``attempt``, ``start``, ``end``, ``duration`` (seconds), ``hosts``, ``reason``, and a
          column for each name in the results (``result``, where these are no dicts). A name that is
          a factor's, or one of these, stands behind ``result.``. ``processes`` and ``actions``:
          the attributes of each, with ``duration``
        :raises ImportError: pandas is not installed
        :raises ValueError: for anything else
        """
        return to_frame(self, what)
