"""Why a command that goes through taktuk did not run, or was lost."""

from __future__ import annotations

import re
from collections.abc import Iterable

from execo.errors import ProcessError, Reason, SpawnError

from .base import Target
from .ssh_messages import SSH_FAILED, diagnose, failure, place, read_log

__all__ = [
    "bad_options",
    "connect_failure",
    "lost",
    "no_room",
    "no_terminal",
    "not_found",
    "not_reached",
    "not_tried",
]

# What sh(1) and others say of a command that is not there.
_NOT_FOUND = r"(?:command )?not found|No such file or directory"


def connect_failure(target: Target, lines: Iterable[str], via: str = "") -> ProcessError:
    """Why ``target`` could not be connected to.

    :param lines: what its connector has written
    :param via: the host that has tried, where it was not this machine
    """
    said = list(lines)
    program = target.options.ssh[0]
    tried = f" (tried from {via})" if via else ""
    where = f"{place(target)}{tried}"
    for line in said:
        if re.search(rf"(^|\W){re.escape(program)}: (?:{_NOT_FOUND})", line):
            return SpawnError(
                f"cannot run {program!r} to reach {where}: {line}; install it (package "
                f"openssh-client for ssh), or name another with taktuk_connector",
                host=target.address,
            )
        if re.search(rf"(perl|exec: \S+|taktuk)\S*: (?:{_NOT_FOUND})", line):
            return SpawnError(
                f"taktuk cannot run on {where}: {line}; install perl there (apt install perl)",
                host=target.address,
            )
    error = failure(target, SSH_FAILED, read_log("\n".join(said)), (), follows=True)
    assert error is not None
    if tried:
        return ProcessError(f"{error}{tried}", reason=error.reason, host=target.address)
    return error


def lost(target: Target, lines: Iterable[str], why: str = "") -> ProcessError:
    """The connection to ``target`` was lost while its command ran.

    :param lines: what its connector has written
    :param why: if that is known better
    """
    trouble = diagnose(read_log("\n".join(lines)).messages, target.address)
    cause = why or (trouble.cause if trouble else "taktuk there has ended")
    message = f"the connection to {place(target)} was lost: {cause}; is the host still up?"
    return ProcessError(message, reason=Reason.CONNECT, host=target.address)


def not_reached(target: Target, why: str, said: Iterable[str]) -> ProcessError:
    """``target`` was not connected to, and the reason is not its own.

    :param why: what has happened instead
    :param said: what has been written about it
    """
    words = "; ".join([why, *said])
    return ProcessError(
        f"{place(target)} was not reached: {words}", reason=Reason.CONNECT, host=target.address
    )


def bad_options(target: Target, said: Iterable[str]) -> SpawnError:
    """No host was connected to, nor tried: taktuk does not understand its options.

    :param said: what it has written
    """
    words = "; ".join(said) or "it does not say why"
    return SpawnError(
        f"taktuk connects to no host: {words}; mend taktuk and taktuk_options "
        f"({' '.join(target.options.taktuk)!r})",
        host=target.address,
    )


def not_found(program: str, target: Target, cause: ProcessError) -> SpawnError:
    """There is no taktuk here."""
    error = SpawnError(
        f"cannot run {program!r} to reach {place(target)}: not found; install it "
        f"(apt install taktuk), or name another with taktuk",
        host=target.address,
        command=cause.command,
    )
    error.__cause__ = cause.__cause__
    return error


def not_tried(target: Target, said: Iterable[str]) -> ProcessError:
    """This machine had no means left to connect to ``target``.

    :param said: what taktuk has written of itself
    """
    why = [line for line in said if line.startswith("ERROR : SYSTEM")]
    what = why[-1].rpartition(": Error ")[2] if why else "it does not say why"
    return ProcessError(
        f"cannot connect to {place(target)}: taktuk could not start its connector: {what}; raise "
        "the limits of descriptors (ulimit -n) and processes (ulimit -u)",
        reason=Reason.CONNECT,
        host=target.address,
    )


def no_room(target: Target, command: object, said: Iterable[str]) -> SpawnError:
    """The host was reached, and cannot start another process.

    :param said: what taktuk has written of late, of this host and others
    """
    found = [re.search(rf"SYSTEM: {re.escape(target.address)}: Error (.*)", one) for one in said]
    words = next((one[1] for one in reversed(found) if one), "taktuk does not say why")
    return SpawnError(
        f"cannot start {command!r} on {place(target)}: {words}; see its limit of processes "
        "(ulimit -u)",
        host=target.address,
    )


def no_terminal(target: Target, command: object) -> SpawnError:
    """A terminal was asked for."""
    return SpawnError(
        f"cannot run {command!r} on {place(target)}: taktuk gives no terminal: use Remote",
        host=target.address,
    )
