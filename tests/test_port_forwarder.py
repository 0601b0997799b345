"""Ports of this machine that lead to services as seen from a host: what goes through."""

from __future__ import annotations

import hashlib
import os
import queue
import socket
import threading
from typing import Any

import pytest

from execo import Host, ProcessLifecycleHandler, Report, SshProcess
from execo.port_forwarder import PortForwarder
from execo.testing import Cluster
from execo.transports import close_idle
from remote_commands import QUIET, logins, on, run, until
from sshd import RealSshd
from tcp_services import TIMEOUT, connect, digest, echo, read_all, serve

pytest_plugins = ["sshd", "remote_commands", "execo.testing.pytest_plugin"]

OPENSSH = {"transport": "openssh"}

Way = tuple[Host, dict[str, Any]]
"""A host, and the parameters to reach it with."""


@pytest.fixture(scope="session", autouse=True)
def there_before_any_comparison(cluster: Cluster, sshd: RealSshd) -> None:
    """The hosts."""


@pytest.fixture(params=["embedded", "sshd", "openssh"])
def way(request: pytest.FixtureRequest, cluster: Cluster, sshd: RealSshd) -> Way:
    if request.param == "embedded":
        return cluster.hosts[0], {}
    return sshd.hosts(1)[0], OPENSSH if request.param == "openssh" else {}


def forwarder(way: Way, port: int, **options: Any) -> PortForwarder:
    host, params = way
    return PortForwarder(host, "127.0.0.1", port, connection_params=params, **QUIET, **options)


def ask(port: int, question: bytes) -> bytes:
    """The answer of a service, to a client that has ended its question."""
    with connect(port) as sock:
        sock.sendall(question)
        sock.shutdown(socket.SHUT_WR)
        return read_all(sock)


# -- the life of a forwarder ----------------------------------------------------------------------


def test_a_port_leads_to_a_service(way: Way) -> None:
    with serve(echo) as port:
        with forwarder(way, port) as f:
            assert f.forwarding.is_set()
            assert ask(f.local_port, b"hello") == b"hello"
            assert ask(f.local_port, b"again") == b"again"
            assert (f.started, f.running, f.ended, f.pid) == (True, True, False, None)
            assert f.start_date is not None
        f.wait(TIMEOUT)
    assert (f.ended, f.ok, f.finished_ok, f.killed, f.error) == (True, True, True, True, False)
    assert (f.stdout, f.stderr) == ("", "")
    with pytest.raises(ConnectionRefusedError):
        connect(f.local_port)


def test_what_it_says_of_itself() -> None:
    f = PortForwarder("gateway", "db", 5432, 25500)
    text = "forward 127.0.0.1:25500 to db:5432 by gateway"
    assert f.name == text
    assert repr(f) == f"<PortForwarder '{text}': not started>"
    assert (f.host.address, f.remote_host, f.remote_port) == ("gateway", "db", 5432)
    assert (f.bind_address, f.local_port) == ("127.0.0.1", 25500)
    assert not f.forwarding.is_set()
    f = PortForwarder(Host("gateway", user="me"), "fd00::1", 80, 81, "::1")
    assert f.name == "forward [::1]:81 to [fd00::1]:80 by gateway"
    assert PortForwarder("gateway", "db", 5432, 25500, "").name.startswith("forward *:25500 ")
    assert PortForwarder("gateway", "db", 5432, name="mine").name == "mine"
    assert isinstance(f, SshProcess)


def test_the_parameters_are_those_of_other_processes() -> None:
    params = {"user": "me"}
    for f in (
        PortForwarder("gateway", "db", 5432, connection_params=params, timeout="0:01:00"),
        PortForwarder("gateway", "db", 5432, connexion_params=params, timeout="0:01:00"),
    ):
        assert (f.connection_params["user"], f.timeout) == ("me", 60)


def test_without_a_block_its_event_tells(way: Way) -> None:
    with serve(echo) as port:
        f = forwarder(way, port)
        assert f.start() is f
        assert f.forwarding.wait(TIMEOUT)
        assert ask(f.local_port, b"x") == b"x"
        assert f.kill() is f
        assert f.wait(TIMEOUT).killed


def test_it_can_be_started_again(way: Way) -> None:
    with serve(echo) as port:
        f = forwarder(way, port)
        for _ in range(3):
            with f:
                assert ask(f.local_port, b"x") == b"x"
            f.reset()
            assert not f.forwarding.is_set()
            assert not f.started


def test_its_timeout_ends_it(way: Way) -> None:
    with serve(echo) as port, forwarder(way, port, timeout=0.2) as f:
        f.wait(TIMEOUT)
        assert (f.timeouted, f.ok) == (True, False)


def test_handlers_and_reports_take_it_as_any_process(way: Way) -> None:
    told: list[str] = []

    class Handler(ProcessLifecycleHandler):
        def start(self, process: Any) -> None:
            told.append(f"start {process.running}")

        def end(self, process: Any) -> None:
            told.append(f"end {process.ok}")

    with serve(echo) as port:
        with forwarder(way, port, lifecycle_handlers=[Handler()]) as f:
            until(lambda: told)
        f.wait(TIMEOUT)
    assert told == ["start True", "end True"]
    stats = Report([f]).stats()
    assert (stats["num_ended"], stats["num_ok"], stats["num_errors"]) == (1, 1, 0)
    assert f.name[:20] in Report([f]).to_string(wide=True)


def test_a_handler_may_start_one(way: Way) -> None:
    answers: list[bytes] = []

    class Handler(ProcessLifecycleHandler):
        def end(self, process: Any) -> None:
            with forwarder(way, port) as f:
                answers.append(ask(f.local_port, b"from a handler"))
            f.wait(TIMEOUT)

    with serve(echo) as port:
        run(way[0], "true", lifecycle_handlers=[Handler()])
    assert answers == [b"from a handler"]


def test_its_port_is_free_when_it_was_killed(cluster: Cluster) -> None:
    with serve(echo) as port:
        f = forwarder((cluster.hosts[0], {}), port)
        for _ in range(5):
            with PortForwarder(cluster.hosts[0], "127.0.0.1", port, f.local_port) as f:
                assert ask(f.local_port, b"x") == b"x"
        f.wait(TIMEOUT)


def test_what_is_sent_to_a_service_that_has_said_all_arrives(way: Way) -> None:
    counts: queue.Queue[int] = queue.Queue()

    def listener(sock: socket.socket) -> None:
        sock.shutdown(socket.SHUT_WR)
        counts.put(len(read_all(sock)))

    with serve(listener) as port, forwarder(way, port) as f:
        for _ in range(20):
            with connect(f.local_port) as sock:
                assert read_all(sock) == b""
                sock.sendall(b"after" * 100_000)
                sock.shutdown(socket.SHUT_WR)
                assert counts.get(timeout=TIMEOUT) == 500_000


def test_ipv6_on_both_sides(way: Way) -> None:
    with serve(echo, address="::1") as port:
        host, params = way
        with PortForwarder(host, "::1", port, None, "::1", params) as f:
            with connect(f.local_port, "::1") as sock:
                sock.sendall(b"six")
                assert sock.recv(3) == b"six"
            with pytest.raises(ConnectionRefusedError):
                connect(f.local_port)
        f.wait(TIMEOUT)


def test_all_addresses(way: Way) -> None:
    with serve(echo) as port:
        with forwarder(way, port, bind_address="*") as f:
            for address in ("127.0.0.1", "127.0.0.9", "::1"):
                with connect(f.local_port, address) as sock:
                    sock.sendall(b"x")
                    assert sock.recv(1) == b"x"
        f.wait(TIMEOUT)


# -- what goes through ----------------------------------------------------------------------------


def test_a_hundred_megabytes_there_and_back(way: Way) -> None:
    data = os.urandom(1_000_000) * 100
    with serve(echo) as port:
        with forwarder(way, port) as f, connect(f.local_port) as sock:

            def send() -> None:
                sock.sendall(data)
                sock.shutdown(socket.SHUT_WR)

            sending = threading.Thread(target=send)
            sending.start()
            came = read_all(sock)
            sending.join(TIMEOUT)
        f.wait(TIMEOUT)
    assert hashlib.sha256(came).digest() == hashlib.sha256(data).digest()


def test_the_answer_to_a_question_that_has_ended(way: Way) -> None:
    data = os.urandom(3_000_000)
    with serve(digest) as port:
        with forwarder(way, port) as f:
            assert ask(f.local_port, data) == hashlib.sha256(data).digest()
            assert ask(f.local_port, b"") == hashlib.sha256().digest()
        f.wait(TIMEOUT)


def test_a_service_that_ends_first_and_goes_on_to_read(way: Way) -> None:
    seen: list[bytes] = []
    read = threading.Event()

    def ends_first(sock: socket.socket) -> None:
        sock.sendall(b"go on")
        sock.shutdown(socket.SHUT_WR)
        seen.append(read_all(sock))
        read.set()

    data = os.urandom(3_000_000)
    with serve(ends_first) as port:
        with forwarder(way, port) as f, connect(f.local_port) as sock:
            assert read_all(sock) == b"go on"
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            assert read.wait(TIMEOUT)
        f.wait(TIMEOUT)
    assert seen == [data]


def test_a_hundred_connections_at_once(way: Way) -> None:
    with serve(echo) as port:
        with forwarder(way, port) as f:
            socks = [connect(f.local_port) for _ in range(100)]
            for number, sock in enumerate(socks):
                sock.sendall(b"%d" % number * 1000)
                sock.shutdown(socket.SHUT_WR)
            answers = [read_all(sock) for sock in socks]
            for sock in socks:
                sock.close()
        f.wait(TIMEOUT)
    assert answers == [b"%d" % number * 1000 for number in range(100)]


def still(value: Any) -> int:
    """What ``value()`` is when it does not grow any more."""
    before = -1
    while before != (before := value()):
        threading.Event().wait(0.5)
    return before


def test_a_client_that_does_not_read_holds_the_service_up(way: Way) -> None:
    sent = 0

    def flood(sock: socket.socket) -> None:
        nonlocal sent
        for _ in range(1000):
            sock.sendall(bytes(100_000))
            sent += 100_000

    with serve(flood) as port:
        with forwarder(way, port) as f, connect(f.local_port) as sock:
            assert still(lambda: sent) < 60_000_000
            # The others are not held up.
            with connect(f.local_port) as other:
                assert len(read_all(other)) == 100_000_000
            assert len(read_all(sock)) == 100_000_000
        f.wait(TIMEOUT)


def test_a_service_that_does_not_read_holds_the_client_up(way: Way) -> None:
    may_read = threading.Event()
    lengths: list[int] = []
    sent = 0

    def patient(sock: socket.socket) -> None:
        may_read.wait(TIMEOUT)
        lengths.append(len(read_all(sock)))
        sock.sendall(b"done")

    def send(sock: socket.socket) -> None:
        nonlocal sent
        for _ in range(1000):
            sock.sendall(bytes(100_000))
            sent += 100_000
        sock.shutdown(socket.SHUT_WR)

    with serve(patient) as port:
        with forwarder(way, port) as f, connect(f.local_port) as sock:
            sending = threading.Thread(target=send, args=(sock,))
            sending.start()
            assert still(lambda: sent) < 60_000_000
            may_read.set()
            assert read_all(sock) == b"done"
            sending.join(TIMEOUT)
        f.wait(TIMEOUT)
    assert lengths == [100_000_000]


def test_a_kill_in_the_middle_is_no_end_in_good_order(cluster: Cluster) -> None:
    def flood(sock: socket.socket) -> None:
        while True:
            sock.sendall(bytes(100_000))

    with serve(flood) as port, forwarder((cluster.hosts[0], {}), port) as f:
        with connect(f.local_port) as sock:
            assert sock.recv(100)
            f.kill()
            with pytest.raises(ConnectionResetError):
                read_all(sock)
        f.wait(TIMEOUT)


@pytest.mark.parametrize("params", [{}, OPENSSH], ids=["sshd", "openssh"])
def test_a_client_that_hangs_up_ends_the_other_side(plain: Host, params: dict[str, Any]) -> None:
    ended = threading.Event()

    def flood(sock: socket.socket) -> None:
        try:
            while True:
                sock.sendall(bytes(100_000))
        finally:
            ended.set()

    with serve(flood) as port:
        with forwarder((plain, params), port) as f:
            with connect(f.local_port) as sock:
                assert sock.recv(100)
            assert ended.wait(TIMEOUT)
            assert f.running
        f.wait(TIMEOUT)


# -- connections with the host --------------------------------------------------------------------


def test_forwarders_and_commands_share_a_connection() -> None:
    # No more than three commands at a time on one connection: forwarders do not count.
    with RealSshd({"MaxSessions": "4"}) as server, serve(echo) as port:
        host = server.hosts(1)[0]
        commands = [on(host, "echo ready; cat").start() for _ in range(3)]
        until(lambda: all(command.stdout for command in commands))
        before = logins(server)
        many = [forwarder((host, {}), port).start() for _ in range(10)]
        assert all(f.forwarding.wait(TIMEOUT) for f in many)
        assert [ask(f.local_port, b"x") for f in many] == [b"x"] * 10
        assert logins(server) == before
        for f in many:
            f.kill()
        for process in [*many, *commands]:
            process.kill().wait(TIMEOUT)
            assert process.ok


def test_it_keeps_its_connection(sshd: RealSshd) -> None:
    host = sshd.hosts(1)[0]
    with serve(echo) as port:
        with forwarder((host, {}), port) as f:
            before = logins(sshd)
            close_idle()
            assert ask(f.local_port, b"x") == b"x"
            assert logins(sshd) == before
        f.wait(TIMEOUT)


def test_localhost_is_the_hosts_own(way: Way) -> None:
    host, params = way
    with serve(echo) as port:
        with PortForwarder(host, "localhost", port, connection_params=params) as f:
            assert ask(f.local_port, b"x") == b"x"
        f.wait(TIMEOUT)
