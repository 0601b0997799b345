"""What Put sends: local files, found once for all hosts and read piece by piece for each.

A file is opened for each piece and closed again: a thousand hosts that receive one large file at
their own pace share the system's cache of it, and hold neither memory nor descriptors.
"""

from __future__ import annotations

import errno
import glob
import os
import stat
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from execo.log import logger

from .texts import END_NAME

__all__ = ["BLOCK", "Package", "expanded"]

BLOCK = 256 * 1024
"""Bytes that are read and sent at a time; what is not larger is read once for all hosts."""

_WRITING = 0.05
"""Seconds after which a write that has begun shows in the size of the file."""

_RECORD = 512
_END_OF_TAR = b"\0" * 2 * _RECORD
_END = _RECORD + len(_END_OF_TAR)
_LEADS_NOWHERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})


@dataclass(frozen=True, slots=True)
class _Item:
    """A file or folder to send, as it was found."""

    path: str
    name: str  # in the archive
    status: os.stat_result

    @property
    def size(self) -> int:
        return self.status.st_size if stat.S_ISREG(self.status.st_mode) else 0

    @property
    def is_locked(self) -> bool:
        """It is a folder that its owner may not write."""
        mode = self.status.st_mode
        return stat.S_ISDIR(mode) and (mode & stat.S_IRWXU) != stat.S_IRWXU

    def pieces(self) -> Iterator[bytes]:
        """The bytes of the file, as many as it had when it was found.

        :raises OSError: it cannot be read, has changed otherwise than by growing, or is another
          file now
        """
        done = 0
        while done < self.size:
            with open(self.path, "rb", buffering=0) as file:
                file.seek(done)
                data = file.read(min(BLOCK, self.size - done))
                # After the read: what was read before the file changed is from before.
                self._check(os.fstat(file.fileno()))
            if not data:
                raise OSError(f"{self.path}: it became shorter while it was sent")
            done += len(data)
            yield data

    def _check(self, now: os.stat_result) -> None:
        was = self.status
        if _identity(now) != _identity(was):
            raise OSError(f"{self.path}: another file took its place while it was sent")
        if now.st_size < was.st_size:
            lengths = f"{now.st_size} of {was.st_size} bytes"
            raise OSError(f"{self.path}: it became shorter while it was sent: {lengths}")
        # Also another file to which the system gave the number of the one that was there.
        if _times(now) != _times(was) and now.st_size == was.st_size:
            # In the middle of a write that makes it longer, the system has noted the time and not
            # the size yet.
            threading.Event().wait(_WRITING)
            if os.stat(self.path).st_size == was.st_size:
                raise OSError(f"{self.path}: it changed while it was sent")

    def header(self, mode: int) -> bytes:
        """Its entry in a tar archive. GNU's format, which every tar reads."""
        import tarfile  # only for folders, and it takes time to load

        entry = tarfile.TarInfo(self.name)
        entry.mode = mode & 0o7777
        entry.mtime = int(self.status.st_mtime)
        entry.size = self.size
        if stat.S_ISDIR(self.status.st_mode):
            entry.type = tarfile.DIRTYPE
        return entry.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")


class Package:
    """Local files and folders, found when this is made, on their way to hosts. Blocks for as long
    as the file system takes; its methods may be called from any thread.

    - ``single``: it is one regular file, which is sent as it is; else it is sent as a tar stream
    - ``name``, ``size``, ``mode``, ``mtime``: of that one
    - ``paths``: of what was named; ``total``: bytes that are to be sent; ``content``: those of the
      files alone
    - ``left_out``: the names, as they would be stored, of what is neither file nor folder
    - ``ready``: all that is to be sent, if it is small

    :param names: names of files and folders, after substitution: ``~`` is the home folder; what
      does not exist as it is written is expanded as a pattern
    :raises OSError: something is missing, cannot be read, or is neither file nor folder
    :raises ValueError: two of them have the same name
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._skipped: list[str] = []
        self.left_out: list[str] = []
        self._items = list(self._find(expanded(names)))
        first = self._items[0]
        self.single = len(self._items) == 1 and stat.S_ISREG(first.status.st_mode)
        self.paths = [item.path for item in self._items if "/" not in item.name]
        self.content = sum(item.size for item in self._items)
        self.total = self.content if self.single else sum(map(_in_tar, self._items)) + _END
        self.name, self.size = first.name, first.size
        self.mode, self.mtime = first.status.st_mode & 0o7777, first.status.st_mtime
        self.ready: bytes | None = None
        if sum(item.size + 512 for item in self._items) <= BLOCK:
            self.ready = b"".join(self._blocks())
        if self._skipped:
            logger.warning(
                "not put: %d that are neither files nor folders, %r the first",
                len(self._skipped),
                self._skipped[0],
            )

    def blocks(self) -> Iterator[bytes]:
        """All that is to be sent, in pieces of about BLOCK bytes.

        :raises OSError: see :meth:`_Item.pieces`
        """
        if self.ready is None:
            return self._blocks()
        return iter([self.ready] if self.ready else [])

    def _blocks(self) -> Iterator[bytes]:
        return self._items[0].pieces() if self.single else _joined(self._tar())

    def _tar(self) -> Iterator[bytes]:
        locked: list[_Item] = []
        for item in self._items:
            mode = item.status.st_mode
            if item.is_locked:
                # Not every tar can fill a folder that may not be written: its mode comes last.
                locked.append(item)
                mode |= stat.S_IRWXU
            yield item.header(mode)
            yield from item.pieces()
            yield b"\0" * (-item.size % 512)
        for item in reversed(locked):
            yield item.header(item.status.st_mode)
        import tarfile

        yield tarfile.TarInfo(END_NAME).tobuf(tarfile.GNU_FORMAT) + _END_OF_TAR

    def _find(self, paths: Iterable[str]) -> Iterator[_Item]:
        seen: dict[str, str] = {}
        for path in paths:
            whole = os.path.abspath(path)
            name = os.path.basename(whole)
            if not name:
                raise ValueError(f"{path!r} has no name of its own to be stored under")
            if seen.setdefault(name, whole) != whole:
                raise ValueError(f"{seen[name]!r} and {whole!r} would both be stored as {name!r}")
            found = os.stat(whole)
            if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
                raise OSError(f"{path!r} is neither a file nor a folder")
            if not os.access(whole, os.R_OK):
                raise PermissionError(13, os.strerror(13), path)
            yield from self._walk(_Item(whole, name, found))

    def _walk(self, top: _Item) -> Iterator[_Item]:
        """``top`` and all that is in it, folders before what they hold."""
        # Not by recursion: a tree may be deeper than Python's stack.
        waiting: list[tuple[_Item, tuple[Any, ...]]] = [(top, ())]
        while waiting:
            item, above = waiting.pop()
            yield item
            if not stat.S_ISDIR(item.status.st_mode):
                continue
            above = (_identity(item.status), above)
            with os.scandir(item.path) as listing:
                entries = sorted(listing, key=lambda entry: entry.name, reverse=True)
            for entry in entries:
                try:
                    found = os.stat(entry.path)  # of what a link leads to, as scp does
                except OSError as exc:
                    if exc.errno not in _LEADS_NOWHERE or not entry.is_symlink():
                        raise
                    self._skip(entry.path, item.name)
                    continue
                if entry.is_symlink() and _is_in(_identity(found), above):
                    raise OSError(f"{entry.path!r} is a link to a folder that it is in")
                if stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode):
                    waiting.append((_Item(entry.path, f"{item.name}/{entry.name}", found), above))
                else:
                    self._skip(entry.path, item.name)

    def _skip(self, path: str, inside: str) -> None:
        self._skipped.append(path)
        self.left_out.append(f"{inside}/{os.path.basename(path)}")


def _in_tar(item: _Item) -> int:
    """Bytes that it takes in an archive."""
    # tarfile tells folders by a slash at the end. A name of more than 100 bytes is an entry of its
    # own, with a NUL behind it (GNU's format).
    length = len(item.name.encode("utf-8", "surrogateescape")) + stat.S_ISDIR(item.status.st_mode)
    header = _RECORD if length <= 100 else 2 * _RECORD + _padded(length + 1)
    return header * (2 if item.is_locked else 1) + _padded(item.size)


def _padded(size: int) -> int:
    return size + -size % _RECORD


def _times(status: os.stat_result) -> tuple[int, int]:
    return status.st_mtime_ns, status.st_ctime_ns


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _is_in(identity: tuple[int, int], above: tuple[Any, ...]) -> bool:
    while above:
        found, above = above
        if found == identity:
            return True
    return False


def expanded(names: Sequence[str]) -> list[str]:
    """The paths that the names stand for, each once, in order."""
    paths: dict[str, None] = {}
    for name in names:
        path = os.path.expanduser(name)
        found = [path]
        if not os.path.lexists(path) and glob.has_magic(path):
            found = sorted(glob.glob(path))
            if not found:
                raise FileNotFoundError(2, "no local file matches", name)
        paths.update(dict.fromkeys(found))
    return list(paths)


def _joined(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Small pieces put together: thousands of small files are not as many messages."""
    waiting: list[bytes] = []
    size = 0
    for piece in pieces:
        waiting.append(piece)
        size += len(piece)
        if size >= BLOCK:
            yield b"".join(waiting)
            waiting, size = [], 0
    if waiting:
        yield b"".join(waiting)
