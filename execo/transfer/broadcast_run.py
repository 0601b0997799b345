"""One host that receives what others do, too: between the run of its process and who feeds it.

::

    RELAYED ──> DIRECT ──> OVER
       └─────────────────────┘

RELAYED: by the program of a host, which tells what becomes of its script. DIRECT: from here, by a
script of its own, as with any Put; what has begun before leaves nothing behind.
"""

from __future__ import annotations

import enum
import time
from signal import SIGKILL, SIGTERM
from typing import TYPE_CHECKING, cast

from execo.errors import CancelledError, ProcessError, WriteError
from execo.transports.base import ENDING_SIGNALS, Channel, Sink

from .request import Transfer, cause
from .script import PATIENCE

if TYPE_CHECKING:
    from .broadcast import Tree

__all__ = ["BroadcastRun"]


class _State(enum.Enum):
    RELAYED = enum.auto()
    DIRECT = enum.auto()
    OVER = enum.auto()


class BroadcastRun:
    """The channel of the process, and the sink of its own script if there is to be one. All on the
    I/O thread, save ``open`` and ``on_open``.

    - ``why``: why it is fed from here, None if it is not
    """

    pid: int | None = None
    start_date: float | None = None
    waited = 0.0
    failed = False
    process: object = None
    descriptors: tuple[int | None, int | None, int | None] = (None, None, None)

    def __init__(self, tree: Tree, request: Transfer, sink: Sink) -> None:
        self.request = request
        self.why: str | None = None
        self._tree = tree
        self._loop = tree.loop
        self._sink = sink
        self._state = _State.RELAYED
        self._inner: Channel | None = None
        self._started = False
        self._paused = False
        self._ending: int | None = None

    def open(self) -> None:
        """Show itself to the sink."""
        self._sink.on_open(cast(Channel, self))

    @property
    def relayed(self) -> bool:
        """It waits for what another host passes on."""
        return self._state is _State.RELAYED

    @property
    def over(self) -> bool:
        """Its sink has heard of its end."""
        return self._state is _State.OVER

    # -- asked by the process -------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Nothing: its input is made of files."""

    def close_stdin(self) -> None:
        """Nothing: they end by themselves."""

    def pause(self) -> None:
        self._paused = True
        if self._inner is not None:
            self._inner.pause()

    def resume(self) -> None:
        self._paused = False
        if self._inner is not None:
            self._inner.resume()

    def forget(self) -> None:
        if self._inner is not None:
            self._inner.forget()

    def send_signal(self, number: int) -> bool:
        if self._inner is not None:
            return self._inner.send_signal(number)
        if self._state is _State.RELAYED and self._started and number in ENDING_SIGNALS:
            first, self._ending = self._ending is None, number
            if first:
                self._tree.drop(self)
                self._loop.call_later(PATIENCE, self._give_up)
            elif number == SIGKILL:
                self._give_up()
        elif self._state is _State.DIRECT and number in ENDING_SIGNALS:
            self._ending = number  # its script is about to start
        return self._state is not _State.OVER

    def abort(self) -> None:
        if self._inner is not None:
            self._inner.abort()
        elif self._started:
            self.send_signal(SIGKILL)
        elif self._state is not _State.OVER:
            self._tree.drop(self)
            self._ending = SIGKILL
            self.failed = True
            self.on_error(CancelledError("given up before it had started"))

    def _give_up(self) -> None:
        """It was told to end, and is not heard of: its script sees that something is missing."""
        if self._state is _State.RELAYED:
            self._end_by_signal()

    def _end_by_signal(self) -> None:
        self._tell_ends()
        self.on_exit(SIGKILL if self._ending == SIGKILL else (128 + SIGTERM) << 8)

    # -- told by the host that feeds it -----------------------------------------------------------

    def up(self, source: str | None) -> None:
        """Its script has started."""
        self.request.meter.source = source
        self.on_start()

    def at(self, count: int) -> None:
        """It has taken so many bytes."""
        most = self.request.meter.total or 0
        self.request.meter.set(max(0, min(count, most)))

    def ended(self, code: int, said: bytes) -> None:
        """Its script has ended.

        :param code: its exit code, or less than 0 for a signal
        """
        if self._state is not _State.RELAYED:
            return
        self.on_start()
        if code == 0:
            total = self.request.meter.total
            if total is not None:
                self.request.meter.set(total)
        elif self._ending is not None:
            self._end_by_signal()
            return
        if said:
            self._sink.on_data(2, said)
        self._tell_ends()
        self.on_exit(-code if code < 0 else code << 8)

    def fail(self, error: ProcessError) -> None:
        """There is nothing that could be sent, or nobody to send it."""
        if self._state is not _State.RELAYED:
            return
        if self._started:
            self._tell_ends()
            self.on_exit((128 + SIGTERM) << 8, error)
        else:
            self.failed = True
            self.on_error(error)

    def unreadable(self, exc: Exception) -> None:
        """The files cannot be read."""
        error = WriteError(f"{self.request.label}: {cause(exc)}")
        error.__cause__ = exc
        self.fail(error)

    def lost(self, why: str) -> bool:
        """It is not fed any more. True if it is to be fed from here."""
        if self._state is not _State.RELAYED:
            return False
        if self._ending is not None:
            self._end_by_signal()
            return False
        if self._tree.runtime.exiting:
            self.fail(CancelledError("the interpreter is exiting"))
            return False
        self._state = _State.DIRECT
        self.why = why
        self.request.meter.source = None
        self.request.meter.set(0)
        return True

    def _tell_ends(self) -> None:
        for stream in (1, 2):
            self._sink.on_eof(stream, None)

    # -- the sink -------------------------------------------------------------------------------

    def on_open(self, channel: Channel) -> None:
        self._inner = channel

    def on_start(self) -> None:
        if not self._started and self._state is not _State.OVER:
            self._started = True
            self.start_date = time.time()
            self.request.meter.start()
            self._sink.on_start()
        if self._inner is not None:
            if self._paused:
                self._inner.pause()
            if self._ending is not None:
                self._inner.send_signal(self._ending)

    def on_data(self, stream: int, data: bytes) -> None:
        self._sink.on_data(stream, data)

    def on_eof(self, stream: int, error: OSError | None) -> None:
        self._sink.on_eof(stream, error)

    def on_exit(self, status: int | None, error: ProcessError | None = None) -> None:
        if self._state is not _State.OVER:
            self._over()
            self._sink.on_exit(status, error)

    def on_error(self, error: ProcessError) -> None:
        if self._state is not _State.OVER:
            if self._inner is not None:
                self.failed = self._inner.failed and not self._started
            self._over()
            self._sink.on_error(error)

    def on_written(self, count: int) -> None:
        pass

    def on_write_error(self, error: OSError) -> None:
        self._sink.on_write_error(error)

    def _over(self) -> None:
        self._state = _State.OVER
        self.request.meter.stop()
        self._tree.ended(self)
