"""What happens in a run, on its way into the record's folder.

The I/O thread puts down what it sees, some words for each, and goes on; a writer thread makes lines
and files of it, some twenty times a second. What a killed script has lost of its record is the last
tenth of a second of it, and of the output of processes that ran, the last second.
"""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from execo.log import logger

from .combination import HashableDict, plain
from .line_file import LineFile, encode_line
from .masks import Masks
from .run import output_name

if TYPE_CHECKING:
    from execo.action_base import Action
    from execo.execution import Execution
    from execo.lifecycle import Run
    from execo.process_base import ProcessBase

__all__ = ["EventWriter"]

STREAMS = {1: "stdout", 2: "stderr"}

PAUSE = 0.05
"""Seconds between two rounds of the writer: what comes in the meantime is one write."""

KEEP = 1.0
"""Seconds that output waits in memory for more, and lines for the disk."""

SHORT_OUTPUT = 256
"""Bytes of output that stand in the line of the process's end instead of a file of their own."""

BLOCK = 1 << 18
"""Bytes of output that are written before KEEP is over."""

SHORT_COMMAND = 256
"""Characters of a command that stand in its line; a longer one has a line of its own, once."""

LONG_COMMANDS = 1 << 20
"""Characters of longer commands in a record; what goes beyond is cut."""

BACKLOG = 64 << 20
"""Bytes of output that may wait for the writer; what comes then is lost, and marked."""

_MESSAGE = 200
"""Characters of a reason."""


class _Noted:
    """A process that runs. The sizes and ``room`` are the I/O thread's, the rest the writer's."""

    __slots__ = ("action", "cut", "files", "held", "number", "room", "since", "sizes")

    def __init__(self, number: int, action: int | None, most: float) -> None:
        self.number = number
        self.action = action
        self.sizes = [0, 0, 0]
        self.room = [0.0, most, most]
        self.cut = False
        self.held: dict[int, bytearray] = {}
        self.since = 0.0
        self.files: set[int] = set()


class EventWriter:
    """Takes what is observed, and writes it. An ``execo.observing.Observer``.

    :param folder: the record's
    :param file: where the lines go
    :param first: the numbers of the first process, the first action, the first text and the first
      combination, after those of earlier parts of the record
    :param masks: what must not be in it
    :param max_output: bytes kept of each stream of a process; None = all
    :param also_synced: a file of others, to be written to the disk with this one
    """

    def __init__(
        self,
        folder: Path,
        file: LineFile,
        first: tuple[int, int, int, int],
        masks: Masks,
        max_output: int | None,
        also_synced: LineFile | None = None,
    ) -> None:
        self._folder = folder
        self._file = file
        self._files = [file] if also_synced is None else [file, also_synced]
        self._masks = masks
        self._most = float("inf") if max_output is None else float(max_output)
        self._numbers, self._action_numbers, self._text_numbers, self._combination_numbers = map(
            itertools.count, first
        )
        # What has happened: a function of the writer and what it is called with.
        self._queue: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._runs: dict[Run, _Noted] = {}
        self._actions: dict[Execution, int] = {}
        self._handed = self._taken = 0
        self.ignored: set[int] = set()
        """Actions, by their id(), that are the record's own business."""
        # Of the writer alone.
        self._lines: list[str] = []
        self._texts: dict[str, int] = {}
        self._text_size = 0
        self._combinations: dict[HashableDict, int] = {}
        self._failed_in: dict[int, int] = {}
        self._holding: dict[_Noted, None] = {}  # in the order of their first piece
        self._synced = time.monotonic()
        self.lost = 0
        """Lines and pieces of output that could not be written."""
        self._thread = threading.Thread(target=self._write_on, name="execo-record", daemon=True)
        self._thread.start()

    def close(self, *last: dict[str, Any]) -> None:
        """Write what is left and these lines. Blocks until it is on the disk."""
        for record in last:
            self._put(self._line, record)
        self._closing.set()
        self._wake.set()
        self._thread.join()

    def sync_soon(self) -> None:
        """Something was appended to the other file. Any thread."""
        self._wake.set()

    # -- on the I/O thread ---------------------------------------------------------------------

    def _put(self, function: Callable[..., None], *args: Any) -> None:
        self._queue.append((function, args))
        if not self._wake.is_set():
            self._wake.set()

    def process_started(self, run: Run) -> None:
        noted = self._note(run)
        if noted is not None:
            self._runs[run] = noted

    def _note(self, run: Run) -> _Noted | None:
        process = run.process
        action = process._action
        if action is not None and id(action) in self.ignored:
            return None
        noted = _Noted(next(self._numbers), self._number_of(action), self._most)
        self._put(self._started, noted, run, process.cmd, self._label_of(process))
        return noted

    def _number_of(self, action: Action | None) -> int | None:
        """Of an action that runs."""
        if action is None or action._execution is None:
            return None
        return self._actions.get(action._execution)

    def _label_of(self, process: ProcessBase) -> Any:
        """What it was started for, or the action as whose part it runs."""
        label, action = process._purpose, process._action
        while label is None and action is not None and self._number_of(action) is not None:
            label, action = action._purpose, action._parent
        return label

    def process_printed(self, run: Run, stream: int, data: bytes) -> None:
        noted = self._runs.get(run)
        if noted is None:
            return
        size = len(data)
        noted.sizes[stream] += size
        room = noted.room[stream]
        if size > room:
            noted.cut = True
            size = int(room)
            data = data[:size]
            if not size:
                return
        if self._handed - self._taken > BACKLOG:
            # No hole in the middle: nothing more of this one.
            noted.cut, noted.room[stream] = True, 0
            return
        noted.room[stream] = room - size
        self._handed += size
        self._put(self._printed, noted, stream, data)

    def process_ended(self, run: Run) -> None:
        noted = self._runs.pop(run, None)
        if noted is None:
            if run.start_date is not None:
                return  # it ran before the record began
            noted = self._note(run)
            if noted is None:
                return
        self._put(self._ended, noted, run)

    def action_started(self, execution: Execution) -> None:
        action = execution.action
        if id(action) in self.ignored:
            return
        number = self._actions[execution] = next(self._action_numbers)
        self._put(self._begun, number, execution, action.name, self._number_of(action._parent))

    def action_ended(self, execution: Execution) -> None:
        number = self._actions.pop(execution, None)
        if number is not None:
            self._put(self._finished, number, execution, self._number_of(execution.action._parent))

    # -- on the writer's thread ------------------------------------------------------------------

    def _write_on(self) -> None:
        while True:
            # What is held back, or not on the disk yet, has its time, too.
            waits = bool(self._holding) or any(file.dirty for file in self._files)
            self._wake.wait(KEEP / 2 if waits else None)
            self._closing.wait(PAUSE)
            closing = self._closing.is_set()
            self._wake.clear()
            self._take()
            now = time.monotonic()
            for noted in list(self._holding):
                if not closing and now - noted.since < KEEP:
                    break
                self._spill(noted, last=closing)
            self._flush(now, closing)
            if closing and not self._queue:
                return

    def _take(self) -> None:
        queue = self._queue
        while queue:
            function, args = queue.popleft()
            try:
                function(*args)
            except Exception:  # noqa: BLE001 - logged
                # One line less, and said so: what the user has put into a process, for one.
                self._fail("internal error: a line of the record is lost", exc_info=True)

    def _flush(self, now: float, closing: bool) -> None:
        lines, self._lines = self._lines, []
        if lines:
            try:
                self._file.append(lines)
            except OSError as exc:
                # What later lines would refer to may be among those that are lost.
                self._texts.clear()
                self._combinations.clear()
                self._fail(f"cannot write {self._file.path}: {exc.strerror}", len(lines))
        if closing or now - self._synced >= KEEP:
            self._synced = now
            for file in self._files:
                try:
                    file.sync()
                except OSError as exc:
                    self._fail(f"cannot write {file.path} to the disk: {exc.strerror}")

    def _fail(self, what: str, count: int = 1, *, exc_info: bool = False) -> None:
        if not self.lost:
            logger.error("the record has gaps from now on: %s", what, exc_info=exc_info)
        self.lost += count

    def _line(self, record: dict[str, Any]) -> None:
        self._lines.append(encode_line(record))

    def _started(self, noted: _Noted, run: Run, cmd: Any, label: HashableDict | None) -> None:
        process = run.process
        self._masks.add_of(process)
        text = cmd if isinstance(cmd, str) else process._command_text()
        record: dict[str, Any] = {"do": "start", "n": noted.number, "at": _date(run.start_date)}
        record["cmd"] = self._command(self._masks.text(text))
        if process._name is not None and process._name != text:
            record["name"] = self._command(self._masks.text(process._name))
        host = getattr(process, "host", None)
        if host is not None:
            record["host"] = str(getattr(host, "address", host))
        if noted.action is not None:
            record["in"] = noted.action
        if label is not None:
            record["for"] = self._combination(label)
        self._line(record)

    def _command(self, text: str) -> str | dict[str, Any]:
        if len(text) <= SHORT_COMMAND:
            return text
        number = self._texts.get(text)
        if number is None:
            room = LONG_COMMANDS - self._text_size
            if len(text) > room:
                return {"cut": len(text), "text": text[:SHORT_COMMAND]}
            self._text_size += len(text)
            number = self._texts[text] = next(self._text_numbers)
            self._line({"do": "text", "n": number, "is": text})
        return {"is": number}

    def _combination(self, label: HashableDict) -> int:
        number = self._combinations.get(label)
        if number is None:
            number = self._combinations[label] = next(self._combination_numbers)
            self._line({"do": "combination", "n": number, "is": plain(label)})
        return number

    def _printed(self, noted: _Noted, stream: int, data: bytes) -> None:
        self._taken += len(data)
        held = noted.held.get(stream)
        if held is None:
            held = noted.held[stream] = bytearray()
        held += data
        if noted not in self._holding:
            noted.since = time.monotonic()
            self._holding[noted] = None
        if len(held) > BLOCK:
            self._spill(noted)

    def _spill(self, noted: _Noted, *, last: bool = False) -> None:
        """Write what is held back of its output into its files."""
        self._holding.pop(noted, None)
        for stream, held in noted.held.items():
            data = self._masks.data(bytes(held))
            # A secret may go on in the next piece.
            keep = 0 if last else min(len(data), max(0, self._masks.longest - 1))
            held[:] = data[len(data) - keep :]
            if len(data) > keep:
                self._append_output(noted, stream, data[: len(data) - keep])
        if not last and any(noted.held.values()):
            noted.since = time.monotonic()
            self._holding[noted] = None

    def _append_output(self, noted: _Noted, stream: int, data: bytes) -> None:
        path = self._folder / output_name(noted.number, STREAMS[stream])
        try:
            # Opened each time: a thousand that run shall not take a thousand descriptors.
            with path.open("ab", buffering=0) as file:
                if file.write(data) < len(data):
                    raise OSError(f"no space left for {path.name}")
        except OSError as exc:
            noted.cut = True
            self._fail(f"cannot write {path}: {exc}")
        else:
            noted.files.add(stream)

    def _ended(self, noted: _Noted, run: Run) -> None:
        process = run.process._as_of(run)
        ok = process.ok
        record: dict[str, Any] = {"do": "end", "n": noted.number, "at": _date(run.end_date)}
        record["outcome"] = "ok" if ok else str(run.reason or "failed")
        if run.exit_code is not None:
            record["code"] = run.exit_code
        if not ok:
            record["why"] = self._masks.text(process.message)[:_MESSAGE]
            self._count_failures(noted.action, 1)
        if noted.held or noted.sizes[1] or noted.sizes[2]:
            record["sizes"] = noted.sizes[1:]
            record |= self._short_outputs(noted)
            self._spill(noted, last=True)
        if noted.cut:
            record["cut"] = True
        self._line(record)

    def _short_outputs(self, noted: _Noted) -> dict[str, str]:
        found = {}
        for stream, held in list(noted.held.items()):
            if stream not in noted.files and len(held) <= SHORT_OUTPUT:
                with contextlib.suppress(UnicodeDecodeError):
                    found[STREAMS[stream]] = self._masks.data(bytes(held)).decode()
                    del noted.held[stream]
        return found

    def _begun(self, number: int, execution: Execution, name: str, parent: int | None) -> None:
        record: dict[str, Any] = {"do": "begin", "a": number, "at": _date(execution.start_date)}
        record["name"] = self._command(self._masks.text(name))
        if parent is not None:
            record["in"] = parent
        self._line(record)

    def _finished(self, number: int, execution: Execution, parent: int | None) -> None:
        failed = self._failed_in.pop(number, 0)
        self._count_failures(parent, failed)
        at = _date(execution.end_date)
        self._line({"do": "finish", "a": number, "at": at, "failed": failed})

    def _count_failures(self, action: int | None, count: int) -> None:
        if action is not None and count:
            self._failed_in[action] = self._failed_in.get(action, 0) + count


def _date(date: float | None) -> float | None:
    """To the microsecond."""
    return None if date is None else round(date, 6)
