"""One command that runs through the ssh command: between its sink and its local ssh."""

from __future__ import annotations

import os
import signal
import termios
import time
from functools import partial
from typing import TYPE_CHECKING, cast

from execo.errors import CancelledError, ProcessError, Reason, SpawnError
from execo.log import logger

from .base import ENDING_SIGNALS, Channel, Exec, Sink, Target
from .openssh_guard import OpenSshGuard
from .ssh_messages import SSH_FAILED, SshLog, failure, place, read_log

if TYPE_CHECKING:
    from .openssh import OpenSshTransport

__all__ = ["OpenSshChannel"]

FROZEN_AFTER = 5.0
"""Seconds from the order to kill to the end of the ssh: after that the host does not answer."""

GRACE = 120.0
"""Seconds after which sshd ends who has not logged in (LoginGraceTime in sshd_config(5))."""

_SETTLED = 1.0
_ENDS_WITHIN = 10.0
_AGAIN = (0.3, 1.0)
_YOUNG = 2.0
_LOOK = 0.2
_TERMINAL_LOOK = 0.02
_SURVIVOR_LOOK = 1.0
_DRAIN = 1.0
_TAIL = 1024


class OpenSshChannel:
    """One command: a channel for its process, and the sink of its local ssh.

    ``pid`` stays None, since that of the local ssh is not the command's. ``on_start`` says that
    ssh runs: when the command itself does is not seen. Its exit is seen when nothing on the host
    holds its output open any more, as with every ssh.
    """

    pid: int | None = None

    def __init__(
        self, transport: OpenSshTransport, request: Exec, target: Target, sink: Sink, number: int
    ) -> None:
        self.request = request
        self.target = target
        self.number = number
        self.guard: OpenSshGuard | None = None
        self.log_file = ""
        self.follows = False  # ssh writes of the command's start and exit, see ssh_messages.FOLLOW
        self.unfinished = True  # its ssh has neither ended nor failed
        self.started = False
        self.given_up = False
        self._opened = time.monotonic()
        self._queued = 0.0  # seconds until its ssh could be started
        self._log_seen = 0  # how long its log was at the last look
        self._transport = transport
        self._loop = transport.loop
        self._sink = sink
        self._local: Channel | None = None
        self._refused = False
        self._forgotten = False
        self._ending: int | None = None  # the last signal that was meant to end it
        self._signalled: int | None = None  # the last one of which it may have died
        self._hung_up: int | None = None  # the same, where the local ssh got it
        self._lost: ProcessError | None = None
        self._guard_lost: ProcessError | None = None
        self._told = False
        self._eofs: set[int] = set()
        self._seen = False  # has printed something
        self._tail = b""  # of stderr
        self._watches_survivors = False
        self._early: list[bytes | None] = []  # input for a terminal that is not ready
        self._ready = not request.pty

    # -- what is known of it --------------------------------------------------------------------

    @property
    def start_date(self) -> float | None:
        return None if self._local is None else self._local.start_date

    @property
    def waited(self) -> float:
        return 0.0 if self._local is None else self._queued + self._local.waited

    @property
    def failed(self) -> bool:
        return self._refused or (self._local is not None and self._local.failed)

    @property
    def process(self) -> object:
        """The Popen of the local ssh."""
        return None if self._local is None else self._local.process

    @property
    def descriptors(self) -> tuple[int | None, int | None, int | None]:
        return (None, None, None) if self._local is None else self._local.descriptors

    @property
    def command_exited(self) -> bool:
        """True once ssh has written that the command has exited: its output may be held open."""
        return self._read_log().exited

    @property
    def ending(self) -> bool:
        """It was told to end."""
        return self._ending is not None or self._hung_up is not None

    # -- starting -------------------------------------------------------------------------------

    def open(self) -> None:
        """Show itself to the sink."""
        self._sink.on_open(cast(Channel, self))

    def admit(self, log_file: str, *, follows: bool) -> None:
        """It is going to be started."""
        self._queued = time.monotonic() - self._opened
        self.log_file = log_file
        self.follows = follows

    def refuse(self, error: ProcessError) -> None:
        """It will not be started."""
        self._refused = True
        self._loop.call_soon(self.on_error, error)

    # -- asked by the process: the I/O thread ---------------------------------------------------

    def write(self, data: bytes) -> None:
        if self._local is not None and self._terminal_takes(data):
            self._local.write(data)

    def close_stdin(self) -> None:
        if self._local is not None and self._terminal_takes(None):
            self._local.close_stdin()

    def pause(self) -> None:
        if self._local is not None:
            self._local.pause()

    def resume(self) -> None:
        if self._local is not None:
            self._local.resume()

    def forget(self) -> None:
        self._forgotten = True
        if self._local is not None:
            self._local.forget()

    def abort(self) -> None:
        if self.started:
            self.send_signal(signal.SIGKILL)
        elif self._local is not None:
            self._local.abort()
        elif self._transport.window.give_up(self):
            self.on_error(CancelledError("given up while it waited for its start"))
        else:
            self.given_up = True

    def send_signal(self, number: int) -> bool:
        if not self.started:
            return False
        if self.unfinished:
            self._deliver(number)
            return True
        if not self._forgotten and self.guard is not None:
            self.guard.kill(number, self.number, group=self.request.group)
        return False

    def hang_up(self, number: int) -> None:
        """Have the local ssh end: the connection drops."""
        if self._local is not None and self.unfinished:
            self._hung_up = number
            hard = number == signal.SIGKILL
            self._local.send_signal(signal.SIGKILL if hard else signal.SIGTERM)

    # -- its connection -------------------------------------------------------------------------

    def set_up(self) -> bool:
        """Whether the host has taken the command, as far as can be seen."""
        since = 0.0 if self.start_date is None else time.time() - self.start_date
        if not self.started or since > GRACE:
            return since > GRACE
        if not self.follows:
            done = since >= _SETTLED
        else:
            try:
                size = os.stat(self.log_file).st_size
            except OSError:
                return False  # ssh has not made it yet
            if size == self._log_seen:
                return False
            self._log_seen = size
            done = self._read_log().accepted
        if done and self.guard is not None:
            self.guard.come()
        return done

    def _connected(self) -> None:
        self._transport.window.leave(self)
        if self.guard is not None:
            self.guard.come()

    # -- signals --------------------------------------------------------------------------------

    def _deliver(self, number: int) -> None:
        if not self.unfinished:
            return
        ending = number in ENDING_SIGNALS
        log = self._read_log()
        if self.follows and not log.accepted:
            if not ending:
                self._loop.call_later(_LOOK, self._deliver, number)
                return
            # There is nothing to signal. The host may be at the point of starting it: a little
            # later the guard looks for it.
            self.hang_up(number)
            self._watch_survivors(_LOOK, known=True)
            return
        if ending:
            self._ending = number
        if number not in (signal.SIGSTOP, signal.SIGCONT):
            self._signalled = number
        self._order(number)
        if ending and not self._seen and self._age() < _YOUNG:
            # The host may be about to start it, with nothing there yet to signal.
            for delay in _AGAIN:
                self._loop.call_later(delay, self._order_again, number)
        if number == signal.SIGTERM and self.request.kill_timeout is not None:
            self._watch_survivors(self.request.kill_timeout, known=False)

    def _order(self, number: int) -> None:
        without = partial(self._without_guard, number)
        self._transport.rejoin_guard(self)
        if self.guard is None:
            without()
            return
        self.guard.kill(number, self.number, without, group=self.request.group)
        if number == signal.SIGKILL:
            self._loop.call_later(FROZEN_AFTER, self._look_frozen)

    def _order_again(self, number: int) -> None:
        if self.unfinished and not self._seen and self._ending == number:
            self._order(number)

    def _without_guard(self, number: int) -> None:
        if not self.unfinished:
            return
        if number in ENDING_SIGNALS:
            if not self.request.pty and self._hung_up is None:
                logger.warning(
                    "no guard on %s: its connection is ended, but what %r has started there may go "
                    "on; a pty would end it",
                    place(self.target),
                    self.request.command,
                )
            self.hang_up(number)
        else:
            logger.warning(
                "cannot send signal %d to %r on %s: no guard there to do it",
                number,
                self.request.command,
                place(self.target),
            )

    def guard_lost(self, error: ProcessError) -> None:
        """Its guard has lost the script, and ends it: that is why it fails from now on."""
        if self.unfinished and not self.request.detach:
            self._guard_lost = error
            self._loop.call_later(_ENDS_WITHIN, self._forget_guard_lost)

    def _forget_guard_lost(self) -> None:
        # Its guard itself was killed on the host, and ends nothing: later failures are its own.
        self._guard_lost = None

    def _look_frozen(self) -> None:
        if not self.unfinished:
            return
        if self.guard is not None and self.guard.coming:
            self._loop.call_later(FROZEN_AFTER, self._look_frozen)  # it has not been told yet
            return
        if not self._read_log().exited:
            self._lost = ProcessError(
                f"{place(self.target)} does not answer: killed here, what ran there may go on",
                reason=Reason.CONNECT,
                host=self.target.address,
            )
        # Else something that bears no mark holds its output open.
        self.hang_up(signal.SIGKILL)

    def _watch_survivors(self, delay: float, *, known: bool) -> None:
        """Kill what is left of it ``delay`` seconds from now, or when it has exited after that.

        :param known: look once only: the command is over then
        """
        if self.request.group and self.guard is not None and not self._watches_survivors:
            self._watches_survivors = True
            self._loop.call_later(delay, self._end_survivors, known)

    def _end_survivors(self, known: bool) -> None:
        if known or not self.unfinished or self._read_log().exited:
            self.kill_survivors()
        else:
            self._loop.call_later(_SURVIVOR_LOOK, self._end_survivors, False)

    def kill_survivors(self) -> None:
        """Kill what is left of it, if it was told to end."""
        if self._watches_survivors and self.guard is not None:
            self._watches_survivors = False
            self.guard.kill(signal.SIGKILL, self.number)
        self._release_guard()

    def _release_guard(self) -> None:
        if not self.unfinished and not self._watches_survivors and self.guard is not None:
            self._transport.release_guard(self.guard, self)

    # -- a terminal -----------------------------------------------------------------------------

    def _terminal_takes(self, data: bytes | None) -> bool:
        """False if the input has to wait until ssh has its terminal in raw mode: before that an
        end of file would be lost, and a long line cut."""
        if not self._ready:
            if not self._early:
                self._loop.call_later(0, self._look_terminal)
            self._early.append(data)
        return self._ready

    def _look_terminal(self) -> None:
        fd = self.descriptors[0]
        raw = fd is None or not self.unfinished
        if fd is not None:
            try:
                raw = not termios.tcgetattr(fd)[3] & termios.ICANON
            except (OSError, termios.error):
                raw = True  # gone: the local channel says so
        if not raw:
            # Nothing tells of it, so one has to look.
            self._loop.call_later(_TERMINAL_LOOK, self._look_terminal)
            return
        self._ready = True
        early, self._early = self._early, []
        for data in early:
            if data is None:
                self.close_stdin()
            else:
                self.write(data)

    # -- the sink of the local ssh --------------------------------------------------------------

    def on_open(self, channel: Channel) -> None:
        self._local = channel

    def on_start(self) -> None:
        self.started = True
        self._sink.on_start()
        if self._transport.closed and not self.request.detach:
            self.send_signal(signal.SIGKILL)

    def on_data(self, stream: int, data: bytes) -> None:
        if not self._seen:
            self._seen = True
            self._connected()
        if stream == 2:
            self._tail = (self._tail + data)[-_TAIL:]
            if self.request.pty:
                return  # ssh's own: what the command writes comes through its terminal
        if not self._told:
            self._sink.on_data(stream, data)

    def on_eof(self, stream: int, error: OSError | None) -> None:
        self._eofs.add(stream)
        if not self._told:
            self._sink.on_eof(stream, error)
            self._tell_lost()

    def on_written(self, count: int) -> None:
        if not self._told:
            self._sink.on_written(count)

    def on_write_error(self, error: OSError) -> None:
        self._sink.on_write_error(error)

    def on_error(self, error: ProcessError) -> None:
        if isinstance(error.__cause__, FileNotFoundError) and not self.started:
            program = self.target.options.ssh[0]
            missing = SpawnError(
                f"cannot start {program!r} to reach {place(self.target)}: command not found; "
                f"install it (package openssh-client), or name another with ssh",
                host=self.target.address,
                command=error.command,
            )
            missing.__cause__ = error.__cause__
            error = missing
        self._ended()
        self._told = True
        self._sink.on_error(error)

    def on_exit(self, status: int | None, error: ProcessError | None = None) -> None:
        log = self._read_log()
        self._ended()
        if self._guard_lost is not None and self._lost is None and self._ending is None and status:
            self._lost = self._guard_lost
        if self._lost is None and self._hung_up is None:
            tail = self._tail.decode("utf-8", "replace").splitlines()
            self._lost = failure(self.target, status, log, tail, follows=self.follows)
        if self._lost is not None:
            self._tell_lost()
            if not self._told:
                self._loop.call_later(_DRAIN, self._stop_draining)
            return
        if self._hung_up is not None:
            status, error = self._hung_up, None
        elif status == SSH_FAILED and log.by_signal and self._signalled is not None:
            status = self._signalled  # ssh does not say of which, but it was told to
        self._sink.on_exit(status, error)

    def _ended(self) -> None:
        self.unfinished = False
        if self._early:
            self._early.clear()
            self._sink.on_write_error(BrokenPipeError("it ended before its terminal was ready"))
        if self.log_file:
            try:
                os.unlink(self.log_file)
            except FileNotFoundError:
                pass  # it has written nothing
        self._transport.window.leave(self)
        self._transport.ended(self)
        self._release_guard()

    def _tell_lost(self) -> None:
        # All that it printed comes first.
        if self._lost is not None and not self.unfinished and self._eofs == {1, 2}:
            self._told = True
            self._sink.on_error(self._lost)

    def _stop_draining(self) -> None:
        """Something that ssh has started holds its output open."""
        if not self._told:
            self._eofs = {1, 2}
            self._tell_lost()

    # -- the log of ssh -------------------------------------------------------------------------

    def _read_log(self) -> SshLog:
        try:
            with open(self.log_file, "rb") as file:
                return read_log(file.read().decode("utf-8", "replace"))
        except OSError:
            return SshLog()

    def _age(self) -> float:
        """Seconds since ssh has last written of itself: since it has started the command."""
        try:
            return time.time() - os.stat(self.log_file).st_mtime
        except OSError:
            return 0.0 if self.start_date is None else time.time() - self.start_date
