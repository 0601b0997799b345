"""Between a process that puts or gets files and the transport that runs its script.

Every transport carries files in the same way: a relay stands between its channel and the run of
the process. It feeds the script's stdin, or takes its stdout, and lets the run end when the local
side is done. Files are read and written on the worker threads, one call at a time for each
process; on the I/O thread nothing blocks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from signal import SIGTERM

from execo import transports
from execo._core.latch import Latch
from execo._core.pool import Strand
from execo._core.runtime import Runtime
from execo.config import configuration
from execo.errors import OutputError, ProcessError, Reason, SpawnError, WriteError
from execo.output import STDOUT
from execo.transports.base import Channel, Request, Sink, not_supported

from .receive import Incoming
from .request import Transfer, cause

__all__ = ["TransferTransport"]

_AHEAD = 1024 * 1024
"""Bytes of one process that may wait in memory, on their way out or in."""

_PATIENCE = 5.0
"""Seconds that a script may take to end after it was told that this side has failed."""


class TransferTransport:
    """Runs :class:`Transfer` requests by way of the transports that they name."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self._live: set[_Relay] = set()
        self._empty: Latch | None = None

    def open_all(self, pairs: Sequence[tuple[Request, Sink]]) -> list[Channel]:
        groups: dict[str, list[tuple[Request, Sink]]] = {}
        for request, sink in pairs:
            if not isinstance(request, Transfer):
                raise not_supported("transfer", request)
            kind = _Download if request.package is None else _Upload
            relay = kind(self, request, sink)
            groups.setdefault(request.transport, []).append((request, relay))
        channels: list[Channel] = []
        for name, group in groups.items():
            channels += transports.get(self.runtime, name).open_all(group)
        return channels

    def close_idle(self) -> None:
        """Does nothing: nothing is kept."""

    def close(self) -> None:
        """Wait for the local side of what the other transports have ended, to leave no temporary
        files. They close first, since they are made later."""
        empty = self.runtime.loop.run_sync(self._when_empty)
        if empty is not None:
            empty.wait(2.0)

    def add(self, relay: _Relay) -> None:
        """A relay begins to use files. On the I/O thread, as the next."""
        self._live.add(relay)

    def remove(self, relay: _Relay) -> None:
        """It has ended."""
        self._live.discard(relay)
        if self._empty is not None and not self._live:
            self._empty.fire()

    def _when_empty(self) -> Latch:
        self._empty = Latch()
        if not self._live:
            self._empty.fire()
        return self._empty


class _Relay:
    """A sink that passes on what it is told to the run of a process.

    All methods belong to the I/O thread, save ``on_open`` and those that run on the strand, which
    say so.
    """

    def __init__(self, transport: TransferTransport, request: Transfer, sink: Sink) -> None:
        self._transport = transport
        self._loop = transport.runtime.loop
        self._request = request
        self._sink = sink
        self._channel: Channel | None = None
        self._over = False  # the script has ended, or was lost
        self._error: ProcessError | None = None
        # Not of the pool for handlers: those of the user may wait for this very process.
        self._strand = Strand(transport.runtime.workers, lambda: request.label)

    def on_open(self, channel: Channel) -> None:
        self._channel = channel
        self._sink.on_open(channel)

    def on_start(self) -> None:
        self._transport.add(self)
        self._sink.on_start()

    def on_data(self, stream: int, data: bytes) -> None:
        self._sink.on_data(stream, data)

    def on_eof(self, stream: int, error: OSError | None) -> None:
        self._sink.on_eof(stream, error)

    def on_exit(self, status: int | None, error: ProcessError | None = None) -> None:
        self._over = True
        self._transport.remove(self)
        self._sink.on_exit(status, self._error or error)

    def on_error(self, error: ProcessError) -> None:
        self._over = True
        self._transport.remove(self)
        self._sink.on_error(self._error or error)

    def on_written(self, count: int) -> None:
        self._sink.on_written(count)

    def on_write_error(self, error: OSError) -> None:
        self._sink.on_write_error(error)

    def _abort(self) -> None:
        if not self._over and self._channel is not None:
            self._channel.abort()


class _Upload(_Relay):
    """Sends a package to the script's stdin, as fast as it is taken."""

    _blocks: Iterator[bytes]
    _reading = False
    _ahead = 0

    def on_start(self) -> None:
        super().on_start()
        package = self._request.package
        assert package is not None
        if package.ready is None:
            self._blocks = package.blocks()
            self._pull()
        else:
            self._send(package.ready)
            self._send(None)

    def on_written(self, count: int) -> None:
        self._ahead -= count
        super().on_written(count)
        self._pull()

    def on_write_error(self, error: OSError) -> None:
        # The script says why on its stderr, and with its exit code.
        self._over = True
        super().on_write_error(error)

    def _pull(self) -> None:
        package = self._request.package
        idle = not self._reading and not self._over and self._error is None
        if idle and self._ahead <= _AHEAD // 2 and package and package.ready is None:
            self._reading = True
            self._strand.submit(self._read)

    def _read(self) -> None:
        """On the strand."""
        try:
            block = next(self._blocks, None)
        except Exception as exc:  # noqa: BLE001 - passed on as the process's error
            self._loop.call_soon(self._fail, exc)
        else:
            self._loop.call_soon(self._send, block)

    def _send(self, block: bytes | None) -> None:
        """``block``, or the end."""
        self._reading = False
        if self._over or self._channel is None:
            return
        if block is None:
            self._reading = True  # there is nothing more to read
            self._channel.close_stdin()
        elif block:
            self._ahead += len(block)
            self._channel.write(block)
            self._pull()

    def _fail(self, exc: Exception) -> None:
        if self._over or self._channel is None:
            return
        self._error = WriteError(f"{self._request.label}: {cause(exc)}")
        self._error.__cause__ = exc
        # It sees that something is missing, removes what has come, and ends.
        self._channel.close_stdin()
        self._loop.call_soon(self._loop.call_later, _PATIENCE, self._abort)


class _Download(_Relay):
    """Stores what the script writes to its stdout."""

    def __init__(self, transport: TransferTransport, request: Transfer, sink: Sink) -> None:
        super().__init__(transport, request, sink)
        self._incoming = Incoming(request.location)
        self._waiting = 0  # bytes that are not stored yet
        self._seen = 0
        self._paused = False
        self._eof = False
        self._broken = False
        self._settled = False
        self._exit: tuple[int | None, ProcessError | None] | None = None
        self._drain_timeout = float(configuration["drain_timeout"])

    def on_data(self, stream: int, data: bytes) -> None:
        if stream != STDOUT:
            self._sink.on_data(stream, data)
            return
        self._seen += len(data)
        if self._broken or self._settled:
            return
        self._waiting += len(data)
        self._strand.submit(self._store, data)
        if self._waiting > _AHEAD and not self._paused and self._channel is not None:
            self._paused = True
            self._channel.pause()

    def on_eof(self, stream: int, error: OSError | None) -> None:
        self._sink.on_eof(stream, error)
        if stream == STDOUT:
            self._eof = True
            if self._exit is not None:
                self._settle()

    def on_exit(self, status: int | None, error: ProcessError | None = None) -> None:
        self._over = True
        self._exit = (status, error)
        if self._eof or status != 0:
            self._settle()
        else:
            self._await_eof(-1)

    def on_error(self, error: ProcessError) -> None:
        self._over = True
        self._error = self._error or error
        self._settle()

    def _await_eof(self, seen: int) -> None:
        """What the login shell left in the background may hold the stream open for ever."""
        if self._settled:
            return
        if seen == self._seen and not self._waiting and not self._paused:
            self._settle()
        else:
            self._loop.call_later(self._drain_timeout, self._await_eof, self._seen)

    def _store(self, data: bytes) -> None:
        """On the strand."""
        try:
            if not self._broken:
                self._incoming.write(data)
        except Exception as exc:  # noqa: BLE001 - passed on as the process's error
            self._broken = True
            self._loop.call_soon(self._fail, exc)
        finally:
            self._loop.call_soon(self._stored, len(data))

    def _stored(self, count: int) -> None:
        self._waiting -= count
        if self._paused and self._waiting <= _AHEAD // 2 and self._channel is not None:
            self._paused = False
            self._channel.resume()

    def _fail(self, exc: Exception) -> None:
        self._error = self._error or self._failure(exc)
        if self._channel is not None and not self._over:
            self._channel.send_signal(SIGTERM)
            self._loop.call_later(_PATIENCE, self._abort)

    def _failure(self, exc: Exception) -> ProcessError:
        text = f"{self._request.label} to {self._request.location!r}: {cause(exc)}"
        error = OutputError(text, reason=Reason.WRITE)
        error.__cause__ = exc
        return error

    def _settle(self) -> None:
        """The script is at its end: put what has come into place, or remove it."""
        if not self._settled:
            self._settled = True
            complete = self._exit is not None and self._exit[0] == 0
            self._strand.submit(self._finish, complete)

    def _finish(self, complete: bool) -> None:
        """On the strand, after all that has arrived."""
        error: ProcessError | None = None
        try:
            if complete and not self._broken:
                self._incoming.finish()
        except Exception as exc:  # noqa: BLE001 - passed on as the process's error
            error = self._failure(exc)
        finally:
            self._incoming.close()
            self._loop.call_soon(self._end, error)

    def _end(self, error: ProcessError | None) -> None:
        self._error = self._error or error
        if self._exit is None:
            super().on_error(self._error or SpawnError(f"{self._request.label}: given up"))
        else:
            super().on_exit(*self._exit)
