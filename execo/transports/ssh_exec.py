"""One command over an SSH connection of this process, from its request to its end.

::

    WAITING ──> SENT ──> RUNNING ──> EXITED       (its output may still come)
       │         │          │
       └─────────┴──────────┴──────> OVER         (given up, refused, or lost)
"""

from __future__ import annotations

import enum
import errno
import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from execo._core.loop import Loop
from execo.errors import CancelledError, ProcessError, Reason, SpawnError
from execo.log import logger

from .base import ENDING_SIGNALS, Exec, Sink
from .remote_shell import Mark, command_text
from .signal_requests import SignalRequests
from .ssh_expired import ExpiryWatch

if TYPE_CHECKING:
    from .channel import SshChannel
    from .inprocess import InProcessTransport
    from .ssh_connection import SshConnection

__all__ = ["SshExec"]

PATIENCE = 10.0
"""Seconds that a host has to end a command that got a SIGKILL, or to say whether one runs that is
not wanted any more: a frozen one never answers."""


_NAMED = frozenset(map(int, signal.Signals))
"""Signals with a name of their own: all but real-time ones."""

_MOST_TRIES = 10
"""Channels that are asked for where nothing else runs, until that is not why there is none."""


class _State(enum.Enum):
    """See the module."""

    WAITING = enum.auto()
    SENT = enum.auto()
    RUNNING = enum.auto()
    EXITED = enum.auto()
    OVER = enum.auto()


class SshExec:
    """One command: the channel of the seam above, and the listener of an SSH channel below.

    All on the I/O thread, save ``open``.
    """

    pid: int | None = None
    start_date: float | None = None
    waited = 0.0
    failed = False
    process: object = None
    tries = 0  # connections that were lost, or full, before it can have run

    _state = _State.WAITING
    _connection: SshConnection | None = None
    _channel: SshChannel | None = None
    _number = -1
    _unwanted = False  # asked to be given up after it was sent
    _eof = False
    _done = False  # its connection is not in use by it any more
    _forgotten = False
    _ending = False  # told to end, with all that it has started
    _watched = False  # what survives it will be killed
    _stdin_closed = False
    _in_line = False
    _signal_requests: SignalRequests | None = None
    _expiry: ExpiryWatch | None = None  # while its output may say that it did not run
    _uncounted = 0  # bytes at the end of its stdin that are not the user's

    def __init__(self, transport: InProcessTransport, request: Exec, sink: Sink) -> None:
        self.request = request
        self._transport = transport
        self._loop: Loop = transport.runtime.loop
        self._sink = sink
        self._opened = time.monotonic()

    @property
    def descriptors(self) -> tuple[int | None, int | None, int | None]:
        """There are none."""
        return None, None, None

    @property
    def started(self) -> bool:
        """The host has said that it runs."""
        return self._state in (_State.RUNNING, _State.EXITED)

    def open(self) -> None:
        """Show itself to the sink."""
        self._sink.on_open(self)

    # -- starting -------------------------------------------------------------------------------

    def send(self, connection: SshConnection, number: int, mark: Mark | None, posix: bool) -> None:
        """Open a channel on ``connection`` and run there."""
        from .channel import SshChannel, env_request, exec_request, pty_request  # see Pool

        request = self.request
        self._connection = connection
        self._number = number
        try:
            text = command_text(
                request.command,
                cwd=request.cwd,
                env=request.env,
                mark=mark,
                posix=posix,
                relay=request.relay,
            )
            command = text.encode("utf-8", "surrogateescape")
        except ValueError as exc:
            self.refuse(SpawnError(f"cannot send {request.command!r} to {self._host}: {exc}"))
            self._release()
            return
        self._state = _State.SENT
        if not connection.has_hello:
            self._expiry = ExpiryWatch(self._loop.call_later, self._exited)
        requests: list[Callable[[int], Any]] = [pty_request()] if request.pty else []
        requests += [env_request(*pair) for pair in connection.target.options.env]
        requests.append(exec_request(command))
        self._channel = SshChannel(connection.session, self, requests)
        connection.expect_answer(self)

    def refuse(self, error: ProcessError) -> None:
        """It will not be started: ``error`` is that of its host."""
        if self._state is _State.OVER:
            return
        self.failed = True
        self._fail(error)

    def channel_opened(self) -> None:
        assert self._connection is not None
        self._connection.proven = True

    def channel_refused(self, why: str) -> None:
        connection = self._connection
        assert connection is not None
        self._state, self._channel, self._connection = _State.WAITING, None, None
        connection.answered(self)
        self.tries += 1
        if self._unwanted:
            connection.refused(self, full=False)
            self._cancel()
        elif self.tries == 1:
            # The host may not have noticed yet that another one has ended: it has by now.
            connection.refused(self, full=False)
            connection.run(self)
        elif connection.take_session_of_guard(self):
            self.tries = 0
        else:
            alone = connection.busy == 1
            connection.refused(self, full=not alone)
            if connection.proven and not (alone and self.tries >= _MOST_TRIES):
                # It has as many channels as it takes; what was refused has certainly not run.
                self._transport.pool.resubmit(self)
            else:
                self.refuse(SpawnError(f"{self._host} opens no session: {why}"))

    def channel_answered(self, ok: bool) -> None:
        if self._state is not _State.SENT:
            if self._signal_requests is not None:
                self._signal_requests.answered(ok)
            return
        assert self._connection is not None
        self._connection.answered(self)
        if not ok:
            self.failed = True
            self._fail(SpawnError(f"{self._host} does not run commands for this user"))
            self._hang_up()
            return
        self._state = _State.RUNNING
        self.start_date = time.time()
        self.waited = time.monotonic() - self._opened
        if not self.request.detach:
            self._connection.started(self._number)
        self._sink.on_start()
        if self._eof:
            self._tell_eof(None)
        if self._transport.closed and not self.request.detach:
            self.send_signal(signal.SIGKILL)

    # -- running --------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        if not data:
            return
        if self._channel is None or self._state is not _State.RUNNING or self._stdin_closed:
            why = "its stdin was closed" if self._stdin_closed else "it does not run"
            self._sink.on_write_error(BrokenPipeError(errno.EPIPE, why))
            return
        self._channel.write(data)
        self._in_line = data[-1:] != b"\n"

    def close_stdin(self) -> None:
        if self._channel is None or self._stdin_closed:
            return
        self._stdin_closed = True
        if self.request.pty:
            # The first EOT of two hands over the line that has begun.
            end = b"\x04\x04" if self._in_line else b"\x04"
            self._uncounted = len(end)
            self._channel.write(end)
        else:
            self._channel.end()

    def pause(self) -> None:
        if self._channel is not None:
            self._channel.pause()

    def resume(self) -> None:
        if self._channel is not None:
            self._channel.resume()

    def send_signal(self, number: int) -> bool:
        if self._channel is None or not self.started or self._forgotten:
            return False
        alive = self._state is _State.RUNNING
        if number and (alive or self.request.group):
            self._signal(number)
        return alive

    def _signal(self, number: int) -> None:
        assert self._connection is not None
        group, runs = self.request.group, self._state is _State.RUNNING
        guarded = self._connection.signal(number, self._number, group=group, runs=runs)
        if not guarded:
            self.request_signal(number)
        if number not in ENDING_SIGNALS:
            return
        if number != signal.SIGINT:
            self._ending = True
            if self._state is _State.EXITED:
                self._watch_survivors()
        if number == signal.SIGKILL and self._state is _State.RUNNING:
            self._loop.call_later(PATIENCE, self._on_no_end, guarded)

    def request_signal(self, number: int) -> None:
        """Ask the server itself to send a signal; not every one does."""
        if number not in _NAMED:
            logger.warning(
                "%s: signal %d is not sent: it has no name by which a server can be asked for it, "
                "and there is no guard",
                self._host,
                number,
            )
            return
        if self._signal_requests is None:
            started = self._opened + self.waited
            self._signal_requests = SignalRequests(
                self._loop, started, self._post_signal, lambda: self._state is _State.RUNNING
            )
        self._signal_requests.ask(number)

    def _post_signal(self, number: int) -> None:
        from .channel import signal_request

        if self._channel is not None:
            self._channel.request(signal_request(number))

    def _on_no_end(self, guarded: bool) -> None:
        if self._state is not _State.RUNNING:
            return
        why = "the host or its connection may be frozen"
        if not guarded:
            why = "the host has no guard, and does not let this user signal commands"
        text = f"{self._host}: it has not ended {PATIENCE:g} s after a SIGKILL: {why}"
        self._fail(ProcessError(text, reason=Reason.CONNECT))
        self._hang_up()

    def abort(self) -> None:
        if self._state is _State.WAITING:
            if self._transport.pool.give_up(self):
                self._cancel()
        elif self._state is _State.SENT:
            # A start that is under way goes on: its on_start comes, with what was asked meanwhile.
            self._unwanted = True
            self._loop.call_later(PATIENCE, self._on_no_answer)
        elif self._state is _State.RUNNING:
            self.send_signal(signal.SIGKILL)

    def _cancel(self) -> None:
        self.refuse(CancelledError("given up while it waited for its start"))

    def _on_no_answer(self) -> None:
        if self._state is _State.SENT:
            why = f"given up: {self._host} has not said for {PATIENCE:g} s whether it runs"
            self.refuse(CancelledError(why))
            self._hang_up()

    def forget(self) -> None:
        if self._forgotten:
            return
        self._forgotten = True
        self.resume()
        if self._connection is not None and not self._watched:
            # What it has left behind was left on purpose.
            self._connection.exited(self._number)

    def end_hard(self) -> None:
        """Kill it with all that it has started, even if it has exited itself."""
        if self._connection is not None and self.started:
            runs = self._state is _State.RUNNING
            self._connection.signal(signal.SIGKILL, self._number, runs=runs)

    def _watch_survivors(self) -> None:
        """What survives its leader, which was told to end, has so long to do the same."""
        patience = self.request.kill_timeout
        connection = self._connection
        if patience is None or not self.request.group or connection is None or self._watched:
            return
        self._watched = True
        # And a second for the order to get there.
        life = connection.life
        life.needed_until = max(life.needed_until, time.monotonic() + patience + 1)
        self._loop.call_later(patience, self._kill_survivors, connection)

    def _kill_survivors(self, connection: SshConnection) -> None:
        connection.signal(signal.SIGKILL, self._number)
        connection.exited(self._number)

    # -- what the host says ---------------------------------------------------------------------

    def channel_data(self, stream: int, data: bytes) -> None:
        if self._state is _State.SENT:
            self.channel_answered(True)  # it cannot print without: some servers are that quick
        if self.started:
            self._sink.on_data(stream, data)
            if self._expiry is not None:
                self._look_expired(self._expiry, data)

    def _look_expired(self, expiry: ExpiryWatch, data: bytes) -> None:
        """The host has let us in, and will run no command for a password that has expired."""
        runs = self._is_proven
        if not runs and self._state is _State.RUNNING and expiry.reads(data):
            why = "the password of this user has expired; log in by hand (ssh) to change it"
            self._fail(ProcessError(f"{self._host}: {why}", reason=Reason.AUTH))
            self._hang_up()
        elif runs or not expiry.doubts:
            self._settle_expiry()

    @property
    def _is_proven(self) -> bool:
        """With the guard there, commands run: what this one prints of it another host has said."""
        return self._connection is None or self._connection.has_hello

    def _settle_expiry(self) -> None:
        """It runs, or has: what it prints is its own."""
        expiry, self._expiry = self._expiry, None
        if expiry is not None:
            expiry.settle()

    def channel_eof(self) -> None:
        self._settle_expiry()
        self._end_output(None)

    def _end_output(self, error: OSError | None) -> None:
        if not self._eof:
            self._eof = True
            self._look_done()
            if self.started:
                self._tell_eof(error)

    def _tell_eof(self, error: OSError | None) -> None:
        self._sink.on_eof(1, error)
        self._sink.on_eof(2, error)

    def channel_exit(self, status: int | None, why: str) -> None:
        if self._state is _State.SENT:
            self.channel_answered(True)  # it cannot have exited without
        expiry = None if self._is_proven else self._expiry
        if expiry is None or not expiry.keeps(status, why):
            self._exited(status, why)

    def _exited(self, status: int | None, why: str) -> None:
        if self._state is not _State.RUNNING:
            return
        self._state = _State.EXITED
        self._look_done()
        if self._channel is not None and self._channel.unwritten:
            text = "it ended before it had read all"
            self._sink.on_write_error(BrokenPipeError(errno.EPIPE, text))
        error = None
        if status is None:
            error = self._own(ProcessError(f"{self._host}: {why}", reason=Reason.SIGNAL))
        self._transport.remove(self)
        if self._ending:
            self._watch_survivors()
        self._sink.on_exit(status, error)

    def channel_written(self, count: int) -> None:
        if self._uncounted and self._channel is not None and not self._channel.unwritten:
            count -= self._uncounted
        if count > 0 and self._state is _State.RUNNING:
            self._sink.on_written(count)

    def channel_closed(self) -> None:
        self._settle_expiry()
        channel, self._channel = self._channel, None
        connection = self._connection
        lost = None if connection is None else connection.error
        if self._state is _State.EXITED:
            # A host may tell of the exit before the last output: that is lost, and not the end.
            cut = None if lost is None else ConnectionResetError(errno.ECONNRESET, str(lost))
            if cut is not None:
                cut.__cause__ = lost
            self._end_output(cut)
        elif self._state is _State.SENT and channel is not None and not channel.is_open:
            if self._send_again(lost):
                return
        elif self._transport.closed and self.request.detach:
            pass  # we have hung up, and it runs on
        elif self._state is not _State.OVER:
            why = f"{self._host}: it ended the command without a word of its exit"
            self._fail(lost or ProcessError(why, reason=Reason.CONNECT))
        self._release()

    def may_go_again(self, connection: SshConnection) -> bool:
        """``connection`` is lost, before this command can have started: whether another one may run
        it. One that was kept may have been dead for long, and so may the next one; of those that
        were made since, only one may be lost."""
        if connection.ready_since > self._opened:
            self.tries += 1
        return self.tries <= 1

    def _send_again(self, lost: ProcessError | None) -> bool:
        """The connection was lost before the host has seen the command: whether another one is to
        run it."""
        connection = self._connection
        if self._unwanted:
            self._cancel()
        elif lost is None or connection is None or not self.may_go_again(connection):
            why = f"{self._host}: the connection was lost before it could run"
            self.refuse(lost or ProcessError(why, reason=Reason.CONNECT))
        else:
            self._state = _State.WAITING
            self._set_done()
            self._connection = None
            connection.answered(self)
            connection.finished()
            self._done = False
            self._transport.pool.resubmit(self)
            return True
        return False

    # -- the end --------------------------------------------------------------------------------

    def _fail(self, error: ProcessError) -> None:
        self._state = _State.OVER
        self._transport.remove(self)
        self._sink.on_error(self._own(error))

    def _own(self, error: ProcessError) -> ProcessError:
        """``error``, which may be that of a host, with what was to run there."""
        command = self.request.command
        text = command if isinstance(command, str) else " ".join(command)
        own = type(error)(str(error), reason=error.reason, host=self._host, command=text)
        own.__cause__ = error.__cause__
        return own

    def _hang_up(self) -> None:
        if self._channel is not None:
            self._channel.close()

    def _look_done(self) -> None:
        """It has ended, and nothing on the host holds its output: the channel is about to close,
        and the connection may be closed."""
        if self._state is _State.EXITED and self._eof:
            self._set_done()

    def _set_done(self) -> None:
        if not self._done and self._connection is not None:
            self._done = True
            self._connection.ended()

    def _release(self) -> None:
        self._transport.remove(self)
        self._set_done()
        connection = self._connection
        if connection is not None and self._state is not _State.WAITING:
            connection.answered(self)
            if self._state is _State.OVER:
                connection.exited(self._number)
            connection.finished()

    @property
    def _host(self) -> str:
        target = self.request.target
        return "" if target is None else target.name or target.address
