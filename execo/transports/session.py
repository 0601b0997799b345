"""SSH sessions and channels without blocking calls: paramiko below, RFC 4254 here.

paramiko does the cryptography, the key exchange and the authentication, in one thread for each
connection. Its channels are not used: each would cost several locks, conditions and pipes, and
most of their calls block, ten times a second awake. Channels here are told what happens on the I/O
thread, and nothing in them waits.

This is the one file that relies on names of paramiko which are not public: the table of channel
messages, the map of channels, and the two methods that send messages. A test runs it on each
supported version.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, cast

import paramiko
from paramiko import common
from paramiko.message import Message
from paramiko.packet import Packetizer

from execo._core.loop import Loop

from .wire import Wire

__all__ = [
    "ChannelListener",
    "Event",
    "Session",
    "SshChannel",
    "exec_request",
    "pty_request",
    "signal_request",
]

WINDOW = 2 * 1024 * 1024
"""Bytes that a host may send on a channel before we have taken them."""

PACKET = 32 * 1024
"""Bytes of data in one message at the most: what every implementation takes (RFC 4253, 6.1)."""

_logger = logging.getLogger("execo.ssh")
_END, _CLOSED = 0, -1
_LOST = (OSError, EOFError, paramiko.SSHException)


class _QuietPacketizer(Packetizer):
    def start_handshake(self, timeout: float) -> None:
        """Does nothing: it would start a thread for its timer; ours is on the loop."""


class Event(threading.Event):
    """What paramiko sets when it is done with something: calls a function on the I/O thread."""

    def __init__(self, loop: Loop, function: Callable[[], object]) -> None:
        super().__init__()
        self._call = (loop, function)

    def set(self) -> None:
        super().set()
        loop, function = self._call
        loop.call_soon(function)


class Session(paramiko.Transport):
    """One SSH connection.

    :param wire: its socket
    :param on_lost: called on the I/O thread when it is over, for whatever reason
    """

    # Of paramiko's, without annotations there.
    active: bool
    _channels: Any
    _send_message: Callable[[Message], None]
    _channel_handler_table: dict[int, Callable[[SshChannel, Message], None]]

    def __init__(self, loop: Loop, wire: Wire, on_lost: Callable[[], object]) -> None:
        super().__init__(cast(Any, wire), packetizer_class=_QuietPacketizer)
        self.loop = loop
        self.wire = wire
        self.name = "execo-ssh"
        self.over = False
        self._on_lost = on_lost
        self._held: list[Message] = []
        self._open: dict[int, SshChannel] = {}
        self._free: list[int] = []
        options = self.get_security_options()
        # First those that encrypt and authenticate in one go: they are several times quicker.
        ciphers = sorted(options.ciphers, key=lambda name: "gcm" not in name)
        options.ciphers = tuple(name for name in ciphers if "cbc" not in name)

    # -- the I/O thread -------------------------------------------------------------------------

    def prefer_key_types(self, known: Iterable[str]) -> None:
        """Ask first for host keys of the types that are known, as ssh does: a host has several,
        and showing another one would look like a change."""
        options = self.get_security_options()
        wanted = set(known)
        if "ssh-rsa" in wanted:
            wanted |= {"rsa-sha2-256", "rsa-sha2-512"}  # the same key, signing otherwise
        options.key_types = tuple(sorted(options.key_types, key=lambda kind: kind not in wanted))

    def attach(self, channel: SshChannel) -> int:
        """Give ``channel`` its number."""
        # Numbers are given again: paramiko remembers each one for ever.
        number = self._free.pop() if self._free else len(self._open)
        self._open[number] = channel
        self._channels.put(number, channel)
        self.channels_seen[number] = True
        return number

    def detach(self, number: int) -> None:
        """The channel is over on both sides: its number may be given to another one."""
        if self._open.pop(number, None) is not None:
            self._channels.delete(number)
            self._free.append(number)

    def hang_up(self) -> None:
        """End the connection; ``on_lost`` follows if it was started. From any thread."""
        self.wire.close()

    def _lost(self) -> None:
        self.over = True
        for channel in list(self._open.values()):
            channel.lose()
        self._on_lost()

    # -- any thread -----------------------------------------------------------------------------

    def post(self, message: Message) -> None:
        """Send ``message``, or keep it while keys are exchanged. Does not block.

        Nothing is told of a connection that is lost: its end is on its way.
        """
        try:
            self._send_user_message(message)
        except _LOST:
            self.wire.close()

    def _send_user_message(self, data: Message) -> None:
        # paramiko waits here while keys are exchanged anew: the I/O thread must not, and the thread
        # that reads would wait for itself.
        with self.clear_to_send_lock:
            if self.clear_to_send.is_set() and not self._held:
                self._send_message(data)
            elif self.active:
                self._held.append(data)

    # -- the thread that reads ------------------------------------------------------------------

    def run(self) -> None:
        try:
            super().run()
        finally:
            self.wire.close()
            self.loop.call_soon(self._lost)

    def stop_thread(self) -> None:
        """Does nothing: at the end of the interpreter paramiko would end the connections, and wait
        for them, before our processes are ended through them."""

    def _parse_newkeys(self, m: Message) -> None:
        super()._parse_newkeys(m)  # type: ignore[misc]
        with self.clear_to_send_lock:
            for message in self._held:
                self._send_message(message)
            self._held.clear()

    def _parse_channel_open_success(self, m: Message) -> None:
        channel = self._open.get(m.get_int())
        if channel is not None:
            channel.confirm(m.get_int(), m.get_int(), m.get_int())

    def _parse_channel_open_failure(self, m: Message) -> None:
        number = m.get_int()
        channel = self._open.get(number)
        if channel is not None:
            code, text = m.get_int(), m.get_text()
            why = text or common.CONNECTION_FAILED_CODE.get(code, f"code {code}")
            self.loop.call_soon(channel.refuse, why)

    def _log(self, level: int, msg: Any, *args: Any) -> None:
        # Errors of connections are told as those of processes; the rest is for whoever looks.
        if _logger.isEnabledFor(logging.DEBUG):
            for line in msg if isinstance(msg, list) else [msg]:
                _logger.debug(str(line), *args)


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

    :param requests: messages to send as soon as it is open, made from the host's number for it
    """

    def __init__(
        self,
        session: Session,
        listener: ChannelListener,
        requests: Sequence[Callable[[int], Message]],
        *,
        kind: str = "session",
    ) -> None:
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
        self._paused = False
        self._outbox: deque[memoryview] = deque()
        self._ending = False
        self._close_lock = threading.Lock()
        self._close_sent = False
        self._number = session.attach(self)
        if session.over:
            self._loop.call_soon(self.lose)
        message = Message()
        message.add_byte(common.cMSG_CHANNEL_OPEN)
        message.add_string(kind)
        message.add_int(self._number)
        message.add_int(WINDOW)
        message.add_int(PACKET)
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
                listener.channel_data(stream, data)
            elif stream == _END:
                listener.channel_eof()
            else:
                listener.channel_closed()
        if self._taken >= WINDOW // 4 and not self._close_sent:
            message = _message(common.cMSG_CHANNEL_WINDOW_ADJUST, self._remote)
            message.add_int(self._taken)
            self._taken = 0
            self._session.post(message)

    def lose(self) -> None:
        """The connection is over."""
        self._close_sent = True
        self._finish()

    def refuse(self, why: str) -> None:
        """The host will not open it."""
        self._session.detach(self._number)
        self._listener.channel_refused(why)

    def _add_room(self, size: int) -> None:
        self._room += size
        self._pump()

    def _finish(self) -> None:
        self._session.detach(self._number)
        self._inbox.append((_CLOSED, b""))
        self._deliver()

    # -- the thread that reads ------------------------------------------------------------------

    def confirm(self, remote: int, window: int, packet: int) -> None:
        """The host has opened it."""
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
        self._loop.call_soon(self._listener.channel_answered, True)

    def on_failure(self, m: Message) -> None:
        self._loop.call_soon(self._listener.channel_answered, False)

    def on_data(self, m: Message) -> None:
        self._put(1, m.get_binary())

    def on_extended(self, m: Message) -> None:
        code = m.get_int()
        # 1 is stderr, and nothing else was ever defined (RFC 4254, 5.2).
        self._put(2 if code == 1 else 1, m.get_binary())

    def on_adjust(self, m: Message) -> None:
        self._loop.call_soon(self._add_room, m.get_int())

    def on_eof(self, m: Message) -> None:
        self._put(_END)

    def on_close(self, m: Message) -> None:
        self._send_close()
        # On the I/O thread, after the exit status that was told there.
        self._loop.call_soon(self._finish)

    def on_request(self, m: Message) -> None:
        kind = m.get_text()
        wants_answer = m.get_boolean()
        if kind == "exit-status":
            status = (m.get_int() & 0xFF) << 8
            self._loop.call_soon(self._listener.channel_exit, status, "")
        elif kind == "exit-signal":
            name, dumped = m.get_text(), m.get_boolean()
            number = getattr(signal, f"SIG{name}", None)
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


Session._channel_handler_table = {
    common.MSG_CHANNEL_SUCCESS: SshChannel.on_success,
    common.MSG_CHANNEL_FAILURE: SshChannel.on_failure,
    common.MSG_CHANNEL_DATA: SshChannel.on_data,
    common.MSG_CHANNEL_EXTENDED_DATA: SshChannel.on_extended,
    common.MSG_CHANNEL_WINDOW_ADJUST: SshChannel.on_adjust,
    common.MSG_CHANNEL_REQUEST: SshChannel.on_request,
    common.MSG_CHANNEL_EOF: SshChannel.on_eof,
    common.MSG_CHANNEL_CLOSE: SshChannel.on_close,
}


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


def signal_request(number: int) -> Callable[[int], Message]:
    """Signal the command (RFC 4254, 6.9). Not every host does, none of OpenSSH for root."""

    def make(remote: int) -> Message:
        message = _request("signal", remote, answer=False)
        message.add_string(signal.Signals(number).name.removeprefix("SIG"))
        return message

    return make
