"""User code that is told of processes and their output, and the files that output goes to.

Handlers run on the threads of a small pool, one at a time and in order for each process, never on
the I/O thread: a slow handler holds up its own process (which is paused when too much output waits
for it) and nobody else. An exception in a handler is logged once, with the process it concerned;
the process is unaffected.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Union

from ._core.locks import new_lock
from ._core.stream import Descriptor, open_append, write_all

if TYPE_CHECKING:
    from .process_base import ProcessBase

__all__ = [
    "FileOutlet",
    "Outlet",
    "OutputHandler",
    "ProcessLifecycleHandler",
    "ProcessOutputHandler",
    "check_lifecycle_handlers",
    "check_output_handlers",
    "handle_process_output",
    "make_outlet",
]


class ProcessLifecycleHandler:
    """Is told when a process starts, ends and is reset. Subclass it and pass instances as
    ``lifecycle_handlers``.

    ``start`` and ``end`` run on a thread of the handler pool; ``wait()`` returns after ``end``.
    A process that cannot be started gets both. (execo 2.8.2)
    """

    def start(self, process: ProcessBase) -> None:
        """The process has started."""

    def end(self, process: ProcessBase) -> None:
        """The process has ended and all its output was delivered."""

    def reset(self, process: ProcessBase) -> None:
        """The process goes back to its initial state. Runs in the thread that calls reset()."""


class ProcessOutputHandler:
    """Gets the output of processes, as it comes or line by line. Subclass it and pass instances in
    ``stdout_handlers`` and ``stderr_handlers``; one instance may serve many processes at once.

    Override :meth:`read_line`, or :meth:`read` for what is not made of lines. (execo 2.8.2)
    """

    def read(self, process: ProcessBase, stream: int, string: str, eof: bool, error: bool) -> None:
        """A piece of output, cut anywhere between two characters.

        The default cuts it into lines for :meth:`read_line`.

        :param process: where it comes from
        :param stream: STDOUT or STDERR
        :param string: the text, decoded as UTF-8 with surrogateescape; may be empty at the end
        :param eof: True at the end of the stream, once
        :param error: True if the stream ended by an error
        """
        lines = self.__dict__.setdefault("_execo_lines", {})
        key = (process, stream)
        splitter = lines.get(key)
        if splitter is None:
            splitter = lines[key] = _LineSplitter()
        if eof:
            lines.pop(key, None)
        failure: Exception | None = None
        for call in self._calls(process, stream, splitter.split(string, eof), eof, error):
            try:
                call()
            except Exception as exc:  # noqa: BLE001 - raised below
                # A line that it cannot take must not cost it the lines behind.
                failure = failure or exc
        if failure is not None:
            raise failure

    def _calls(
        self, process: ProcessBase, stream: int, lines: list[str], eof: bool, error: bool
    ) -> Iterator[Callable[[], object]]:
        old = self.__dict__.get("_execo_old")
        if old is None:
            old = self.__dict__["_execo_old"] = _takes_five(self.read_line)
        read_line: Callable[..., object] = self.read_line
        for line in lines:
            if old:
                yield partial(read_line, process, stream, line, False, False)
            else:
                yield partial(read_line, process, stream, line.splitlines()[0])
        if old and eof:
            yield partial(read_line, process, stream, "", True, error)

    def read_line(self, process: ProcessBase, stream: int, string: str) -> None:
        r"""A line of output, without its end. Lines end as :meth:`str.splitlines` knows it:
        ``\n``, ``\r``, ``\r\n`` and the rarer ones.

        The form before 2.7, ``read_line(self, process, stream, string, eof, error)``, works as it
        did: the line keeps its end, and a last call with an empty string says ``eof``.
        """

    def reset(self, process: ProcessBase) -> None:
        """Forget the unfinished lines of ``process``. Runs in the thread that calls reset()."""
        lines = self.__dict__.get("_execo_lines", {})
        for key in [key for key in list(lines) if key[0] is process]:
            lines.pop(key, None)


class _Writable(Protocol):
    def write(self, data: Any, /) -> object: ...


OutputHandler = Union[ProcessOutputHandler, int, str, "os.PathLike[str]", _Writable, None]
"""What may stand in ``stdout_handlers``: a handler, an open descriptor, the name of a file to
append to, an object with ``write``; None is passed over."""


def check_output_handlers(entries: Iterable[OutputHandler] | None) -> list[OutputHandler]:
    """The handlers as a new list.

    :raises TypeError: for what is no handler; the message says what would be one
    """
    if entries is None:
        return []
    # A file can be iterated over, too: its lines would be taken for names.
    # So would the numbers of bytes, for descriptors.
    alone = isinstance(entries, (str, bytes)) or hasattr(entries, "write")
    alone = alone or hasattr(entries, "read")
    if alone or not isinstance(entries, Iterable):
        raise TypeError(f"output handlers are given as a list, not as {entries!r} alone")
    checked = list(entries)
    for entry in checked:
        _refuse_class(entry)
        # True and False are ints: `stdout_handlers=[True]` would write to our own stdout.
        if isinstance(entry, bool) or not (
            entry is None
            or isinstance(entry, (ProcessOutputHandler, int, str, os.PathLike))
            or hasattr(entry, "write")
            or hasattr(entry, "read")
        ):
            raise TypeError(
                f"{entry!r} is no output handler: give a ProcessOutputHandler, a descriptor "
                "(int), the name of a file, or an object with write()"
            )
    return checked


def check_lifecycle_handlers(
    entries: Iterable[Any] | None,
) -> list[Any]:
    """The handlers as a new list.

    :raises TypeError: for one handler without a list around it, a class, what is no handler
    """
    if entries is None:
        return []
    if not isinstance(entries, Iterable):
        raise TypeError(f"lifecycle handlers are given as a list, not as {entries!r} alone")
    checked = list(entries)
    for entry in checked:
        _refuse_class(entry)
        if not any(hasattr(entry, name) for name in ("start", "end", "reset")):
            raise TypeError(f"{entry!r} is no lifecycle handler: it has no start() and no end()")
    return checked


def _refuse_class(entry: object) -> None:
    if isinstance(entry, type):
        raise TypeError(f"{entry.__name__} is a class: give an instance of it as the handler")


class _LineSplitter:
    """Puts pieces together to lines, each with its end. Linear in the length of a line."""

    def __init__(self) -> None:
        self._pending: list[str] = []

    def split(self, string: str, eof: bool) -> list[str]:
        if self._pending and self._pending[-1].endswith("\r"):
            # Whether "\r" ends the line or begins "\r\n" is known only now.
            string = self._pending.pop() + string
        lines = string.splitlines(keepends=True)
        rest = ""
        if lines and not eof and (lines[-1].endswith("\r") or not _has_end(lines[-1])):
            rest = lines.pop()
        if lines and self._pending:
            lines[0] = "".join([*self._pending, lines[0]])
            self._pending = []
        if rest:
            self._pending.append(rest)
        elif eof and self._pending:
            lines.append("".join(self._pending))
            self._pending = []
        return lines


def _has_end(line: str) -> bool:
    return line.splitlines()[0] != line


def _takes_five(read_line: Callable[..., object]) -> bool:
    """Whether this is the form before 2.7, with ``eof`` and ``error``."""
    import inspect

    try:
        parameters = inspect.signature(read_line).parameters.values()
    except (TypeError, ValueError):
        return False
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return len([p for p in parameters if p.kind in kinds and p.default is p.empty]) >= 5


Outlet = Callable[["ProcessBase", int, bytes, str, bool, bool], None]
"""Takes (process, stream, bytes, the same as text, end of output, error)."""


def make_outlet(entry: object, folder: str) -> Outlet:
    """What delivers output to one entry of a list of output handlers.

    :param folder: where the name of a file begins, unless it is an absolute one
    :raises OSError: if it is the name of a file that cannot be opened
    """
    if isinstance(entry, ProcessOutputHandler):
        return _handler_outlet(entry)
    if isinstance(entry, int):
        return _descriptor_outlet(entry)
    if isinstance(entry, (str, os.PathLike)):
        return FileOutlet(os.path.join(folder, os.fspath(entry)))
    if hasattr(entry, "write"):
        return _ObjectOutlet(entry)
    return _handler_outlet(entry)


def handle_process_output(
    process: ProcessBase, stream: int, handler: object, string: str, eof: bool, error: bool
) -> None:
    """Give a piece of output to one output handler, for scripts that pass output on. (execo 2.8.2)

    In the caller's thread; blocks as long as the handler does. What it raises is the caller's.

    :param process: where the output comes from
    :param stream: STDOUT or STDERR
    :param handler: an entry of a list of output handlers; the name of a file is one to append to,
      closed after each call
    :param string: the text
    :param eof: True at the end of the stream
    :param error: True if the stream ended by an error
    :raises TypeError: for what is no output handler
    :raises OSError: if a file cannot be written
    """
    for entry in check_output_handlers([handler]):  # type: ignore[list-item]
        if entry is None:
            return
        outlet = make_outlet(entry, os.getcwd())
        try:
            data = string.encode("utf-8", "surrogateescape")
            outlet(process, stream, data, string, eof, error)
        finally:
            if isinstance(outlet, FileOutlet):
                outlet.close()


def _handler_outlet(handler: Any) -> Outlet:
    def deliver(
        process: ProcessBase, stream: int, data: bytes, text: str, eof: bool, error: bool
    ) -> None:
        handler.read(process, stream, text, eof, error)

    return deliver


def _descriptor_outlet(fd: int) -> Outlet:
    def deliver(
        process: ProcessBase, stream: int, data: bytes, text: str, eof: bool, error: bool
    ) -> None:
        write_all(fd, data)

    return deliver


class _ObjectOutlet:
    """An object with write(): text or bytes, whichever it takes."""

    def __init__(self, entry: Any) -> None:
        self._entry = entry
        self._binary = isinstance(entry, (io.RawIOBase, io.BufferedIOBase))
        if not self._binary and not isinstance(entry, io.TextIOBase):
            # Asked with nothing to lose, before the first output comes.
            try:
                entry.write("")
            except TypeError:
                self._binary = True

    def __call__(
        self, process: ProcessBase, stream: int, data: bytes, text: str, eof: bool, error: bool
    ) -> None:
        if self._binary:
            if data:
                self._entry.write(data)
        elif text:
            try:
                self._entry.write(text)
            except UnicodeEncodeError:
                # What was no UTF-8 is shown as \xff, what has no place in the encoding as \u20ac.
                encoding = getattr(self._entry, "encoding", None) or "utf-8"
                whole = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
                self._entry.write(whole.encode(encoding, "backslashreplace").decode(encoding))
        flush = getattr(self._entry, "flush", None)
        if flush is not None:
            flush()


class FileOutlet:
    """A file by its name: opened for appending, one descriptor for all processes that use it."""

    _files: ClassVar[dict[str, tuple[Descriptor, int]]] = {}
    _lock = new_lock()

    def __init__(self, path: str) -> None:
        self._path = os.path.normpath(path)
        # Opened outside of the lock: a FIFO, or a file on a dead server, may hold it up for ever.
        mine: Descriptor | None = None
        if self._path not in self._files:
            mine = Descriptor(open_append(self._path))
        with FileOutlet._lock:
            file, users = self._files.get(self._path, (mine, 0))
            if file is None or not file.open:  # closed meanwhile, or the parent's before a fork
                file = mine = mine or Descriptor(open_append(self._path))
                users = 0
            self._files[self._path] = (file, users + 1)
        if mine is not None and mine is not file:
            mine.close()
        self._file: Descriptor | None = file

    def __call__(
        self, process: ProcessBase, stream: int, data: bytes, text: str, eof: bool, error: bool
    ) -> None:
        if self._file is not None:
            write_all(self._file.fd, data)

    def close(self) -> None:
        """Close the file, if no other process uses it any more."""
        if self._file is None:
            return
        self._file = None
        with FileOutlet._lock:
            file, users = self._files.pop(self._path)
            if users > 1:
                self._files[self._path] = (file, users - 1)
            else:
                file.close()
