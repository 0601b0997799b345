"""A connection of this process that is kept, and TCP connections that are carried over it.

A host opens a channel for each of these (``direct-tcpip``, RFC 4254, 7.2). It is no session: none
of the limits on commands counts it.
"""

from __future__ import annotations

import errno
import signal
import time
from typing import TYPE_CHECKING

from execo.errors import CancelledError, ProcessError, Reason, SpawnError

from .base import ENDING_SIGNALS, Forward, Lease, Sink, Target

if TYPE_CHECKING:
    from .channel import SshChannel
    from .inprocess import InProcessTransport
    from .ssh_connection import SshConnection

__all__ = ["SshForward", "SshLease"]

# RFC 4254, 5.1.
_PROHIBITED, _CONNECT_FAILED, _UNKNOWN_KIND, _SHORTAGE = range(1, 5)
_REFUSALS = {
    _PROHIBITED: "administratively prohibited",
    _CONNECT_FAILED: "connect failed",
    _UNKNOWN_KIND: "it knows no such channels",
    _SHORTAGE: "it is short of resources",
}


class SshLease:
    """One kept connection: the channel of the seam above, and a lessee of the pool below.

    All on the I/O thread, save ``open``.
    """

    pid: int | None = None
    start_date: float | None = None
    waited = 0.0
    failed = False
    process: object = None
    over = False

    _connection: SshConnection | None = None
    _eof = False

    def __init__(
        self, transport: InProcessTransport, request: Lease | Forward, target: Target, sink: Sink
    ) -> None:
        self.request = request
        self.target = target
        self._transport = transport
        self._loop = transport.runtime.loop
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

    def leased(self, connection: SshConnection) -> None:
        self._connection = connection
        self._begin()

    def refuse(self, error: ProcessError) -> None:
        if not self.over:
            self.failed = True
            self._fail(error)

    def _begin(self) -> None:
        self._start()

    def _start(self) -> None:
        self.start_date = time.time()
        self.waited = time.monotonic() - self._opened
        self._sink.on_start()

    # -- running --------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        if data:
            self._sink.on_write_error(BrokenPipeError(errno.EPIPE, "it takes no input"))

    def close_stdin(self) -> None:
        pass

    def pause(self) -> None:
        pass

    def resume(self) -> None:
        pass

    def send_signal(self, number: int) -> bool:
        if self.start_date is None or self.over:
            return False
        if number in ENDING_SIGNALS:
            # Not within the call: who kills has to note that it did, first.
            self._loop.call_soon(self._exit, number)
        return True

    def abort(self) -> None:
        if self.start_date is not None:
            self._loop.call_soon(self._exit, int(signal.SIGKILL))
        elif not self.over:
            self._transport.pool.give_up_lease(self)
            self.refuse(CancelledError("given up while it waited for its start"))

    def forget(self) -> None:
        """Nothing is left behind."""

    # -- the end --------------------------------------------------------------------------------

    def lost(self, error: ProcessError) -> None:
        self._fail(error)

    def _exit(self, status: int) -> None:
        if not self.over:
            self._release()
            self._end_output()
            self._sink.on_exit(status)

    def _end_output(self) -> None:
        if not self._eof:
            self._eof = True
            self._sink.on_eof(1, None)
            self._sink.on_eof(2, None)

    def _fail(self, error: ProcessError) -> None:
        if not self.over:
            self._release()
            own = type(error)(str(error), reason=error.reason, host=self._host)
            own.__cause__ = error.__cause__
            self._sink.on_error(own)

    def _release(self) -> None:
        self.over = True
        self._transport.give_back(self)
        if self._connection is not None:
            self._connection.give_back(self)

    @property
    def _host(self) -> str:
        return self.target.name or self.target.address


class SshForward(SshLease):
    """One TCP connection: also the listener of an SSH channel.

    The host has no deadline to open it: reaching what it is asked for can take it minutes.
    """

    request: Forward
    connection_lost = False  # before it was opened: it may work over another one

    _channel: SshChannel | None = None
    _write_ended = False

    def _begin(self) -> None:
        from .channel import SshChannel, tcp_details  # see Pool

        assert self._connection is not None
        details = tcp_details(self.request.host, self.request.port)
        session = self._connection.session
        self._channel = SshChannel(session, self, [], kind="direct-tcpip", details=details)

    def channel_opened(self) -> None:
        if not self.over:
            self._start()
        elif self._channel is not None:
            self._channel.close()  # it was given up meanwhile

    def channel_refused(self, why: str) -> None:
        channel, self._channel = self._channel, None
        code = 0 if channel is None else channel.refusal
        meaning = _REFUSALS.get(code, f"code {code}")
        said = f"{meaning} ({why})" if why.lower() not in ("", meaning) else meaning
        to = f"{self.request.host} port {self.request.port}"
        if code in (_PROHIBITED, _UNKNOWN_KIND):
            hint = "see AllowTcpForwarding and PermitOpen in its sshd_config"
            text = f"{self._host} forwards nothing to {to}: {said}; {hint}"
            self.refuse(SpawnError(text, reason=Reason.CONNECT))
        else:
            text = f"{self._host} cannot connect to {to}: {said}"
            self.refuse(ProcessError(text, reason=Reason.CONNECT))

    def channel_answered(self, ok: bool) -> None:
        """Nothing is asked."""

    # -- running --------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        if not data:
            return
        if self._channel is None or self.over or self._write_ended:
            why = "its end was written" if self._write_ended else "it is not connected"
            self._sink.on_write_error(BrokenPipeError(errno.EPIPE, why))
        else:
            self._channel.write(data)

    def close_stdin(self) -> None:
        if self._channel is not None and not self._write_ended:
            self._write_ended = True
            self._channel.end()
            self._look_done()

    def pause(self) -> None:
        if self._channel is not None:
            self._channel.pause()

    def resume(self) -> None:
        if self._channel is not None:
            self._channel.resume()

    # -- what the host says ---------------------------------------------------------------------

    def channel_data(self, stream: int, data: bytes) -> None:
        if stream == 1 and not self.over:
            self._sink.on_data(stream, data)

    def channel_eof(self) -> None:
        if not self.over:
            self._end_output()
            self._look_done()

    def channel_exit(self, status: int | None, why: str) -> None:
        """There is none to exit."""

    def channel_written(self, count: int) -> None:
        if not self.over:
            self._sink.on_written(count)
            self._look_done()

    def channel_closed(self) -> None:
        channel, self._channel = self._channel, None
        if self.over:
            return
        lost = None if self._connection is None else self._connection.error
        if lost is not None or self.start_date is None:
            self.connection_lost = self.start_date is None
            why = f"{self._host}: the connection was closed before it was used"
            self._fail(lost or ProcessError(why, reason=Reason.CONNECT))
            return
        if channel is not None and channel.unwritten:
            text = "it was closed before it had read all"
            self._sink.on_write_error(BrokenPipeError(errno.EPIPE, text))
        self._exit(0)

    def drop(self) -> None:
        """End it at once: nobody is to be told but the sink."""
        self._exit(int(signal.SIGKILL))

    def _look_done(self) -> None:
        """Both directions have ended: a host closes the channel then, and so do we."""
        if self._eof and self._write_ended and self._channel and not self._channel.unwritten:
            # Not within the call: the end of file is being sent at the moment.
            self._loop.call_soon(self._channel.close)

    # -- the end --------------------------------------------------------------------------------

    def lost(self, error: ProcessError) -> None:
        """Its channel tells of it, after all that had come by then."""

    def _release(self) -> None:
        super()._release()
        if self._channel is not None:
            # What it still sends is dropped. One that is not open yet is closed when it is.
            self._channel.close()
            self._channel.resume()
