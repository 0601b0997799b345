"""The way of files from a host."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, cast

from execo import transports
from execo.config import configuration
from execo.errors import OutputError, ProcessError, Reason, SpawnError
from execo.output import STDOUT
from execo.transports.base import Channel, Sink

from .one_line import Decoder
from .receive import Incoming
from .request import Transfer, cause
from .script import AHEAD, PATIENCE, Relay, WatchedChannel
from .unpack import Cancelled

if TYPE_CHECKING:
    from .relay import TransferTransport

__all__ = ["Download"]


class Download(Relay):
    """Stores what the script writes to its stdout."""

    def __init__(self, transport: TransferTransport, request: Transfer, sink: Sink) -> None:
        super().__init__(transport, request, sink)
        self._incoming = Incoming(
            request.location, partial(transports.guard_path, transport.runtime)
        )
        self._decoder = Decoder() if request.one_line else None
        self._waiting = 0  # bytes that are not stored yet
        self._seen = 0
        self._paused = False
        self._eof = False
        self._broken = False
        self._full = False
        self._enough = False  # the script was ended because all has come
        self._settled = False  # the local side is told to end; then
        self._placed = False  # it has put into place what has come, and
        self._local_end = False  # has ended
        self._told = False
        self._lost: ProcessError | None = None  # the connection, before all had come
        self._stopped_by: int | None = None  # a signal
        self._exit: tuple[int | None, ProcessError | None] | None = None
        self._drain_timeout = float(configuration["drain_timeout"])

    def on_open(self, channel: Channel) -> None:
        self._channel = channel
        self._sink.on_open(cast(Channel, WatchedChannel(channel, self)))

    def on_start(self) -> None:
        self._transport.add(self)
        self._request.meter.start()
        super().on_start()

    def on_data(self, stream: int, data: bytes) -> None:
        if stream != STDOUT:
            self._sink.on_data(stream, data)
            return
        self._seen += len(data)
        if self._broken or self._settled or self._enough:
            return
        self._waiting += len(data)
        self._strand.submit(self._store, data)
        if self._waiting > AHEAD and not self._paused and self._channel is not None:
            self._paused = True
            self._channel.pause()

    def on_eof(self, stream: int, error: OSError | None) -> None:
        self._sink.on_eof(stream, error)
        if stream == STDOUT:
            if error is not None and isinstance(error.__cause__, ProcessError):
                self._lost = error.__cause__
            self._eof = True
            if self._exit is not None:
                self._settle()

    def on_exit(self, status: int | None, error: ProcessError | None = None) -> None:
        self._over = True
        if self._told:
            return
        self._exit = (0, None) if self._enough else (status, error)
        if self._eof or self._full or self._exit[0] != 0:
            self._settle()
        else:
            self._await_eof(-1)
        self._tell_soon()

    def on_error(self, error: ProcessError) -> None:
        self._over = True
        if self._enough:
            self._exit = (0, None)
        else:
            self._error = self._error or error
        self._settle()
        self._tell_soon()

    def stop_local(self, number: int) -> bool:
        """Put nothing into place, because of a signal. False if that is done."""
        if self._local_end or self._told:
            return False
        if self._stopped_by is None:
            self._stopped_by = number
            self._incoming.cancelled = True
            self._settle()
            if self._paused and self._channel is not None:
                self._paused = False
                self._channel.resume()
            if self._over:
                self._tell_soon()
        return True

    def _await_eof(self, seen: int) -> None:
        """What the login shell left in the background may hold the stream open for ever. What is
        missing then is an error: all that has a size or a trailer shows it."""
        if self._settled:
            return
        if seen == self._seen and not self._waiting and not self._paused:
            self._settle()
        else:
            self._loop.call_later(self._drain_timeout, self._await_eof, self._seen)

    def _store(self, data: bytes) -> None:
        """On the strand."""
        incoming = self._incoming
        try:
            if not (self._broken or incoming.cancelled or incoming.surplus):
                incoming.write(data if self._decoder is None else self._decoder.decode(data))
                if incoming.full:
                    self._loop.call_soon(self._have_all, incoming.surplus)
        except Exception as exc:  # noqa: BLE001 - passed on as the process's error
            self._broken = True
            self._loop.call_soon(self._fail, exc)
        finally:
            self._loop.call_soon(self._stored, len(data))

    def _stored(self, count: int) -> None:
        self._waiting -= count
        meter = self._request.meter
        meter.total = self._incoming.size
        meter.set(self._incoming.received)
        if self._paused and self._waiting <= AHEAD // 2 and self._channel is not None:
            self._paused = False
            self._channel.resume()

    def _have_all(self, more: bool) -> None:
        """The file has come whole. Its script ends by itself, unless the file grows faster than it
        is sent, or the host plays tricks."""
        self._full = True
        if self._exit is not None:
            self._settle()
        elif more:
            self._end_script()
        else:
            self._loop.call_later(PATIENCE, self._end_script)

    def _end_script(self) -> None:
        if not self._over and not self._settled and not self._enough:
            self._enough = True
            self.stop_script()

    def _fail(self, exc: Exception) -> None:
        self._error = self._error or self._failure(exc)
        self.stop_script()

    def _failure(self, exc: Exception) -> ProcessError:
        text = f"{self._request.label} to {self._request.location!r}: {cause(exc)}"
        error = OutputError(text, reason=Reason.WRITE)
        error.__cause__ = exc
        return error

    def _settle(self) -> None:
        """Nothing more is stored: put what has come into place, or remove it."""
        if not self._settled:
            self._settled = True
            complete = self._exit is not None and self._exit[0] == 0
            self._strand.submit(self._finish, complete)

    def _finish(self, complete: bool) -> None:
        """On the strand, after all that has arrived."""
        error: ProcessError | None = None
        placed = False
        try:
            if complete and not self._broken:
                self._incoming.finish()
                placed = True
        except Cancelled:
            pass
        except Exception as exc:  # noqa: BLE001 - passed on as the process's error
            error = self._failure(exc)
        finally:
            self._incoming.close()
            self._loop.call_soon(self._finished, error, placed)

    def _finished(self, error: ProcessError | None, placed: bool) -> None:
        lost = self._lost
        if error is not None and lost is not None:
            # That is why it is not complete, whatever the exit of the script has said.
            own = OutputError(f"{error}: {lost}", reason=lost.reason, host=lost.host)
            own.__cause__ = lost
            error = own
        self._error = self._error or error
        self._placed, self._local_end = placed, True
        self._transport.remove(self)
        if self._over:
            self._tell()

    def _tell_soon(self) -> None:
        """The script is over, and nothing is to be put into place: what holds up a thread (a pipe
        that nobody reads) does not hold up the process."""
        failed = self._exit is None or self._exit[0] != 0 or self._stopped_by is not None
        if self._local_end:
            self._tell()
        elif failed and not self._told:
            self._loop.call_later(PATIENCE, self._tell)

    def _tell(self) -> None:
        if self._told:
            return
        self._told = True
        self._transport.remove(self)
        if self._exit is None:
            super().on_error(self._error or SpawnError(f"{self._request.label}: given up"))
            return
        status, error = self._exit
        if self._stopped_by is not None and not self._placed and status == 0:
            status = self._stopped_by  # the raw status of what a signal has ended
        super().on_exit(status, error)
