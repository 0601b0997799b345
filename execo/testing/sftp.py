"""The sftp subsystem, over this machine's files; relative paths start at the host's home."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import paramiko
from paramiko.sftp import SFTP_FAILURE, SFTP_OK

from .session import LOST

__all__ = ["Files", "Sftp"]

P = ParamSpec("P")
T = TypeVar("T")


def _answers(method: Callable[P, T]) -> Callable[P, T | int]:
    """An OSError becomes the number that the protocol has for it."""

    @functools.wraps(method)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> T | int:
        try:
            return method(*args, **kwargs)
        except OSError as error:
            return paramiko.SFTPServer.convert_errno(error.errno or errno.EIO)

    return wrapper


class Sftp(paramiko.SFTPServer):
    """paramiko's server, with the exit status that scp waits for."""

    def __init__(self, channel: paramiko.Channel, *args: Any, **options: Any) -> None:
        super().__init__(channel, *args, **options)
        self.daemon = True
        self._session = channel

    def finish_subsystem(self) -> None:
        """The client is done, or gone."""
        with contextlib.suppress(*LOST):
            self._session.send_exit_status(0)
        super().finish_subsystem()


class File(paramiko.SFTPHandle):
    """An open file."""

    def __init__(self, fd: int, flags: int) -> None:
        super().__init__(flags)
        self._fd: int = fd

    def close(self) -> None:
        """Close it, once."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    @_answers
    def read(self, offset: int, length: int) -> bytes:
        return os.pread(self._fd, length, offset)

    @_answers
    def write(self, offset: int, data: Any) -> int:
        view = memoryview(data)
        while view:
            count = os.pwrite(self._fd, view, offset)
            view, offset = view[count:], offset + count
        return SFTP_OK

    @_answers
    def stat(self) -> paramiko.SFTPAttributes:
        return paramiko.SFTPAttributes.from_stat(os.fstat(self._fd))

    @_answers
    def chattr(self, attr: paramiko.SFTPAttributes) -> int:
        return _change(self._fd, attr)


class Files(paramiko.SFTPServerInterface):
    """The files.

    :param home: where relative paths start
    """

    def __init__(self, server: paramiko.ServerInterface, home: str) -> None:
        super().__init__(server)
        self._home = home

    def _path(self, path: str) -> str:
        return os.path.join(self._home, path)

    @_answers
    def list_folder(self, path: str) -> list[paramiko.SFTPAttributes]:
        found = []
        with os.scandir(self._path(path)) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    stat = entry.stat(follow_symlinks=False)
                    found.append(paramiko.SFTPAttributes.from_stat(stat, entry.name))
        return found

    @_answers
    def stat(self, path: str) -> paramiko.SFTPAttributes:
        return paramiko.SFTPAttributes.from_stat(os.stat(self._path(path)))

    @_answers
    def lstat(self, path: str) -> paramiko.SFTPAttributes:
        return paramiko.SFTPAttributes.from_stat(os.lstat(self._path(path)))

    @_answers
    def open(self, path: str, flags: int, attr: paramiko.SFTPAttributes) -> File:
        mode = 0o666 if attr.st_mode is None else attr.st_mode & 0o7777
        return File(os.open(self._path(path), flags, mode), flags)

    @_answers
    def remove(self, path: str) -> int:
        os.remove(self._path(path))
        return SFTP_OK

    @_answers
    def rename(self, oldpath: str, newpath: str) -> int:
        if os.path.lexists(self._path(newpath)):
            return SFTP_FAILURE
        return int(self.posix_rename(oldpath, newpath))

    @_answers
    def posix_rename(self, oldpath: str, newpath: str) -> int:
        os.rename(self._path(oldpath), self._path(newpath))
        return SFTP_OK

    @_answers
    def mkdir(self, path: str, attr: paramiko.SFTPAttributes) -> int:
        os.mkdir(self._path(path), 0o777 if attr.st_mode is None else attr.st_mode & 0o7777)
        return SFTP_OK

    @_answers
    def rmdir(self, path: str) -> int:
        os.rmdir(self._path(path))
        return SFTP_OK

    @_answers
    def chattr(self, path: str, attr: paramiko.SFTPAttributes) -> int:
        return _change(self._path(path), attr)

    @_answers
    def symlink(self, target_path: str, path: str) -> int:
        os.symlink(target_path, self._path(path))
        return SFTP_OK

    @_answers
    def readlink(self, path: str) -> str:
        return os.readlink(self._path(path))

    def canonicalize(self, path: str) -> str:
        return os.path.realpath(self._path(path))


def _change(file: str | int, attr: paramiko.SFTPAttributes) -> int:
    # Not paramiko's set_file_attr(): it empties a file that is to be cut or extended.
    given: int = attr._flags  # type: ignore[attr-defined]
    if given & attr.FLAG_SIZE:
        os.truncate(file, attr.st_size or 0)
    if given & attr.FLAG_PERMISSIONS:
        os.chmod(file, (attr.st_mode or 0) & 0o7777)
    if given & attr.FLAG_UIDGID:
        os.chown(file, attr.st_uid, attr.st_gid)  # type: ignore[arg-type]
    if given & attr.FLAG_AMTIME:
        os.utime(file, (attr.st_atime or 0, attr.st_mtime or 0))
    return SFTP_OK
