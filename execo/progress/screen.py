"""The lines at the bottom of a terminal, below what the script itself prints there.

Above them is an empty line, where the cursor stays. So what comes meanwhile and nobody here knows
of (a child's output, a question, what the shell says after a ``kill -9``) has a place and stays
there; the next drawing changes what is below it. How many lines there are above needs not be known,
nor how the terminal breaks them after a change of its size. No mode of the terminal is changed, and
the cursor is not hidden: nothing is to be repaired after a script that is killed by force.

What the script prints by ``sys.stdout`` and ``sys.stderr`` is known of: it removes the lines first.
That is done by a ``write`` of ours on the buffers below these streams, where all comes by that log
handlers and others write who have kept the streams since before.
"""

from __future__ import annotations

import os
import re
import sys
import termios
import threading
import time
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, TextIO

from execo._core.locks import fork_gate

__all__ = ["Screen", "terminal"]

CLEAR = "\x1b[J"
CLEAR_LINE = "\x1b[K"
AGAIN = 1.0
"""Seconds after which lines that are as they were are drawn again: somebody may have written over
them."""

SAVE, RESTORE = "\x1b7", "\x1b8"
NOT_SEEN = rb"(?:\r|\x1b\[[0-9;?]*[A-Za-z])+\Z"  # at the end: of a colour, for one


def terminal() -> TextIO | None:
    """stderr, if lines can be drawn there."""
    stream = sys.stderr
    if os.environ.get("TERM", "") in ("", "dumb", "unknown"):
        return None
    try:
        return stream if stream is not None and os.isatty(stream.fileno()) else None
    except (AttributeError, OSError, ValueError):  # not quite a file, or a closed one
        return None


class Use(Enum):
    """What the terminal is used for now."""

    OURS = "ours"
    ASKING = "asking"  # somebody reads keys from it: an answer is typed there
    AWAY = "away"  # another program has it, or it is none any more


class Screen:
    """The lines of this process on one terminal. All methods may be called from any thread, and
    block as long as the terminal does.

    :param stream: a terminal
    :param on_removed: called when a print has removed the lines: they may be drawn again
    """

    def __init__(self, stream: TextIO, on_removed: Callable[[], object]) -> None:
        self._stream = stream
        self._fd = stream.fileno()
        self._on_removed = on_removed
        self._sink: Any = getattr(stream, "buffer", stream)
        self._write: Callable[[Any], object] = self._sink.write
        # Re-entrant: a signal handler may print in the middle of a print.
        self._lock = threading.RLock()
        self._shown: Sequence[str] = ()
        self._drawn = 0.0
        self._unfinished = False  # somebody's line, which goes on
        self._closed = False
        self._hooked: dict[int, tuple[Any, Any, Any]] = {}
        for one in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__, stream):
            self._hook(one)

    def can_show(self, text: str) -> bool:
        """Whether it has these characters."""
        try:
            text.encode(self._encoding)
        except (LookupError, UnicodeError):
            return False
        return True

    @property
    def _encoding(self) -> str:
        return self._stream.encoding or "ascii"

    def size(self) -> tuple[int, int]:
        """Columns and lines, now."""
        try:
            size = os.get_terminal_size(self._fd)
        except OSError:
            return 80, 24
        return size.columns or 80, size.lines or 24

    def draw(self, lines: Sequence[str]) -> bool:
        """Have these lines there instead of the last ones, if the terminal is ours now. False if
        nothing was to be done."""
        # No fork meanwhile: the child could never write to the stream.
        with fork_gate, self._lock:
            if self._closed:
                return False
            use = self._use()
            if use is Use.ASKING and self._shown:
                # The question stands on our empty line: what is below it goes.
                self._shown = ()
                self._put(CLEAR)
            now = time.monotonic()
            if use is not Use.OURS or self._unfinished:
                return False
            if lines == self._shown and (not lines or now < self._drawn + AGAIN):
                return False
            self._flush_all()
            self._put(self._drawing(lines))
            self._shown, self._drawn = lines, now
            return True

    def leave(self, lines: Sequence[str]) -> None:
        """Print lines that stay."""
        with self._lock:
            if self._closed or self._use() is Use.AWAY:
                return
            self._erase()
            start = "\n" if self._unfinished else "\r"
            self._unfinished = False
            self._flush_all()
            self._put(start + "".join(f"{line}\n" for line in lines))

    def close(self) -> None:
        """Remove the lines, for good, and let the streams be as they were."""
        with self._lock:
            self._erase()
            self._closed = True
            self._unhook()

    def forget(self) -> None:
        """In a forked child: the lines are its parent's."""
        self._lock = threading.RLock()
        self._closed = True
        self._unhook()

    # -- with the lock ------------------------------------------------------------------------

    def _use(self) -> Use:
        try:
            local = termios.tcgetattr(self._fd)[3]
        except (termios.error, OSError, ValueError):
            return Use.AWAY
        try:
            if os.tcgetpgrp(self._fd) != os.getpgrp():
                return Use.AWAY
        except OSError:
            pass  # a terminal, but not that of this session
        return Use.OURS if local & termios.ECHO and local & termios.ICANON else Use.ASKING

    def _drawing(self, lines: Sequence[str]) -> str:
        text = f"{CLEAR_LINE}\n".join(["", *lines])
        room, count = "", len(lines)
        if count != len(self._shown):
            # First the terminal scrolls, if it has to: a saved place does not move with its line.
            room = "\n" * count + f"\x1b[{count}A" if count else ""
        return f"{room}{SAVE}{text}{CLEAR}{RESTORE}"

    def _put(self, text: str) -> None:
        try:
            data = text.encode(self._encoding, "replace")
            self._write(data.decode(self._encoding) if self._sink is self._stream else data)
            self._sink.flush()
        except (OSError, ValueError):
            # The terminal is gone, or the stream closed: that shall not end the script.
            self._closed = True

    def _erase(self) -> None:
        if self._shown and not self._closed:
            self._shown = ()
            if self._use() is Use.OURS:
                self._put(CLEAR)

    def _flush_all(self) -> None:
        """What was printed and waits in a buffer comes before our lines."""
        for sink, _, _ in self._hooked.values():
            try:
                sink.flush()
            except (OSError, ValueError):
                pass  # whoever has printed it will see

    # -- what the script prints ---------------------------------------------------------------

    def _hook(self, stream: Any) -> None:
        if stream is None or not self._is_here(stream):
            return
        sink = getattr(stream, "buffer", stream)
        if id(sink) in self._hooked:
            return
        write = sink.write

        def hooked(data: Any, /) -> Any:
            with self._lock:
                if data and not self._closed:
                    if self._shown:
                        self._erase()
                        self._on_removed()
                    self._unfinished = _goes_on(data, self._unfinished)
                return write(data)

        before = getattr(sink, "__dict__", {}).get("write")
        try:
            sink.write = hooked
        except (AttributeError, TypeError):
            return  # a stream of a kind of its own: it writes over the lines
        self._hooked[id(sink)] = (sink, hooked, before)

    def _is_here(self, stream: Any) -> bool:
        try:
            number = stream.fileno()
            return os.isatty(number) and os.fstat(number).st_rdev == os.fstat(self._fd).st_rdev
        except (AttributeError, OSError, ValueError):
            return False

    def _unhook(self) -> None:
        for sink, hooked, before in self._hooked.values():
            # Somebody may have set one on top of ours: that stays, and ours does nothing any more.
            if sink.__dict__.get("write") is hooked:
                if before is None:
                    del sink.write
                else:
                    sink.write = before
        self._hooked = {}


def _goes_on(data: Any, before: bool) -> bool:
    """Whether the line goes on that was written last."""
    if data[-1:] in ("\n", b"\n"):
        return False
    tail = data[-200:]
    raw = tail.encode("ascii", "replace") if isinstance(tail, str) else bytes(tail)
    seen = re.sub(NOT_SEEN, b"", raw)
    return not seen.endswith(b"\n") if seen else before
