"""Forwarders that cannot forward: what they say, and that they say it as data."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from execo import Host, ProcessesFailed
from execo.errors import Reason
from execo.log import logger
from execo.port_forwarder import PortForwarder
from execo.testing import Cluster
from remote_commands import QUIET, until
from sshd import RealSshd
from tcp_services import TIMEOUT, connect, echo, read_all, refusing_port, serve

pytest_plugins = ["sshd", "remote_commands", "execo.testing.pytest_plugin"]

BOTH = pytest.mark.parametrize("transport", ["paramiko", "openssh"])


def forwarder(host: Host, port: int, transport: str = "paramiko", **options: Any) -> PortForwarder:
    params = {"transport": transport, **options.pop("params", {})}
    to = options.pop("to", "127.0.0.1")
    return PortForwarder(host, to, port, connection_params=params, **{**QUIET, **options})


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    """What was logged."""
    found: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: found.append(record.getMessage())  # type: ignore[method-assign]
    logger.addHandler(handler)
    yield found
    logger.removeHandler(handler)


# -- arguments ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "error", "words"),
    [
        (("h", "d", "80"), TypeError, "remote_port is a number, not '80'"),
        (("h", "d", True), TypeError, "remote_port is a number"),
        (("h", "d", 80.0), TypeError, "remote_port is a number"),
        (("h", "d", None), TypeError, "remote_port is a number"),
        (("h", "d", 0), ValueError, "remote_port is from 1 to 65535: not 0"),
        (("h", "d", 65536), ValueError, "remote_port is from 1 to 65535"),
        (("h", "d", -1), ValueError, "remote_port is from 1 to 65535"),
        (("h", "d", 80, 0), ValueError, "local_port is from 1 to 65535"),
        (("h", "d", 80, "81"), TypeError, "local_port is a number"),
        (("h", "d", 80, 81, 82), TypeError, "bind_address is a name or an address, not 82"),
        (("h", "d", 80, 81, "a b"), ValueError, "bind_address is a name or an address"),
        (("h", "", 80), ValueError, "remote_host is a name or an address"),
        (("h", None, 80), TypeError, "remote_host is a name or an address"),
        (("h", b"d", 80), TypeError, "remote_host is a name or an address"),
        (("h", "/tmp/socket", 80), ValueError, "remote_host is a name or an address"),
        (("h", "d\n", 80), ValueError, "remote_host is a name or an address"),
        ((None, "d", 80), TypeError, "None"),
        (("-oProxyCommand=x", "d", 80), ValueError, "oProxyCommand"),
        (("h",), TypeError, "remote_host"),
    ],
)
def test_arguments_that_cannot_be(
    args: tuple[Any, ...], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        PortForwarder(*args)


def test_an_argument_that_is_misspelt() -> None:
    with pytest.raises(TypeError, match="did you mean 'timeout'"):
        PortForwarder("h", "d", 80, timout=3)  # type: ignore[call-arg]


def test_it_has_no_input() -> None:
    f = PortForwarder("h", "d", 80)
    with pytest.raises(TypeError, match="connect to its port"):
        f.write("x")
    with pytest.raises(TypeError, match="kill"):
        f.close_stdin()


# -- here -----------------------------------------------------------------------------------------


@BOTH
def test_a_port_that_is_taken(plain: Host, transport: str) -> None:
    with serve(echo) as taken:
        f = forwarder(plain, 80, transport, local_port=taken).start()
        f.wait(TIMEOUT)
        assert (f.ok, f.error, f.reason) == (False, True, Reason.SPAWN)
        assert f.message.startswith(f"cannot listen on 127.0.0.1:{taken}: address already in use")
        assert isinstance(f.error_reason, OSError if transport == "paramiko" else Exception)
        with pytest.raises(ProcessesFailed, match="address already in use") as caught, f.reset():
            pytest.fail("it does not come here")
        assert caught.value.processes == [f]
        with connect(taken) as sock:
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"  # whose port it is


def test_two_forwarders_for_one_port(plain: Host) -> None:
    with serve(echo) as port, forwarder(plain, port) as first:
        second = forwarder(plain, port, local_port=first.local_port).start()
        second.wait(TIMEOUT)
        assert "address already in use" in second.message
        assert first.running
    first.wait(TIMEOUT)


def test_two_forwarders_that_are_started_at_once_for_one_port(plain: Host) -> None:
    with serve(echo) as port:
        first = forwarder(plain, port)
        second = forwarder(plain, port, local_port=first.local_port)
        first.start()
        second.start()
        until(lambda: first.ended or second.ended)
        until(lambda: first.forwarding.is_set() or second.forwarding.is_set())
        assert sorted(f.running for f in (first, second)) == [False, True]
        assert "address already in use" in first.message + second.message
        for f in (first, second):
            f.kill().wait(TIMEOUT)


@BOTH
@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("192.0.2.1", "cannot assign requested address"),
        ("no-such-name.invalid", "not known"),
        ("a" * 70, ""),
    ],
)
def test_an_address_that_is_not_here(plain: Host, transport: str, address: str, why: str) -> None:
    f = forwarder(plain, 80, transport, bind_address=address).start().wait(TIMEOUT)
    assert not f.ok
    assert f.message.startswith(f"cannot listen on {address}:{f.local_port}: ")
    assert why in f.message


# -- the host -------------------------------------------------------------------------------------


@BOTH
def test_a_host_that_cannot_be_reached(transport: str) -> None:
    with refusing_port() as port:
        host = Host("127.0.0.1", port=port)
        with (
            pytest.raises(ProcessesFailed, match="refused") as caught,
            forwarder(host, 80, transport),
        ):
            pytest.fail("it does not come here")
    f = caught.value.processes[0]
    assert (f.ended, f.ok, f.reason) == (True, False, Reason.CONNECT)
    assert not f.forwarding.is_set()
    assert "127.0.0.1" in f.message


def test_a_host_that_does_not_let_us_in(plain: Host) -> None:
    host = Host(plain, user="nobody-of-this-name")
    f = forwarder(host, 80).start().wait(TIMEOUT)
    assert f.reason is Reason.AUTH
    with pytest.raises(ConnectionRefusedError):
        connect(f.local_port)


@BOTH
def test_a_host_that_says_nothing(transport: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = Host("127.0.0.1", port=silent.getsockname()[1])
        params = {"forwarding_timeout": 0.5, "connect_timeout": None}
        with (
            pytest.raises(ProcessesFailed, match="forwarding_timeout") as caught,
            forwarder(host, 80, transport, params=params),
        ):
            pytest.fail("it does not come here")
    f = caught.value.processes[0]
    assert (f.ended, f.reason) == (True, Reason.TIMEOUT)
    assert f.message == f"{f.name}: not within 0.5 s (forwarding_timeout)"


@BOTH
def test_one_that_is_killed_before_it_listens(transport: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = Host("127.0.0.1", port=silent.getsockname()[1])
        f = forwarder(host, 80, transport).start()
        assert (f.running, f.start_date is None or transport == "openssh") == (True, True)
        f.kill().wait(TIMEOUT)
        assert (f.ended, f.cancelled, f.ok) == (True, True, False)


@pytest.mark.parametrize(
    "settings",
    [{"AllowTcpForwarding": "no"}, {"DisableForwarding": "yes"}, {"PermitOpen": "127.0.0.1:9"}],
    ids=lambda settings: next(iter(settings)),
)
def test_a_host_that_forwards_nothing(settings: dict[str, str]) -> None:
    with RealSshd(settings) as server, serve(echo) as port:
        host = server.hosts(1)[0]
        f = forwarder(host, port).start().wait(TIMEOUT)
        assert (f.ok, f.reason) == (False, Reason.CONNECT)
        assert f"{host.address} forwards nothing to 127.0.0.1 port {port}" in f.message
        assert "see AllowTcpForwarding and PermitOpen" in f.message


def test_a_host_that_permits_some_places(warnings: list[str]) -> None:
    with serve(echo) as port, RealSshd({"PermitOpen": f"127.0.0.1:{port}"}) as server:
        with forwarder(server.hosts(1)[0], port) as f, connect(f.local_port) as sock:
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"
        f.wait(TIMEOUT)
    assert warnings == []


def test_a_place_that_is_permitted_no_more() -> None:
    # Any port of the host itself may be reached, but no other name: the first client finds out.
    with RealSshd({"PermitOpen": "127.0.0.1:*"}) as server, serve(echo) as port:
        with forwarder(server.hosts(1)[0], port, to="localhost") as f:
            with connect(f.local_port) as sock:
                assert sock.recv(1) == b""
            f.wait(TIMEOUT)
        assert (f.killed, f.reason) == (False, Reason.CONNECT)
        assert "forwards nothing to localhost" in f.message


def test_a_connection_that_is_lost() -> None:
    with Cluster(1) as cluster, serve(echo) as port:
        with forwarder(cluster.hosts[0], port) as f, connect(f.local_port) as sock:
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"
            cluster.fault(0, "close")
            with pytest.raises(ConnectionResetError):
                read_all(sock)
            f.wait(TIMEOUT)
        assert (f.ok, f.killed, f.reason) == (False, False, Reason.CONNECT)
        assert cluster.hosts[0].address in f.message
        assert "the connection is lost" in f.message
        with pytest.raises(ConnectionRefusedError):
            connect(f.local_port)
        cluster.heal()
        with f.reset(), connect(f.local_port) as sock:
            sock.sendall(b"x")
            assert sock.recv(1) == b"x"
        f.wait(TIMEOUT)


# -- the destination ------------------------------------------------------------------------------


def outcome_of(port: int) -> bytes:
    with connect(port) as sock:
        return sock.recv(1)


def test_a_destination_that_refuses(cluster: Cluster, warnings: list[str]) -> None:
    host = cluster.hosts[0]
    with refusing_port() as port:
        with forwarder(host, port) as f:
            assert [outcome_of(f.local_port) for _ in range(25)] == [b""] * 25
            until(lambda: len(warnings) >= 2)
            assert f.running
        f.wait(TIMEOUT)
    assert f.ok
    assert len(warnings) == 2
    assert all(f"{f.name}: {host.address} cannot connect to" in text for text in warnings)
    assert [text.split()[-1] for text in warnings] == ["1", "10"]


@BOTH
def test_a_destination_without_an_address(plain: Host, transport: str) -> None:
    with forwarder(plain, 80, transport, to="no-such-name.invalid") as f:
        assert outcome_of(f.local_port) == b""
        assert f.running
    f.wait(TIMEOUT)


def test_a_client_that_comes_and_goes(plain: Host) -> None:
    with serve(echo) as port:
        with forwarder(plain, port) as f:
            for _ in range(200):
                connect(f.local_port).close()
            with connect(f.local_port) as sock:
                sock.sendall(b"x")
                assert sock.recv(1) == b"x"
        f.wait(TIMEOUT)


def test_kills_and_starts_from_many_threads(plain: Host) -> None:
    problems: list[BaseException] = []

    def work(make: Callable[[], PortForwarder]) -> None:
        try:
            for _ in range(10):
                f = make()
                f.start()
                f.kill().wait(TIMEOUT)
                assert f.ended
        except BaseException as exc:  # noqa: BLE001 - for the test's thread
            problems.append(exc)

    with serve(echo) as port:
        threads = [
            threading.Thread(target=work, args=(lambda: forwarder(plain, port),)) for _ in range(6)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(TIMEOUT)
    assert problems == []


def test_a_block_is_not_entered_with_one_that_has_ended(cluster: Cluster) -> None:
    f = forwarder(cluster.hosts[0], 9).start()
    assert f.forwarding.wait(TIMEOUT)
    f.kill().wait(TIMEOUT)
    with pytest.raises(ProcessesFailed, match="SIGTERM"), f:
        pytest.fail("it does not listen any more")
    with f.reset():
        connect(f.local_port).close()
    f.wait(TIMEOUT)
