"""Every error that execo raises, in one tree, and the reasons why a process can fail.

::

    ExecoError
    ├── ConfigError               ~/.execo.conf.py or a configuration key is wrong
    ├── SshConfigError            a file of ssh_config is wrong
    ├── TopologyError             a file of gateways and their hosts is wrong
    ├── HostSetError              a text names no host (also a ValueError)
    ├── SubstitutionError         {{...}} in a command cannot be evaluated (also a ValueError)
    ├── NotSupported              this transport cannot do what was asked
    ├── ProcessError              why one process could not do its work; kept, not raised
    │   ├── SpawnError            it could not be started
    │   ├── OutputError           its output could not be read, or kept
    │   ├── WriteError            its stdin could not be written
    │   └── CancelledError        it was given up before it started
    ├── ProcessesFailed           raised on request: some processes failed
    ├── ActionsFailed             raised on request: some actions failed
    ├── schedulers.SchedulerError   a command of a scheduler has failed
    ├── schedulers.AllocationError  there are no nodes, or not any more
    └── testing.ClusterError      the embedded cluster cannot be started, or is gone

A failed process is data, not an exception: see ``Process.reason`` and ``Process.message``.
Only ``check=True`` and ``raise_if_failed()`` raise.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence
from typing import Any

__all__ = [
    "ActionsFailed",
    "CancelledError",
    "ConfigError",
    "ExecoError",
    "HostSetError",
    "NotSupported",
    "OutputError",
    "ProcessError",
    "ProcessesFailed",
    "Reason",
    "SpawnError",
    "SshConfigError",
    "SubstitutionError",
    "TopologyError",
    "WriteError",
]


class Reason(enum.StrEnum):
    """Why a process failed. The values are the words that reports and messages show."""

    CONNECT = "connect"
    AUTH = "auth"
    HOST_KEY = "host key"
    TIMEOUT = "timeout"
    SIGNAL = "signal"
    EXIT_CODE = "exit code"
    SPAWN = "spawn"
    EXPECT = "expect"
    WRITE = "write"
    CANCELLED = "cancelled"


class ExecoError(Exception):
    """Base of all errors of execo."""


class ConfigError(ExecoError):
    """The configuration file or a configuration value is wrong.

    :param message: what is wrong and what to do
    :param filename: the file, if one is to blame
    :param lineno: the line in it, if known
    """

    def __init__(
        self, message: str, *, filename: str | None = None, lineno: int | None = None
    ) -> None:
        place = ""
        if filename is not None:
            place = f"{filename}:{lineno}: " if lineno is not None else f"{filename}: "
        super().__init__(place + message)
        self.filename = filename
        self.lineno = lineno


class SshConfigError(ExecoError):
    """A file that ``ssh_config(5)`` describes cannot be read as ssh reads it.

    :param message: what is wrong
    :param filename: the file
    :param lineno: the line in it, None if the file as a whole is to blame
    :param text: that line
    """

    def __init__(
        self, message: str, *, filename: str, lineno: int | None = None, text: str = ""
    ) -> None:
        place = filename if lineno is None else f"{filename}:{lineno}"
        super().__init__(f"{place}: {message}" + (f", in {text!r}" if text else ""))
        self.filename = filename
        self.lineno = lineno
        self.text = text

    def __reduce__(self) -> tuple[Any, ...]:
        return _told, (type(self), str(self), dict(self.__dict__))


class TopologyError(ExecoError):
    """A topology, or the file that it is read from, is wrong.

    :param message: what is wrong
    :param filename: the file, if it comes from one
    :param lineno: the line in it, None if the file as a whole is to blame
    """

    def __init__(
        self, message: str, *, filename: str | None = None, lineno: int | None = None
    ) -> None:
        place = "" if filename is None else f"{filename}: "
        if filename is not None and lineno is not None:
            place = f"{filename}:{lineno}: "
        super().__init__(place + message)
        self.filename = filename
        self.lineno = lineno

    def __reduce__(self) -> tuple[Any, ...]:
        return _told, (type(self), str(self), dict(self.__dict__))


class HostSetError(ExecoError, ValueError):
    """A text that should name hosts does not.

    :param message: what is wrong
    :param position: where in the text (characters, from 0), None if that is not known
    """

    def __init__(self, message: str, *, position: int | None = None) -> None:
        super().__init__(message)
        self.position = position


class SubstitutionError(ExecoError, ValueError):
    """A pattern in a command or path cannot be substituted.

    :param message: what is wrong
    :param text: the whole text that holds the pattern
    :param position: where the pattern starts in ``text`` (characters, from 0)
    """

    def __init__(self, message: str, *, text: str = "", position: int = 0) -> None:
        super().__init__(message)
        self.text = text
        self.position = position


class NotSupported(ExecoError):
    """A transport was asked for something that it cannot do."""


class ProcessError(ExecoError):
    """Why one process could not do its work.

    :param message: the cause, with what to do next
    :param reason: the word for it
    :param host: the host's address, None on this machine
    :param command: the command
    """

    default_reason = Reason.SPAWN

    def __init__(
        self,
        message: str,
        *,
        reason: Reason | None = None,
        host: str | None = None,
        command: str | None = None,
    ) -> None:
        super().__init__(message)
        self.reason = self.default_reason if reason is None else reason
        self.host = host
        self.command = command


class SpawnError(ProcessError):
    """The process could not be started; ``__cause__`` is the system's error if there was one."""


class OutputError(ProcessError):
    """The output of the process could not be read, or kept; what came before is kept.

    Its reason is ``write``, as that of a :class:`WriteError`: the process was started, and what
    goes in or comes out was lost. ``spawn`` would say that it has never run.
    """

    default_reason = Reason.WRITE


class WriteError(ProcessError):
    """Writing to the stdin of the process failed, most often because it has closed it."""

    default_reason = Reason.WRITE


class CancelledError(ProcessError):
    """The process was given up before it started."""

    default_reason = Reason.CANCELLED


def _listing(kind: str, failed: Sequence[Any]) -> str:
    shown = [f"  {one!r}: {getattr(one, 'message', None) or 'failed'}" for one in failed[:10]]
    if len(failed) > 10:
        shown.append(f"  ... and {len(failed) - 10} more")
    return "\n".join([f"{len(failed)} {kind} failed:", *shown])


class ProcessesFailed(ExecoError):
    """Some processes failed; raised by ``check=True`` and ``raise_if_failed()``.

    :param processes: the failed ones
    """

    def __init__(self, processes: Iterable[Any]) -> None:
        self.processes = list(processes)
        super().__init__(_listing("process(es)", self.processes))

    def __reduce__(self) -> tuple[Any, ...]:
        # Into another Python goes what they were: they belong to this one.
        return _told, (type(self), str(self), {"processes": list(map(repr, self.processes))})


class ActionsFailed(ExecoError):
    """Some actions failed; for scripts to raise.

    :param actions: the failed ones
    """

    def __init__(self, actions: Iterable[Any]) -> None:
        self.actions = list(actions)
        super().__init__(_listing("action(s)", self.actions))

    def __reduce__(self) -> tuple[Any, ...]:
        return _told, (type(self), str(self), {"actions": list(map(repr, self.actions))})


def _told(kind: type[ExecoError], message: str, facts: dict[str, Any]) -> ExecoError:
    error = kind.__new__(kind, message)
    error.__dict__.update(facts)
    return error
