"""Servers that damage one message, at any stage of SSH: the process ends in time and says why.

The server is paramiko's, in this process; of what it sends, one message is cut, changed, doubled or
made up: its first words, those of the key exchange, of the login, of channels.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import paramiko
import pytest
from hypothesis import currently_in_test_context, example, given, note
from hypothesis import strategies as st
from paramiko import common
from paramiko.message import Message

from execo import Host, SshProcess, transports
from execo.errors import Reason
from execo.process import ProcessBase
from execo.transports.channel import FIRST_WINDOW, WINDOW, SshChannel
from fuzzing import damaged, examples, no_internal_error
from invariants import PATIENCE, Watch, wait_until

QUIET: dict[str, Any] = {"nolog_error": True, "nolog_exit_code": True, "nolog_timeout": True}
PARAMS = {"transport": "paramiko", "keepalive": 0.5, "user": "me", "guard": False}

SOON = 30.0
"""Seconds: a hang, where each step has half a second."""

KEX, REPLY, NEW_KEYS, SERVICE, LET_IN, OPEN, STARTED, OUTPUT, STATUS, EOF, CLOSE = (
    *(20, 31, 21, 6, 52, 91, 99, 94, 98, 96, 97),
)
"""The messages of the server, in order (RFC 4250, 4.1)."""
MESSAGES = [KEX, REPLY, NEW_KEYS, SERVICE, LET_IN, OPEN, STARTED, OUTPUT, STATUS, EOF, CLOSE]


class Speaker(paramiko.Transport):
    """A server whose first message of one kind, or each, is what ``change`` makes of it."""

    def __init__(
        self,
        sock: socket.socket,
        key: paramiko.PKey,
        kind: int,
        change: Callable[[bytes], list[bytes]],
        always: bool,
    ) -> None:
        super().__init__(sock)
        self.banner_timeout = self.handshake_timeout = self.auth_timeout = 5
        self.add_server_key(key)
        self._kind = kind
        self._always = always
        self._change = change

    def _send_message(self, data: Message) -> None:
        messages = [data.asbytes()]
        if messages[0][0] == self._kind:
            self._kind = self._kind if self._always else -1
            messages = self._change(messages[0])
        for one in messages:
            super()._send_message(Message(one))  # type: ignore[misc]

    def _log(self, level: int, msg: Any, *args: Any) -> None:
        """It may be damaged itself."""


class Answers(paramiko.ServerInterface):
    def check_auth_none(self, username: str) -> int:
        return common.AUTH_SUCCESSFUL

    def get_allowed_auths(self, username: str) -> str:
        return "none"

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return common.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        threading.Thread(target=self._run, args=(channel, command), daemon=True).start()
        return True

    def _run(self, channel: paramiko.Channel, command: bytes) -> None:
        with contextlib.suppress(Exception):
            if b"execo-guard" in command:
                return  # says nothing: the host can have none
            channel.sendall(b"output")
            channel.send_exit_status(3)
            channel.shutdown_write()
            channel.close()


class Server:
    """``prepare`` decides on what the next connection says."""

    def __init__(self) -> None:
        self._key = paramiko.Ed25519Key.from_private_key_file(_key_file())
        self._sock = socket.create_server(("127.0.0.1", 0))
        self.host = Host("127.0.0.1", port=self._sock.getsockname()[1])
        self._talk: Callable[[socket.socket], object] = lambda peer: None
        self._speakers: list[paramiko.Transport] = []
        self._peers: list[socket.socket] = []
        self._thread = threading.Thread(target=self._serve, name="server")
        self._thread.start()

    def damages(
        self, kind: int, change: Callable[[bytes], list[bytes]], *, always: bool = False
    ) -> None:
        """The next connections say all that is right, but for one message."""

        def talk(peer: socket.socket) -> None:
            speaker = Speaker(peer, self._key, kind, change, always)
            self._speakers.append(speaker)
            speaker.start_server(event=threading.Event(), server=Answers())

        self._talk = talk

    def says(self, words: bytes) -> None:
        """The next connections say this, and no more."""
        self._talk = lambda peer: peer.sendall(words)

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = self._sock.accept()
                self._peers.append(peer)
                with contextlib.suppress(OSError):
                    self._talk(peer)

    def hang_up(self) -> None:
        """End all that has come so far, and what comes meanwhile: a client may try again."""
        while self._peers:
            peer = self._peers.pop()
            with contextlib.suppress(OSError):
                peer.shutdown(socket.SHUT_RDWR)
            peer.close()
        while self._speakers:
            speaker = self._speakers.pop()
            speaker.close()
            speaker.join(PATIENCE)

    def close(self) -> None:
        self._sock.shutdown(socket.SHUT_RDWR)
        self._thread.join(PATIENCE)
        self._sock.close()
        self.hang_up()


_files: list[str] = []


def _key_file() -> str:
    return _files[0]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    path = tmp_path_factory.mktemp("key") / "key"
    path.write_bytes(
        Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.OpenSSH,
            serialization.NoEncryption(),
        )
    )
    _files[:] = [str(path)]
    server = Server()
    yield server
    server.close()


def run(server: Server, *, limit: float = 20, stdin: bytes = b"") -> ProcessBase:
    """One command on it, which has ended and left nothing.

    :param limit: seconds that each step may take; short where one may never come
    """
    with no_internal_error():
        params = {**PARAMS, "connect_timeout": limit}
        process = SshProcess("true", server.host, params, timeout=4 * limit, **QUIET)
        process.start()
        if stdin:
            process.write(stdin)
        process.wait(100 if limit > 1 else SOON)
        assert process.ended, f"{process!r} has not ended"

        def gone() -> bool:
            server.hang_up()
            transports.close_idle()
            return not any(thread.name == "execo-ssh" for thread in threading.enumerate())

        assert wait_until(gone, SOON), "its connection is still there"
    if currently_in_test_context():
        note(f"{process!r}: {process.message}")
    assert process.ended
    assert process.ok or isinstance(process.reason, Reason)
    if process.reason is Reason.CONNECT:
        assert "127.0.0.1" in process.message
    return process


# -- nothing is damaged ---------------------------------------------------------------------------


def test_a_server_that_damages_nothing(server: Server) -> None:
    server.damages(-1, lambda message: [message])
    process = run(server)
    assert (process.stdout, process.exit_code) == ("output", 3), process.message


# -- the first words ------------------------------------------------------------------------------

BANNERS = [b"SSH-2.0-OpenSSH_9.2\r\n", b"hello\r\nSSH-2.0-x y\n", b"SSH-1.99-old\r\n"]
OF_BANNERS = [
    b"SSH-2.0-",
    b"\r\n",
    b"x" * 300,
    b"line\r\n" * 500,
    b"\xff\xfe",
    b"Exceeded MaxStartups",
]


@examples(12)
@given(damaged(st.sampled_from(BANNERS), OF_BANNERS))
def test_the_first_words(server: Server, words: bytes) -> None:
    server.says(words)
    process = run(server, limit=0.5)
    assert process.reason is Reason.CONNECT, process.message


@examples(8)
@given(st.binary(max_size=60) | st.integers(0, 2**32 - 1).map(lambda n: n.to_bytes(4, "big") * 9))
@example(b"\xff\xff\xff\xff" + bytes(100))
@example(b"\0\0\0\1" + bytes(100))
def test_packets_before_there_are_keys(server: Server, packet: bytes) -> None:
    server.says(b"SSH-2.0-x\r\n" + packet)
    assert run(server, limit=0.5).reason is Reason.CONNECT


# -- one message of the rest ----------------------------------------------------------------------

OF_MESSAGES = [b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\0\0\0\1", b"\xff", b"\0"]
KINDS = [*range(1, 8), *range(20, 22), *range(30, 35), *range(50, 54), *range(60, 64)]
KINDS += [*range(80, 83), *range(90, 101), 127, 192, 255]


@st.composite
def changes(draw: st.DrawFn) -> tuple[str, Callable[[bytes], list[bytes]]]:
    """What becomes of a message, and how that is called."""
    kind = draw(st.sampled_from(["damage", "damage", "damage", "double", "drop", "more", "kind"]))
    body = draw(st.binary(max_size=40))
    number = bytes([draw(st.sampled_from(KINDS))])
    if kind == "double":
        return kind, lambda message: [message, message]
    if kind == "drop":
        return kind, lambda message: []
    if kind == "more":
        return f"more {number + body!r}", lambda message: [message, number + body]
    if kind == "kind":
        return f"kind {number!r}", lambda message: [number + message[1:]]
    chance = random.Random(draw(st.integers(0, 2**32)))  # used on another thread
    words = draw(st.lists(st.sampled_from(OF_MESSAGES), min_size=1, max_size=3))

    def change(message: bytes) -> list[bytes]:
        for word in words:
            at = chance.randrange(len(message) + 1)
            message = message[:at] + word + message[at + chance.choice([0, 1, 4, 30]) :]
        return [message or b"\2"]

    return f"damage {words}", change


@examples(40)
@given(st.sampled_from(MESSAGES), changes())
def test_a_damaged_message(
    server: Server, kind: int, change: tuple[str, Callable[[bytes], list[bytes]]]
) -> None:
    note(f"message {kind}: {change[0]}")
    server.damages(kind, change[1])
    process = run(server, limit=0.5)
    assert not process.ok or kind == STATUS  # of which 0 can have become
    if process.reason is Reason.EXIT_CODE:
        assert process.exit_code is not None


@pytest.mark.parametrize("kind", [b"\x5d", b"\x60", b"c", b"d"])
def test_a_channel_that_is_used_before_it_is_open(server: Server, kind: bytes) -> None:
    server.damages(OPEN, lambda message: [kind + message[1:]])
    process = run(server, limit=0.5)
    assert (process.ok, process.reason) == (False, Reason.CONNECT)
    assert "before it has opened it" in process.message


def _channel_message(kind: int, *parts: int | bytes) -> bytes:
    message = Message()
    message.add_byte(bytes([kind]))
    for part in parts:
        if isinstance(part, int):
            message.add_int(part)
        else:
            message.add_bytes(part)
    return message.asbytes()


def _text(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


CHANNEL_DATA, EXTENDED, ADJUST, REQUEST = 94, 95, 93, 98


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        # Less than it announces: paramiko would make up zeros.
        ([_channel_message(CHANNEL_DATA, 0, 500_000, b"short")], Reason.CONNECT),
        ([_channel_message(EXTENDED, 0, 1, 0xFFFFFFFF, b"short")], Reason.CONNECT),
        # Of no meaning: passed over.
        ([_channel_message(EXTENDED, 0, 7, _text(b"of a kind that there is not"))], None),
        ([_channel_message(CHANNEL_DATA, 4711, _text(b"for nobody"))], Reason.CONNECT),
        ([_channel_message(ADJUST, 0, 0xFFFFFFFF)] * 5, None),
        ([_channel_message(REQUEST, 0, _text(b"\xff\xfe"), b"\0")], None),
        ([_channel_message(REQUEST, 0, _text(b"exit-signal"), b"\0", _text(b"\xff"), b"\0")], None),
    ],
    ids=["short", "short stderr", "kind", "number", "room", "request", "signal"],
)
def test_channels(
    server: Server, message: list[bytes], reason: Reason | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.damages(OUTPUT, lambda output: [*message, output])
    with Watch():
        process = run(server)
    assert process.reason is (reason or process.reason), process.message
    if reason is None:
        assert process.stdout == "output"
        assert process.reason in (Reason.EXIT_CODE, Reason.SIGNAL)
    assert bytes(1000) not in process.stdout_bytes


class Still:
    """A session whose I/O thread is busy with something else, and then is not."""

    over = False

    def __init__(self) -> None:
        self.loop = self
        self.waiting: list[Callable[[], object]] = []

    def attach(self, channel: SshChannel) -> int:
        return 0

    def post(self, message: Message) -> None:
        pass

    def call_soon(self, function: Callable[..., object], *args: Any) -> None:
        self.waiting.append(partial(function, *args))

    def turn(self) -> None:
        for function in self.waiting:
            function()
        self.waiting.clear()

    def channel_opened(self) -> None:
        pass

    def channel_data(self, stream: int, data: bytes) -> None:
        pass


def test_a_host_cannot_fill_the_memory() -> None:
    still: Any = Still()
    channel = SshChannel(still, still, [])
    with pytest.raises(paramiko.SSHException, match="before it has opened it"):
        channel.on_data(Message(_text(b"early")))
    channel.confirm(0, 0, 1000)

    def fill() -> int:
        for count in range(2 * WINDOW // 30_000):
            try:
                channel.on_data(Message(_text(bytes(30_000))))
            except paramiko.SSHException:
                return count
        raise AssertionError("it takes all")

    for _ in range(6):  # a host that waits for room has it
        for _ in range(FIRST_WINDOW // 30_000):
            channel.on_data(Message(_text(bytes(30_000))))
        still.turn()
    assert WINDOW // 2 < 30_000 * fill() <= WINDOW + 30_000  # nobody took long: it has grown
    channel = SshChannel(still, still, [])
    channel.confirm(0, 0, 1000)
    channel.pause()
    still.turn()
    assert 30_000 * fill() <= FIRST_WINDOW


def test_words_of_any_bytes_are_shown(server: Server) -> None:
    bye = _channel_message(1, 2, _text(b"too \xff busy"), _text(b""))
    server.damages(OUTPUT, lambda output: [bye])
    process = run(server)
    assert process.reason is Reason.CONNECT
    assert "too \N{REPLACEMENT CHARACTER} busy" in process.message
    refused = _channel_message(92, 0, 2, _text(b"no \xff room"), _text(b""))
    server.damages(OPEN, lambda opened: [refused], always=True)
    process = run(server)
    assert "no \N{REPLACEMENT CHARACTER} room" in process.message


def test_input_for_a_server_that_takes_single_bytes(server: Server) -> None:
    def change(opened: bytes) -> list[bytes]:
        return [opened[:13] + b"\0\0\0\1" if len(opened) >= 17 else opened]

    server.damages(OPEN, change)
    process = run(server, stdin=os.urandom(2000))
    assert process.exit_code == 3, process.message
