"""One command over an SSH connection of this process, from its request to its end."""

from __future__ import annotations

import errno
import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from execo._core.loop import Loop
from execo.errors import CancelledError, ProcessError, Reason, SpawnError

from .base import ENDING_SIGNALS, Exec, Sink
from .remote_shell import Mark, command_text

if TYPE_CHECKING:
    from .channel import SshChannel
    from .inprocess import InProcessTransport
    from .ssh_connection import SshConnection

__all__ = ["SshExec"]

PATIENCE = 10.0
"""Seconds that a host has to end a command that got a SIGKILL: a frozen one never answers."""


class SshExec:
    """One command: the channel of the seam above, and the listener of an SSH channel below.

    All on the I/O thread, save ``open``.
    """

    pid: int | None = None
    start_date: float | None = None
    waited = 0.0
    failed = False
    process: object = None
    started = False  # the host has said that it runs

    _connection: SshConnection | None = None
    _channel: SshChannel | None = None
    _number = -1
    _exited = False
    _over = False  # the sink has heard the last word, or nobody listens any more
    _eof = False
    _done = False  # it uses its connection no more
    _forgotten = False
    _ending = False
    _unwanted = False  # to be killed when it has started
    _stdin_closed = False
    _in_line = False
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

    def open(self) -> None:
        """Show itself to the sink."""
        self._sink.on_open(self)

    # -- starting -------------------------------------------------------------------------------

    def send(self, connection: SshConnection, number: int, mark: Mark | None, posix: bool) -> None:
        """Open a channel on ``connection`` and run there."""
        from .channel import SshChannel, exec_request, pty_request  # see Pool

        request = self.request
        try:
            text = command_text(
                request.command, cwd=request.cwd, env=request.env, mark=mark, posix=posix
            )
            command = text.encode("utf-8", "surrogateescape")
        except ValueError as exc:
            connection.active -= 1
            connection.finished()
            self.refuse(SpawnError(f"cannot send {request.command!r} to {self._host}: {exc}"))
            return
        self._connection = connection
        self._number = number
        requests: list[Callable[[int], Any]] = [pty_request()] if request.pty else []
        requests.append(exec_request(command))
        self._channel = SshChannel(connection.session, self, requests)
        connection.expect_answer(self)

    def refuse(self, error: ProcessError) -> None:
        """It will not be started: ``error`` is that of its host."""
        if self._over:
            return
        own = type(error)(
            str(error), reason=error.reason, host=self._host, command=str(self.request.command)
        )
        own.__cause__ = error.__cause__
        self._over = True
        self.failed = True
        self._transport.remove(self)
        self._sink.on_error(own)

    def channel_opened(self) -> None:
        assert self._connection is not None
        self._connection.open_guard()

    def channel_refused(self, why: str) -> None:
        connection = self._connection
        assert connection is not None
        connection.answered(self)
        self._channel = None
        self._connection = None
        connection.refused_channel()
        if self._unwanted:
            self._cancel()
        elif connection.busy:
            # It has as many channels as it takes; what was refused has certainly not run.
            self._transport.pool.resubmit(self, connection)
        else:
            self.refuse(SpawnError(f"{self._host} opens no session: {why}"))

    def channel_answered(self, ok: bool) -> None:
        if self._connection is not None:
            self._connection.answered(self)
        if not ok:
            self._give_up(SpawnError(f"{self._host} does not run commands for this user"))
            return
        self.started = True
        self.start_date = time.time()
        self.waited = time.monotonic() - self._opened
        self._sink.on_start()
        if self._transport.closed and not self.request.detach:
            self.send_signal(signal.SIGKILL)

    # -- running --------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        if not data:
            return
        if self._channel is None or self._exited or self._stdin_closed:
            why = "it has ended" if self._exited else "its stdin was closed"
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
        connection, channel = self._connection, self._channel
        if connection is None or channel is None or not self.started or self._forgotten:
            return False
        if not self._exited or self.request.group:
            self._signal(connection, channel, number)
        return not self._exited

    def _signal(self, connection: SshConnection, channel: SshChannel, number: int) -> None:
        if number == 0:
            return
        guarded = connection.signal(number, self._number, group=self.request.group)
        if not guarded:
            from .channel import signal_request

            channel.request(signal_request(number))
        if number not in ENDING_SIGNALS:
            return
        if number != signal.SIGINT:
            self._ending = True
            if self._exited:
                self._look_after_survivors()
        if number == signal.SIGKILL and not self._exited:
            self._loop.call_later(PATIENCE, self._on_no_end, guarded)

    def _on_no_end(self, guarded: bool) -> None:
        if self._exited or self._over:
            return
        why = "the host or its connection may be frozen"
        if not guarded:
            why = "the host has no guard, and does not let this user signal commands"
        self._give_up(
            ProcessError(
                f"{self._host}: it has not ended {PATIENCE:g} s after a SIGKILL: {why}",
                reason=Reason.CONNECT,
            )
        )

    def abort(self) -> None:
        if self._over:
            return
        if self.started:
            self.send_signal(signal.SIGKILL)
            return
        # A start that is under way goes on: its on_start comes, with what was asked meanwhile.
        if self._channel is not None:
            self._unwanted = True
        elif self._transport.pool.give_up(self):
            self._cancel()

    def _cancel(self) -> None:
        self.refuse(CancelledError("given up while it waited for its start"))

    def forget(self) -> None:
        if not self._forgotten:
            self._forgotten = True
            self.resume()

    def _look_after_survivors(self) -> None:
        """What survives its leader was left behind on purpose, unless it was told to end, too:
        then it has so long to do so."""
        connection = self._connection
        if connection is None:
            return
        patience = self.request.kill_timeout
        if self._ending and self.request.group and patience is not None:
            self._loop.call_later(patience, self._kill_survivors, connection)
        else:
            connection.exited(self._number)

    def _kill_survivors(self, connection: SshConnection) -> None:
        connection.signal(signal.SIGKILL, self._number)
        connection.exited(self._number)

    # -- what the host says ---------------------------------------------------------------------

    def channel_data(self, stream: int, data: bytes) -> None:
        if not self._over or self._exited:
            self._sink.on_data(stream, data)

    def channel_eof(self) -> None:
        if not self._eof:
            self._eof = True
            self._look_done()
            if not self._over or self._exited:
                self._sink.on_eof(1, None)
                self._sink.on_eof(2, None)

    def channel_exit(self, status: int | None, why: str) -> None:
        if self._exited or self._over:
            return
        self._exited = True
        self._look_done()
        if self._channel is not None and self._channel.unwritten:
            why = "it ended before it had read all"
            self._sink.on_write_error(BrokenPipeError(errno.EPIPE, why))
        error = None
        if status is None:
            error = ProcessError(f"{self._host}: {why}", reason=Reason.SIGNAL, host=self._host)
        self._over = True
        self._transport.remove(self)
        self._look_after_survivors()
        self._sink.on_exit(status, error)

    def channel_written(self, count: int) -> None:
        channel = self._channel
        if self._uncounted and channel is not None and not channel.unwritten:
            count -= self._uncounted
        if count > 0 and not self._over:
            self._sink.on_written(count)

    def channel_closed(self) -> None:
        connection, self._channel = self._connection, None
        lost = connection.error if connection is not None else None
        if self._exited:
            self.channel_eof()
        elif not self._over:
            why = "it ended the command without a word of its exit"
            error = ProcessError(
                str(lost) if lost is not None else f"{self._host}: {why}",
                reason=Reason.CONNECT,
                host=self._host,
                command=str(self.request.command),
            )
            error.__cause__ = lost.__cause__ if lost is not None else None
            self._over = True
            self._sink.on_error(error)
        self._release()

    # -- the end --------------------------------------------------------------------------------

    def _give_up(self, error: ProcessError) -> None:
        """It is of no use any more: tell, and close the channel."""
        if not self._over:
            self._over = True
            self._sink.on_error(error)
        if self._channel is not None:
            self._channel.close()

    def end_hard(self) -> None:
        """Kill it with all that it has started, even if it has exited itself."""
        connection, channel = self._connection, self._channel
        if connection is not None and channel is not None:
            self._signal(connection, channel, signal.SIGKILL)

    def _look_done(self) -> None:
        """It has ended, and nothing on the host holds its output: the channel is about to close,
        and the connection may be closed."""
        if self._exited and self._eof:
            self._set_done()

    def _set_done(self) -> None:
        if not self._done and self._connection is not None:
            self._done = True
            self._connection.active -= 1

    def _release(self) -> None:
        self._transport.remove(self)
        self._set_done()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.finished()

    @property
    def _host(self) -> str:
        target = self.request.target
        return "" if target is None else target.name or target.address
