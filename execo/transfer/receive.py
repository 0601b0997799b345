"""What Get does with the bytes that arrive: a temporary name first, the final one at the end.

Hosts are not trusted. What they send can become files and folders below the place that was asked
for, with ordinary permissions, and nothing else: no link, no device, no name that leads elsewhere,
no set-user-id bit.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Callable
from typing import IO

from .texts import HEADER, TRAILER, is_folder_name, temporary_name
from .unpack import Cancelled, Tree, followed, is_special, open_private, open_special

__all__ = ["Incoming", "checked_name"]

_MOST_NOISE = 256 * 1024

_FILE = rb"file (-|\d{1,18}) ([0-7]{1,10}) (-?\d{1,18}(?:\.\d{1,18})?)"
"""What the header says of one file: its size, its permissions, its time."""

_LONGEST_SHOWN = 200


class Incoming:
    """The files from one host. The methods block as long as the file system takes, and belong to
    one thread at a time.

    One regular file is written beside its destination and renamed; several arrive as tar archives,
    which are kept in a file beside their destination, unpacked there when they are complete, and
    then moved into place.

    - ``cancelled``: set by another thread, it keeps all from being put into place
    - ``size``: of the one file that comes, None if it is not known; ``received``: bytes so far
    - ``full``: a file has come whole, as its size says; ``surplus``: more than that has come

    :param location: where to: an absolute path; see :class:`~execo.transfer.Get`
    :param guard_path: has a path removed if the script is lost, until what it returns is called
    """

    def __init__(self, location: str, guard_path: Callable[[str], Callable[[], object]]) -> None:
        self._location = location
        self._guard_path = guard_path
        self._guarded: list[Callable[[], object]] = []
        self._head = b""
        self._file: IO[bytes] | None = None
        self._tar = False
        self._place = ""  # where the file will be
        self._temporary = ""  # empty if it is written in place
        self.size: int | None = None
        self._mode = 0o600
        self._mtime = 0.0
        self.received = 0
        self._held = b""  # without a size: what may be the trailer
        self.cancelled = self.full = self.surplus = False

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
        if self.size is not None:
            left = self.size - self.received
            self.full, self.surplus = len(data) >= left, len(data) > left
            data = data[:left]  # a file that grows: what it had at first
        else:
            data = self._held + data
            data, self._held = data[: -len(TRAILER)], data[-len(TRAILER) :]
        self.received += len(data)
        self._file.write(data)

    def finish(self) -> None:
        """All has come: verify it and put it into place.

        :raises OSError: it cannot be stored; a size is not what the host said; its end is missing
        :raises ValueError: it is not what was agreed on
        :raises Cancelled: ``cancelled`` was set; nothing is put into place, save what was there
          already if the moving had begun
        """
        self._check()
        if self._file is None:
            raise ValueError("it sent nothing that could be understood")
        if self.size is None and self._held != TRAILER:
            raise OSError("what it sent is cut: its end is missing")
        if self._tar:
            self._unpack()
            return
        if self.size is not None and self.received != self.size:
            raise OSError(f"of {self.size} bytes, {self.received} have come")
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
        while self._guarded:
            self._guarded.pop()()

    def _temporary_in(self, folder: str) -> str:
        """A name for what is not complete yet. Until :meth:`close` it is removed if the script is
        lost."""
        path = os.path.join(folder, temporary_name())
        self._guarded.append(self._guard_path(path))
        return path

    def _check(self) -> None:
        if self.cancelled:
            raise Cancelled

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
        found = re.fullmatch(_FILE, b" ".join(words))
        if found is None:
            header = data[start : min(end, start + _LONGEST_SHOWN)]
            raise ValueError(f"it sent a header that cannot be understood: {header!r}")
        self.size = None if found[1] == b"-" else int(found[1])
        self._mode = int(found[2], 8) & 0o777
        self._mtime = float(found[3])
        self._begin_file(os.fsdecode(data[end + 1 : past]))
        return data[past + 1 :]

    def _begin_file(self, name: str) -> None:
        place = self._location
        if is_folder_name(place) or os.path.isdir(place):
            place = os.path.join(place, checked_name(name))
        if os.path.isdir(place):
            raise IsADirectoryError(21, "it is a folder", place)
        place = followed(place)
        folder = os.path.dirname(place)
        os.makedirs(folder, exist_ok=True)
        self._place = place
        if is_special(place):
            self._file = open_special(place)
            return
        self._temporary = self._temporary_in(folder)
        self._file = open(self._temporary, "xb", opener=open_private)  # noqa: SIM115

    def _begin_tar(self) -> None:
        os.makedirs(self._location, exist_ok=True)
        self._tar = True
        self._temporary = self._temporary_in(self._location)
        self._file = open(self._temporary, "x+b", opener=open_private)  # noqa: SIM115

    # -- archives -----------------------------------------------------------------------------

    def _unpack(self) -> None:
        assert self._file is not None
        self._file.seek(0)
        folder = self._temporary_in(self._location)
        os.mkdir(folder, 0o700)
        try:
            tree = Tree(folder, self._check)
            tree.unpack(self._file)
            tree.move(self._location)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        self.close()


def checked_name(name: str) -> str:
    """``name``, if it is that of one file or folder.

    :raises ValueError: it is none, or leads elsewhere
    """
    if not name or name in (".", "..") or "/" in name:
        raise ValueError(f"it sent a name that leads elsewhere: {name!r}")
    return name
