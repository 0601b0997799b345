"""One channel of an SSH session (RFC 4254), which tells what happens on the I/O thread.

Channels of paramiko are not used: each would cost several locks, conditions and pipes, and most of
their calls block, ten times a second awake. Nothing here waits.
"""

from __future__ import annotations

import signal
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from paramiko import common
from paramiko.message import Message
from paramiko.ssh_exception import SSHException

if TYPE_CHECKING:
    from .session import Session

__all__ = [
    "ChannelListener",
    "SshChannel",
    "env_request",
    "exec_request",
    "pty_request",
    "signal_request",
    "tcp_details",
    "text_of",
]

WINDOW = 2 * 1024 * 1024
"""Bytes that a host may send on a channel before we have taken them, at the most."""

FIRST_WINDOW = 256 * 1024
"""The same at its begin; it doubles as they are taken. Of a hundred commands that print faster than
anybody reads, the memory holds what they may send: with WINDOW from the start 200 MB."""

PACKET = 32 * 1024
"""Bytes of data in one message at the most: what every implementation takes (RFC 4253, 6.1)."""

_END, _CLOSED = 0, -1


class ChannelListener(Protocol):
    """Is told what happens on a channel. All on the I/O thread."""

    def channel_opened(self) -> None:
        """The host has opened it, and the requests were sent."""

    def channel_refused(self, why: str) -> None:
        """The host will not open it. Nothing follows."""

    def channel_answered(self, ok: bool) -> None:
        """The host has granted, or not, the request that asks for an answer."""

    def channel_data(self, stream: int, data: bytes) -> None: ...
    def channel_eof(self) -> None: ...

    def channel_exit(self, status: int | None, why: str) -> None:
        """A wait status; None if it cannot be expressed as one, then ``why`` says it."""

    def channel_written(self, count: int) -> None: ...

    def channel_closed(self) -> None:
        """It is over, by the host or since the connection is lost. Nothing follows."""


class SshChannel:
    """One channel of a session (RFC 4254, 5). Methods belong to the I/O thread.

    ``refusal`` is why the host has not opened it, by the codes of RFC 4254, 5.1.

    :param requests: messages to send as soon as it is open, made from the host's number for it
    :param kind: ``session``, ``direct-tcpip``
    :param details: what is to be said beside its kind
    """

    def __init__(
        self,
        session: Session,
        listener: ChannelListener,
        requests: Sequence[Callable[[int], Message]],
        *,
        kind: str = "session",
        details: bytes = b"",
    ) -> None:
        self.refusal = 0
        self._session = session
        self._loop = session.loop
        self._listener = listener
        self._requests = requests
        self._remote = -1
        self._room = 0  # bytes that the host takes
        self._packet = PACKET
        self._inbox: deque[tuple[int, bytes]] = deque()
        self._scheduled = False
        self._taken = 0
        self._window = FIRST_WINDOW
        self._granted = FIRST_WINDOW  # bytes that the host may have sent so far
        self._received_size = 0
        self._paused = False
        self._outbox: deque[memoryview] = deque()
        self._ending = False
        self._close_lock = threading.Lock()
        self._close_sent = False
        self._closed = False  # by the host
        self._number = session.attach(self)
        if session.over:
            self._loop.call_soon(self.lose)
        message = Message()
        message.add_byte(common.cMSG_CHANNEL_OPEN)
        message.add_string(kind)
        message.add_int(self._number)
        message.add_int(FIRST_WINDOW)
        message.add_int(PACKET)
        message.add_bytes(details)
        session.post(message)

    # -- the I/O thread -------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Send ``data`` as the host makes room for it."""
        self._outbox.append(memoryview(data))
        self._pump()

    def end(self) -> None:
        """End of file, after all that was written."""
        if not self._ending:
            self._ending = True
            self._pump()

    def request(self, make: Callable[[int], Message]) -> None:
        """Send a request on a channel that is open."""
        if not self._close_sent:
            self._session.post(make(self._remote))

    def pause(self) -> None:
        """Tell the listener of no data until :meth:`resume`; the host is held up in the end."""
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        self._deliver()

    def close(self) -> None:
        """Close our side: the host closes its own, and ``channel_closed`` follows."""
        if self._remote >= 0:
            self._send_close()

    @property
    def is_open(self) -> bool:
        """Whether the host has opened it."""
        return self._remote >= 0

    @property
    def unwritten(self) -> bool:
        """Whether something that was to be written has not been sent."""
        return bool(self._outbox)

    def _pump(self) -> None:
        if self._remote < 0 or self._close_sent:
            return
        while self._outbox and self._room > 0:
            block = self._outbox.popleft()
            size = min(len(block), self._room, self._packet)
            if size < len(block):
                self._outbox.appendleft(block[size:])
            self._room -= size
            message = Message()
            message.add_byte(common.cMSG_CHANNEL_DATA)
            message.add_int(self._remote)
            message.add_string(block[:size].tobytes())
            self._session.post(message)
            self._listener.channel_written(size)
        if self._ending and not self._outbox:
            self._ending = False
            self._session.post(_message(common.cMSG_CHANNEL_EOF, self._remote))

    def _deliver(self) -> None:
        self._scheduled = False
        listener = self._listener
        inbox = self._inbox
        while inbox and not self._paused:
            stream, data = inbox.popleft()
            if stream > 0:
                self._taken += len(data)
                if stream <= 2:
                    listener.channel_data(stream, data)
            elif stream == _END:
                listener.channel_eof()
            else:
                listener.channel_closed()
        if self._taken >= self._window // 4 and not self._close_sent:
            before, self._window = self._window, min(WINDOW, 2 * self._window)
            room = self._taken + self._window - before
            message = _message(common.cMSG_CHANNEL_WINDOW_ADJUST, self._remote)
            message.add_int(room)
            self._granted += room  # before the host hears of it
            self._taken = 0
            self._session.post(message)

    def lose(self) -> None:
        """The connection is over."""
        self._close_sent = True
        self._finish()

    def refuse(self, code: int, why: str) -> None:
        """The host will not open it."""
        self.refusal = code
        self._session.detach(self._number, self)
        self._listener.channel_refused(why)

    def _add_room(self, size: int) -> None:
        self._room += size
        self._pump()

    def _finish(self) -> None:
        self._session.detach(self._number, self)
        self._inbox.append((_CLOSED, b""))
        self._deliver()

    # -- the thread that reads ------------------------------------------------------------------

    def confirm(self, remote: int, window: int, packet: int) -> None:
        """The host has opened it.

        :raises SSHException: if it had before, or takes no data: that ends the connection
        """
        if self._remote >= 0 or packet < 1:
            raise SSHException(f"the host confirms channel {self._number} in a wrong way")
        self._remote = remote
        self._packet = min(packet, PACKET)
        for make in self._requests:
            self._session.post(make(remote))
        self._loop.call_soon(self._opened, window)

    def _opened(self, window: int) -> None:
        self._listener.channel_opened()
        self._add_room(window)

    def _put(self, stream: int, data: bytes = b"") -> None:
        self._inbox.append((stream, data))
        # One call for all that comes until the I/O thread looks.
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._deliver)

    def on_success(self, m: Message) -> None:
        self._check_open()
        self._loop.call_soon(self._listener.channel_answered, True)

    def on_failure(self, m: Message) -> None:
        self._check_open()
        self._loop.call_soon(self._listener.channel_answered, False)

    def on_data(self, m: Message) -> None:
        self._put(1, self._received(m))

    def on_extended(self, m: Message) -> None:
        code = m.get_int()
        # 1 is stderr, and nothing else was ever defined (RFC 4254, 5.2): it is passed over.
        self._put(2 if code == 1 else 3, self._received(m))

    def _received(self, m: Message) -> bytes:
        """:raises SSHException: for what was announced and is not there (paramiko would make it
        up), and for more than there was room for, which would fill the memory"""
        self._check_open()
        size, rest = m.get_int(), m.get_remainder()
        self._received_size += size
        if size > len(rest) or self._received_size > self._granted:
            raise SSHException(f"the host sends data on channel {self._number} in a wrong way")
        return rest[:size]

    def _check_open(self) -> None:
        # Nothing could be answered: the host has not said its number for it.
        if self._remote < 0:
            raise SSHException(f"the host uses channel {self._number} before it has opened it")

    def on_adjust(self, m: Message) -> None:
        self._check_open()
        self._loop.call_soon(self._add_room, m.get_int())

    def on_eof(self, m: Message) -> None:
        self._check_open()
        self._put(_END)

    def on_close(self, m: Message) -> None:
        self._check_open()
        if self._closed:
            raise SSHException(f"the host closes channel {self._number} twice")
        self._closed = True
        self._send_close()
        # On the I/O thread, after the exit status that was told there.
        self._loop.call_soon(self._finish)

    def on_request(self, m: Message) -> None:
        self._check_open()
        kind = text_of(m)
        wants_answer = m.get_boolean()
        if kind == "exit-status":
            code = m.get_int()
            # A code that a wait status cannot hold (Windows has 32 bits) stays a failure.
            status = (code & 0xFF or (255 if code else 0)) << 8
            self._loop.call_soon(self._listener.channel_exit, status, "")
        elif kind == "exit-signal":
            name, dumped = text_of(m), m.get_boolean()
            number = signal.Signals.__members__.get(f"SIG{name}")
            raw = None if number is None else int(number) | (0x80 if dumped else 0)
            why = f"it died of a signal that the host calls {name!r}"
            self._loop.call_soon(self._listener.channel_exit, raw, why)
        elif wants_answer:
            self._session.post(_message(common.cMSG_CHANNEL_FAILURE, self._remote))

    def _send_close(self) -> None:
        with self._close_lock:
            if self._close_sent:
                return
            self._close_sent = True
        self._session.post(_message(common.cMSG_CHANNEL_CLOSE, self._remote))

    def _unlink(self) -> None:
        """Does nothing: paramiko calls it when the connection is over, see :meth:`lose`."""


# -- messages -----------------------------------------------------------------------------------


def _message(kind: bytes, remote: int) -> Message:
    message = Message()
    message.add_byte(kind)
    message.add_int(remote)
    return message


def _request(kind: str, remote: int, *, answer: bool) -> Message:
    message = _message(common.cMSG_CHANNEL_REQUEST, remote)
    message.add_string(kind)
    message.add_boolean(answer)
    return message


def text_of(message: Message) -> str:
    """The next text of what a host sends, whatever its bytes are."""
    return message.get_string().decode("utf-8", "replace")


def tcp_details(host: str, port: int) -> bytes:
    """Where a ``direct-tcpip`` channel leads (RFC 4254, 7.2). Who asks is not told: it is another
    machine's address at times, and of no use to the host."""
    message = Message()
    message.add_string(host)
    message.add_int(port)
    message.add_string("127.0.0.1")
    message.add_int(0)
    return message.asbytes()


def exec_request(command: bytes) -> Callable[[int], Message]:
    """Run a command (RFC 4254, 6.5); the host answers whether it does."""

    def make(remote: int) -> Message:
        message = _request("exec", remote, answer=True)
        message.add_string(command)
        return message

    return make


# RFC 4254, 8: no echo, as for a local terminal.
_ECHO, _OFF, _END_OF_MODES = 53, b"\0\0\0\0", b"\0"


def pty_request(columns: int = 80, lines: int = 24) -> Callable[[int], Message]:
    """A terminal without echo for the command (RFC 4254, 6.2)."""

    def make(remote: int) -> Message:
        message = _request("pty-req", remote, answer=False)
        message.add_string("vt100")
        for number in (columns, lines, 0, 0):
            message.add_int(number)
        message.add_string(bytes([_ECHO]) + _OFF + _END_OF_MODES)
        return message

    return make


def env_request(name: str, value: str) -> Callable[[int], Message]:
    """Set a variable for the command (RFC 4254, 6.4), if the host lets us (AcceptEnv)."""

    def make(remote: int) -> Message:
        message = _request("env", remote, answer=False)
        message.add_string(name.encode("utf-8", "surrogateescape"))
        message.add_string(value.encode("utf-8", "surrogateescape"))
        return message

    return make


def signal_request(number: int) -> Callable[[int], Message]:
    """Signal the command (RFC 4254, 6.9). Not every host does, none of OpenSSH for root.

    It is to answer whether it has: without (as the RFC has it), a signal that came too early would
    be lost without a word.
    """

    def make(remote: int) -> Message:
        message = _request("signal", remote, answer=True)
        message.add_string(signal.Signals(number).name.removeprefix("SIG"))
        return message

    return make
