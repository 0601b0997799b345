"""Logging: the logger "execo", its output on stderr, and text fit for a terminal.

execo uses the standard :mod:`logging`. By default logs go to stderr and the level is
``logging.WARNING``, as in the reference document (execo 2.8.2: stdout and INFO): nothing is shown
while everything works. ``configuration["log_level"]``, read when this module is imported, sets
another level; afterwards, ``logger.setLevel("DETAIL")`` does.

Nothing is installed on the root logger. Once the script, or what embeds execo, gives the root
logger a handler, messages go there and execo's own output is silent, so that none appears twice.
Where the script sets up the logger "execo" before it imports execo, that set-up is kept.

A message names the host and the process in its text. The record also has them as attributes
``execo_host`` and ``execo_process`` where the code that logs knows them and gives
``extra={"execo_host": ..., "execo_process": ...}``; a format that uses them needs
``logging.Formatter(..., defaults={"execo_host": "-", "execo_process": "-"})`` for the rest.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any, TextIO

from .config import ANSI_CODES, DETAIL, FDEBUG, IODEBUG, TRACE, configuration

__all__ = [
    "Logger",
    "Style",
    "compact_output",
    "escape_controls",
    "get_logger",
    "logger",
    "style",
    "use_color",
]

for _level, _name in (
    (IODEBUG, "IODEBUG"),
    (FDEBUG, "FDEBUG"),
    (TRACE, "TRACE"),
    (DETAIL, "DETAIL"),
):
    logging.addLevelName(_level, _name)


# -- text for a terminal -----------------------------------------------------------------------


def use_color(stream: TextIO | None) -> bool:
    """Whether to colour what is written to a stream now.

    ``configuration["color_mode"]`` decides. If it is None: only on a terminal that is not "dumb",
    and only if the environment variable NO_COLOR is unset or empty (https://no-color.org).
    Our decision; execo 2.8.2 looked at stdout and stderr once, at import.

    :param stream: where the text will go; None (no such stream) has no colours
    """
    if configuration["color_mode"] is not None:
        return bool(configuration["color_mode"])
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return False
    try:
        return stream is not None and stream.isatty()
    except (AttributeError, ValueError):  # not quite a file, or a closed one
        return False


def _paint(text: str, words: Iterable[str]) -> str:
    # Colour is decoration: a word that does not exist must not lose the message.
    codes = ";".join(str(ANSI_CODES[word]) for word in words if word in ANSI_CODES)
    return f"\x1b[{codes}m{text}\x1b[0m" if codes and text else text


class Style:
    """Colours parts of a text by the names in ``configuration["color_styles"]``, as execo 2.8.2.

    ``style.host("web1")`` and ``style.set("host", "web1")`` are the same. The text comes back as
    it is where stderr has no colours (see :func:`use_color`), and for a name that has no style.
    """

    def set(self, name: str | int, text: object) -> str:
        """Colour a text.

        :param name: a name or a log level among the keys of ``configuration["color_styles"]``
        :param text: what to colour; ``str()`` is applied
        """
        if not use_color(sys.stderr):
            return str(text)
        return _paint(str(text), configuration["color_styles"].get(name, ()))

    def __getattr__(self, name: str) -> Callable[[object], str]:
        if name.startswith("_"):  # what copy, pickle and IPython look for is not a style
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return lambda text: self.set(name, text)


#: The one :class:`Style`.
style = Style()


def compact_output(s: str, threshold: int | None = None) -> str:
    """Shorten a long text to its head and its tail.

    Between them stands a line with ``[...]`` and the number of characters left out.

    :param s: the text, shown whole if it is not longer than the threshold
    :param threshold: characters kept, half of them from each end; 0: never shorten; None:
        ``configuration["compact_output_threshold"]``
    """
    if threshold is None:
        threshold = configuration["compact_output_threshold"]
    if threshold <= 0 or len(s) <= threshold:
        return s
    tail = threshold // 2
    head = threshold - tail
    left_out = len(s) - threshold
    return f"{s[:head]}\n[...] {left_out} characters left out [...]\n{s[len(s) - tail :]}"


_ESCAPES = {
    code: f"\\x{code:02x}"
    for code in (*range(0x20), *range(0x7F, 0xA0))  # C0, DEL, C1
    if code not in (ord("\n"), ord("\t"))
}
# Bytes that were not UTF-8, kept by surrogateescape: a terminal or a log file cannot take them.
_ESCAPES.update({0xDC00 + byte: f"\\x{byte:02x}" for byte in range(0x80, 0x100)})


def escape_controls(text: str) -> str:
    r"""Make the output of a command safe to show on a terminal.

    The control characters except newline and tab become ``\x1b`` and the like, so that a remote
    command cannot move the cursor, set the title or hide what a log line says; so do the bytes
    that could not be decoded. The end of line ``\r\n`` of a pseudo terminal becomes ``\n``.

    :param text: the output, as in ``process.stdout``
    """
    return text.replace("\r\n", "\n").translate(_ESCAPES)


# -- the logger --------------------------------------------------------------------------------


class Logger(logging.Logger):
    """A logger with a method for each level of execo, as in execo 2.8.2."""

    # Without the raised stack level, the function shown would be one of these methods.

    def iodebug(self, msg: object, *args: object, stacklevel: int = 1, **kwargs: Any) -> None:
        """Log at level IODEBUG (3): each read and write."""
        self.log(IODEBUG, msg, *args, stacklevel=stacklevel + 1, **kwargs)

    def fdebug(self, msg: object, *args: object, stacklevel: int = 1, **kwargs: Any) -> None:
        """Log at level FDEBUG (5): the runtime's inner steps."""
        self.log(FDEBUG, msg, *args, stacklevel=stacklevel + 1, **kwargs)

    def trace(self, msg: object, *args: object, stacklevel: int = 1, **kwargs: Any) -> None:
        """Log at level TRACE (12)."""
        self.log(TRACE, msg, *args, stacklevel=stacklevel + 1, **kwargs)

    def detail(self, msg: object, *args: object, stacklevel: int = 1, **kwargs: Any) -> None:
        """Log at level DETAIL (15)."""
        self.log(DETAIL, msg, *args, stacklevel=stacklevel + 1, **kwargs)

    def getChild(self, suffix: str) -> Logger:  # noqa: N802 - the name is logging's
        """A child logger, with the same methods."""
        return get_logger(super().getChild(suffix).name)


def get_logger(name: str) -> Logger:
    """The logger of this name, with the methods of :class:`Logger`.

    :param name: "execo" or below it, such as "execo.engine"; it inherits level and output
    """
    found = logging.getLogger(name)
    if not isinstance(found, Logger):
        # Not logging.setLoggerClass: it is global, and too late for a logger that somebody named
        # before (logging.config does), which must keep its settings and its class.
        kind = type(found)
        found.__class__ = (
            Logger if kind is logging.Logger else type(kind.__name__, (Logger, kind), {})
        )
    assert isinstance(found, Logger)
    return found


class _Formatter(logging.Formatter):
    """``<date> LEVEL: message``, with the function at DEBUG and the thread below it."""

    def usesTime(self) -> bool:  # noqa: N802 - the name is logging's
        return True

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        level = logging.getLogger(record.name).getEffectiveLevel()
        date, name = record.asctime, record.levelname
        if use_color(sys.stderr):
            styles = configuration["color_styles"]
            date = _paint(date, styles.get("log_header", ()))
            name = _paint(name, styles.get(record.levelno, ()))
        words = [date, name]
        if level < logging.DEBUG:
            words.append(str(record.threadName))
        if level <= logging.DEBUG:
            words.append(record.funcName or "?")
        return f"{' '.join(words)}: {record.message}"


class _StderrHandler(logging.Handler):
    """Writes to what ``sys.stderr`` is at that moment, unless the root logger has handlers."""

    def emit(self, record: logging.LogRecord) -> None:
        stream = sys.stderr
        if stream is None or _root_shows(record):
            return
        try:
            stream.write(self.format(record) + "\n")
            stream.flush()
        except Exception:  # noqa: BLE001 - a log call must never fail the script
            self.handleError(record)


def _root_shows(record: logging.LogRecord) -> bool:
    """Whether the record will come to a handler of the root logger."""
    current = logging.getLogger(record.name)
    while current.parent is not None:
        if not current.propagate:
            return False
        current = current.parent
    return any(not isinstance(handler, logging.NullHandler) for handler in current.handlers)


#: The logger "execo".
logger = get_logger("execo")

# What the script has set up before it imported execo is kept.
if not logger.handlers:
    _handler = _StderrHandler()
    _handler.setFormatter(_Formatter())
    logger.addHandler(_handler)
if logger.level == logging.NOTSET:
    logger.setLevel(configuration["log_level"])
