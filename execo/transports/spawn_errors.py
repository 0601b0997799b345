"""Why a local program could not be started, in words that say what to do."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

from execo.errors import SpawnError

__all__ = ["spawn_error"]

_LONGEST_NAME = 100


def spawn_error(exc: BaseException, argv: Sequence[str], cwd: str | None) -> SpawnError:
    """The error for a process that ``exc`` kept from starting; ``exc`` is its cause, without its
    traceback: the frames of :mod:`subprocess` hold the whole environment, and who shows a traceback
    with its variables would show the secrets in there."""
    error = SpawnError(_explain(exc, argv, cwd), command=" ".join(map(str, argv)))
    error.__cause__ = exc.with_traceback(None)
    return error


def _explain(exc: BaseException, argv: Sequence[str], cwd: str | None) -> str:
    name = str(argv[0]) if argv else ""
    shown = name if len(name) <= _LONGEST_NAME else name[:_LONGEST_NAME] + "..."
    start = f"cannot start {shown!r}"
    if not isinstance(exc, OSError):
        if "null byte" in str(exc):
            return f"{start}: there is a NUL byte in the command, its environment or its folder"
        return f"{start}: {str(exc) or type(exc).__name__}"
    if cwd is not None and exc.filename == cwd and name != cwd:
        return f"{start}: its folder (cwd) {cwd!r}: {exc.strerror}"
    return f"{start}: {_explain_system(exc, name, os.path.join(cwd or '', name))}"


def _explain_system(exc: OSError, name: str, place: str) -> str:
    match exc.errno:
        case errno.ENOENT | errno.EACCES if not name:
            return "command not found: its name is empty"
        case errno.ENOENT if "/" not in name:
            return "command not found; install it, or give its full path"
        case errno.ENOENT if os.path.exists(place):
            return "the interpreter that its first line names does not exist"
        case errno.ENOENT:
            return "no such file"
        case errno.EACCES if os.path.isdir(place):
            return "it is a folder"
        case errno.EACCES if "/" not in name:
            # A folder of PATH that may not be searched gives the same for what is not there.
            return "not found in PATH, or not executable (permission denied); give its full path"
        case errno.EACCES:
            return "permission denied; is it executable (chmod +x)?"
        case errno.ENOEXEC:
            return "not a program; a script needs a first line like #!/bin/sh"
        case errno.E2BIG:
            return "its arguments or its environment are too long for the system"
        case errno.EMFILE | errno.ENFILE:
            return "no free descriptors; raise the limit (ulimit -n)"
        case errno.EAGAIN:
            return "no room for another process; raise the limit (ulimit -u)"
        case _:
            return exc.strerror or str(exc)
