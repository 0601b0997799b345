"""SSH sessions without blocking calls: paramiko's transports, with channels of our own.

paramiko does the cryptography, the key exchange and the authentication, in one thread for each
connection. This is the one file that relies on names of paramiko which are not public: the table
of channel messages, the map of channels, the two methods that send messages, those that parse a
few, and the tables of algorithms. The contract test runs on the oldest supported version as well.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Container, Iterable
from typing import Any, ClassVar, cast

import paramiko
from paramiko import common
from paramiko.message import Message
from paramiko.packet import Packetizer

from execo._core.loop import Loop

from .base import Algorithms
from .channel import SshChannel, text_of
from .wire import AnyWire

__all__ = ["Event", "Session"]

_logger = logging.getLogger("execo.ssh")
_LOST = (OSError, EOFError, paramiko.SSHException)


# What paramiko has an implementation of, by the attribute that chooses among them.
_KNOWN: dict[str, Container[str]] = {
    "ciphers": paramiko.Transport._cipher_info,  # type: ignore[attr-defined]
    "digests": paramiko.Transport._mac_info,  # type: ignore[attr-defined]
    "kex": paramiko.Transport._kex_info,  # type: ignore[attr-defined]
    "key_types": paramiko.Transport._key_info,  # type: ignore[attr-defined]
}


LONGEST_MESSAGE = 256 * 1024
"""Bytes of a message of SSH at the most, as in OpenSSH; data comes in pieces of 32 KiB."""


class _QuietPacketizer(Packetizer):
    """``understood`` is when the last message was complete (monotonic)."""

    understood = 0.0

    def start_handshake(self, timeout: float) -> None:
        """Does nothing: it would start a thread for its timer; ours is on the loop."""

    def read_all(self, n: int, check_rekey: bool = False) -> bytes:
        # The length of a message is not protected: one that was damaged on its way would have us
        # wait for up to 4 GiB, of which each answer to a question is a part.
        if n > LONGEST_MESSAGE:
            raise paramiko.SSHException(f"what came is damaged: a message of {n} bytes")
        return super().read_all(n, check_rekey)

    def read_message(self) -> tuple[int, Message]:
        message = super().read_message()
        self.understood = time.monotonic()
        return message


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
    saved_exception: Exception | None
    server_extensions: dict[str, bytes]
    _auth_trigger: Callable[[], None]
    _channels: Any
    _send_message: Callable[[Message], None]
    _channel_handler_table: ClassVar[dict[int, Callable[[SshChannel, Message], None]]] = {
        common.MSG_CHANNEL_SUCCESS: SshChannel.on_success,
        common.MSG_CHANNEL_FAILURE: SshChannel.on_failure,
        common.MSG_CHANNEL_DATA: SshChannel.on_data,
        common.MSG_CHANNEL_EXTENDED_DATA: SshChannel.on_extended,
        common.MSG_CHANNEL_WINDOW_ADJUST: SshChannel.on_adjust,
        common.MSG_CHANNEL_REQUEST: SshChannel.on_request,
        common.MSG_CHANNEL_EOF: SshChannel.on_eof,
        common.MSG_CHANNEL_CLOSE: SshChannel.on_close,
    }

    def __init__(self, loop: Loop, wire: AnyWire, on_lost: Callable[[], object]) -> None:
        super().__init__(cast(Any, wire), packetizer_class=_QuietPacketizer)
        self.loop = loop
        self.wire = wire
        self.name = "execo-ssh"
        self.over = False
        self._on_lost = on_lost
        self._held: list[Message] = []
        self._open: dict[int, SshChannel] = {}
        self._free: list[int] = []
        self._asked: deque[Callable[[], object]] = deque()
        options = self.get_security_options()
        # First those that encrypt and authenticate in one go: they are several times quicker.
        ciphers = sorted(options.ciphers, key=lambda name: "gcm" not in name)
        options.ciphers = tuple(name for name in ciphers if "cbc" not in name)

    # -- the I/O thread -------------------------------------------------------------------------

    def restrict(self, algorithms: Algorithms) -> None:
        """Use these algorithms alone, in this order. To be called before it starts.

        Those that paramiko does not know are dropped; where none is left there is none in common
        with the host, which it then says.
        """
        options = self.get_security_options()
        for kind, names in (
            ("ciphers", algorithms.ciphers),
            ("digests", algorithms.macs),
            ("kex", algorithms.key_exchanges),
            ("key_types", algorithms.host_keys),
        ):
            if names is not None:
                known = _KNOWN[kind]
                setattr(options, kind, tuple(name for name in names if name in known))

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

    def detach(self, number: int, channel: SshChannel) -> None:
        """``channel`` is over on both sides: its number may be given to another one."""
        if self._open.get(number) is channel:
            del self._open[number]
            self._channels.delete(number)
            self._free.append(number)

    def ask(self, on_answer: Callable[[], object]) -> None:
        """Ask the host whether it is still there: a request that no server knows, which all refuse
        (RFC 4254, 4). What comes first of all tells as much, see ``wire.heard``.

        :param on_answer: called on the I/O thread at the answer
        """
        self._asked.append(on_answer)
        message = Message()
        message.add_byte(common.cMSG_GLOBAL_REQUEST)
        message.add_string("keepalive@openssh.com")
        message.add_boolean(True)
        self.post(message)

    @property
    def understood(self) -> float:
        """When the last message was complete (monotonic)."""
        return cast(_QuietPacketizer, self.packetizer).understood

    @property
    def channels(self) -> int:
        """How many channels are open, or about to be."""
        return len(self._open)

    def hang_up(self) -> None:
        """End the connection; ``on_lost`` follows if it was started. From any thread."""
        self.wire.close()

    def _lost(self) -> None:
        self.over = True
        self._on_lost()  # first, so that the channels can say why
        for channel in list(self._open.values()):
            channel.lose()

    def take_auth(self, handler: Any) -> None:
        """Have ``handler`` in the place of paramiko's own authentication, see ``ssh_auth``."""
        self.auth_handler = handler

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

    def let_in(self) -> None:
        """The host has let us in: what follows may be compressed."""
        self._auth_trigger()

    def run(self) -> None:
        try:
            super().run()
        finally:
            self.wire.release()
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

    def _parse_request_success(self, m: Message) -> None:
        if self._asked:  # answers come in the order of the questions
            self.loop.call_soon(self._asked.popleft())

    def _parse_request_failure(self, m: Message) -> None:
        self._parse_request_success(m)

    def _parse_disconnect(self, m: Message) -> None:
        m.get_int()
        self.saved_exception = paramiko.SSHException(text_of(m))  # paramiko throws it away

    def _parse_channel_open_success(self, m: Message) -> None:
        channel = self._open.get(m.get_int())
        if channel is not None:
            channel.confirm(m.get_int(), m.get_int(), m.get_int())

    def _parse_channel_open_failure(self, m: Message) -> None:
        number = m.get_int()
        channel = self._open.get(number)
        if channel is not None and channel.is_open:
            raise paramiko.SSHException(f"the host refuses channel {number}, which is open")
        if channel is not None:
            code, text = m.get_int(), text_of(m)
            why = text or common.CONNECTION_FAILED_CODE.get(code, f"code {code}")
            self.loop.call_soon(channel.refuse, code, why)

    def _log(self, level: int, msg: Any, *args: Any) -> None:
        # Errors of connections are told as those of processes; the rest is for whoever looks.
        if _logger.isEnabledFor(logging.DEBUG):
            for line in msg if isinstance(msg, list) else [msg]:
                _logger.debug(str(line), *args)
