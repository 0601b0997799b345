"""The faults of ``execo.testing.Cluster``: what a client sees of each, and that hosts recover."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Iterator

import paramiko
import pytest

from cluster_clients import TIMEOUT, execute, login, ssh, wait_until
from execo.host import Host
from execo.testing import Cluster, Fault

PATIENCE = 0.3
"""Seconds of silence that are taken for silence."""


@pytest.fixture(scope="module")
def hosts() -> Iterator[Cluster]:
    with Cluster(2) as cluster:
        yield cluster


@pytest.fixture
def cluster(hosts: Cluster) -> Iterator[Cluster]:
    yield hosts
    hosts.heal()
    assert ssh(hosts, "host1", "echo well").stdout == b"well\n"


@contextlib.contextmanager
def connection(cluster: Cluster) -> Iterator[socket.socket]:
    host = cluster.hosts[0]
    with socket.create_connection((host.address, host.port), timeout=TIMEOUT) as sock:
        yield sock


def says(sock: socket.socket, patience: float = TIMEOUT) -> bytes | None:
    """What comes: b"" = it is closed, None = nothing for so long."""
    sock.settimeout(patience)
    try:
        return sock.recv(100)
    except TimeoutError:
        return None
    except ConnectionResetError:
        return b""


def test_refuse(cluster: Cluster) -> None:
    with login(cluster) as transport:
        cluster.fault(0, "refuse")
        with pytest.raises(ConnectionRefusedError), connection(cluster):
            pass
        cluster.fault(0, "refuse")
        assert execute(transport, "echo here")[0] == b"here\n"
    assert b"refused" in ssh(cluster, "host1", "true").stderr
    assert ssh(cluster, "host2", "echo me not").stdout == b"me not\n"


def test_silent(cluster: Cluster) -> None:
    with login(cluster) as transport:
        cluster.fault(cluster.hosts[0], Fault.SILENT)
        with connection(cluster) as sock:
            assert says(sock, PATIENCE) is None
            assert execute(transport, "echo here")[0] == b"here\n"
            cluster.fault(0, None)
            assert (says(sock) or b"").startswith(b"SSH-2.0-")


def test_garbage(cluster: Cluster) -> None:
    cluster.fault(0, "garbage")
    with connection(cluster) as sock:
        assert (says(sock) or b"").startswith(b"HTTP/1.1 400")
        assert says(sock) == b""
    with pytest.raises(paramiko.SSHException, match="banner"), login(cluster):
        pass


def test_drop(cluster: Cluster) -> None:
    with login(cluster) as transport:
        cluster.fault(0, "drop")
        with connection(cluster) as sock:
            assert says(sock) == b""
        assert ssh(cluster, "host1", "true").returncode == 255
        assert execute(transport, "echo here")[0] == b"here\n"


def test_close_in_the_middle_of_a_command(cluster: Cluster) -> None:
    config = str(cluster.folder / "ssh_config")
    script = "echo started; while ! test -e go; do sleep 0.05; done; echo done > result"
    command = ["ssh", "-n", "-F", config, "host1", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == b"started\n"
        cluster.fault(0, "close")
        assert client.wait(TIMEOUT) == 255
    assert ssh(cluster, "host1", "echo new ones work").stdout == b"new ones work\n"
    (cluster.home(0) / "go").touch()
    wait_until((cluster.home(0) / "result").exists)


def test_freeze(cluster: Cluster) -> None:
    with login(cluster) as transport:
        channel = transport.open_session()
        channel.exec_command("echo started; cat; touch ended")
        assert channel.recv(100) == b"started\n"
        cluster.fault(0, "freeze")
        channel.sendall(b"hello")
        channel.shutdown_write()
        channel.settimeout(PATIENCE)
        with pytest.raises(TimeoutError):
            channel.recv(1)
        assert not (cluster.home(0) / "ended").exists()
        with connection(cluster) as sock:
            assert says(sock, PATIENCE) is None
            cluster.fault(0, None)
            assert (says(sock) or b"").startswith(b"SSH-2.0-")
        channel.settimeout(TIMEOUT)
        assert channel.recv(100) == b"hello"
        assert channel.recv_exit_status() == 0


def test_a_frozen_host_holds_back_its_output(cluster: Cluster) -> None:
    with login(cluster) as transport:
        channel = transport.open_session()
        channel.settimeout(PATIENCE)
        channel.exec_command("while ! test -e now; do sleep 0.05; done; echo late; touch said")
        cluster.fault(0, "freeze")
        (cluster.home(0) / "now").touch()
        wait_until((cluster.home(0) / "said").exists)
        with pytest.raises(TimeoutError):
            channel.recv(1)
        cluster.fault(0, None)
        channel.settimeout(TIMEOUT)
        assert channel.recv(100) == b"late\n"


def test_a_machine_that_dies(cluster: Cluster) -> None:
    with login(cluster) as transport:
        cluster.fault(0, "freeze")
        cluster.fault(0, "refuse")
        cluster.fault(0, "close")
        transport.join(TIMEOUT)
        assert not transport.is_active()
        with pytest.raises(ConnectionRefusedError), connection(cluster):
            pass


def test_a_frozen_cluster_stops() -> None:
    with Cluster(1) as cluster, login(cluster) as transport:
        transport.open_session().exec_command("sleep 1006")
        cluster.fault(0, "freeze")
        cluster.stop()


def test_wrong_words(cluster: Cluster) -> None:
    with pytest.raises(ValueError, match="unknown fault 'sulk': None or one of refuse, silent"):
        cluster.fault(0, "sulk")
    for host in (2, -1, Host("127.0.0.2")):
        with pytest.raises(ValueError, match="not a host of <Cluster of 2 hosts"):
            cluster.fault(host, None)
