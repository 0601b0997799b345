"""What the relays of Put and Get have in common: the script, and its end."""

from __future__ import annotations

from signal import SIGTERM
from typing import TYPE_CHECKING, Any, Protocol

from execo._core.pool import Strand
from execo.errors import ProcessError
from execo.transports.base import ENDING_SIGNALS, Channel, Sink

from .request import Transfer

if TYPE_CHECKING:
    from .relay import TransferTransport

__all__ = ["AHEAD", "PATIENCE", "Relay", "WatchedChannel"]

AHEAD = 1024 * 1024
"""Bytes of one process that may wait in memory, on their way out or in."""

PATIENCE = 5.0
"""Seconds that either side may take to end after the other has failed or was told to end."""


class Relay:
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
        self._sink.on_start()

    def on_data(self, stream: int, data: bytes) -> None:
        self._sink.on_data(stream, data)

    def on_eof(self, stream: int, error: OSError | None) -> None:
        self._sink.on_eof(stream, error)

    def on_exit(self, status: int | None, error: ProcessError | None = None) -> None:
        self._over = True
        self._request.meter.stop()
        self._sink.on_exit(status, self._error or error)

    def on_error(self, error: ProcessError) -> None:
        self._over = True
        self._request.meter.stop()
        self._sink.on_error(self._error or error)

    def on_written(self, count: int) -> None:
        self._sink.on_written(count)

    def on_write_error(self, error: OSError) -> None:
        self._sink.on_write_error(error)

    def stop_script(self) -> None:
        """Tell it to end, so that it can remove what is not complete; kill it if it does not."""
        if not self._over and self._channel is not None:
            self._channel.send_signal(SIGTERM)
            self._loop.call_later(PATIENCE, self._abort)

    def _abort(self) -> None:
        if not self._over and self._channel is not None:
            self._channel.abort()


class _Stoppable(Protocol):
    def stop_local(self, number: int) -> bool:
        """End the local side because of a signal. False if it is over."""


class WatchedChannel:
    """The channel as the run of a process with a local side has it: signals that are meant to end
    the script end the local side as well, which may be all that is left."""

    def __init__(self, channel: Channel, relay: _Stoppable) -> None:
        self._channel = channel
        self._relay = relay

    def __getattr__(self, name: str) -> Any:
        return getattr(self._channel, name)

    def send_signal(self, number: int) -> bool:
        alive = self._channel.send_signal(number)
        stopped = number in ENDING_SIGNALS and self._relay.stop_local(number)
        return alive or stopped
