"""The way of files to a host."""

from __future__ import annotations

from collections.abc import Iterator

from execo.errors import ProcessError, WriteError

from .request import cause
from .script import AHEAD, Relay

__all__ = ["Upload"]


class Upload(Relay):
    """Sends a package to the script's stdin, as fast as it is taken."""

    _blocks: Iterator[bytes]
    _reading = False
    _released = False
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

    def on_exit(self, status: int | None, error: ProcessError | None = None) -> None:
        super().on_exit(status, error)
        self._release()

    def on_error(self, error: ProcessError) -> None:
        super().on_error(error)
        self._release()

    def _release(self) -> None:
        if not self._released and self._request.on_end is not None:
            self._released = True
            self._strand.submit(self._request.on_end)

    def on_write_error(self, error: OSError) -> None:
        # The script says why on its stderr, and with its exit code.
        self._over = True
        super().on_write_error(error)

    def _pull(self) -> None:
        package = self._request.package
        idle = not self._reading and not self._over and self._error is None
        if idle and self._ahead <= AHEAD // 2 and package and package.ready is None:
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
        self.stop_script()
        # Where no signal gets through, it sees that something is missing, and ends.
        self._channel.close_stdin()
