"""One TCP connection that was accepted here, on its way through a host."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Callable

from execo._core.loop import Loop, owned
from execo.errors import ProcessError
from execo.transports.base import Channel

__all__ = ["Client"]

AHEAD = 256 * 1024
"""Bytes of one direction that may wait here: past that, who sends them is held up."""

CHUNK = 64 * 1024

_RESET = struct.pack("ii", 1, 0)


class Client:
    """Between the socket of a client and the sink of its Forward. All on the I/O thread.

    :param sock: connected; owned from now on
    :param on_end: called once with it, and with what has kept it from being carried at all
    """

    def __init__(
        self,
        loop: Loop,
        sock: socket.socket,
        on_end: Callable[[Client, ProcessError | None], object],
    ) -> None:
        self._loop = loop
        self._sock = sock
        self._on_end = on_end
        self._channel: Channel | None = None
        self._started = False
        self._over = False
        self._ahead = 0  # read and not carried on yet
        self._read_all = False
        self._backlog = bytearray()  # that the client has not taken yet
        self._paused = False
        self._written_all = False  # nothing comes behind the backlog
        self._closing = False  # the way is closed: so is the socket, behind the backlog
        sock.setblocking(False)
        with contextlib.suppress(OSError):  # it has hung up already
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        owned.add(self)

    def abort(self) -> None:
        """Break it off, so that both sides know that something is missing."""
        if not self._over:
            self._close(reset=True)
            if self._channel is not None:
                self._channel.abort()

    # -- from the client ------------------------------------------------------------------------

    def on_start(self) -> None:
        self._started = True
        if not self._over:
            self._loop.add_reader(self._sock, self._on_readable)

    def _on_readable(self) -> None:
        assert self._channel is not None
        try:
            data = self._sock.recv(CHUNK)
        except BlockingIOError:
            return
        except OSError:
            self.abort()
            return
        if data:
            self._ahead += len(data)
            self._channel.write(data)
            if self._ahead >= AHEAD:
                self._loop.remove_reader(self._sock)
        else:
            self._loop.remove_reader(self._sock)
            self._read_all = True
            self._channel.close_stdin()

    def on_written(self, count: int) -> None:
        held_up = self._ahead >= AHEAD
        self._ahead -= count
        if held_up and self._ahead < AHEAD and not (self._over or self._closing):
            self._loop.add_reader(self._sock, self._on_readable)

    # -- to the client --------------------------------------------------------------------------

    def on_data(self, stream: int, data: bytes) -> None:
        if self._over:
            return
        sent = 0
        if not self._backlog:
            try:
                sent = self._sock.send(data)
            except BlockingIOError:
                pass
            except OSError:
                self.abort()
                return
        if sent < len(data):
            if not self._backlog:
                self._loop.add_writer(self._sock, self._on_writable)
            self._backlog += memoryview(data)[sent:]
            if len(self._backlog) >= AHEAD and not self._paused and self._channel is not None:
                self._paused = True
                self._channel.pause()

    def _on_writable(self) -> None:
        try:
            sent = self._sock.send(self._backlog)
        except BlockingIOError:
            return
        except OSError:
            self.abort()
            return
        del self._backlog[:sent]
        if not self._backlog:
            self._loop.remove_writer(self._sock)
            self._look_written()
        if self._paused and len(self._backlog) < AHEAD and self._channel is not None:
            self._paused = False
            self._channel.resume()

    def _look_written(self) -> None:
        if self._backlog or self._over:
            return
        if self._closing:
            self._close()
        elif self._written_all:
            with contextlib.suppress(OSError):  # the client has hung up: reading says so
                self._sock.shutdown(socket.SHUT_WR)

    # -- the sink of the way through the host ---------------------------------------------------

    def on_open(self, channel: Channel) -> None:
        self._channel = channel

    def on_eof(self, stream: int, error: OSError | None) -> None:
        if stream == 1:
            self._written_all = True
            self._look_written()

    def on_exit(self, status: int | None, error: ProcessError | None = None) -> None:
        if not self._over:
            self._closing = True
            self._loop.remove_reader(self._sock)
            self._look_written()

    def on_error(self, error: ProcessError) -> None:
        if not self._over:
            # One that was never carried is closed, as ssh does; one that breaks off is reset.
            self._close(None if self._started else error, reset=self._started)

    def on_write_error(self, error: OSError) -> None:
        """The end that follows says the same."""

    # -- the end --------------------------------------------------------------------------------

    def _close(self, error: ProcessError | None = None, *, reset: bool = False) -> None:
        self._over = True
        owned.discard(self)
        self._loop.remove_reader(self._sock)
        self._loop.remove_writer(self._sock)
        self._backlog.clear()
        if reset:
            # An end in good order would make half an answer look like a whole one.
            with contextlib.suppress(OSError):
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._sock.close()
        self._on_end(self, error)

    def close_inherited(self) -> None:
        """In a forked child: close the copy, which the parent goes on to use."""
        self._sock.close()
