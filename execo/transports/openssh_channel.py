"""One command that runs through the ssh command: between its sink and its local ssh."""

from __future__ import annotations

import errno
import signal
import time
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from execo.errors import CancelledError, ProcessError, SpawnError

from .base import Channel, Exec, Sink, Target
from .openssh_guard import OpenSshGuard
from .openssh_input import Input
from .openssh_master import GRACE, OpenSshMaster
from .openssh_record import Record
from .openssh_seat import Seat
from .openssh_signals import Signals
from .ssh_messages import SSH_FAILED, MasterEvent, SshLog, failure, place

if TYPE_CHECKING:
    from .openssh import OpenSshTransport

__all__ = ["OpenSshChannel"]

_SETTLED = 1.0
_ENDS_WITHIN = 10.0
_GUARD_AFTER = 0.1
_DRAIN = 1.0
_TAIL = 1024


class OpenSshChannel:
    """One command: a channel for its process, and the sink of its local ssh.

    ``pid`` stays None, since that of the local ssh is not the command's. ``on_start`` says that
    ssh runs: when the command itself does is not seen. Its exit is seen when nothing on the host
    holds its output open any more, as with every ssh.

    With a ``master`` its ssh is a client of it, see :class:`~execo.transports.openssh_seat.Seat`.
    """

    pid: int | None = None
    reserved = False

    def __init__(
        self, transport: OpenSshTransport, request: Exec, target: Target, sink: Sink, number: int
    ) -> None:
        self.request = request
        self.target = target
        self.number = number
        self.transport = transport
        self.master: OpenSshMaster | None = None
        self.record = Record()
        self.input = Input(transport.loop, request.pty)
        self.seat = Seat(self)
        self.unfinished = True  # its ssh has neither ended nor failed
        self.started = False
        self.given_up = False
        self.seen = False  # has printed something
        self.ended_by_itself = False
        self.signals = Signals(self)
        self._opened = time.monotonic()
        self._began = 0.0
        self._queued = 0.0  # seconds until its ssh could be started
        self._loop = transport.loop
        self._sink = sink
        self._local: Channel | None = None
        self._refused = False
        self._forgotten = False
        self._paused = False
        self._hung_up: int | None = None  # the signal in whose place its connection was ended
        self._lost: ProcessError | None = None
        self._cut: OSError | None = None  # why some of its output is missing
        self._guard_lost: ProcessError | None = None
        self._told = False
        self._eofs: set[int] = set()
        self._tail = b""  # of stderr

    # -- what is known of it --------------------------------------------------------------------

    @property
    def guard(self) -> OpenSshGuard | None:
        return self.signals.guard

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
    def ending(self) -> bool:
        """It was told to end."""
        return self.signals.ending is not None or self.hung_up

    @property
    def held(self) -> bool:
        return self.guard is not None and self.guard.ahead

    @property
    def hung_up(self) -> bool:
        """Its connection was ended, to end it."""
        return self._hung_up is not None

    @property
    def opened(self) -> bool:
        """Its master was about to send it."""
        return self.record.sent

    @property
    def command_exited(self) -> bool:
        """True once ssh has written that the command has exited: its output may be held open."""
        return self.record.read().exited

    @property
    def taken(self) -> bool:
        """The host has taken it, as far as can be seen, or it is over."""
        if not self.unfinished or self.seen:
            return True
        if self.record.follows:
            return self.record.read().accepted
        return self.running > _SETTLED

    @property
    def running(self) -> float:
        """Seconds since its ssh was started, the last time; 0 before."""
        return time.monotonic() - self._began if self._began else 0.0

    # -- starting -------------------------------------------------------------------------------

    def open(self) -> None:
        """Show itself to the sink."""
        self._sink.on_open(cast(Channel, self))

    def admit(self, log_file: str, *, follows: bool) -> None:
        """It is going to be started."""
        if not self.started:
            self._queued = time.monotonic() - self._opened
        self.record.begin(log_file, follows=follows, by_master=self.master is not None)

    def refuse(self, error: ProcessError) -> None:
        """It will not be started."""
        self._refused = True
        self._loop.call_soon(self.on_error, error)

    # -- asked by the process: the I/O thread ---------------------------------------------------

    def write(self, data: bytes) -> None:
        self.input.put(data)

    def close_stdin(self) -> None:
        self.input.put(None)

    def pause(self) -> None:
        self._paused = True
        if self._local is not None:
            self._local.pause()

    def resume(self) -> None:
        self._paused = False
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
        elif self.transport.give_up(self):
            self.on_error(CancelledError("given up while it waited for its start"))
        else:
            self.given_up = True

    def send_signal(self, number: int) -> bool:
        if not self.started:
            return False
        if self.unfinished:
            self.signals.send(number)
            return True
        if not self._forgotten:
            self.signals.send_left(number)
        return False

    def hang_up(self, number: int) -> None:
        """Have the local ssh end: the connection drops."""
        if not self.unfinished:
            return
        self._hung_up = number
        if self._local is not None:
            hard = number == signal.SIGKILL
            self._local.send_signal(signal.SIGKILL if hard else signal.SIGTERM)
        elif self.transport.give_up(self):
            self.release(SSH_FAILED)  # between two starts

    # -- its connection -------------------------------------------------------------------------

    def set_up(self) -> bool:
        """Whether the host has taken the command, as far as can be seen."""
        since = self.running
        if not self.started or since > GRACE:
            return since > GRACE
        if not self.record.follows:
            done = since >= _SETTLED
        else:
            done = self.record.grown() and self.record.read().accepted
        if done:
            self._connected()
        return done

    def _connected(self) -> None:
        # A command that is over at once is not worth an order.
        if self.guard is not None:
            self._loop.call_later(_GUARD_AFTER, self._want_guard)

    def _want_guard(self) -> None:
        if self.unfinished and self.guard is not None:
            self.guard.come()
            if not self.request.detach:
                self.guard.runs(self.number)

    def guard_lost(self, error: ProcessError) -> None:
        """Its guard has lost the script, and ends it: that is why it fails from now on."""
        if self.unfinished and not self.request.detach:
            self._guard_lost = error
            self._loop.call_later(_ENDS_WITHIN, self._forget_guard_lost)

    def _forget_guard_lost(self) -> None:
        # Its guard itself was killed on the host, and ends nothing: later failures are its own.
        self._guard_lost = None

    def lose(self, error: ProcessError) -> None:
        """Its host is lost: that is what its end will say."""
        self._lost = error
        self.seat.suspect()

    # -- its master -----------------------------------------------------------------------------

    def heard(self, event: MasterEvent) -> None:
        self.record.hear(event)
        self.seat.heard(event)
        if event is MasterEvent.ACCEPTED:
            self._connected()

    def start_again(self) -> None:
        """It was not sent, and has lost its place."""
        self._local = None
        self._began = 0.0
        self.input.disconnect()
        self.record.end()
        self.transport.again(self)

    # -- the sink of the local ssh --------------------------------------------------------------

    def on_open(self, channel: Channel) -> None:
        self._local = channel

    def on_start(self) -> None:
        assert self._local is not None
        self._began = time.monotonic()
        self.input.connect(self._local)
        self.seat.started()
        again, self.started = self.started, True
        if not again:
            self._sink.on_start()
        elif self._paused:
            self._local.pause()
        if self._transport_closed() or (again and self.hung_up):
            self.send_signal(signal.SIGKILL)

    def _transport_closed(self) -> bool:
        return self.transport.closed and not self.request.detach

    def on_data(self, stream: int, data: bytes) -> None:
        if not self.seen:
            self.seen = True
            self.transport.window.leave(self)
            self._connected()
        if stream == 2:
            self._tail = (self._tail + data)[-_TAIL:]
            if self.request.pty:
                return  # ssh's own: what the command writes comes through its terminal
        if not self._told:
            self._sink.on_data(stream, data)

    def on_eof(self, stream: int, error: OSError | None) -> None:
        follows = self.record.follows and self.started
        if self.seat.holds or (self.unfinished and follows and not self.record.complete):
            # What it means is known when its ssh has ended: with the output, or in the middle.
            self.seat.hold_end(stream, error)
            return
        self._eofs.add(stream)
        if not self._told:
            self._sink.on_eof(stream, error or self._cut)
            self._tell_lost()

    def on_written(self, count: int) -> None:
        if not self._told:
            self.input.written(count, self._sink.on_written)

    def on_write_error(self, error: OSError) -> None:
        if self.seat.holds and not self.input.late:
            self.seat.hold_error(error)
        else:
            self._sink.on_write_error(error)

    def on_error(self, error: ProcessError) -> None:
        if self._left_alone():
            return
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
        if self._left_alone():
            return
        self.ended_by_itself = not self.hung_up and status is not None and not status & 0x7F
        if self.master is not None and status == SSH_FAILED and not self.hung_up:
            # What its master has written before is in the pipe still.
            self._loop.call_later(0, self.seat.judge, status)
        elif self._may_be_cut():
            self._loop.call_later(0, self.seat.settle, status, error)
        else:
            self.release(status, error)

    def _may_be_cut(self) -> bool:
        """Its ssh has said of what it exited; whether its output is complete its master says."""
        sent = self.master is not None and self.opened
        return sent and not self.record.complete and not self.hung_up

    def release(self, status: int | None, error: ProcessError | None = None) -> None:
        """It is over: tell the sink."""
        log = self.record.read()
        if self.master is not None and self.opened and not (log.exited and log.complete):
            log = replace(log, messages=self.master.messages)
        self._ended()
        if status and self._lost is None and self.signals.ending is None:
            self._lost = self._guard_lost
        if self._lost is None and not self.hung_up:
            self._lost = self._look_lost(status, log)
        self.seat.tell_held()
        if self._lost is not None:
            self._tell_lost()
            if not self._told:
                self._loop.call_later(_DRAIN, self._stop_draining)
            return
        signalled = self.signals.signalled
        if self._hung_up is not None:
            status, error = self._hung_up, None
        elif status == SSH_FAILED and log.by_signal and signalled is not None:
            status = signalled  # ssh does not say of which, but it was told to
        for stream in {1, 2} - self._eofs if self._local is None else ():
            self.on_eof(stream, None)
        self._sink.on_exit(status, error)

    def _look_lost(self, status: int | None, log: SshLog) -> ProcessError | None:
        tail = self._tail.decode("utf-8", "replace").splitlines()
        error = failure(self.target, status, log, tail, follows=self.record.follows)
        if error is not None and log.exited:
            # Its exit was told, and the connection lost before its output had come.
            self._cut = ConnectionResetError(errno.ECONNRESET, str(error))
            self._cut.__cause__ = error
            if status != SSH_FAILED:
                return None  # that is the command's own
        return error

    def _left_alone(self) -> bool:
        """True if its ssh goes with the script, and it runs on."""
        relayed = self.request.relay or self.request.relayed
        if not (self.transport.closed and relayed and self.started):
            return False
        self._told = True
        self._ended()
        return True

    def _ended(self) -> None:
        self.unfinished = False
        if self.input.drop():
            self._sink.on_write_error(BrokenPipeError("it ended before its terminal was ready"))
        self.record.end()
        self.transport.window.leave(self)
        self.transport.masters.leave(self)
        self.transport.ended(self)
        self.signals.release_guard()

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
