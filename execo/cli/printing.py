"""What the command writes: data to stdout as bytes, talk to stderr."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable

from execo import configuration
from execo.config import ANSI_CODES
from execo.log import escape_controls, use_color

__all__ = ["OutputLost", "Printer", "painted", "printer", "tell"]


class OutputLost(Exception):
    """Nobody reads stdout, or it cannot be written: there is no reason to go on."""


class Printer:
    """The stdout of this program, for any thread: what is written with one call stays together.

    - ``lost``: the error after which nothing is written any more
    - ``when_lost``: is called then, once
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.lost: OSError | None = None
        self.when_lost: Callable[[], object] = lambda: None

    def write(self, data: bytes) -> None:
        """Write and flush; blocks while nobody reads. What can no longer be written is dropped."""
        try:
            with self._lock:
                if self.lost is not None or sys.stdout is None:
                    return  # None: closed by who has called, on purpose
                # The buffer as it is now: a progress line has to know of what is written to it.
                sys.stdout.buffer.write(data)
                sys.stdout.buffer.flush()
        except OSError as exc:
            self._lose(exc)

    def text(self, text: str) -> None:
        """:meth:`write` for text; what was no UTF-8 is written as it was.

        :raises OutputLost: in the main thread there is nothing else to do
        """
        self.write(text.encode("utf-8", "surrogateescape"))
        if self.lost is not None:
            raise OutputLost

    def flush(self) -> None:
        """What others have left in the buffer."""
        try:
            if sys.stdout is not None:
                sys.stdout.flush()
        except OSError as exc:
            self._lose(exc)

    def _lose(self, exc: OSError) -> None:
        with self._lock:
            first, self.lost = self.lost is None, exc
        if first:
            self.when_lost()


printer = Printer()
"""The one there is."""


def painted(text: str, style: str, stream: object = None) -> str:
    """``text`` in the colours of ``configuration["color_styles"]``, if the stream has colours.

    :param stream: default: stdout
    """
    if not use_color(sys.stdout if stream is None else stream):  # type: ignore[arg-type]
        return text
    words = configuration["color_styles"].get(style, ())
    codes = ";".join(str(ANSI_CODES[word]) for word in words)
    return f"\x1b[{codes}m{text}\x1b[0m" if codes else text


def tell(text: str) -> None:
    """A message to the user, on stderr."""
    if sys.stderr is None:
        return
    head = painted("execo:", "report_error", sys.stderr)
    try:
        sys.stderr.write(f"{head} {escape_controls(text)}\n")
        sys.stderr.flush()
    except OSError:
        pass  # nobody reads it
