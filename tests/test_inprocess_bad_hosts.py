"""Hosts that cannot be reached, lie, or go away: each fails soon, says why, and holds up nobody."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from execo import Host, Remote, configuration
from execo.errors import Reason
from execo.testing import Cluster
from execo.transports import close_idle
from remote_commands import QUIET, TIMEOUT, on, run, until
from sshd import RealSshd

pytest_plugins = ["sshd", "remote_commands", "execo.testing.pytest_plugin"]

SOON = {"connect_timeout": 1}


def at(host: Host, **changes: Any) -> Host:
    """The host, changed."""
    values = {name: getattr(host, name) for name in ("address", "user", "keyfile", "port")}
    return Host(**{**values, **changes})


@contextlib.contextmanager
def server(address: str, answer: Callable[[socket.socket], object]) -> Iterator[int]:
    """A server that does ``answer`` with each connection, and closes all at the end; its port."""
    peers: list[socket.socket] = []

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                peer, _ = listening.accept()
                peers.append(peer)
                with contextlib.suppress(OSError):
                    answer(peer)

    with socket.create_server((address, 0)) as listening:
        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join(TIMEOUT)
            for peer in peers:
                peer.close()


def say_and_close(peer: socket.socket, words: bytes) -> None:
    peer.sendall(words)
    peer.close()


HTTP = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\n\r\n400 Bad Request"
ANSWERS: dict[str, Callable[[socket.socket], object]] = {
    "silent": lambda peer: None,
    "hangs up at once": lambda peer: peer.close(),
    "speaks HTTP and hangs up": lambda peer: say_and_close(peer, HTTP),
    "speaks HTTP and waits": lambda peer: peer.sendall(HTTP),
    "speaks garbage without end of line": lambda peer: peer.sendall(os.urandom(20_000)),
    "speaks old SSH": lambda peer: peer.sendall(b"SSH-1.5-old\r\n"),
    "freezes after its banner": lambda peer: peer.sendall(b"SSH-2.0-OpenSSH_9.2\r\n"),
    "hangs up after its banner": lambda peer: say_and_close(peer, b"SSH-2.0-x\r\n"),
    "speaks garbage after its banner": lambda peer: peer.sendall(
        b"SSH-2.0-x\r\n" + os.urandom(5_000)
    ),
}
CAUSES = {
    "silent": "accepts connections but says nothing within 1 s (connect_timeout)",
    "hangs up at once": "it hung up before its first word",
    "speaks HTTP and hangs up": "does not speak SSH",
    "speaks HTTP and waits": "within 1 s (connect_timeout)",
    "speaks garbage without end of line": "SSH",
    "speaks old SSH": "set transport to 'openssh' to reach very old servers",
    "freezes after its banner": "within 1 s (connect_timeout)",
    "hangs up after its banner": "hung up while keys were agreed on",
    "speaks garbage after its banner": "",
}


@pytest.mark.parametrize("kind", ANSWERS)
def test_what_is_no_ssh_server_fails_soon(sshd: RealSshd, kind: str) -> None:
    good = sshd.hosts(3)
    with server("127.0.2.1", ANSWERS[kind]) as port:
        bad = at(good[0], address="127.0.2.1", port=port)
        remote = Remote("echo {{{host}}}", [good[0], bad, *good[1:]], SOON, QUIET).run(TIMEOUT)
    assert remote.ended
    failed = remote.processes[1]
    assert remote.failed == [failed]
    assert (failed.reason, failed.error, failed.exit_code) == (Reason.CONNECT, True, None)
    assert "127.0.2.1" in failed.message
    assert CAUSES[kind] in failed.message
    assert [process.stdout for process in remote.processes if process is not failed] == [
        f"{host.address}\n" for host in good
    ]


def test_a_port_where_nobody_listens(plain: Host) -> None:
    with socket.create_server((plain.address, 0)) as listening:
        port = listening.getsockname()[1]
    process = run(at(plain, port=port), "true", SOON)
    assert process.reason is Reason.CONNECT
    assert f"cannot connect to {plain.address}: port {port}: connection refused" in process.message


@pytest.mark.parametrize("name", ["nowhere.invalid", "a" * 70 + ".invalid", "web1..invalid"])
def test_a_name_that_cannot_be_resolved(plain: Host, name: str) -> None:
    remote = Remote("true", [at(plain, address=name), plain], SOON, QUIET).run(TIMEOUT)
    bad, good = remote.processes
    assert (bad.reason, good.ok) == (Reason.CONNECT, True)
    assert name in bad.message
    assert "cannot be resolved" in bad.message


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("nowhere.invalid", "is it spelt right?"),
        ("root@nowhere.invalid", "given apart: Host('nowhere.invalid', user='root')"),
        ("nowhere.invalid:2222", "given apart: Host('nowhere.invalid', port=2222)"),
    ],
)
def test_what_may_be_wrong_with_a_name(plain: Host, name: str, hint: str) -> None:
    assert hint in run(at(plain, address=name), "true", SOON).message


def test_a_name_that_starts_with_a_dash(plain: Host) -> None:
    with pytest.raises(ValueError, match="'-oProxyCommand=touch x'"):
        Host("-oProxyCommand=touch x")
    process = run(plain, "true", {**SOON, "host_rewrite_func": lambda _: "-oProxyCommand=touch x"})
    assert not process.ok
    assert "-oProxyCommand=touch x" in process.message
    assert not Path("x").exists()


def test_many_bad_hosts_hold_up_no_good_one(sshd: RealSshd) -> None:
    with ExitStack() as stack:
        hosts: list[Host] = []
        for number in range(3):
            for kind in ("silent", "hangs up at once", "speaks HTTP and hangs up"):
                address = f"127.0.3.{len(hosts) + 1}"
                port = stack.enter_context(server(address, ANSWERS[kind]))
                hosts.append(at(sshd.hosts(1)[0], address=address, port=port))
            hosts += sshd.hosts(5, first=5 * number)
        # More silent ones than connections are set up at a time.
        port = stack.enter_context(server("127.0.2.9", ANSWERS["silent"]))
        silent = [at(hosts[0], address="127.0.2.9", user=f"u{n}", port=port) for n in range(100)]
        remote = Remote("exit 0", [*silent, *hosts], {"connect_timeout": 600}, QUIET).start()
        places = zip(remote.hosts, remote.processes, strict=True)
        good = [process for host, process in places if host.port == sshd.port]
        until(lambda: all(process.ended for process in good))
        assert all(process.finished_ok for process in good)
        assert not remote.ended
        remote.kill().wait(TIMEOUT)
    assert remote.ended


# -- the login ------------------------------------------------------------------------------------


def test_a_key_that_the_host_does_not_know(plain: Host, tmp_path: Path) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    remote = Remote("true", [at(plain, keyfile=key), plain], None, QUIET).run(TIMEOUT)
    bad, good = remote.processes
    assert (bad.reason, good.ok) == (Reason.AUTH, True)
    assert plain.address in bad.message
    assert f"cannot log in as {plain.user!r}: it refused {key}" in bad.message


def test_a_key_file_that_needs_a_passphrase(plain: Host, tmp_path: Path) -> None:
    for kind in ("ed25519", "rsa"):
        key = tmp_path / kind
        subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "secret", "-f", key], check=True)
        process = run(at(plain, keyfile=key), "true")
        assert process.reason is Reason.AUTH
        assert f"{key}: it needs a passphrase; add it to the agent (ssh-add)" in process.message


def test_a_key_file_that_is_none(plain: Host, tmp_path: Path) -> None:
    junk = tmp_path / "junk"
    junk.write_text("no key\n")
    for path, why in [
        (tmp_path / "missing", "No such file or directory"),
        (tmp_path, "Is a directory"),
        (Path("/proc/self/mem"), "Input/output error"),  # cannot be read, not even by root
        (junk, ""),
    ]:
        process = run(at(plain, keyfile=path), "true")
        assert process.reason is Reason.AUTH
        assert f"{path}: {why}" in process.message
        assert plain.address in process.message


def test_a_user_that_does_not_exist(plain: Host) -> None:
    process = run(at(plain, user="nobody-here"), "true")
    assert process.reason is Reason.AUTH
    assert "cannot log in as 'nobody-here'" in process.message


def test_a_server_that_takes_its_time_to_let_in() -> None:
    settings = {
        "AuthorizedKeysFile": "none",
        "AuthorizedKeysCommand": "/usr/bin/sleep 1000",
        "AuthorizedKeysCommandUser": "root",
    }
    with RealSshd(settings) as slow:
        process = run(slow.hosts(1)[0], "true", SOON)
    assert process.reason is Reason.AUTH
    assert "within 1 s (connect_timeout)" in process.message


# -- in the middle --------------------------------------------------------------------------------


@pytest.fixture
def hosts(cluster: Cluster) -> Iterator[list[Host]]:
    yield cluster.hosts
    cluster.heal()
    close_idle()


@pytest.mark.parametrize("fault", ["silent", "garbage", "drop", "refuse", "freeze"])
def test_a_faulty_host_is_told_apart(cluster: Cluster, hosts: list[Host], fault: str) -> None:
    cluster.fault(1, fault)
    remote = Remote("echo {{{host}}}", hosts, SOON, QUIET).run(TIMEOUT)
    assert remote.failed == [remote.processes[1]]
    assert remote.processes[1].reason is Reason.CONNECT
    assert hosts[1].address in remote.processes[1].message
    assert [process.ok for process in remote.processes] == [True, False, True, True]


def test_a_connection_that_is_closed_in_the_middle(cluster: Cluster, hosts: list[Host]) -> None:
    remote = Remote("echo ready; cat", hosts, None, QUIET).start()
    until(lambda: all(process.stdout for process in remote.processes))
    cluster.fault(2, "close")
    lost = remote.processes[2]
    lost.wait(TIMEOUT)
    assert (lost.reason, lost.error, lost.exit_code) == (Reason.CONNECT, True, None)
    assert hosts[2].address in lost.message
    assert "the connection is lost" in lost.message
    assert lost.stdout == "ready\n"
    print("bye", file=remote)
    remote.close_stdin().wait(TIMEOUT)
    assert remote.failed == [lost]
    cluster.heal()
    assert run(hosts[2], "echo back").stdout == "back\n"


def test_a_session_that_is_killed_in_the_middle(host: Host) -> None:
    process = run(host, "echo first; sleep 0.3; kill -9 $PPID; sleep 1")
    assert process.reason is Reason.CONNECT
    assert f"{host.address}: the connection is lost" in process.message
    assert process.stdout == "first\n"
    assert run(host, "echo next").stdout == "next\n"


def test_output_that_is_lost_behind_an_exit(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(configuration, "drain_timeout", 20)
    script = "(sleep 0.4; kill -9 {}; echo more) & echo first; exit {}"
    for code in (0, 3):
        session = int(run(host, "echo $PPID").stdout)
        process = run(host, script.format(session, code))
        assert (process.stdout, process.stdout_ioerror, process.exit_code) == (
            "first\n",
            True,
            code,
        )
        assert (process.ok, process.error, process.reason) == (False, True, Reason.CONNECT)
        lost = f"some of its output is lost: {host.address}: the connection is lost"
        assert process.message.startswith(lost)
    assert run(host, script.format(0, 0), ignore_error=True).ok


def test_all_commands_of_a_lost_connection_say_so(plain: Host) -> None:
    others = [on(plain, "echo ready; cat").start() for _ in range(4)]
    until(lambda: all(process.stdout for process in others))
    assert not run(plain, "kill -9 $PPID; sleep 1").ok
    for process in others:
        process.wait(TIMEOUT)
        assert (process.reason, process.stdout) == (Reason.CONNECT, "ready\n")


def test_a_host_that_freezes_in_the_middle_can_be_given_up(
    cluster: Cluster, hosts: list[Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("execo.transports.ssh_exec.PATIENCE", 1.5)
    remote = Remote("echo ready; cat", hosts, None, QUIET).start()
    until(lambda: all(process.stdout for process in remote.processes))
    cluster.fault(0, "freeze")
    remote.kill(signal.SIGKILL).wait(TIMEOUT)
    assert remote.ended
    frozen = remote.processes[0]
    assert frozen.reason is Reason.CONNECT
    assert hosts[0].address in frozen.message
    assert "it has not ended 1.5 s after a SIGKILL" in frozen.message
    assert [process.exit_code for process in remote.processes[1:]] == [-9] * 3


def test_a_command_for_a_frozen_connection_does_not_wait_for_ever(
    cluster: Cluster, hosts: list[Host]
) -> None:
    assert run(hosts[0], "true", SOON).ok
    cluster.fault(0, "freeze")
    process = on(hosts[0], "true", SOON).start()
    try:
        process.wait(15)
        assert process.ended
        assert process.reason is Reason.CONNECT
        assert hosts[0].address in process.message
    finally:
        cluster.heal()
        process.wait(TIMEOUT)


def test_kill_of_a_command_that_a_frozen_host_never_started(
    cluster: Cluster, hosts: list[Host]
) -> None:
    params = {"connect_timeout": 2}
    assert run(hosts[0], "true", params).ok
    cluster.fault(0, "freeze")
    process = on(hosts[0], "echo never", params).start()
    process.wait(0.2)
    process.kill().wait(TIMEOUT)
    # It may have been sent, and the host may yet say so.
    assert process.reason in (Reason.CANCELLED, Reason.CONNECT)
    assert hosts[0].address in repr(process)
    assert process.stdout == ""
    cluster.heal()
    assert run(hosts[0], "echo moves", params).stdout == "moves\n"


def test_what_is_written_to_a_frozen_host_blocks_nobody(
    cluster: Cluster, hosts: list[Host]
) -> None:
    frozen, other = on(hosts[0], "cat").start(), on(hosts[1], "cat").start()
    for process in (frozen, other):
        process.write("x\n")
        until(lambda process=process: process.stdout)  # type: ignore[misc]
    cluster.fault(0, "freeze")
    data = bytes(range(256)) * 20_000
    frozen.write(data)
    other.write(data)
    other.close_stdin()
    other.wait(TIMEOUT)
    assert other.stdout_bytes == b"x\n" + data
    cluster.heal()
    frozen.close_stdin()
    frozen.wait(TIMEOUT)
    assert frozen.stdout_bytes == b"x\n" + data
