"""What is under an SSH connection that has no socket: a channel that leads to the host.

The channel is one of the seam: a connection that a gateway carries (``direct-tcpip``), or the
stdin and stdout of a proxy command. Nothing is copied through a descriptor of this process, so
that a thousand hosts behind a gateway cost none.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

from execo._core.loop import Loop
from execo.errors import ProcessError

from .base import Channel

__all__ = ["CarriedWire", "WireListener"]

AHEAD = 256 * 1024
"""Bytes that may wait for the thread that reads: past that, the host is held up."""

_LAST_WORDS = 1000
_PATIENCE = 0.3
"""Seconds after the end of what comes, for the channel to say why."""


class WireListener(Protocol):
    """Is told how a wire begins. All on the I/O thread."""

    def wire_connected(self) -> None:
        """The channel is open."""

    def wire_spoke(self, data: bytes) -> None:
        """The first bytes have come. They are read from the wire all the same."""

    def wire_ended(self, status: int | None, error: ProcessError | None) -> None:
        """It is over, before or after its first words."""


class CarriedWire:
    """What paramiko is given as its socket, see :class:`~execo.transports.wire.Wire`; and the sink
    of the channel that it stands for.

    ``problem`` says why the channel has ended, where that is known. ``listener`` may be set to None
    when it has heard enough.

    :param hang_up: ends the channel, on the I/O thread
    """

    def __init__(
        self, loop: Loop, listener: WireListener, hang_up: Callable[[Channel], object]
    ) -> None:
        self.heard = time.monotonic()
        self.has_reader = False
        self.problem = ""
        self.listener: WireListener | None = listener
        self._loop = loop
        self._hang_up = hang_up
        self.channel: Channel | None = None
        self._started = False
        self._over = False  # the channel is: on the I/O thread
        self._spoken = False
        self._stderr = b""
        self._read = b""
        self._position = 0
        # Under the lock:
        self._arrived = threading.Condition(threading.Lock())
        self._inbox: list[bytes] = []
        self._waiting = 0  # bytes in it
        self._paused = False
        self._ended = False
        self._closed = False
        self._outbox: deque[bytes] = deque()
        self._flushing = False

    @property
    def is_loopback(self) -> bool:
        """Nobody here knows where the way ends."""
        return False

    # -- what paramiko calls --------------------------------------------------------------------

    def settimeout(self, timeout: float | None) -> None:
        """Does nothing: paramiko would wake ten times a second to look around."""

    def recv(self, size: int) -> bytes:
        """Up to ``size`` bytes; blocks until there are some. Empty at the end."""
        if self._position == len(self._read):
            with self._arrived:
                while not (self._inbox or self._ended or self._closed):
                    self._arrived.wait()
                if self._closed or not self._inbox:
                    return b""
                self._read = b"".join(self._inbox)
                self._inbox.clear()
                self._waiting = 0
                paused, self._paused = self._paused, False
            self._position = 0
            if paused:
                self._loop.call_soon(self._resume)
        start = self._position
        self._position = min(len(self._read), start + size)
        return self._read[start : self._position]

    def send(self, data: bytes) -> int:
        """Take all of ``data``; does not block.

        :raises OSError: if the connection is lost
        """
        with self._arrived:
            if self._closed or self._ended:
                raise BrokenPipeError("the connection is closed")
            # Always by way of the queue: what another thread has left there goes first.
            self._outbox.append(bytes(data))
            flushing, self._flushing = self._flushing, True
        if self._loop.in_thread():
            self._flush()
        elif not flushing:
            self._loop.call_soon(self._flush)
        return len(data)

    def close(self) -> None:
        """End it, after what was sent: the thread that reads sees the end."""
        with self._arrived:
            if self._closed:
                return
            self._closed = True
            self._arrived.notify()
        if self._loop.in_thread():
            self._close_channel()
        else:
            self._loop.call_soon(self._close_channel)

    def release(self) -> None:
        """Nobody reads any more."""
        self.has_reader = False
        self.close()

    # -- the I/O thread -------------------------------------------------------------------------

    @property
    def last_words(self) -> str:
        """The end of what its program has printed on stderr, on one line."""
        return " ".join(self._stderr.decode("utf-8", "replace").split())

    def _flush(self) -> None:
        self._flushing = False
        while self._outbox:
            data = self._outbox.popleft()
            if self.channel is not None and not self._over:
                self.channel.write(data)

    def _resume(self) -> None:
        # Not if it was paused again meanwhile: that is for the next one to lift.
        if self.channel is not None and not self._over and not self._paused:
            self.channel.resume()

    def _close_channel(self) -> None:
        self.listener = None
        self._flush()
        # One that has not started yet is ended when it has.
        if self.channel is not None and not self._over and self._started:
            self._hang_up(self.channel)
        elif self.channel is not None and not self._over:
            self.channel.abort()

    def _end(self, status: int | None, error: ProcessError | None) -> None:
        if self._ended:
            return
        if error is not None:
            self.problem = str(error)
        elif self.last_words:
            self.problem = f"its proxy command has ended: {self.last_words}"
        with self._arrived:
            self._ended = True
            self._arrived.notify()
        listener, self.listener = self.listener, None
        if listener is not None:
            listener.wire_ended(status, error)

    def _on_patience_over(self) -> None:
        if not self._over:
            self._end(None, None)
            self._close_channel()

    # -- the sink of the channel ----------------------------------------------------------------

    def on_open(self, channel: Channel) -> None:
        self.channel = channel

    def on_start(self) -> None:
        self._started = True
        if self._closed:
            self._close_channel()
        elif self.listener is not None:
            self.listener.wire_connected()

    def on_data(self, stream: int, data: bytes) -> None:
        if stream == 2:
            self._stderr = (self._stderr + data)[-_LAST_WORDS:]
            return
        self.heard = time.monotonic()
        with self._arrived:
            if self._closed:
                return
            self._inbox.append(data)
            self._waiting += len(data)
            pause = self._waiting >= AHEAD and not self._paused
            self._paused = self._paused or pause
            self._arrived.notify()
        if pause and self.channel is not None:
            self.channel.pause()
        if not self._spoken and self.listener is not None:
            self._spoken = True
            self.listener.wire_spoke(data)

    def on_eof(self, stream: int, error: OSError | None) -> None:
        if stream == 1 and not self._over and not self._closed:
            # What follows says why, unless a program has closed its stdout and goes on.
            self._loop.call_later(_PATIENCE, self._on_patience_over)

    def on_exit(self, status: int | None, error: ProcessError | None = None) -> None:
        self._over = True
        self._end(status, error)

    def on_error(self, error: ProcessError) -> None:
        self._over = True
        self._end(None, error)

    def on_written(self, count: int) -> None:
        pass

    def on_write_error(self, error: OSError) -> None:
        """The end that follows says the same."""
