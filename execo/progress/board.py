"""The rows that are shown, and the thread that draws them.

The I/O thread and those that start actions put into a queue what has happened (:class:`_Ear`); the
thread ``execo-progress`` takes it out, four times a second, asks and draws. So whoever runs things
never waits for the terminal, nor for the lock of a sweeper.
"""

from __future__ import annotations

import atexit
import io
import os
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, TextIO

from execo import observing
from execo._core.locks import fork_gate, new_lock
from execo.config import configuration
from execo.log import logger, use_color

from .lines import Line, fitted
from .rows import Row, row_of
from .screen import Screen, terminal

if TYPE_CHECKING:
    from rich.console import Console

    from execo.action_base import Action
    from execo.execution import Execution
    from execo.lifecycle import Run

__all__ = ["Board", "Ticket", "join", "leave", "show_all"]

INTERVAL = 0.25
"""Seconds between two drawings, and before the first one: what is over by then is not shown."""

SETTLE = 0.02
"""Seconds for what is printed together."""

MOST_LINES = 12
"""At once; the others are counted."""

PATIENCE = 2.0
"""Seconds that the end of a block waits for the drawing thread, which may wait for a sweeper."""


class Ticket:
    """That somebody wants something to be shown.

    :param rows: what was named; empty = all actions
    :param always: nobody takes this back: as long as the configuration says so
    """

    def __init__(self, rows: list[Row], *, always: bool = False) -> None:
        self.rows = rows
        self.always = always

    @property
    def wants_all(self) -> bool:
        """Whether actions are shown that nobody has named."""
        return not self.rows and (not self.always or configuration["progress"] is True)


class Board:
    """All that is shown on a terminal.

    :param stream: where
    :param console: what makes colours of styles
    """

    def __init__(self, stream: TextIO, console: Console) -> None:
        self._ear = _Ear()
        self._screen = Screen(stream, self._ear.wake.set)
        self._console = console
        self._lock = threading.Lock()  # of all that follows
        self._tickets: list[Ticket] = []
        self._unnamed: list[Row] = []  # of actions, as long as they run
        self._by_thing: dict[int, list[Row]] = {}
        self._by_process: dict[int, list[Row]] = {}
        # These need none.
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, name="execo-progress", daemon=True)

    def open(self) -> None:
        """Hear and draw from now on."""
        observing.observe(self._ear)
        self._thread.start()

    def add(self, ticket: Ticket) -> None:
        """Show its rows as well."""
        with self._lock:
            self._ear.idle = False  # what happens after the look of a row must not be missed
            self._tickets.append(ticket)
            for row in ticket.rows:
                self._add(row)
        self._ear.wake.set()

    def remove(self, ticket: Ticket) -> bool:
        """Show them no more; their last state stays on the terminal. True if nobody is left who
        wants something."""
        lines: list[Line] = []
        if ticket not in self._tickets:
            return False  # of the parent, in a forked child
        # The drawing thread may wait for the lock of a sweeper, and the script shall not.
        if self._lock.acquire(timeout=PATIENCE):
            try:
                self._hear()
                lines = [row.known(last=True) for row in ticket.rows]
                for row in ticket.rows:
                    self._drop(row)
                self._tickets = [one for one in self._tickets if one is not ticket]
                if not any(one.wants_all for one in self._tickets):
                    for row in self._unnamed:
                        self._drop(row)
                    self._unnamed = []
            finally:
                self._lock.release()
        if lines and configuration["progress"] is not False:
            # However many there are: it is the last that is seen of them.
            self._screen.leave(self._texts(lines, len(lines)))
        return not self._tickets

    def close(self) -> None:
        """Remove all of it from the terminal."""
        observing.unobserve(self._ear)
        self._over.set()
        self._ear.wake.set()
        self._screen.close()
        if self._thread is not threading.current_thread():
            self._thread.join(PATIENCE)

    def forget(self) -> None:
        """In a forked child: the thread is not there, and the terminal is the parent's."""
        self._over.set()
        self._screen.forget()

    # -- the thread ---------------------------------------------------------------------------

    def _work(self) -> None:
        ear = self._ear
        drawn = time.monotonic()
        while True:
            ear.wake.wait(None if ear.idle else INTERVAL)
            ear.wake.clear()
            if ear.idle:
                ear.idle = False
                drawn = time.monotonic()  # as if: what ends at once is not shown
            if self._over.wait(max(SETTLE, drawn + INTERVAL - time.monotonic())):
                return
            try:
                if self._tick():
                    drawn = time.monotonic()
            except Exception:
                logger.exception("internal error: progress is not shown any more")
                observing.unobserve(ear)
                self._screen.close()
                return
            with self._lock:
                ear.idle = not self._unnamed and not any(one.rows for one in self._tickets)
            if ear.news:
                ear.wake.set()

    def _tick(self) -> bool:
        """Whether something was drawn."""
        with self._lock:
            self._hear()
            named = (row for ticket in self._tickets for row in ticket.rows)
            # A thing that two blocks have named has one line.
            shown = {id(row.thing): row for row in [*named, *self._unnamed]}
            if configuration["progress"] is False:
                shown = {}
            lines = [row.known() for row in shown.values()]
        return self._screen.draw(self._texts(lines))

    def _texts(self, lines: list[Line], most: int | None = None) -> list[str]:
        columns, height = self._screen.size()
        # One is empty, and one stays for what is printed.
        most = most or min(MOST_LINES, height - 2)
        plain = not self._screen.can_show("━─…")
        self._console.width = columns
        # rich imports parts of itself when they are first needed: no child is forked meanwhile.
        with fork_gate, self._console.capture() as captured:
            for text in fitted(lines, columns, most, plain=plain):
                self._console.print(text, no_wrap=True, overflow="ignore", crop=False)
        return captured.get().splitlines()

    # -- with the lock ------------------------------------------------------------------------

    def _hear(self) -> None:
        """Take in what has happened."""
        news = self._ear.news
        while news:
            what, subject = news.popleft()
            if what == STARTED:
                for row in self._by_process.get(id(subject), ()):
                    row.started(subject)
            elif what == ENDED:
                for row in self._by_process.get(id(subject), ()):
                    row.ended(subject)
            elif what == ACTION_STARTED:
                self._action_started(subject)
            else:
                self._action_ended(subject)

    def _action_started(self, action: Action) -> None:
        known = self._by_thing.get(id(action), ())
        for row in known:  # it was reset, or what has failed is started again
            self._drop(row)
            self._add(row)
        parent = action._parent
        part = parent is not None and parent.running
        if not known and not part and any(one.wants_all for one in self._tickets):
            row = row_of(action)
            self._unnamed.append(row)
            self._add(row)

    def _action_ended(self, action: Action) -> None:
        for row in self._by_thing.get(id(action), ()):
            row.look()
        for row in [row for row in self._unnamed if row.thing is action]:
            self._unnamed.remove(row)
            self._drop(row)

    def _add(self, row: Row) -> None:
        row.look()
        self._by_thing.setdefault(id(row.thing), []).append(row)
        for process in row.processes:
            self._by_process.setdefault(id(process), []).append(row)

    def _drop(self, row: Row) -> None:
        _remove(self._by_thing, id(row.thing), row)
        for process in row.processes:
            _remove(self._by_process, id(process), row)


def _remove(rows: dict[int, list[Row]], key: int, row: Row) -> None:
    left = [one for one in rows.pop(key, ()) if one is not row]
    if left:
        rows[key] = left


STARTED, ENDED, ACTION_STARTED, ACTION_ENDED = range(4)


class _Ear:
    """Notes what happens, for the drawing thread, and does nothing else."""

    def __init__(self) -> None:
        self.news: deque[tuple[int, Any]] = deque()
        self.wake = threading.Event()
        self.idle = False

    def process_started(self, run: Run, /) -> None:
        # Nothing is shown: a row that is made later looks for itself.
        if not self.idle:
            self.news.append((STARTED, run.process))

    def process_printed(self, run: Run, stream: int, data: bytes, /) -> None:
        pass

    def process_ended(self, run: Run, /) -> None:
        if not self.idle:
            self.news.append((ENDED, run.process))

    def action_started(self, execution: Execution, /) -> None:
        self.news.append((ACTION_STARTED, execution.action))
        if self.idle:
            self.wake.set()

    def action_ended(self, execution: Execution, /) -> None:
        self.news.append((ACTION_ENDED, execution.action))


# -- the one of this process ------------------------------------------------------------------

_lock = new_lock()
_board: Board | None = None
_always: Ticket | None = None
_hooked = False
_missing = False


def join(things: tuple[Any, ...]) -> Ticket | None:
    """Show these, or all actions; None = nothing is shown here."""
    if configuration["progress"] is False or terminal() is None:
        return None
    rows = [row_of(thing) for thing in things]
    with _lock:
        return _added(Ticket(rows))


def leave(ticket: Ticket) -> None:
    """Show them no more."""
    global _board
    with _lock:
        # Of another board in a forked child.
        if _board is not None and _board.remove(ticket):
            _board.close()
            _board = None


def show_all() -> None:
    """Show all actions from now on, as ``configuration["progress"]`` wants it."""
    global _always
    if _always is not None or terminal() is None:
        return
    with _lock:
        if _always is None:
            _always = _added(Ticket([], always=True))


def _added(ticket: Ticket) -> Ticket | None:
    """With the lock."""
    global _board, _hooked
    board = _board or _new_board()
    if board is None:
        return None
    if not _hooked:
        _hooked = True
        atexit.register(_close)
        os.register_at_fork(after_in_child=_forget)
    if _board is None:
        _board = board
        board.open()
    board.add(ticket)
    return ticket


def _new_board() -> Board | None:
    global _missing
    stream = terminal()
    if stream is None or _missing:
        return None
    try:
        with fork_gate:  # no child is forked in the middle of an import
            from rich.console import Console
    except ImportError:
        _missing = True
        logger.warning("progress cannot be shown without rich: pip install 'execo[cli]'")
        return None
    console = Console(
        file=io.StringIO(),
        force_terminal=True,
        force_jupyter=False,
        color_system="auto" if use_color(stream) else None,
        no_color=False,
        highlight=False,
    )
    return Board(stream, console)


def _close() -> None:
    """At the end of the interpreter."""
    global _board
    # Who has the lock may wait for a sweeper, or a terminal that was stopped.
    taken = _lock.acquire(timeout=PATIENCE)
    if _board is not None:
        _board.close()
        _board = None
    if taken:
        _lock.release()


def _forget() -> None:
    global _board, _always
    if _board is not None:
        _board.forget()
    _board = _always = None
