"""A port that listens here, whose connections are carried by a transport that can do Forward.

::

    bound here ──> let in by the host ──> allowed to forward there ──> listening ──> over
"""

from __future__ import annotations

import errno
import signal
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Self

from execo import transports
from execo._core.child import raise_descriptor_limit
from execo._core.loop import owned
from execo.errors import CancelledError, NotSupported, ProcessError, SpawnError
from execo.log import logger
from execo.transports.base import ENDING_SIGNALS, Channel, Forward, Lease, Sink, Transport

from .client import Client
from .probe import Probe
from .request import Listen, place
from .sockets import bound_sockets

if TYPE_CHECKING:
    from .transport import ForwardingTransport

__all__ = ["Listener"]

BACKLOG = 1024
"""Connections that may wait to be accepted: hundreds come at once when an experiment starts."""

AT_ONCE = 64
"""Connections that are accepted in one turn: others have their turn, too."""

_NO_ROOM = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_PAUSE = 1.0


class Listener:
    """The channel of a port forwarder, and the sink of the lease of its host's connection.

    All on the I/O thread, save ``open`` and ``on_open``.
    """

    pid: int | None = None
    start_date: float | None = None
    waited = 0.0
    failed = False
    process: object = None

    def __init__(self, transport: ForwardingTransport, request: Listen, sink: Sink) -> None:
        self._transport = transport
        self._request = request
        self._sink = sink
        self._loop = transport.runtime.loop
        self._opened = time.monotonic()
        self._carrier: Transport
        self._sockets: list[socket.socket] = []
        self._clients: set[Client] = set()
        self._lease: Channel | None = None
        self._over = False
        self._refused = 0
        self._told_no_room = False

    @property
    def descriptors(self) -> tuple[int | None, int | None, int | None]:
        """There are none."""
        return None, None, None

    def open(self) -> Self:
        """Take the port, so that a wrong one is told at once, and have the host reached."""
        self._sink.on_open(self)
        request = self._request
        try:
            self._carrier = transports.get(self._transport.runtime, request.transport)
            self._sockets = bound_sockets(request.bind, request.port)
        except (OSError, UnicodeError) as exc:  # the latter for a name that can be none
            self.failed = True
            self._loop.call_soon(self._fail, self._not_listening(exc))
        else:
            # Now: a child forked before the next step would keep the port.
            owned.add(self)
            self._loop.call_soon(self._reach)
        return self

    def _reach(self) -> None:
        if self._over:
            return  # given up meanwhile
        self._transport.add(self)
        try:
            self._carrier.open_all([(Lease(self._request.target), self)])
        except NotSupported as exc:
            self._fail(SpawnError(str(exc)))

    def _not_listening(self, exc: OSError | UnicodeError) -> SpawnError:
        where = place(self._request.bind or "*", self._request.port)
        hint = ""
        if isinstance(exc, OSError) and exc.errno == errno.EADDRINUSE:
            hint = "; give another local_port, or none for a free one"
        error = SpawnError(f"cannot listen on {where}: {_words(exc)}{hint}")
        error.__cause__ = exc
        return error

    # -- the lease: the host lets us in ---------------------------------------------------------

    def on_open(self, channel: Channel) -> None:
        self._lease = channel

    def on_start(self) -> None:
        # A port that nobody can listen on: a host that forwards says that it cannot connect, and
        # no service is troubled.
        self._probe("127.0.0.1", 0, self._on_answer)

    def _probe(
        self, host: str, port: int, on_answer: Callable[[ProcessError | None], object]
    ) -> None:
        self._carrier.open_all([(Forward(host, port, self._request.target), Probe(on_answer))])

    def _on_answer(self, error: ProcessError | None) -> None:
        if self._over:
            return
        if isinstance(error, SpawnError):
            # It may permit some places alone (PermitOpen).
            self._probe(self._request.to_host, self._request.to_port, self._on_place_answer)
        else:
            self._listen()

    def _on_place_answer(self, error: ProcessError | None) -> None:
        if self._over:
            return
        if isinstance(error, SpawnError):
            self._fail(error)
        else:
            self._listen()

    def on_error(self, error: ProcessError) -> None:
        self._fail(error)

    def on_exit(self, status: int | None, error: ProcessError | None = None) -> None:
        # Ended by the end of the script.
        if self.start_date is None:
            self._fail(CancelledError("given up before it listened"))
        elif not self._over:
            self._close()
            self._exit(status or int(signal.SIGTERM))

    def on_data(self, stream: int, data: bytes) -> None:
        """A lease has no output."""

    def on_eof(self, stream: int, error: OSError | None) -> None:
        """Likewise."""

    def on_written(self, count: int) -> None:
        """Nothing is written to it."""

    def on_write_error(self, error: OSError) -> None:
        """Likewise."""

    # -- listening ------------------------------------------------------------------------------

    def _listen(self) -> None:
        try:
            for sock in self._sockets:
                sock.listen(BACKLOG)
        except OSError as exc:  # somebody else was quicker
            self._fail(self._not_listening(exc))
            return
        self._accept_again()
        self.start_date = time.time()
        self.waited = time.monotonic() - self._opened
        self._sink.on_start()
        if self._request.on_listening is not None:
            self._request.on_listening()

    def _accept_again(self) -> None:
        for sock in self._sockets:
            self._loop.add_reader(sock, self._on_clients, sock)

    def _on_clients(self, listening: socket.socket) -> None:
        request = self._request
        for _ in range(AT_ONCE):
            try:
                sock, _ = listening.accept()
            except BlockingIOError:
                return
            except OSError as exc:
                if exc.errno in _NO_ROOM:
                    self._pause_accepting(exc)
                    return
                continue  # it has hung up before it was accepted
            client = Client(self._loop, sock, self._on_client_end)
            self._clients.add(client)
            forward = Forward(request.to_host, request.to_port, request.target)
            self._carrier.open_all([(forward, client)])

    def _pause_accepting(self, exc: OSError) -> None:
        """Without a free descriptor the connection stays where it is, and would be announced again
        and again."""
        raise_descriptor_limit()
        for sock in self._sockets:
            self._loop.remove_reader(sock)
        self._loop.call_later(_PAUSE, self._accept_again)
        if not self._told_no_room:
            self._told_no_room = True
            self._warn(
                "%s: connections wait to be accepted: %s; raise the limit (ulimit -n)",
                self._request.command,
                _words(exc),
            )

    def _on_client_end(self, client: Client, error: ProcessError | None) -> None:
        self._clients.discard(client)
        if error is None or self._over:
            return
        if isinstance(error, SpawnError):
            self._fail(error)  # what it refuses now it will always refuse
            return
        self._refused += 1
        # The first, the tenth, the hundredth: a service that is down is asked for ever.
        if str(self._refused).strip("0") == "1":
            self._warn(
                "%s: %s; connections closed for that so far: %d",
                self._request.command,
                error,
                self._refused,
            )

    def _warn(self, *words: object) -> None:
        # Who reads the log may be slow: not on the I/O thread.
        self._transport.runtime.sweeper.submit(logger.warning, *words)

    # -- asked by the process -------------------------------------------------------------------

    def send_signal(self, number: int) -> bool:
        if self.start_date is None or self._over:
            return False
        if number in ENDING_SIGNALS:
            self._close()
            # Not within the call: who kills has to note that it did, first.
            self._loop.call_soon(self._exit, number)
        return True

    def abort(self) -> None:
        if not self.send_signal(signal.SIGKILL):
            self._fail(CancelledError("given up before it listened"))

    def write(self, data: bytes) -> None:
        self._sink.on_write_error(BrokenPipeError(errno.EPIPE, "it takes no input"))

    def close_stdin(self) -> None:
        """It has none."""

    def pause(self) -> None:
        """It prints nothing."""

    def resume(self) -> None:
        """Likewise."""

    def forget(self) -> None:
        """Nothing is left behind."""

    # -- the end --------------------------------------------------------------------------------

    def _fail(self, error: ProcessError) -> None:
        if not self._over:
            self._close()
            self._sink.on_error(error)

    def _exit(self, status: int) -> None:
        self._sink.on_eof(1, None)
        self._sink.on_eof(2, None)
        self._sink.on_exit(status)

    def _close(self) -> None:
        self._over = True
        self._transport.remove(self)
        owned.discard(self)
        sockets, self._sockets = self._sockets, []
        for sock in sockets:
            self._loop.remove_reader(sock)
            sock.close()
        for client in list(self._clients):
            client.abort()
        if self._lease is not None:
            self._lease.abort()

    def close_inherited(self) -> None:
        """In a forked child: close the copies, which the parent goes on to use."""
        for sock in self._sockets:
            sock.close()


def _words(exc: OSError | UnicodeError) -> str:
    """The system's words for an error."""
    return (getattr(exc, "strerror", None) or str(exc)).lower()
