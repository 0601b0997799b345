"""A file of lines of JSON that many processes append to, and that outlives any of them.

Each reads on from where it has read to, and appends, under one lock. A line that was appended is
there for everybody, whatever becomes of who wrote it; the system writes it to the disk within a
second. A writer that is killed in the middle of a line leaves a *torn* one, which the next writer
closes and marks: it counts as not written. Nothing is ever taken away.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import json
import os
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from execo.log import logger

__all__ = ["Journal", "JournalError", "refuse_mount"]

SYNC = 1.0
"""Seconds that what was appended may stay in memory: a power cut loses no more."""

_TORN = b'{"do":"torn"}\n'

_LOCKLESS = {
    "nfs": ("nolock", "local_lock=all", "local_lock=posix"),
    "nfs4": ("nolock", "local_lock=all", "local_lock=posix"),
}
"""Kind of file system -> options with which locks hold on one machine alone."""

_NEVER = ("fuse.sshfs",)
"""Kinds of file systems whose locks hold on one machine alone, always."""


class JournalError(OSError):
    """The journal cannot be used as it is: says which file, and why."""


@dataclass
class Journal:
    """One process's view of the file. Its methods are for whoever holds the lock, see
    :meth:`locked`; threads of a process exclude one another by it, too.

    :param path: the file, made when it is missing
    """

    path: Path

    def __post_init__(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        refuse_mount(self.path.parent)
        self._read_to = 0
        self._lines = 0
        self._torn = False
        self.faults: list[str] = []
        self._open()

    def _open(self) -> None:
        self._owner = os.getpid()
        self._mutex = threading.RLock()
        self._file = io.FileIO(self.path, "a+")
        self._sync = _Sync(self._file)

    def close(self) -> None:
        """Write what is in memory to the disk, and give the file back. May block for that long."""
        if self._owner != os.getpid():
            self._file.close()
            return
        with self._mutex:
            if not self._file.closed:
                self._sync.end()
                self._file.close()

    @property
    def closed(self) -> bool:
        return self._file.closed

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Nobody else reads or writes meanwhile, in any process. Blocks until it is one's turn."""
        if self._file.closed:
            raise JournalError(errno.EBADF, "it has been closed", str(self.path))
        if self._owner != os.getpid():
            # A forked child shares the open file with its parent, and so its lock: they would not
            # exclude each other.
            self._file.close()
            self._open()
        with self._mutex:
            _lock(self._file.fileno(), fcntl.F_WRLCK)
            try:
                yield
            finally:
                _lock(self._file.fileno(), fcntl.F_UNLCK)

    def read(self) -> list[Any]:
        """What was appended since the last time, by anybody, and by this process itself."""
        data = self._rest()
        end = data.rfind(b"\n") + 1
        self._torn = end < len(data)
        if not end:
            return []
        first, self._read_to = self._lines, self._read_to + end
        lines = data[:end].split(b"\n")
        lines.pop()
        self._lines += len(lines)
        try:
            # All at once: four times as fast as one after the other.
            records = json.loads(b"[" + b",".join(lines) + b"]")
            if len(records) == len(lines):
                return records  # type: ignore[no-any-return]
        except ValueError:
            pass
        return list(self._one_by_one(lines, first))

    def _rest(self) -> bytes:
        if os.fstat(self._file.fileno()).st_nlink == 0:
            raise JournalError(errno.ENOENT, "it was removed while in use", str(self.path))
        self._file.seek(self._read_to)
        return self._file.readall()

    def _one_by_one(self, lines: list[bytes], first: int) -> Iterator[Any]:
        for number, line in enumerate(lines):
            try:
                yield json.loads(line)
            except ValueError as exc:
                torn = number + 1 < len(lines) and lines[number + 1] + b"\n" == _TORN
                if not torn:
                    self._complain(first + number + 1, exc)

    def _complain(self, number: int, fault: ValueError) -> None:
        text = f"{self.path}, line {number}: not a line of a journal ({fault}); it is passed over"
        self.faults.append(text)
        logger.warning(text)

    def append(self, *records: Any) -> None:
        """Add these lines, after a :meth:`read` under the same lock. They are there for everybody
        when it returns.

        :raises OSError: they cannot be written, a full disk for one. None of them counts
        """
        text = "".join(json.dumps(record, separators=(",", ":")) + "\n" for record in records)
        data = text.encode("ascii")
        if self._torn:
            data = b"\n" + _TORN + data
        written = self._file.write(data)
        if written < len(data):
            # A part of a line, which the next writer closes. What stands before it was not said to
            # be written, and must not count either.
            self._file.truncate(self._file.seek(0, os.SEEK_END) - written)
            raise JournalError(errno.ENOSPC, "no space left for another line", str(self.path))
        if self._torn:
            self._lines += 2
            self._torn = False
            self._read_to = self._file.seek(0, os.SEEK_END)
        else:
            self._read_to += written
        self._lines += len(records)
        self._sync.wanted()


def _lock(fd: int, kind: int) -> None:
    """Of the open file rather than of the process: two that one process has opened exclude each
    other, and closing the one does not free the other's."""
    number = getattr(fcntl, "F_OFD_SETLKW", None)
    if number is None:  # not Linux
        fcntl.flock(fd, fcntl.LOCK_UN if kind == fcntl.F_UNLCK else fcntl.LOCK_EX)
        return
    fcntl.fcntl(fd, number, struct.pack("hhqqi4x", kind, os.SEEK_SET, 0, 0, 0))


class _Sync:
    """Writes a file to the disk ``SYNC`` seconds after something was appended, on a thread that
    ends when there is nothing to do."""

    def __init__(self, file: io.FileIO) -> None:
        self._file = file
        self._condition = threading.Condition()
        self._dirty = False
        self._ending = False

    def wanted(self) -> None:
        if self._dirty:
            return
        self._dirty = True
        # At the end of the interpreter no thread can be started; the file is closed soon.
        with contextlib.suppress(RuntimeError):
            threading.Thread(target=self._run, name="execo-journal", daemon=True).start()

    def _run(self) -> None:
        with self._condition:
            self._condition.wait_for(lambda: self._ending, SYNC)
            self._dirty = False
            if not self._ending:
                os.fsync(self._file.fileno())

    def end(self) -> None:
        with self._condition:
            self._ending = True
            self._condition.notify_all()
            with contextlib.suppress(OSError):
                os.fsync(self._file.fileno())


def refuse_mount(folder: Path, mounts: str | None = None) -> None:
    """Raise JournalError if ``folder`` is where locks do not hold between machines.

    :param mounts: for tests: the text of ``/proc/self/mountinfo``
    """
    if mounts is None:
        try:
            mounts = Path("/proc/self/mountinfo").read_text(errors="surrogateescape")
        except OSError:
            return  # not Linux
    found = _mount_of(os.path.realpath(folder), mounts)
    if found is None:
        return
    point, kind, options = found
    bad = [option for option in _LOCKLESS.get(kind, ()) if option in options]
    if bad or kind in _NEVER:
        why = f"the option {bad[0]}" if bad else f"a file system of kind {kind}"
        raise JournalError(
            errno.ENOLCK,
            f"{point} is mounted with {why}: locks would not hold between machines and"
            " combinations would be lost; use another folder or mount it with locks",
            str(folder),
        )


def _mount_of(folder: str, mounts: str) -> tuple[str, str, list[str]] | None:
    """Where the file system of a folder is mounted, its kind and its options."""
    best: tuple[str, str, list[str]] | None = None
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        fields, about = before.split(" "), after.split(" ")
        if len(fields) < 6 or len(about) < 3:
            continue
        point = fields[4].encode("latin-1", "surrogateescape").decode("unicode_escape")
        inside = folder == point or folder.startswith(point.rstrip("/") + "/")
        # The last of equal ones lies on top.
        if inside and (best is None or len(point) >= len(best[0])):
            best = point, about[0], [*fields[5].split(","), *about[2].split(",")]
    return best
