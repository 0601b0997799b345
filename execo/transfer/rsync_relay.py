"""The two sides of rsync: one here, one on the host, and what passes between them."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from signal import SIGKILL, SIGTERM
from typing import TYPE_CHECKING, Any, cast

from execo import transports
from execo.config import configuration
from execo.errors import OutputError, ProcessError, Reason, SpawnError
from execo.output import STDOUT
from execo.transports.base import Channel, Exec, Sink

from .request import Found, Transfer, cause
from .script import AHEAD, PATIENCE, Relay, WatchedChannel
from .texts import RSYNC_HEADER

if TYPE_CHECKING:
    from .relay import TransferTransport

__all__ = ["RsyncRelay"]

_MOST_NOISE = 1024 * 1024
"""Bytes that may come before rsync begins: what the login shell prints, and names."""

_SOMETHING_ELSE = "it sent something else than what was asked for"


class RsyncRelay(Relay):
    """Runs an rsync here when the script on the host is ready, and carries their bytes.

    The script says what it has found, and reads the options for its rsync. These are chosen by the
    rsync here, which gives them to what it takes for ssh, see :mod:`~execo.transfer.rsync`. From
    then on bytes pass both ways, until one of the two has ended and the other one has seen it.
    """

    def __init__(self, transport: TransferTransport, request: Transfer, sink: Sink) -> None:
        super().__init__(transport, request, sink)
        self._local = _LocalSide(self)
        self._head: bytes | None = b""  # None when the script is ready
        self._ahead = 0  # bytes that the host has not taken
        self._remote_paused = False
        self._remote_eof = False
        self._remote_errors_open = True
        self._errors_open = True
        self._remote: tuple[int | None, ProcessError | None] | None = None
        self._lost: ProcessError | None = None
        self._first = 0  # the raw status of the side that has failed first
        self._stopped_by: int | None = None  # a signal
        self._broken = False
        self._told = False

    def on_open(self, channel: Channel) -> None:
        self._channel = channel
        self._sink.on_open(cast(Channel, WatchedChannel(channel, self)))

    def on_start(self) -> None:
        self._request.meter.start()
        super().on_start()

    # -- from the host ------------------------------------------------------------------------

    def on_data(self, stream: int, data: bytes) -> None:
        if stream != STDOUT:
            self._sink.on_data(stream, data)
        elif self._broken:
            pass
        elif self._head is None:
            if not self._local.chosen:
                # Its rsync begins when it has the options of ours. What came now would be lost.
                self._fail(ValueError(_SOMETHING_ELSE))
                return
            self._request.meter.add(len(data))
            self._local.write(data)
            if self._local.ahead > AHEAD and not self._remote_paused and self._channel is not None:
                self._remote_paused = True
                self._channel.pause()
        else:
            self._head += data
            try:
                found = _read_header(self._head)
            except ValueError as exc:
                self._fail(exc)
                return
            if found is not None:
                self._head = None
                sizes = [each.size for each in found]
                if sizes and None not in sizes:
                    self._request.meter.total = sum(size or 0 for size in sizes)
                self._local.opened = True
                self._strand.submit(self._open_local, found)

    def _open_local(self, found: list[Found]) -> None:
        """On the strand."""
        assert self._request.rsync is not None
        try:
            words = self._request.rsync(found)
            local = Exec(words, kill_timeout=self._request.kill_timeout)
            transports.get(self._transport.runtime, "local").open_all([(local, self._local)])
        except Exception as exc:  # noqa: BLE001 - passed on as the process's error
            self._loop.call_soon(self._cannot_begin, exc)

    def _cannot_begin(self, exc: Exception) -> None:
        self._local.over = self._local.gone = True
        self._fail(exc)
        self.look_finished()

    def _fail(self, exc: Exception) -> None:
        text = f"{self._request.label}: {cause(exc)}"
        self._error = self._error or OutputError(text, reason=Reason.WRITE)
        self._error.__cause__ = exc
        self._broken = True
        self._local.stop(SIGTERM)
        self.stop_script()
        # Where no signal gets through, it sees that nothing comes, and ends.
        if self._channel is not None:
            self._channel.close_stdin()

    def on_eof(self, stream: int, error: OSError | None) -> None:
        if stream == STDOUT:
            self._remote_eof = True
            self._sink.on_eof(stream, error)
            self._local.end_input()
        else:
            self._remote_errors_open = False
            self.look_errors()

    def on_exit(self, status: int | None, error: ProcessError | None = None) -> None:
        self._over = True
        self._remote = (status, error)
        self._first = self._first or status or 0
        if self._remote_eof:
            self._local.end_input()
        else:
            # What the login shell left in the background may hold it open for ever.
            self._loop.call_later(float(configuration["drain_timeout"]), self._local.end_input)
        if status != 0:
            self._loop.call_later(PATIENCE, self._local.stop, SIGTERM)
        self.look_finished()

    def on_error(self, error: ProcessError) -> None:
        self._over = True
        self._lost = error
        self._local.stop(SIGTERM)
        self.look_finished()

    # -- to the host --------------------------------------------------------------------------

    def on_written(self, count: int) -> None:
        self._ahead -= count
        super().on_written(count)
        if self._ahead <= AHEAD // 2:
            self._local.resume()

    def on_write_error(self, error: OSError) -> None:
        """It has ended, and says why itself."""

    def send_options(self, words: list[bytes]) -> None:
        """What rsync would run on the host: the options of that, which the script waits for."""
        texts = [word.decode("utf-8", "surrogateescape") for word in words]
        try:
            options = texts[texts.index("--server") : texts.index(".")]
        except ValueError:
            self._fail(ValueError(f"this version of rsync is unknown here: it runs {texts!r}"))
            return
        self._send((shlex.join(options) + "\n").encode("utf-8", "surrogateescape"))

    def send(self, data: bytes) -> None:
        """Bytes of the rsync here."""
        self._request.meter.add(len(data))
        self._send(data)

    def _send(self, data: bytes) -> None:
        if self._over or self._channel is None or not data:
            return
        self._ahead += len(data)
        self._channel.write(data)
        if self._ahead > AHEAD:
            self._local.pause()

    # -- of the rsync here --------------------------------------------------------------------

    def on_local_data(self, data: bytes) -> None:
        """What it says to the user."""
        self._sink.on_data(2, data)

    def on_local_taken(self) -> None:
        """It has taken bytes of the host."""
        if self._remote_paused and self._local.ahead <= AHEAD // 2 and self._channel is not None:
            self._remote_paused = False
            self._channel.resume()

    def on_local_exit(self, status: int | None) -> None:
        """It has ended."""
        self._first = self._first or status or 0
        self.on_local_taken()
        if not self._over and self._channel is not None:
            self._channel.close_stdin()
            self._loop.call_later(PATIENCE, self.stop_script)

    def on_local_error(self, error: ProcessError) -> None:
        """It could not be started, or was lost."""
        self._error = self._error or SpawnError(f"{self._request.label}: {error}")
        self._error.__cause__ = error
        self.on_local_exit(None)
        self.stop_script()

    def stop_local(self, number: int) -> bool:
        """End the rsync here because of a signal. False if it has ended."""
        self._stopped_by = number
        return self._local.stop(number)

    def later(self, seconds: float, function: Callable[..., object], *args: Any) -> None:
        """Call ``function(*args)`` on the I/O thread."""
        self._loop.call_later(seconds, function, *args)

    def look_errors(self) -> None:
        """What both print ends when both have ended it."""
        mine = self._local.opened and not self._local.gone
        if self._errors_open and not self._remote_errors_open and not mine:
            self._errors_open = False
            self._sink.on_eof(2, None)

    def look_finished(self) -> None:
        """Whether both have ended."""
        self.look_errors()
        if self._told or not self._over or (self._local.opened and not self._local.gone):
            return
        self._told = True
        if self._request.on_end is not None:
            self._strand.submit(self._request.on_end)
        if self._lost is not None or self._remote is None:
            super().on_error(self._lost or SpawnError(f"{self._request.label}: given up"))
            return
        status, error = self._remote
        if status == 0 and not self._local.opened:
            status = self._stopped_by or status  # it has not noticed
            if not status and self._error is None:
                text = f"{self._request.label}: it sent nothing that could be understood"
                self._error = OutputError(text, reason=Reason.WRITE)
        super().on_exit(self._first or status, error)


class _LocalSide:
    """The rsync here: the sink of its channel. All belongs to the I/O thread, save ``on_open``.

    - ``chosen``: it has said what is to run on the host
    - ``opened``: it is asked for; ``started``: it runs, or has run; ``over``: it has ended, or
      cannot be started; ``gone``: what it has printed has been read, too
    - ``ahead``: bytes of the host that it has not taken
    """

    def __init__(self, relay: RsyncRelay) -> None:
        self._relay = relay
        self._channel: Channel | None = None
        self._head = b""  # until it has said what is to run on the host
        self.chosen = False
        self._paused = False
        self._signal: int | None = None  # it was told to end
        self._input_ended = False
        self.opened = self.started = self.over = self.gone = False
        self._errors_open = True
        self.ahead = 0

    def write(self, data: bytes) -> None:
        """Bytes of the host."""
        if self.started and self._channel is not None and not self.over and not self._input_ended:
            self.ahead += len(data)
            self._channel.write(data)

    def end_input(self) -> None:
        """The host has ended."""
        self._input_ended = True
        if self.started and self._channel is not None and not self.over:
            self._channel.close_stdin()

    def pause(self) -> None:
        """The host does not take as much."""
        if not self._paused and self._channel is not None and not self.over:
            self._paused = True
            self._channel.pause()

    def resume(self) -> None:
        """The host takes more."""
        if self._paused and self._channel is not None:
            self._paused = False
            self._channel.resume()

    def stop(self, number: int) -> bool:
        """Send it a signal that is meant to end it. False if there is nothing to end."""
        if not self.opened or self.over:
            return False
        self._signal = number
        self.resume()
        if self.started and self._channel is not None:
            self._channel.send_signal(number)
            if number != SIGKILL:
                self._relay.later(PATIENCE, self.stop, SIGKILL)
        elif self._channel is not None:
            self._channel.abort()  # it may wait for descriptors
        return True

    # -- the sink -----------------------------------------------------------------------------

    def on_open(self, channel: Channel) -> None:
        self._channel = channel

    def on_start(self) -> None:
        self.started = True
        if self._signal is not None:
            self.stop(self._signal)
        if self._input_ended:
            self.end_input()

    def on_data(self, stream: int, data: bytes) -> None:
        if stream != STDOUT:
            self._relay.on_local_data(data)
            return
        if self.chosen:
            self._relay.send(data)
            return
        self._head += data
        count, _, rest = self._head.partition(b"\0")
        parts = rest.split(b"\0", int(count)) if count.isdigit() and rest else []
        if parts and len(parts) == int(count) + 1:
            self.chosen = True
            self._relay.send_options(parts[:-1])
            if parts[-1]:
                self._relay.send(parts[-1])

    def on_eof(self, stream: int, error: OSError | None) -> None:
        if stream != STDOUT:
            self._errors_open = False
            if self.over:
                self._drained()

    def on_exit(self, status: int | None, error: ProcessError | None = None) -> None:
        self.over = True
        self.ahead = 0
        self._relay.on_local_exit(status)
        if self._errors_open:
            self._relay.later(float(configuration["drain_timeout"]), self._drained)
        else:
            self._drained()

    def on_error(self, error: ProcessError) -> None:
        self.over = self.gone = True
        self.ahead = 0
        self._relay.on_local_error(error)
        self._relay.look_finished()

    def _drained(self) -> None:
        if self.gone:
            return
        self.gone = True
        if self._channel is not None:
            self._channel.forget()
        self._relay.look_finished()

    def on_written(self, count: int) -> None:
        self.ahead -= count
        self._relay.on_local_taken()

    def on_write_error(self, error: OSError) -> None:
        """It has ended, and says why itself."""


def _read_header(data: bytes) -> list[Found] | None:
    """What the host has found; None while that is not complete.

    :raises ValueError: it is something else
    """
    start = data.find(RSYNC_HEADER)
    end = data.find(b"\n", start) if start >= 0 else -1
    if end >= 0:
        count = int(data[start + len(RSYNC_HEADER) : end])
        # There are no more than bytes, and split() takes no number of any size.
        *records, rest = data[end + 1 :].split(b"\0", min(max(count, 0), len(data)))
        if len(records) == count and not rest:
            return [_found(record) for record in records]
        if len(records) == count:
            raise ValueError(_SOMETHING_ELSE)
    if len(data) > _MOST_NOISE:
        raise ValueError(_SOMETHING_ELSE)
    return None


def _found(record: bytes) -> Found:
    size, _, name = record.partition(b" ")
    text = name.decode("utf-8", "surrogateescape")
    return Found(text, None if size == b"-" else int(size))
