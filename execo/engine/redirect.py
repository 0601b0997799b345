"""Where stdout and stderr of this script go: into files, or to files as well.

Both work on the descriptors 1 and 2, so that what the script's children print is there, too.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import subprocess
import sys
import tty
from collections.abc import Iterator

__all__ = ["copy_outputs", "redirect_outputs"]

Path = str | os.PathLike[str]

PATIENCE = 5.0
"""Seconds at exit for a copy to be complete: a child that the script has left behind may hold its
stdout for ever."""


def redirect_outputs(stdout_path: Path | None, stderr_path: Path | None) -> None:
    """From now on, what is printed goes to the end of these files instead. (execo 2.8.2)

    :param stdout_path: the file; None: stays as it is
    :param stderr_path: likewise; may be the same file
    :raises OSError: a file cannot be opened
    """
    for number, path in ((1, stdout_path), (2, stderr_path)):
        if path is not None:
            with _opened(path) as file:
                _flush()
                os.dup2(file, number)


def copy_outputs(stdout_path: Path | None, stderr_path: Path | None, use_pty: bool = False) -> None:
    """From now on, what is printed goes to the end of these files as well. (execo 2.8.2)

    A ``tee`` for each writes it. At exit, the script waits until they have written all.

    :param stdout_path: the file; None: stays as it is
    :param stderr_path: likewise; may be the same file
    :param use_pty: stdout and stderr are terminals then, for programs that look
    :raises OSError: a file cannot be opened, or there is no ``tee``
    """
    for number, path in ((1, stdout_path), (2, stderr_path)):
        if path is not None:
            with _opened(path):
                pass  # tee would say it where nobody reads it
            _copy(number, path, use_pty)


def _copy(number: int, path: Path, use_pty: bool) -> None:
    theirs, ours = os.openpty() if use_pty else os.pipe()
    try:
        if use_pty:
            tty.setraw(ours)  # else the file would get \r\n
        _flush()
        before = os.dup(number)
        # A session of its own, and -i: Ctrl-C ends the script, and what it says then is copied.
        tee = subprocess.Popen(
            ["tee", "-a", "-i", "--", os.fspath(path)],
            stdin=theirs,
            stdout=before,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.dup2(ours, number)
    finally:
        os.close(theirs)
        os.close(ours)
    atexit.register(_restore, number, before, tee)


def _restore(number: int, before: int, tee: subprocess.Popen[bytes]) -> None:
    _flush()
    os.dup2(before, number)  # closes its stdin
    os.close(before)
    with contextlib.suppress(subprocess.TimeoutExpired):
        tee.wait(PATIENCE)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
    try:
        yield file
    finally:
        os.close(file)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
