"""A file of lines of JSON that many processes append to, and that outlives any of them.

Each reads on from where it has read to, and appends, under one lock. A line that was appended is
there for everybody, whatever becomes of who wrote it; it is written to the disk within a second. A
writer that is killed in the middle of a line leaves a *torn* one. The next writer ends it with
``#torn``, with which no JSON ends: so it never counts, however much of it was written. Nothing is
ever taken away.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import io
import json
import os
import struct
import sys
import threading
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Self, TypeVar

from execo.log import logger

from .mounts import why_lockless

__all__ = ["Journal", "JournalError"]

SYNC = 1.0
"""Seconds that what was appended may stay in memory: a power cut loses no more."""

CHUNK = 1 << 20
"""Bytes that are read at once: a journal of millions of lines need not fit into memory."""

TORN = b"#torn"

T = TypeVar("T")


class JournalError(OSError):
    """The journal cannot be used as it is: says which file, and why."""


class Journal:
    """One process's view of the file.

    :param path: the file, made when it is missing
    :param look: only read it, without locks; it may be missing. So does who may not write there
    :param tell: is given what is wrong with a line; it is logged without
    :raises OSError: it cannot be opened, or its locks would not hold (NFS with ``nolock``)
    """

    def __init__(
        self, path: Path, *, look: bool = False, tell: Callable[[str], object] = logger.warning
    ) -> None:
        self.path = Path(os.path.abspath(path))
        self.look = look
        self.why_look: OSError | None = None
        """What keeps this process from writing, if it would."""
        self.line = 0
        """The number of the first line of what :meth:`read` gave last."""
        self.forked = 0
        """How often a child was forked off, on the way from who has made this to here."""
        self._tell = tell
        self._name = str(self.path)
        self._lines = 0
        self._read_to = 0
        self._size = 0
        self._torn = False
        self._closed = False
        self._mutex = threading.RLock()
        self._inside = 0
        self._locked = False
        self._file: io.FileIO | None = None
        self._open()
        self._same = None if self._file is None else _identity(os.fstat(self._file.fileno()))
        _watched().add(self)

    def _open(self) -> None:
        try:
            file = self._opened()
        except FileNotFoundError:
            if not self.look:
                raise
            return
        self._lock, self._unlock = _lock_calls(file.fileno())
        self._sync = _Sync(file, self.path)
        self._file = file

    def _opened(self) -> io.FileIO:
        folder = self.path.parent
        if not self.look:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                lockless = why_lockless(str(folder))
                if not lockless:
                    return io.FileIO(self._name, "a+")
            except OSError as exc:
                if exc.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                    raise
                if not folder.is_dir():
                    raise
                self.look, self.why_look = True, exc
            else:
                raise JournalError(
                    errno.ENOLCK,
                    f"{lockless}: locks would not hold between machines and combinations would be"
                    " lost; use another folder or mount it with locks",
                    str(folder),
                )
        return io.FileIO(self._name, "r")

    def close(self) -> None:
        """Write what is in memory to the disk, and give the file back. May block for that long."""
        with self._mutex:
            self._closed = True
            if not self._inside:  # else run() does it, in the end
                self._give_back()

    def _give_back(self) -> None:
        if self._file is not None and not self._file.closed:
            self._sync.end()
            self._file.close()

    @property
    def closed(self) -> bool:
        return self._closed

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _forget(self) -> None:
        """In a forked child. The open file is shared with the parent, and so is its lock: they
        would not exclude each other, and a lock of a parent that is killed would live on here."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.close()
        self._mutex = threading.RLock()
        self._inside = 0
        self._locked = False
        self.forked += 1

    # -- the lock ------------------------------------------------------------------------------

    def run(self, work: Callable[[], T]) -> T:
        """Call ``work`` while nobody else reads or writes, in any process, nor in another thread
        of this one. Blocks until it is one's turn. ``work`` may call it again; so may a signal
        handler, see :attr:`nested`.

        :raises JournalError: it has been closed, or it cannot be locked
        """
        if self._closed:
            raise JournalError(errno.EBADF, "it has been closed", self._name)
        with self._mutex:
            # A signal handler may raise after any call: none stands between what is done and the
            # try that undoes it, nor before what undoes it.
            self._inside += 1
            try:
                if not self._locked:
                    self._take_lock()
                return work()
            finally:
                self._inside -= 1
                if not self._inside:
                    self._locked = False
                    if self._file is not None and not self.look and not self._file.closed:
                        self._unlock()  # harmless if it was not locked
                    if self._closed:
                        self._give_back()

    def _take_lock(self) -> None:
        if self._file is not None and self._file.closed:
            self._open()
        if self.look:
            return  # it reads whole lines, and those stay
        try:
            self._lock()
        except OSError as exc:
            raise JournalError(
                exc.errno, f"it cannot be locked ({exc}): use another folder", self._name
            ) from exc
        self._locked = True

    @property
    def nested(self) -> bool:
        """Within :meth:`run`: whether that was called within another one."""
        return self._inside > 1

    # -- lines -----------------------------------------------------------------------------------

    def rewind(self) -> None:
        """Read from the beginning again."""
        self._read_to = self._lines = 0

    @property
    def read_to(self) -> int:
        """Where the next :meth:`read` begins, in bytes."""
        return self._read_to

    def read(self, upto: int | None = None) -> list[Any]:
        """Some of what was appended since the last time, by anybody and by this process itself,
        None in place of a line that is damaged. Empty: that was all.

        :param upto: no further, in bytes
        :raises JournalError: the file was removed, replaced or cut while in use
        """
        if self._file is None:
            return []
        self._check()
        end = self._size if upto is None else upto
        data = self._piece(end)
        self._torn = bool(data) and self._read_to + len(data) >= end and not data.endswith(b"\n")
        whole = data.rfind(b"\n") + 1
        if not whole:
            return []
        lines = data[:whole].split(b"\n")
        lines.pop()
        self.line = self._lines + 1
        self._lines += len(lines)
        self._read_to += whole
        return self._parsed(lines)

    def _check(self) -> None:
        try:
            found = os.stat(self._name)
        except FileNotFoundError:
            raise JournalError(errno.ENOENT, "it was removed while in use", self._name) from None
        self._size = found.st_size
        if _identity(found) != self._same:
            raise JournalError(
                errno.ESTALE, "it was replaced by another one while in use", self._name
            )
        if self._size < self._read_to:
            raise JournalError(errno.ESTALE, "it was cut while in use", self._name)

    def _piece(self, end: int) -> bytes:
        """Up to ``end``, if it is long only a part of it, but with the end of a line."""
        if self._file is None or end == self._read_to:
            return b""
        size = CHUNK
        while True:
            self._file.seek(self._read_to)
            data = self._file.read(min(size, end - self._read_to))
            if self._read_to + len(data) >= end or b"\n" in data or len(data) < size:
                return data
            size *= 16

    def _parsed(self, lines: list[bytes]) -> list[Any]:
        try:
            # All at once: four times as fast as one after the other.
            records: list[Any] = json.loads(b"[" + b",".join(lines) + b"]")
            if len(records) == len(lines) and None not in records:
                return records
        except (ValueError, RecursionError):
            pass
        return [self._one(line, number) for number, line in enumerate(lines, self.line)]

    def _one(self, line: bytes, number: int) -> Any:
        try:
            record = json.loads(line)
            if record is None:
                raise ValueError("it is null")
        except (ValueError, RecursionError) as exc:
            if not line.endswith(TORN):
                self.complain(number, f"not a line of a journal ({exc})")
            return None
        return record

    def complain(self, number: int, fault: str) -> None:
        """Tell what is wrong with a line."""
        self._tell(f"{self.path}, line {number}: {fault}; it is passed over")

    def append(self, record: Any) -> None:
        """Add a line, when all was read under the same lock. It is there for everybody when this
        returns.

        :raises OSError: it cannot be written, a full disk for one. It does not count
        """
        if self.look or self._file is None:
            why = self.why_look
            raise JournalError(
                errno.EROFS if why is None else why.errno,
                "it can only be looked at" + ("" if why is None else f": {why.strerror}"),
                self._name,
            ) from why
        data = json.dumps(record, separators=(",", ":")).encode("ascii") + b"\n"
        if self._torn:
            data = TORN + b"\n" + data
        written = self._file.write(data)
        if written < len(data):
            # It was not said to be written, and must not count.
            self._file.truncate(self._size)
            raise JournalError(errno.ENOSPC, "no space left for another line", self._name)
        self._lines += 1 + self._torn
        self._torn = False
        self._size += written
        self._read_to = self._size
        self._sync.wanted()

    def changed(self) -> float:
        """When something was appended for the last time, by the clock of the file system."""
        return 0.0 if self._file is None else os.fstat(self._file.fileno()).st_mtime


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


@functools.cache
def _watched() -> weakref.WeakSet[Journal]:
    journals: weakref.WeakSet[Journal] = weakref.WeakSet()

    def forget() -> None:
        for journal in list(journals):
            journal._forget()

    os.register_at_fork(after_in_child=forget)
    return journals


def _lock_calls(fd: int) -> tuple[Callable[[], object], Callable[[], object]]:
    """What takes the lock, and what gives it back.

    It is that of the open file rather than of the process: two that one process has opened exclude
    each other, and closing the one does not free the other's.
    """
    number = getattr(fcntl, "F_OFD_SETLKW", None) if sys.platform == "linux" else None
    if number is None:
        return partial(fcntl.flock, fd, fcntl.LOCK_EX), partial(fcntl.flock, fd, fcntl.LOCK_UN)
    # struct flock begins with the kind and with what the range counts from (SEEK_SET, 0), two
    # shorts, on every machine. All else is 0, the whole file, however wide and wherever it is.
    take, give = (struct.pack("hh60x", one, 0) for one in (fcntl.F_WRLCK, fcntl.F_UNLCK))
    return partial(fcntl.fcntl, fd, number, take), partial(fcntl.fcntl, fd, number, give)


class _Sync:
    """Writes a file to the disk ``SYNC`` seconds after something was appended, on a thread that
    ends when there is nothing to do."""

    def __init__(self, file: io.FileIO, path: Path) -> None:
        self._file = file
        self._path = path
        self._condition = threading.Condition()
        self._dirty = False
        self._ending = False

    def wanted(self) -> None:
        if self._dirty:
            return
        self._dirty = True
        try:
            threading.Thread(target=self._run, name="execo-journal", daemon=True).start()
        except RuntimeError:  # the interpreter ends, or there are too many threads
            self._dirty = False
            self._write()
        except BaseException:
            self._dirty = False
            raise

    def _run(self) -> None:
        with self._condition:
            self._condition.wait_for(lambda: self._ending, SYNC)
            self._dirty = False
            if not self._ending:
                self._write()

    def end(self) -> None:
        with self._condition:
            self._ending = True
            self._condition.notify_all()
            if self._dirty:
                self._write()

    def _write(self) -> None:
        try:
            os.fsync(self._file.fileno())
        except OSError as exc:
            logger.error("%s: a power cut may lose what was written last: %s", self._path, exc)
