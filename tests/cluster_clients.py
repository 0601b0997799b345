"""What the tests of ``execo.testing.Cluster`` reach its hosts with."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import paramiko
import pytest

from execo.testing import Cluster

TIMEOUT = 60


@contextlib.contextmanager
def login(cluster: Cluster, place: int = 0, user: str = "") -> Iterator[paramiko.Transport]:
    host = cluster.hosts[place]
    assert host.port is not None
    sock = socket.create_connection((host.address, host.port), timeout=TIMEOUT)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    transport = paramiko.Transport(sock)
    try:
        transport.start_client(timeout=TIMEOUT)
        key = paramiko.Ed25519Key(filename=cluster.keyfile)
        transport.auth_publickey(user or cluster.user, key)
        yield transport
    finally:
        transport.close()
        transport.join(TIMEOUT)


def execute(transport: paramiko.Transport, command: str) -> tuple[bytes, bytes, int]:
    """What a command prints on stdout and stderr, and its exit code."""
    channel = transport.open_session()
    channel.settimeout(TIMEOUT)
    channel.exec_command(command)
    out, err = channel.makefile("rb").read(), channel.makefile_stderr("rb").read()
    return out, err, channel.recv_exit_status()


def ssh(
    cluster: Cluster, *words: str, stdin: bytes = b"", program: str = "ssh"
) -> subprocess.CompletedProcess[bytes]:
    config = str(cluster.folder / "ssh_config")
    return subprocess.run(
        [program, "-F", config, *words],
        check=False,
        input=stdin,
        capture_output=True,
        timeout=TIMEOUT,
    )


def wait_until(condition: Callable[[], bool]) -> None:
    nap = threading.Event()
    for _ in range(TIMEOUT * 50):
        if condition():
            return
        nap.wait(0.02)
    pytest.fail("it did not happen")


def alive(pid: int) -> bool:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False
    return fields[0] != "Z"
