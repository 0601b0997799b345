"""What Get does with the tar archives of a host: files and folders below one place, nothing else.

Archives follow one another. Each of their blocks is a header, part of a file, or all zeros; what is
anything else is damaged. (tarfile's ``ignore_zeros`` would skip it without a word.)
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
import tarfile
from collections.abc import Callable, Iterator
from typing import IO

from execo.log import logger

__all__ = ["Cancelled", "Tree", "followed", "is_special", "open_private", "open_special"]

_PIECE = 1024 * 1024
_BLOCK = 512

_EXTENSIONS = frozenset({b"L", b"K", b"x", b"g", b"X"})
_LONGEST_EXTENSION = 1024 * 1024
"""Bytes of a name or of attributes, which are read into memory. Linux takes paths of 4096."""

_MOST_LINKS = 40
"""Links that are followed one after the other, as the system does."""

_ATTRIBUTES = (b"x", b"g", b"X")
_TYPE = 156
"""Where a header says what follows it."""

_LONGEST_NUMBER = 1024
"""Digits in a row: more than the name of a file can have."""

_LATEST = 2.0**62
"""Seconds since the epoch: the system takes no more than 63 bits."""

_DEEPEST = 256
"""Folders in one another. Python removes a tree by recursion, which has a limit."""


class Cancelled(Exception):
    """It was told to stop."""


class _Member(tarfile.TarInfo):
    """A header whose sizes can be trusted to be no trap."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Member:
        member = super().frombuf(buf, encoding, errors)
        if member.size < 0 or (member.type in _EXTENSIONS and member.size > _LONGEST_EXTENSION):
            raise ValueError(f"the archive it sent has a header of {member.size} bytes")
        return member

    @classmethod
    def fromtarfile(cls, tarfile: tarfile.TarFile) -> _Member:
        _check_attributes(tarfile)
        member = super().fromtarfile(tarfile)
        if not abs(member.mtime) < _LATEST:
            raise ValueError(f"it sent {member.name!r} with a time that cannot be: {member.mtime}")
        return member


def _check_attributes(archive: tarfile.TarFile) -> None:
    """Refuse attributes with a long row of digits: the regular expression with which tarfile looks
    for a few words in them would take minutes."""
    file = archive.fileobj
    assert file is not None
    place = file.tell()
    header = file.read(_BLOCK)
    if header[_TYPE : _TYPE + 1] in _ATTRIBUTES:
        text = file.read(_LONGEST_EXTENSION + _BLOCK)
        row = max(map(len, re.split(rb"[^0-9]+", text)))
        if row > _LONGEST_NUMBER:
            raise ValueError(f"the archive it sent has attributes with {row} digits in a row")
    file.seek(place)


def _members(archive: tarfile.TarFile, file: IO[bytes]) -> Iterator[tarfile.TarInfo]:
    """What is in the archives in ``file``.

    :raises tarfile.TarError: they are damaged
    """
    offset = 0
    while True:
        file.seek(offset)
        block = file.read(_BLOCK)
        if not block:
            return
        if len(block) == _BLOCK and not any(block):
            offset += _BLOCK
            continue
        file.seek(offset)
        archive.offset = offset
        yield _Member.fromtarfile(archive)
        if archive.offset <= offset:
            raise tarfile.ReadError("it leads back to its beginning")
        offset = archive.offset


class Tree:
    """Archives, unpacked in a folder that nobody else uses.

    :param folder: an empty folder
    :param check: called for each file and folder; what it raises ends the work
    """

    def __init__(self, folder: str, check: Callable[[], object]) -> None:
        self._folder = folder
        self._check = check
        # Set at the end, the deepest first: what is to be moved must be writable until then.
        self._folders: dict[str, tarfile.TarInfo] = {}
        self._skipped: list[str] = []

    def unpack(self, file: IO[bytes]) -> None:
        """Make files and folders of the archives in ``file``, which follow one another.

        :raises OSError: they are damaged, or cannot be stored
        :raises ValueError: they hold what nobody has asked for
        """
        try:
            with tarfile.TarFile(
                fileobj=file,
                tarinfo=_Member,
                errorlevel=2,
                encoding="utf-8",
                errors="surrogateescape",
            ) as archive:
                for member in _members(archive, file):
                    self._check()
                    self._unpack_one(archive, member)
        except (tarfile.TarError, RecursionError) as exc:
            raise OSError(f"the archive it sent is damaged: {exc}") from exc
        if self._skipped:
            logger.warning(
                "not got: %d that are neither files nor folders, %r the first",
                len(self._skipped),
                self._skipped[0],
            )

    def _unpack_one(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        parts = [part for part in member.name.split("/") if part not in ("", ".")]
        if not parts or ".." in parts:
            raise ValueError(f"it sent a name that leads elsewhere: {member.name!r}")
        if len(parts) > _DEEPEST:
            raise ValueError(f"it sent a path of more than {_DEEPEST} folders: {parts[0]!r}/...")
        if member.issparse():
            # Its size is a mere number: a few bytes would fill the disk.
            raise ValueError(f"it sent a file with holes, which is not taken: {member.name!r}")
        path = os.path.join(self._folder, *parts)
        if not member.isdir() and os.path.lexists(path):
            name = "/".join(parts)
            raise ValueError(
                f"it sent {name!r} twice: two of the names stand for it, or for files of the same "
                "name; fetch them one by one, to places of their own"
            )
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        if member.isdir():
            os.makedirs(path, mode=0o700, exist_ok=True)
            self._folders["/".join(parts)] = member
        elif member.islnk():
            self._copy_link(member, path)
        elif member.isreg():
            source = archive.extractfile(member)
            assert source is not None
            with open(path, "xb", opener=open_private) as target:
                while piece := source.read(_PIECE):
                    self._check()
                    target.write(piece)
                if target.tell() != member.size:
                    have = target.tell()
                    raise OSError(f"{member.name!r}: of {member.size} bytes, {have} have come")
            os.chmod(path, member.mode & 0o777)
            os.utime(path, (member.mtime, member.mtime))
        else:
            self._skipped.append(member.name)

    def _copy_link(self, member: tarfile.TarInfo, path: str) -> None:
        """A second name of a file that came before: a file of its own here."""
        parts = [part for part in member.linkname.split("/") if part not in ("", ".")]
        source = os.path.join(self._folder, *parts)
        # There is no link in here to follow: none is ever made.
        if not parts or ".." in parts or not os.path.isfile(source):
            raise ValueError(f"it sent a link that leads elsewhere: {member.linkname!r}")
        shutil.copy2(source, path)

    def move(self, destination: str) -> None:
        """Move all that is in the folder to ``destination``, merging folders that exist there."""
        new: set[str] = set()
        waiting = [""]
        while waiting:
            inside = waiting.pop()
            for name in sorted(os.listdir(os.path.join(self._folder, inside))):
                self._check()
                path = os.path.join(inside, name)
                source, place = os.path.join(self._folder, path), os.path.join(destination, path)
                if not os.path.isdir(source):
                    _move_file(source, place)
                elif os.path.isdir(place):
                    waiting.append(path)
                else:
                    os.rename(source, place)
                    new.add(path)
        self._finish_folders(destination, new)

    def _finish_folders(self, destination: str, new: set[str]) -> None:
        """Give the folders that were new there their permissions and times."""
        for path in self._folders:
            if path.rpartition("/")[0] in new:
                new.add(path)
        # The deepest first: a folder that may not be entered hides what is in it.
        for path, member in sorted(self._folders.items(), reverse=True):
            if path in new:
                place = os.path.join(destination, path)
                os.utime(place, (member.mtime, member.mtime))
                os.chmod(place, member.mode & 0o777)


def _move_file(source: str, place: str) -> None:
    place = followed(place)
    if os.path.isdir(place):
        raise IsADirectoryError(21, "it is a folder", place)
    if is_special(place):
        with open(source, "rb") as incoming, open_special(place) as target:
            shutil.copyfileobj(incoming, target, _PIECE)
    else:
        os.replace(source, place)


def followed(place: str) -> str:
    """Where ``place`` leads if it is a link, which is to be replaced there; itself if it is none.

    A link in a folder for everybody (``/tmp``) is followed only if it is one's own or that of the
    folder's owner: as Linux does in open(2) (``fs.protected_symlinks``), which looking for the
    real path gets around. Somebody else could lead us to a file of ours.

    :raises OSError: a link that is not followed; links in a circle
    """
    first = place
    for _ in range(_MOST_LINKS):
        try:
            link = os.lstat(place)
        except (FileNotFoundError, NotADirectoryError):
            return place
        if not stat.S_ISLNK(link.st_mode):
            return place
        folder = os.path.dirname(place)
        above = os.stat(folder or ".")
        if above.st_mode & stat.S_ISVTX and link.st_uid not in (os.geteuid(), above.st_uid):
            why = f"it is a link of somebody else (user {link.st_uid}), which is not followed"
            raise PermissionError(errno.EACCES, why, place)
        place = os.path.join(folder, os.readlink(place))
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), first)


def is_special(place: str) -> bool:
    """Whether it is there and no regular file: it is written to, not replaced."""
    try:
        return not stat.S_ISREG(os.stat(place).st_mode)
    except FileNotFoundError:
        return False


def open_special(place: str) -> IO[bytes]:
    """Open what is no regular file, to write to it."""
    # A pipe that nobody reads fails at once instead of holding up a thread.
    descriptor = os.open(place, os.O_WRONLY | os.O_NONBLOCK)
    os.set_blocking(descriptor, True)
    return open(descriptor, "wb")


def open_private(path: str, flags: int) -> int:
    """For ``open``: nobody else may read it; a link is not followed."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o600)
