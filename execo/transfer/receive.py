"""What Get does with the bytes that arrive: a temporary name first, the final one at the end.

Hosts are not trusted. What they send can become files and folders below the place that was asked
for, with ordinary permissions, and nothing else: no link, no device, no name that leads elsewhere,
no set-user-id bit.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tarfile
from typing import IO

from execo.log import logger

from .texts import HEADER, is_folder_name, temporary_name

__all__ = ["Incoming"]

_PIECE = 1024 * 1024
_MOST_NOISE = 256 * 1024


class Incoming:
    """The files from one host. The methods block as long as the file system takes, and belong to
    one thread at a time.

    One regular file is written beside its destination and renamed; several arrive as tar archives,
    which are kept in a file beside their destination, unpacked there when they are complete, and
    then moved into place.

    :param location: where to: an absolute path; see :class:`~execo.transfer.Get`
    """

    def __init__(self, location: str) -> None:
        self._location = location
        self._head = b""
        self._file: IO[bytes] | None = None
        self._tar = False
        self._place = ""  # where the file will be
        self._temporary = ""  # empty if it is written in place
        self._size: int | None = None
        self._mode = 0o600
        self._mtime = 0.0
        self._done = 0

    def write(self, data: bytes) -> None:
        """Take bytes.

        :raises OSError: they cannot be stored
        :raises ValueError: they are not what was agreed on
        """
        if self._file is None:
            data = self._read_header(self._head + data)
            if self._file is None:
                self._head = data
                return
        if self._size is not None:
            data = data[: self._size - self._done]  # a file that grows: what it had at first
        self._done += len(data)
        self._file.write(data)

    def finish(self) -> None:
        """All has come: verify it and put it into place.

        :raises OSError: it cannot be stored; a size is not what the host said
        :raises ValueError: it is not what was agreed on
        """
        if self._file is None:
            raise ValueError("it sent nothing that could be understood")
        if self._tar:
            self._unpack()
            return
        if self._size is not None and self._done != self._size:
            raise OSError(f"of {self._size} bytes, {self._done} have come")
        self._file.close()
        if self._temporary:
            os.chmod(self._temporary, self._mode)
            os.utime(self._temporary, (self._mtime, self._mtime))
            os.replace(self._temporary, self._place)
            self._temporary = ""

    def close(self) -> None:
        """Leave nothing but what :meth:`finish` has put into place."""
        if self._file is not None:
            # A full disk may be noticed here again.
            with contextlib.suppress(OSError):
                self._file.close()
        if self._temporary:
            with contextlib.suppress(OSError):
                os.unlink(self._temporary)
            self._temporary = ""

    # -- the beginning ------------------------------------------------------------------------

    def _read_header(self, data: bytes) -> bytes:
        """What follows the header; all of ``data`` while that is not complete."""
        start = data.find(HEADER)
        end = data.find(b"\n", start) if start >= 0 else -1
        words = data[start:end].split()[1:] if end >= 0 else []
        if words == [b"tar"]:
            self._begin_tar()
            return data[end + 1 :]
        past = data.find(b"\0", end) if words else -1
        if past < 0:
            if len(data) > _MOST_NOISE:
                raise ValueError("it sent something else than what was asked for")
            return data
        if len(words) != 4 or words[0] != b"file":
            raise ValueError(f"it sent a header that cannot be understood: {data[start:end]!r}")
        self._size = None if words[1] == b"-" else int(words[1])
        self._mode = int(words[2], 8) & 0o777
        self._mtime = float(words[3])
        self._begin_file(os.fsdecode(data[end + 1 : past]))
        return data[past + 1 :]

    def _begin_file(self, name: str) -> None:
        place = self._location
        if is_folder_name(place) or os.path.isdir(place):
            place = os.path.join(place, _checked_name(name))
        if os.path.isdir(place):
            raise IsADirectoryError(21, "it is a folder", place)
        place = os.path.realpath(place)
        folder = os.path.dirname(place)
        os.makedirs(folder, exist_ok=True)
        self._place = place
        if _is_special(place):
            self._file = _open_special(place)
            return
        self._temporary = os.path.join(folder, temporary_name())
        self._file = open(self._temporary, "xb", opener=_private)  # noqa: SIM115

    def _begin_tar(self) -> None:
        os.makedirs(self._location, exist_ok=True)
        self._tar = True
        self._temporary = os.path.join(self._location, temporary_name())
        self._file = open(self._temporary, "x+b", opener=_private)  # noqa: SIM115

    # -- archives -----------------------------------------------------------------------------

    def _unpack(self) -> None:
        assert self._file is not None
        self._file.seek(0)
        folder = os.path.join(self._location, temporary_name())
        os.mkdir(folder, 0o700)
        try:
            tree = _Tree(folder)
            try:
                tree.unpack(self._file)
            except tarfile.TarError as exc:
                raise OSError(f"the archive it sent is damaged: {exc}") from exc
            tree.move(self._location)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        self.close()


class _Tree:
    """Archives, unpacked in a folder that nobody else uses.

    :param folder: an empty folder
    """

    def __init__(self, folder: str) -> None:
        self._folder = folder
        # Set at the end, the deepest first: what is to be moved must be writable until then.
        self._folders: dict[str, tarfile.TarInfo] = {}
        self._skipped: list[str] = []

    def unpack(self, file: IO[bytes]) -> None:
        """Make files and folders of the archives in ``file``, which follow one another."""
        with tarfile.open(
            fileobj=file,
            mode="r:",
            ignore_zeros=True,
            errorlevel=2,
            encoding="utf-8",
            errors="surrogateescape",
        ) as archive:
            while (member := archive.next()) is not None:
                self._unpack_one(archive, member)
                # Of a hundred thousand files it would keep as many records.
                archive.members.clear()  # type: ignore[attr-defined]
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
        path = os.path.join(self._folder, *parts)
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        if member.isdir():
            os.makedirs(path, mode=0o700, exist_ok=True)
            self._folders["/".join(parts)] = member
        elif member.islnk():
            self._copy_link(member, path)
        elif member.isreg():
            source = archive.extractfile(member)
            assert source is not None
            with open(path, "xb", opener=_private) as target:
                shutil.copyfileobj(source, target, _PIECE)
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
    place = os.path.realpath(place)
    if os.path.isdir(place):
        raise IsADirectoryError(21, "it is a folder", place)
    if _is_special(place):
        with open(source, "rb") as incoming, _open_special(place) as target:
            shutil.copyfileobj(incoming, target, _PIECE)
    else:
        os.replace(source, place)


def _is_special(place: str) -> bool:
    """Whether it is there and no regular file: it is written to, not replaced."""
    try:
        return not stat.S_ISREG(os.stat(place).st_mode)
    except FileNotFoundError:
        return False


def _open_special(place: str) -> IO[bytes]:
    # A pipe that nobody reads fails at once instead of holding up a thread.
    descriptor = os.open(place, os.O_WRONLY | os.O_NONBLOCK)
    os.set_blocking(descriptor, True)
    return open(descriptor, "wb")


def _private(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o600)


def _checked_name(name: str) -> str:
    if not name or name in (".", "..") or "/" in name:
        raise ValueError(f"it sent a name that leads elsewhere: {name!r}")
    return name
