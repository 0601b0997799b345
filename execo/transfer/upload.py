"""The way of files to a host."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from execo.errors import ProcessError, WriteError
from execo.transports.base import Channel, Sink

from .request import Transfer, cause
from .script import AHEAD, Relay, WatchedChannel
from .supply import Supply

if TYPE_CHECKING:
    from .relay import TransferTransport

__all__ = ["Upload"]


class Upload(Relay):
    """Sends a package to the script's stdin, as fast as it is taken.

    :param supply: reads the package, for others too where they go in step
    """

    started = False
    _released = False
    _ahead = 0

    def __init__(
        self, transport: TransferTransport, request: Transfer, sink: Sink, supply: Supply
    ) -> None:
        super().__init__(transport, request, sink)
        self.supply = supply
        supply.join(self)

    @property
    def ready(self) -> bool:
        """It has room for a block."""
        return self.started and self._ahead <= AHEAD // 2

    def on_open(self, channel: Channel) -> None:
        self._channel = channel
        self._sink.on_open(cast(Channel, WatchedChannel(channel, self)))

    def stop_local(self, number: int) -> bool:
        """Send no more, because of a signal. The script may have started tar just then, to which a
        signal is lost between fork and exec: it sees that its input ends."""
        if not self._over and self._channel is not None:
            self.supply.leave(self)
            self._channel.close_stdin()
        return False

    def on_start(self) -> None:
        super().on_start()
        self.started = True
        self._request.meter.start()
        self.supply.on_ready(self)

    def on_written(self, count: int) -> None:
        self._ahead -= count
        self._request.meter.add(count)
        super().on_written(count)
        if self.ready:
            self.supply.on_ready(self)

    def on_exit(self, status: int | None, error: ProcessError | None = None) -> None:
        super().on_exit(status, error)
        self._release()

    def on_error(self, error: ProcessError) -> None:
        super().on_error(error)
        self._release()

    def _release(self) -> None:
        self.supply.leave(self)
        if not self._released and self._request.on_end is not None:
            self._released = True
            self._strand.submit(self._request.on_end)

    def on_write_error(self, error: OSError) -> None:
        # The script says why on its stderr, and with its exit code.
        self._over = True
        self.supply.leave(self)
        super().on_write_error(error)

    def take(self, block: bytes | None) -> None:
        """Send ``block``, or the end."""
        if self._over or self._channel is None:
            return
        if block is None:
            self._channel.close_stdin()
        elif block:
            self._ahead += len(block)
            self._channel.write(block)

    def fail(self, exc: Exception) -> None:
        """The package cannot be read."""
        if self._over or self._channel is None:
            return
        self._error = WriteError(f"{self._request.label}: {cause(exc)}")
        self._error.__cause__ = exc
        self.stop_script()
        # Where no signal gets through, it sees that something is missing, and ends.
        self._channel.close_stdin()
