"""Reads and runs the user's configuration file, if nobody else can have written it."""

from __future__ import annotations

import os
import stat
import warnings
from types import CodeType
from typing import Any

from .errors import ConfigError

__all__ = ["ConfigWarning", "default_file", "line_with", "read_trusted", "run_file", "warn"]


class ConfigWarning(UserWarning):
    """Something in ``~/.execo.conf.py``, or the whole file, was left out."""


def default_file() -> str | None:
    """The path of ``~/.execo.conf.py``; None if there is no home."""
    if os.environ.get("HOME") == "":
        return None  # expanduser would make "/.execo.conf.py" of it
    path = os.path.expanduser("~/.execo.conf.py")
    # With a relative HOME the current directory would decide which code is run.
    return path if os.path.isabs(path) else None


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)  # a FIFO must not block the import


def read_trusted(path: str) -> bytes | None:
    """The bytes of the file, or None after a warning if it must not be run.

    :raises FileNotFoundError: if there is no file
    :raises ConfigError: if there is one and it cannot be read
    """
    try:
        with open(path, "rb", opener=_open_at_once) as stream:
            # Of the open file, not of the path: what is checked is what is run.
            status = os.fstat(stream.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ConfigError("not a regular file; remove it", filename=path)
            distrust = _why_not_trusted(path, status)
            if distrust is None:
                return stream.read()
    except OSError as exc:
        if isinstance(exc, (FileNotFoundError, NotADirectoryError)) and not os.path.islink(path):
            raise FileNotFoundError(path) from exc
        if not isinstance(exc, PermissionError) or os.path.lexists(path):
            raise ConfigError(
                f"cannot be read: {exc.strerror}; make it readable, or remove it", filename=path
            ) from exc
        # HOME is somebody else's, as in a daemon that has changed its user: nobody can say
        # whether there is a file.
        distrust = "its directory cannot be searched; set HOME to a directory of your own"
    warn(f"not run: {distrust}", path, 0)
    return None


def _why_not_trusted(path: str, status: os.stat_result) -> str | None:
    """Why somebody else could have written the file, and what to do; None if nobody could."""
    from shlex import quote  # only where there is a file

    user = os.geteuid()
    if status.st_uid not in (0, user):
        return (
            f"it belongs to user {status.st_uid}, and you are user {user}; if you trust it, "
            f"make it yours: chown {user} {quote(path)}"
        )
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"other users can write it; check it, then: chmod go-w {quote(path)}"
    # A file behind a symbolic link can be exchanged in two places.
    for directory in dict.fromkeys(map(os.path.dirname, (path, os.path.realpath(path)))):
        mode = os.stat(directory).st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            return f"everybody can exchange it; check it, then: chmod o-w {quote(directory)}"
    return None


def run_file(source: bytes, path: str) -> dict[str, Any]:
    """Run the file and return its names."""
    remedy = "correct the file, or move it away"
    try:
        code: CodeType = compile(source, path, "exec")
    except SyntaxError as exc:
        raise ConfigError(
            f"{type(exc).__name__}: {exc.msg}; {remedy}", filename=path, lineno=exc.lineno
        ) from exc
    except (ValueError, RecursionError, MemoryError) as exc:  # a null byte; too deep for a parser
        raise ConfigError(f"{str(exc) or type(exc).__name__}; {remedy}", filename=path) from exc
    namespace: dict[str, Any] = {"__name__": "execo_conf", "__file__": path}
    try:
        exec(code, namespace)
    except (Exception, SystemExit) as exc:  # SystemExit: the script would end without a word
        if "module 'execo' " in str(exc) and "circular import" in str(exc):
            remedy = "import from execo.config here, since the rest of execo is not loaded yet"
        raise ConfigError(
            f"{type(exc).__name__}: {exc}; {remedy}", filename=path, lineno=_line_of(exc, path)
        ) from exc
    return namespace


def _line_of(exc: BaseException, path: str) -> int | None:
    """The innermost line of the file that the exception came through."""
    line = None
    trace = exc.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == path:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def line_with(word: object, source: bytes, path: str) -> int | None:
    """The last line of the file that gives a key, or uses a name; for messages."""
    import ast  # only to report an error

    lines = [0]
    for node in ast.walk(compile(source, path, "exec", ast.PyCF_ONLY_AST)):
        keys: list[ast.expr | None] = []
        if isinstance(node, ast.Dict):
            keys = node.keys
        elif isinstance(node, ast.Subscript):
            keys = [node.slice]
        elif (isinstance(node, ast.keyword) and node.arg == word) or (
            isinstance(node, ast.Name) and node.id == word
        ):
            lines.append(node.lineno)
        lines += [key.lineno for key in keys if isinstance(key, ast.Constant) and key.value == word]
    return max(lines) or None


def warn(message: str, path: str, line: int) -> None:
    # Not the logger: execo.log reads its level here, thus is imported after this module.
    warnings.warn_explicit(message, ConfigWarning, path, line, module=__name__)
