"""What the processes of Put and Get ask for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from execo.transports.base import Exec, Target

from .progress import Meter
from .send import Package

__all__ = ["Broadcast", "Found", "Transfer", "cause"]


@dataclass(frozen=True, slots=True)
class Found:
    """What a host has, of what was asked for: a folder if ``size`` is None."""

    name: str
    size: int | None


@dataclass(frozen=True, slots=True)
class Broadcast:
    """What a transfer has to say for hosts to pass it on.

    :param width: how many others a host feeds
    :param seen: where another host finds this one, with a key of its own
    :param again: makes the command once more: no two scripts may have one temporary name
    """

    width: int
    seen: Target
    again: Callable[[], tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Transfer(Exec):
    """Run a script that takes or gives files.

    :param transport: the name of the transport that runs it
    :param label: how messages begin: what was to be put or got, and the host
    :param package: what to send; or
    :param location: where what arrives is stored, an absolute path
    :param one_line: what arrives is to be decoded, see :mod:`~execo.transfer.one_line`
    :param on_end: called on a worker thread when the package is not needed any more
    :param meter: counts what passes
    :param broadcast: set where other hosts may pass it on
    :param rsync: makes the words of the rsync on this machine of what the host has found, on a
      worker thread; then files pass between it and that of the host
    """

    transport: str = ""
    label: str = ""
    package: Package | None = None
    location: str = ""
    one_line: bool = False
    on_end: Callable[[], object] | None = None
    meter: Meter = field(default_factory=Meter)
    broadcast: Broadcast | None = None
    rsync: Callable[[list[Found]], tuple[str, ...]] | None = None


def cause(exc: BaseException) -> str:
    """Why something failed, in words, without the temporary names that nobody knows."""
    if isinstance(exc, OSError) and exc.strerror:
        name = exc.filename
        known = isinstance(name, str) and "/.execo-" not in name
        return f"{name}: {exc.strerror}" if known else exc.strerror
    return str(exc) or type(exc).__name__
