"""A file of lines of JSON that one writer appends to, and that is readable whatever befalls it.

What was written stays. A writer that is killed in the middle of a line leaves a *torn* one; the
next one closes it, and it counts as not written.
"""

from __future__ import annotations

import errno
import fcntl
import io
import json
import os
import threading
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

__all__ = ["BusyError", "LineFile", "encode_line", "read_lines"]

_TORN = b'{"do":"torn"}'

encode_line = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode
"""An object as one line, pure ASCII. One within itself is a RecursionError."""


class BusyError(OSError):
    """Another writer has the file."""


class LineFile:
    """The end of the file. :meth:`append` may be called from any thread.

    :param path: the file, made when it is missing
    :raises BusyError: another one writes there now, in this process or in another
    :raises OSError: it cannot be opened
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._mutex = threading.Lock()
        self._dirty = False
        self._file = io.FileIO(path, "a+")
        try:
            _take(self._file)
            _close_in_children(self)
            size = self._file.seek(0, os.SEEK_END)
            if size:
                self._file.seek(size - 1)
            self._torn = bool(size) and self._file.read(1) != b"\n"
        except BaseException:
            self._file.close()
            raise

    def append(self, lines: Iterable[str]) -> None:
        """Add lines; they survive the end of this process when it returns. Blocks as long as the
        system takes to copy them.

        :raises OSError: they cannot be written, a full disk for one; none of them counts
        """
        data = "".join(f"{line}\n" for line in lines).encode("ascii")
        with self._mutex:
            if self._torn:
                data = b"\n" + _TORN + b"\n" + data
            written = self._file.write(data)
            if written < len(data):
                self._file.truncate(self._file.seek(0, os.SEEK_END) - written)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
            self._torn = False
            self._dirty = True

    @property
    def dirty(self) -> bool:
        """Whether something was appended since the last :meth:`sync`."""
        return self._dirty

    def sync(self) -> None:
        """Have what was appended survive a power cut, too. Blocks for as long as the disk takes.

        :raises OSError: the disk has failed
        """
        if self._dirty:
            self._dirty = False
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Give it back; :meth:`sync` before."""
        self._file.close()


_open: weakref.WeakSet[LineFile] = weakref.WeakSet()
_hooked = False


def _close_in_children(file: LineFile) -> None:
    """A forked child shares the lock, and would hold it when this process is gone."""
    global _hooked
    if not _hooked:
        _hooked = True
        os.register_at_fork(after_in_child=_close_all)
    _open.add(file)


def _close_all() -> None:
    for file in list(_open):
        file.close()


def _take(file: io.FileIO) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        raise BusyError(exc.errno, "somebody else writes there now", str(file.name)) from exc
    except OSError as exc:
        if exc.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL):
            raise  # where there are no locks, nobody can be kept out


def read_lines(
    path: Path, faults: list[str], name: str | None = None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """What was appended, without a torn end, and without locks: the file may be a copy, on a disk
    that cannot be written. A missing file has no lines.

    :param faults: is told of lines that are none, by file and line; they are passed over
    :param name: what they call the file
    :returns: the number of each line, from 1 on, and what it says
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return
    lines = data.split(b"\n")
    lines.pop()  # nothing, or a torn line
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            if not isinstance(record, dict):
                raise ValueError("not an object")
        except (ValueError, RecursionError) as exc:
            if number == len(lines) or lines[number] != _TORN:
                faults.append(f"{name or path.name}, line {number}: {exc}; it is passed over")
            continue
        if line != _TORN:
            yield number, record
