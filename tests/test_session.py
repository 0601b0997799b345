"""SSH sessions: new keys in the middle, channels and their numbers, what a lost one tells."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from typing import Any

import paramiko
import pytest

from execo import Host, Remote
from execo._core.runtime import get_runtime
from execo.transports import close_idle
from execo.transports.channel import SshChannel, exec_request
from execo.transports.session import Event, Session
from execo.transports.wire import Wire
from remote_commands import TIMEOUT, on, run, until
from sshd import RealSshd

pytest_plugins = ["sshd", "remote_commands"]

MEGABYTES = bytes(range(256)) * 4096 * 50


# -- new keys in the middle -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def rekeying() -> Iterator[RealSshd]:
    """A server that asks for new keys at every megabyte."""
    with RealSshd({"RekeyLimit": "1M", "LogLevel": "DEBUG1"}) as server:
        yield server


def test_new_keys_that_the_host_asks_for(rekeying: RealSshd) -> None:
    host = rekeying.hosts(1)[0]
    process = on(host, "cat").start()
    process.write(MEGABYTES)
    process.close_stdin()
    process.wait(60)
    assert process.ok
    assert process.stdout_bytes == MEGABYTES
    assert rekeying.log.count("rekey in") + rekeying.log.count("rekey out") > 40
    assert run(host, "echo fine").stdout == "fine\n"


def test_new_keys_while_many_commands_talk(rekeying: RealSshd) -> None:
    host = rekeying.hosts(1)[0]
    data = MEGABYTES[:3_000_000]
    remote = Remote("cat", [host] * 8).start()
    for start in range(0, len(data), 100_000):
        remote.write(data[start : start + 100_000])
    others = [run(host, f"echo {number}").stdout for number in range(5)]
    remote.close_stdin().wait(60)
    assert others == [f"{number}\n" for number in range(5)]
    assert [process.stdout_bytes == data for process in remote.processes] == [True] * 8


def test_a_kill_in_the_middle_of_new_keys(rekeying: RealSshd) -> None:
    host = rekeying.hosts(1)[0]
    for _ in range(3):
        process = on(host, "cat", max_output=0).start()
        for _ in range(20):
            process.write(MEGABYTES[:1_000_000])
        process.kill().wait(TIMEOUT)
        assert process.killed
    assert run(host, "echo fine").stdout == "fine\n"


def test_new_keys_that_we_ask_for(plain: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    # As after half a gigabyte, which is paramiko's measure.
    asked = []
    send = Session._send_kex_init  # type: ignore[attr-defined]

    def counted(session: Session) -> Any:
        asked.append(1)
        return send(session)

    monkeypatch.setattr(Session, "_send_kex_init", counted)
    monkeypatch.setattr("paramiko.packet.Packetizer.REKEY_BYTES", 4_000_000)
    process = on(plain, "cat").start()
    process.write(MEGABYTES)
    process.close_stdin()
    process.wait(60)
    assert process.stdout_bytes == MEGABYTES
    assert len(asked) > 5


# -- channels -------------------------------------------------------------------------------------


def test_a_thousand_commands_use_the_same_few_numbers(plain: Host) -> None:
    for _ in range(10):
        assert Remote("true", [plain] * 100).run(TIMEOUT).finished_ok
    sessions = [t for t in threading.enumerate() if isinstance(t, Session)]
    assert sessions
    for session in sessions:
        assert len(session.channels_seen) < 30


class Listener:
    """Writes down what a channel tells."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.over = threading.Event()

    def channel_opened(self) -> None:
        self.told.append("opened")

    def channel_refused(self, why: str) -> None:
        self.told.append(("refused", why))
        self.over.set()

    def channel_answered(self, ok: bool) -> None:
        self.told.append(("answered", ok))

    def channel_data(self, stream: int, data: bytes) -> None:
        self.told.append((stream, data))

    def channel_eof(self) -> None:
        self.told.append("eof")

    def channel_exit(self, status: int | None, why: str) -> None:
        self.told.append(("exit", status))

    def channel_written(self, count: int) -> None:
        self.told.append(("written", count))

    def channel_closed(self) -> None:
        self.told.append("closed")
        self.over.set()


@pytest.fixture
def session(plain: Host) -> Iterator[Session]:
    """A session that is logged in."""
    loop = get_runtime().loop
    assert plain.port is not None
    lost, keys, login = threading.Event(), threading.Event(), threading.Event()
    sock = socket.create_connection((plain.address, plain.port))
    session = Session(loop, Wire(loop, sock), lost.set)
    session.start_client(event=Event(loop, keys.set))
    assert keys.wait(TIMEOUT)
    assert plain.keyfile is not None
    assert plain.user is not None
    key = paramiko.PKey.from_path(plain.keyfile)
    session.auth_publickey(plain.user, key, Event(loop, login.set))
    assert login.wait(TIMEOUT)
    assert session.is_authenticated()
    yield session
    session.hang_up()
    assert lost.wait(TIMEOUT)


def open_channel(session: Session, command: str) -> tuple[SshChannel, Listener]:
    listener = Listener()
    channel = session.loop.run_sync(
        lambda: SshChannel(session, listener, [exec_request(command.encode())])
    )
    assert channel is not None
    return channel, listener


def test_what_a_channel_tells(session: Session) -> None:
    channel, listener = open_channel(session, "read x; echo got $x; exit 3")
    session.loop.run_sync(channel.write, b"hello\n")
    assert listener.over.wait(TIMEOUT)
    told = listener.told
    assert told[0] == "opened"
    assert told[-1] == "closed"
    assert ("answered", True) in told
    assert ("written", 6) in told
    assert (1, b"got hello\n") in told
    assert ("exit", 3 << 8) in told
    assert told.index((1, b"got hello\n")) < told.index("eof")


def test_a_channel_of_a_kind_that_the_host_lacks(session: Session) -> None:
    listener = Listener()
    session.loop.run_sync(lambda: SshChannel(session, listener, [], kind="no-such-kind"))
    assert listener.over.wait(TIMEOUT)
    assert [told[0] for told in listener.told] == ["refused"]


def test_a_lost_session_closes_its_channels(session: Session) -> None:
    listeners = [open_channel(session, "echo x; cat")[1] for _ in range(3)]
    until(lambda: all((1, b"x\n") in listener.told for listener in listeners))
    session.hang_up()
    for listener in listeners:
        assert listener.over.wait(TIMEOUT)
        assert listener.told[-1] == "closed"
        assert not [told for told in listener.told if told[0] == "exit"]
    # One that comes too late is told as well.
    until(lambda: session.over)
    _, late = open_channel(session, "true")
    assert late.over.wait(TIMEOUT)
    assert late.told == ["closed"]


def test_a_paused_channel_holds_the_host_up(session: Session) -> None:
    channel, listener = open_channel(session, "head -c 20000000 /dev/zero; exit 2")
    session.loop.run_sync(channel.pause)
    until(lambda: "opened" in listener.told)
    threading.Event().wait(0.3)

    def received() -> int:
        return sum(len(told[1]) for told in listener.told if told[0] == 1)

    before = received()
    assert before < 5_000_000
    session.loop.run_sync(channel.resume)
    assert listener.over.wait(TIMEOUT)
    assert received() == 20_000_000
    assert ("exit", 2 << 8) in listener.told


def test_the_names_of_paramiko_that_we_rely_on() -> None:
    transport = paramiko.Transport
    for name in (
        "_channel_handler_table",
        "_parse_channel_open_failure",
        "_parse_channel_open_success",
        "_parse_newkeys",
        "_send_message",
        "_send_user_message",
        "_log",
    ):
        assert hasattr(transport, name), name
    ours = Session._channel_handler_table
    theirs: dict[int, Any] = transport._channel_handler_table  # type: ignore[attr-defined]
    assert set(theirs) == set(ours)


def test_a_thread_for_each_connection_and_none_left(sshd: RealSshd) -> None:
    def sessions() -> int:
        return sum(isinstance(thread, Session) for thread in threading.enumerate())

    close_idle()
    until(lambda: sessions() == 0)
    descriptors = len(os.listdir("/proc/self/fd"))
    hosts = sshd.hosts(20)
    remote = Remote("cat", hosts).start()
    remote.write("x")
    until(lambda: all(process.stdout for process in remote.processes))
    assert sessions() == 20
    remote.close_stdin().wait(TIMEOUT)
    close_idle()
    until(lambda: sessions() == 0)
    until(lambda: len(os.listdir("/proc/self/fd")) <= descriptors)
