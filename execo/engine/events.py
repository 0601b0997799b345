"""What happens in a run, on its way into the record's folder.

The I/O thread puts down what it sees, some words for each, and goes on; a writer thread makes lines
and files of it, some twenty times a second. What a killed script has lost of its record is the last
tenth of a second of it, and of the output of processes that ran, the last second.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

from execo.log import logger

from .combination import HashableDict, plain
from .event_lines import (
    begin_line,
    combination_line,
    cut_text,
    end_line,
    finish_line,
    kept_text,
    quoted,
    start_line,
    text_line,
)
from .event_outputs import Noted, Outputs
from .line_file import LineFile, encode_line
from .masks import Masks

if TYPE_CHECKING:
    from execo.execution import Execution
    from execo.lifecycle import Run
    from execo.process_base import ProcessBase

__all__ = ["EventWriter"]

PAUSE = 0.05
"""Seconds between two rounds of the writer: what comes in the meantime is one write."""

SYNC = 1.0
"""Seconds that lines wait for the disk."""

SHORT_COMMAND = 256
"""Characters of a command that stand in its line; a longer one has a line of its own, once."""

LONG_COMMANDS = 1 << 20
"""Characters of longer commands in a record; what goes beyond is cut."""

BACKLOG = 64 << 20
"""Bytes of output that may wait for the writer; what comes then is lost, and marked."""

_MESSAGE = 200
"""Characters of a reason."""


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
        self._file = file
        self._files = [file] if also_synced is None else [file, also_synced]
        self._masks = masks
        self._most = float("inf") if max_output is None else float(max_output)
        self._numbers, self._action_numbers, self._text_numbers, self._combination_numbers = map(
            itertools.count, first
        )
        # What has happened: a function of the writer and what it is called with, in one tuple: what
        # waits here is what the garbage collector looks at.
        self._queue: deque[tuple[Any, ...]] = deque()
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._runs: dict[Run, Noted] = {}
        self._actions: dict[Execution | None, tuple[int, HashableDict | None]] = {}
        self._handed = self._taken = 0
        self.ignored: set[int] = set()
        """Actions, by their id(), that are the record's own business."""
        # Of the writer alone.
        self._lines: list[str] = []
        self._texts: dict[str, int] = {}
        self._text_size = 0
        self._combinations: dict[HashableDict, int] = {}
        self._failed_in: dict[int, int] = {}
        self._outputs = Outputs(folder, masks, self._fail)
        self._synced = time.monotonic()
        self.lost = 0
        """Lines and pieces of output that could not be written."""
        self._thread = threading.Thread(target=self._write_on, name="execo-record", daemon=True)
        self._thread.start()

    def close(self, *last: dict[str, Any]) -> None:
        """Write what is left and these lines. Blocks until it is on the disk."""
        for record in last:
            self._put(self._add, encode_line(record))
        self._closing.set()
        self._wake.set()
        self._thread.join()

    def sync_soon(self) -> None:
        """Something was appended to the other file. Any thread."""
        self._wake.set()

    # -- on the I/O thread ---------------------------------------------------------------------

    def _put(self, *event: Any) -> None:
        self._queue.append(event)
        if not self._wake.is_set():
            self._wake.set()

    def process_started(self, run: Run) -> None:
        noted = self._note(run)
        if noted is not None:
            self._runs[run] = noted

    def _note(self, run: Run) -> Noted | None:
        process = run.process
        label = process._purpose
        number = None
        action = process._action
        if action is not None:
            if id(action) in self.ignored:
                return None
            known = self._actions.get(action._execution)
            if known is not None:
                number = known[0]
                label = known[1] if label is None else label
        noted = Noted(next(self._numbers), number)
        self._put(self._started, noted, run, process, process.cmd, label)
        return noted

    def process_printed(self, run: Run, stream: int, data: bytes) -> None:
        noted = self._runs.get(run)
        if noted is None:
            return
        sizes = noted.sizes
        if sizes is None:
            sizes = noted.sizes = [0, 0, 0]
        before = sizes[stream]
        after = sizes[stream] = before + len(data)
        if noted.full:
            return
        if after > self._most:
            noted.cut = True
            data = data[: max(0, int(self._most) - before)]
            if not data:
                return
        if self._handed - self._taken > BACKLOG:
            # No hole in the middle: nothing more of this one.
            noted.cut = noted.full = True
            return
        self._handed += len(data)
        self._put(self._printed, noted, stream, data)

    def process_ended(self, run: Run) -> None:
        noted = self._runs.pop(run, None)
        if noted is None:
            if run.start_date is not None:
                return  # it ran before the record began
            noted = self._note(run)
            if noted is None:
                return
        # The process too: a run does not hold it to the time when the line is written.
        self._put(self._ended, noted, run, run.process)

    def action_started(self, execution: Execution) -> None:
        action = execution.action
        if id(action) in self.ignored:
            return
        label = action._purpose
        parent = None
        above = action._parent
        if above is not None:
            known = self._actions.get(above._execution)
            if known is not None:
                parent = known[0]
                label = known[1] if label is None else label
        number = next(self._action_numbers)
        self._actions[execution] = number, label
        self._put(self._begun, number, execution, action.name, parent)

    def action_ended(self, execution: Execution) -> None:
        known = self._actions.pop(execution, None)
        if known is not None:
            parent = execution.action._parent
            above = None if parent is None else self._actions.get(parent._execution)
            self._put(self._finished, known[0], execution, None if above is None else above[0])

    # -- on the writer's thread ------------------------------------------------------------------

    def _write_on(self) -> None:
        while True:
            # What is held back, or not on the disk yet, has its time, too.
            waits = self._outputs.waiting or any(file.dirty for file in self._files)
            self._wake.wait(SYNC / 2 if waits else None)
            self._closing.wait(PAUSE)
            self._wake.clear()
            # Looked at afterwards: who closes sets that, and wakes then.
            closing = self._closing.is_set()
            self._take()
            now = time.monotonic()
            self._outputs.spill(now, all_of_it=closing)
            self._flush(now, closing)
            if closing and not self._queue:
                return

    def _take(self) -> None:
        queue = self._queue
        while queue:
            function, *args = queue.popleft()
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
        if closing or now - self._synced >= SYNC:
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

    def _add(self, line: str) -> None:
        self._lines.append(line)

    def _started(
        self, noted: Noted, run: Run, process: ProcessBase, cmd: Any, label: HashableDict | None
    ) -> None:
        masks = self._masks
        masks.add_of(process)
        text = cmd if isinstance(cmd, str) else process._command_text()
        name = process._name
        host = getattr(process, "host", None)
        self._lines.append(
            start_line(
                noted.number,
                run.start_date,
                self._command(masks.text(text)),
                name=None if name is None or name == text else self._command(masks.text(name)),
                host=None if host is None else str(getattr(host, "address", host)),
                action=noted.action,
                combination=None if label is None else self._combination(label),
            )
        )

    def _command(self, text: str) -> str:
        """How it stands in a line, as JSON."""
        if len(text) <= SHORT_COMMAND:
            return quoted(text)
        number = self._texts.get(text)
        if number is None:
            room = LONG_COMMANDS - self._text_size
            if len(text) > room:
                return cut_text(text[:SHORT_COMMAND], len(text))
            self._text_size += len(text)
            number = self._texts[text] = next(self._text_numbers)
            self._lines.append(text_line(number, text))
        return kept_text(number)

    def _combination(self, label: HashableDict) -> int:
        number = self._combinations.get(label)
        if number is None:
            number = self._combinations[label] = next(self._combination_numbers)
            self._lines.append(combination_line(number, plain(label)))
        return number

    def _printed(self, noted: Noted, stream: int, data: bytes) -> None:
        self._taken += len(data)
        self._outputs.add(noted, stream, data)

    def _ended(self, noted: Noted, run: Run, process: ProcessBase) -> None:
        outcome, why = "ok", None
        # What nothing at all is wrong with is ok, and most are.
        smooth = run.exit_code == 0 and run.reason is None
        if not smooth:
            past = process._as_of(run)
            if not past.ok:
                outcome = str(run.reason or "failed")
                why = self._masks.text(past.message)[:_MESSAGE]
                self._count_failures(noted.action, 1)
        sizes = outputs = None
        if noted.sizes is not None:
            sizes = noted.sizes[1:]
            outputs = self._outputs.ended(noted)
        self._lines.append(
            end_line(
                noted.number,
                run.end_date,
                outcome,
                code=run.exit_code,
                why=why,
                sizes=sizes,
                outputs=outputs,
                cut=noted.cut,
            )
        )

    def _begun(self, number: int, execution: Execution, name: str, parent: int | None) -> None:
        text = self._command(self._masks.text(name))
        self._lines.append(begin_line(number, execution.start_date, text, parent))

    def _finished(self, number: int, execution: Execution, parent: int | None) -> None:
        failed = self._failed_in.pop(number, 0) if self._failed_in else 0
        self._count_failures(parent, failed)
        self._lines.append(finish_line(number, execution.end_date, failed))

    def _count_failures(self, action: int | None, count: int) -> None:
        if action is not None and count:
            self._failed_in[action] = self._failed_in.get(action, 0) + count
