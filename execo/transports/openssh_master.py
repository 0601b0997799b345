"""A master: an ssh that does nothing but share its connection (ControlMaster in ssh_config(5)).

It is ours: a local process like any other, which ends with this script however that ends. Commands
run over it as short-lived clients (``ssh -S``). What becomes of them is read from what the master
writes of itself, on its stderr: which command it sends, and on which channel one has exited.
"""

from __future__ import annotations

import contextlib
import enum
import os
import re
import signal
import time
from typing import TYPE_CHECKING, Protocol

from execo._core.timer import Timer
from execo.errors import ProcessError, Reason
from execo.log import logger

from .base import Channel, Target
from .openssh_pulse import Pulse
from .openssh_window import Entrant
from .remote_shell import MARK
from .ssh_messages import (
    SHARED_SSH,
    MasterEvent,
    diagnose,
    failure,
    place,
    read_event,
    read_log,
    signal_name,
)

if TYPE_CHECKING:
    from .openssh_masters import Masters

__all__ = ["Client", "OpenSshMaster"]

GRACE = 120.0
"""Seconds after which sshd ends who has not logged in (LoginGraceTime in sshd_config(5))."""

_SETTLED = 1.0
_MESSAGES = 65536


class Client(Entrant, Protocol):
    """What runs over a master."""

    number: int  # the mark of its command; 0: it has none
    master: OpenSshMaster | None
    reserved: bool  # it may have the last place
    ended_by_itself: bool  # its ssh was not killed

    @property
    def opened(self) -> bool:
        """The host has opened a session for it."""

    @property
    def held(self) -> bool:
        """It waits for another one, which goes first."""

    def heard(self, event: MasterEvent) -> None:
        """Its master says something of its command. On the I/O thread."""

    def refuse(self, error: ProcessError) -> None:
        """It will not be started."""


class _State(enum.Enum):
    COMING = enum.auto()
    READY = enum.auto()
    RETIRED = enum.auto()  # takes no more
    OVER = enum.auto()


class OpenSshMaster:
    """One master; the sink of its ssh.

    ``clients`` are those that have a place on it. It belongs to the lock of the masters; all else
    to the I/O thread.
    """

    def __init__(self, masters: Masters, target: Target, path: str, nonce: str) -> None:
        self.target = target
        self.socket = path
        self.clients: set[Client] = set()
        self.idle_timer = Timer(masters.loop)  # since it fell idle
        self.heard_at = time.monotonic()
        self.error: ProcessError | None = None  # why it never came
        self.lingering = False  # a command whose client was killed may run on, and have a session
        self.useless = False  # it never came, and that may be the fault of sharing
        self._masters = masters
        self._state = _State.COMING
        self._channel: Channel | None = None
        self._pulse = Pulse(masters.loop, path, self._stopped)
        self._deadline = Timer(masters.loop)
        self._began = 0.0
        self._listens = 0.0  # since when
        self._opened = False  # it has opened a session
        self._ended = False
        self._killed = False
        self._line = b""
        self._text: list[str] = []  # what it says that is no event
        self._marked = re.compile(rf"{MARK}={nonce}\.(\d+)\.")
        self._session = -1
        self._numbers: dict[int, int] = {}  # channel -> number of the command that it carries
        self._cannot_listen = False

    @property
    def coming(self) -> bool:
        return self._state is _State.COMING

    @property
    def ready(self) -> bool:
        return self._state is _State.READY

    @property
    def over(self) -> bool:
        """Its ssh has ended, and all that it has said was heard."""
        return self._state is _State.OVER

    @property
    def messages(self) -> tuple[str, ...]:
        """What it has said of troubles."""
        return read_log("\n".join(self._text)).messages

    @property
    def killed(self) -> bool:
        """It was told to end at once."""
        return self._killed

    def retire(self) -> None:
        """Take nobody any more."""
        if self._state in (_State.COMING, _State.READY):
            self._state = _State.RETIRED

    def end(self, number: int = signal.SIGTERM) -> None:
        """Have its ssh end, which closes its connection. On the I/O thread."""
        self._ended = True
        self._killed = self._killed or number == signal.SIGKILL
        if self._channel is not None and not self.over:
            if self._began:
                self._channel.send_signal(number)
            else:
                self._channel.abort()

    def nudge(self) -> None:
        """Wake it up: one that has seen a client die sends the end of its session no sooner than
        something else happens (seen with OpenSSH 9.2, up to ServerAliveInterval later)."""
        if self._state in (_State.READY, _State.RETIRED) and self._began:
            self._pulse.ask()

    # -- whether it runs ------------------------------------------------------------------------

    @property
    def quiet(self) -> bool:
        """It has said nothing for a while. Any thread."""
        return self._pulse.quiet

    def check(self) -> None:
        """It was quiet, and is given a command: it has to answer soon, unless others run over it,
        which can wait longer. On the I/O thread."""
        self._pulse.check(lambda: bool(self.clients) and not self._carries())

    def watch(self) -> None:
        """Ask it from time to time, while it has clients. On the I/O thread."""
        options = self.target.options
        if options.keepalive:
            self._pulse.watch(
                options.keepalive, options.keepalive_count, lambda: bool(self.clients)
            )

    def _carries(self) -> bool:
        return any(client.opened and not client.reserved for client in list(self.clients))

    def freeze(self) -> None:
        """It does not answer: end it, and say so to those that run over it."""
        self._text.append(f"{SHARED_SSH} does not answer")
        self.end(signal.SIGKILL)

    def _stopped(self) -> None:
        self._masters.frozen(self)

    # -- in the window --------------------------------------------------------------------------

    def set_up(self) -> bool:
        # It listens as soon as we are let in, and a busy sshd counts us (MaxStartups) a little
        # longer: until it opens a session, for sure.
        since = time.monotonic() - (self._listens or time.monotonic())
        if self._opened or since > _SETTLED:
            return True
        return bool(self._began) and time.monotonic() - self._began > GRACE

    # -- the sink of its ssh --------------------------------------------------------------------

    def on_open(self, channel: Channel) -> None:
        self._channel = channel

    def on_start(self) -> None:
        self._began = time.monotonic()
        assert self._channel is not None
        self._channel.close_stdin()
        if self._ended:
            self.end()
        timeout = self.target.options.connect_timeout
        if timeout is not None:
            # A host that answers, and then stalls: ssh itself has no limit for that.
            self._deadline.set(timeout + GRACE, self._too_late, timeout + GRACE)

    def on_data(self, stream: int, data: bytes) -> None:
        if stream != 2:
            return
        self.heard_at = time.monotonic()
        self._pulse.beat()
        *lines, self._line = (self._line + data).split(b"\n")
        for line in lines:
            self._hear(line.decode("utf-8", "replace").rstrip("\r"))

    def on_eof(self, stream: int, error: OSError | None) -> None:
        pass

    def on_exit(self, status: int | None, error: ProcessError | None = None) -> None:
        # Its last words are in the pipe still: a turn of the loop reads them.
        self._masters.loop.call_later(0.01, self._over, status)

    def on_error(self, error: ProcessError) -> None:
        self._over(None)

    def on_written(self, count: int) -> None:
        pass

    def on_write_error(self, error: OSError) -> None:
        pass

    # -- what it says ---------------------------------------------------------------------------

    def _hear(self, line: str) -> None:
        found = read_event(line)
        if found is None:
            if sum(map(len, self._text)) < _MESSAGES:
                self._text.append(line)
            return
        event, channel, text = found
        if event in (MasterEvent.LISTENS, MasterEvent.CANNOT_LISTEN):
            self._hear_whether_it_listens(event, line)
        elif event is MasterEvent.SESSION:
            self._session = channel
            if not self._opened:
                self._opened = True
                self._masters.settled(self)
            self._numbers.pop(channel, None)  # of the one before
        elif event is MasterEvent.COMMAND:
            marked = self._marked.search(text)
            if marked is not None:
                self._numbers[self._session] = int(marked[1])
                self._masters.tell(self, int(marked[1]), event)
            else:
                self._masters.tell(self, 0, event)  # the guard
        elif event is MasterEvent.REFUSED:
            self._masters.refused(self)
        elif channel in self._numbers:
            self._masters.tell(self, self._numbers[channel], event)

    def _hear_whether_it_listens(self, event: MasterEvent, line: str) -> None:
        if event is MasterEvent.CANNOT_LISTEN:
            self._text.append(line)
        if self._state is not _State.COMING or self._cannot_listen:
            return
        if event is MasterEvent.LISTENS:
            self._state = _State.READY
            self._deadline.cancel()
            self._listens = time.monotonic()
            self._masters.ready(self)
        else:
            self._cannot_listen = True
            assert self._channel is not None
            self._channel.send_signal(signal.SIGTERM)

    def _too_late(self, limit: float) -> None:
        if self._state is _State.COMING and not self._ended:
            self.error = ProcessError(
                f"cannot connect to {place(self.target)}: timed out, it has answered, but has not "
                f"let us in after {limit:g} s; is the host well? see connect_timeout",
                reason=Reason.CONNECT,
                host=self.target.address,
            )
            assert self._channel is not None
            self._channel.send_signal(signal.SIGKILL)

    def _over(self, status: int | None) -> None:
        if self._state is _State.COMING and not self._ended:
            self._tell_why(status)
        elif status is not None and os.WIFSIGNALED(status) and not self._ended:
            name = signal_name(os.WTERMSIG(status))
            self._text.append(f"somebody has ended {SHARED_SSH} on this machine ({name})")
        self._state = _State.OVER
        self._deadline.cancel()
        self.idle_timer.cancel()
        self._pulse.end()
        with contextlib.suppress(OSError):
            os.unlink(self.socket)
        self._masters.gone(self, expected=self._ended)

    def _tell_why(self, status: int | None) -> None:
        if self.error is not None:
            return
        log = read_log("\n".join(self._text))
        error = None
        if status is not None and not self._cannot_listen:
            error = failure(self.target, status, log, (), follows=True)
            known = os.WIFSIGNALED(status) or diagnose(log.messages, self.target.address)
            if error is not None and error.reason is not Reason.SPAWN and known:
                self.error = error
                return
        # What is said of options may concern ours alone, and what is not understood may be the
        # fault of sharing: a connection of their own shows.
        self.useless = True
        logger.debug(
            "no shared connection to %s, each command has its own: %s",
            place(self.target),
            "; ".join(log.messages) or "ssh does not say why",
        )
