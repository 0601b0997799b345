"""Scripts: what a command does when the fake transport runs it, one event after the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from execo.errors import ProcessError

if TYPE_CHECKING:
    from .fake import FakeChannel

__all__ = [
    "CloseStdin",
    "Echo",
    "Eof",
    "Err",
    "Event",
    "Exit",
    "Fail",
    "Gate",
    "Out",
    "Read",
    "Script",
    "Start",
    "scripts",
]


@dataclass(frozen=True, kw_only=True)
class Event:
    """One line of a script.

    :param delay: seconds after the event before it, for all events; by keyword
    """

    delay: float = 0.0


@dataclass(frozen=True)
class Start(Event):
    """The command starts. A script without this event starts at once, unless it begins with a
    :class:`Fail`.

    :param waited: seconds that it says to have waited for a slot; None = those that it has
    """

    waited: float | None = None


@dataclass(frozen=True)
class Out(Event):
    """The command writes ``data`` to its stdout. Waits while that is full and paused."""

    data: bytes


@dataclass(frozen=True)
class Err(Event):
    """The command writes ``data`` to its stderr. Waits while that is full and paused."""

    data: bytes


@dataclass(frozen=True)
class Eof(Event):
    """An output ends: 1 is stdout, 2 is stderr. The end of the script ends both.

    :param error: the error of reading it, None = an ordinary end
    """

    stream: int
    error: OSError | None = None


@dataclass(frozen=True)
class Exit(Event):
    """The command exits. The end of a script without this event exits 0.

    :param code: 3 for ``exit 3``, -15 for a death by SIGTERM, None = its status is lost
    """

    code: int | None = 0


@dataclass(frozen=True)
class Fail(Event):
    """The command cannot be started or, after its start, is lost: nothing more comes."""

    error: ProcessError


@dataclass(frozen=True)
class Gate(Event):
    """Waits for a :meth:`Script.step`; without one, for ever."""


@dataclass(frozen=True)
class Read(Event):
    """The command reads its stdin.

    :param until: up to and with this, or the end; empty = all of it until its end
    """

    until: bytes = b""


@dataclass(frozen=True)
class Echo(Event):
    """The command copies its stdin to its stdout until the end, as ``cat`` does."""


@dataclass(frozen=True)
class CloseStdin(Event):
    """The command closes its stdin: what is written to it fails from now on."""


class Script:
    """What a command does.

    :param events: one after the other
    :param signals: signal -> the exit code that it leads to, None = it is ignored. The others do
      what they do to a program without handlers, and nobody survives SIGKILL
    """

    def __init__(self, *events: Event, signals: Mapping[int, int | None] | None = None) -> None:
        self.events = events
        self.signals = dict(signals or {})
        self.channels: list[FakeChannel] = []
        """One for each start of the command, which tells what was done to it."""

    def step(self) -> None:
        """Open the next gate of every command that follows this script.

        Returns when all that comes then without delay, up to the next gate, has happened.
        """
        for channel in list(self.channels):
            channel.step()


scripts: dict[str, Script] = {}
"""Command -> its script. The words of a command without a shell are joined by blanks, quoted where
needed, as :func:`shlex.join` does."""
