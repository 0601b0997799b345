"""The folder where each ssh writes of itself (``ssh -E``), and where masters listen."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import stat
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from execo._core.loop import owned
from execo._core.room import NO_ROOM

__all__ = ["LogFolder"]

_PREFIX = "execo-ssh-"
_TRIES = 5
_LONGEST_SOCKET = 90
"""Bytes. A system takes 104 or 108; ssh adds 17 of its own while it makes a socket."""
_ADDED_BY_SSH = 17
_ADDED_BY_US = len("/") + len(_PREFIX) + 8 + len("/m") + 10


class LogFolder:
    """A folder of its own among the temporary files, made at first use. Any thread may call.

    The watchdog removes it if this script is lost. It is locked for as long as it is in use: what
    is left all the same (the machine was lost, too) nobody has locked, and the next script removes.

    :param guard_path: of the local transport
    :param sockets: it is to be where a path is short enough for a socket
    """

    def __init__(
        self,
        guard_path: Callable[[str], Callable[[], object]] = lambda path: lambda: None,
        *,
        sockets: bool = False,
    ) -> None:
        self._guard_path = guard_path
        self._unguard: Callable[[], object] | None = None
        self._sockets = sockets
        self._lock = threading.Lock()
        self._path: str | None = None
        self._fd = -1

    def file(self, number: int, prefix: str = "") -> str:
        """The path of a file in there; the file is not made.

        :raises OSError: if there can be no folder
        """
        with self._lock:
            # Something that tidies up temporary files may have removed it under a long script.
            if self._path is None or not os.path.isdir(self._path):
                if self._path is None:
                    _remove_left()
                self._release()
                self._path, self._fd = self._make(
                    _places() if self._sockets else [tempfile.gettempdir()]
                )
                owned.add(self)
            return os.path.join(self._path, f"{prefix}{number}")

    def socket(self, number: int) -> str:
        """The path of a socket in there.

        :raises OSError: if there can be no folder, or its path is too long for a socket
        """
        path = self.file(number, "m")
        if len(os.fsencode(path)) + _ADDED_BY_SSH >= _LONGEST_SOCKET:
            raise OSError(f"the path of a socket would be too long: {path}")
        return path

    def close(self) -> None:
        """Remove it."""
        with self._lock:
            path, self._path = self._path, None
            if path is not None:
                shutil.rmtree(path, ignore_errors=True)
            self._release()

    def close_inherited(self) -> None:
        """In a forked child: close the copy of the descriptor. The lock is the parent's and stays,
        since a lock ends with the last copy, or when somebody says so; so does the watchdog's
        order, which stands in a table that both share."""
        fd, self._fd, self._unguard = self._fd, -1, None
        if fd >= 0:
            os.close(fd)

    def _release(self) -> None:
        fd, self._fd = self._fd, -1
        owned.discard(self)
        if fd >= 0:
            os.close(fd)
        unguard, self._unguard = self._unguard, None
        if unguard is not None:
            unguard()

    def _make(self, places: Sequence[str]) -> tuple[str, int]:
        """A new folder, in the first place where it can be, and the descriptor that holds its
        lock."""
        for place in places[:-1]:
            if os.access(place, os.W_OK | os.X_OK):
                return self._make_in(place)
        return self._make_in(places[-1])

    def _make_in(self, place: str) -> tuple[str, int]:
        path = ""
        for _ in range(_TRIES):
            path = os.path.join(os.path.abspath(place), _PREFIX + secrets.token_hex(4))
            # First, since the script may be lost at any time.
            unguard = self._guard_path(path)
            fd = None
            try:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(path, 0o700)
                    try:
                        fd = _locked(path)
                    finally:
                        if fd is None:
                            with contextlib.suppress(OSError):
                                os.rmdir(path)
            finally:
                if fd is None:
                    unguard()
            if fd is not None:
                self._unguard = unguard
                return path, fd
            # Another script has taken it for one that was left, before it was locked.
        raise FileExistsError(f"no folder {path!r} can be kept: something removes it at once")


def _places() -> list[str]:
    """Where the folder may be, the best first: one's own and short. A path that is too long for a
    socket is better than none, and the last resort."""
    places = []
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    with contextlib.suppress(OSError):
        found = os.stat(runtime)
        if os.path.isabs(runtime) and stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid():
            places.append(runtime)
    places += [tempfile.gettempdir(), "/tmp"]
    longest = _LONGEST_SOCKET - _ADDED_BY_SSH - _ADDED_BY_US
    places.sort(key=lambda place: len(os.fsencode(place)) >= longest)  # stable
    return list(dict.fromkeys(places))


def _locked(path: str) -> int | None:
    """A descriptor of the folder ``path`` with its lock; None if another has it, or it is gone."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as exc:
        if exc.errno in NO_ROOM:
            raise
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(fd), os.lstat(path)):
            return fd
    except OSError:
        pass
    os.close(fd)
    return None


def _remove_left() -> None:
    """Remove the folders of this user's scripts that were killed."""
    for path in [one for place in _places() for one in Path(place).glob(_PREFIX + "*")]:
        with contextlib.suppress(OSError):
            found = path.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
                continue
            fd = _locked(str(path))
            if fd is not None:
                shutil.rmtree(path, ignore_errors=True)
                os.close(fd)
