"""Hosts whose connection is the stdin and stdout of a local program."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from execo import Host, Remote
from execo.errors import Reason
from execo.testing import Cluster
from execo.transports import close_idle, statistics
from reaching import Reach
from remote_commands import QUIET, TIMEOUT, HostScript, on, run, running, until
from sshd import RealSshd

pytest_plugins = ["sshd", "remote_commands", "reaching", "execo.testing.pytest_plugin"]

SOON: dict[str, Any] = {"connect_timeout": 2}

RELAY = """
import os, socket, sys, threading
sock = socket.create_connection((sys.argv[1], int(sys.argv[2])))
def there():
    while data := os.read(0, 65536):
        sock.sendall(data)
    sock.shutdown(socket.SHUT_WR)
threading.Thread(target=there, daemon=True).start()
while data := sock.recv(65536):
    while data:
        data = data[os.write(1, data):]
"""


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[str]:
    """The path of a program that connects stdin and stdout to a port."""
    path = tmp_path / "relay.py"
    path.write_text(RELAY)
    yield str(path)
    close_idle()
    until(lambda: not running(str(path)))


def command(relay: str, host: Host) -> str:
    return f"{shlex.quote(sys.executable)} {shlex.quote(relay)} {host.address} {host.port}"


def test_a_program_that_leads_there(cluster: Cluster, reach: Reach, relay: str) -> None:
    hosts = cluster.hosts
    for host in hosts:
        reach(host, proxy_command=command(relay, host))
    for _ in range(2):
        remote = Remote("echo {{{host}}}; exit 3", hosts, process_args=QUIET).run(TIMEOUT)
        assert [process.exit_code for process in remote.processes] == [3] * 4
        assert [process.stdout.strip() for process in remote.processes] == [
            host.address for host in hosts
        ]
    assert len(running(relay)) == 4  # one for each connection, which is kept
    close_idle()
    until(lambda: not running(relay))
    assert run(hosts[0], "echo again").stdout == "again\n"


def test_ssh_as_the_program(cluster: Cluster, reach: Reach) -> None:
    gateway, host = cluster.hosts[:2]
    config = cluster.folder / "ssh_config"
    reach(host, proxy_command=f"ssh -F {config} -W {host.address}:{host.port} host1")
    assert run(host, "echo there").stdout == "there\n"
    assert cluster.connections(gateway) == 1
    close_idle()
    until(lambda: not any(map(cluster.connections, (gateway, host))))


def test_much_goes_both_ways(sshd: RealSshd, reach: Reach, relay: str) -> None:
    (host,) = sshd.hosts(1)
    reach(host, proxy_command=command(relay, host))
    data = bytes(range(256)) * 80_000
    remote = Remote("cat", [host] * 3).start()
    remote.write(data)
    remote.close_stdin().wait(TIMEOUT)
    assert [process.stdout_bytes == data for process in remote.processes] == [True] * 3


def test_a_gateway_that_a_program_leads_to(cluster: Cluster, reach: Reach, relay: str) -> None:
    gateway, *behind = cluster.hosts
    reach(gateway, proxy_command=command(relay, gateway))
    for host in behind:
        reach(host, via=gateway)
    assert Remote("true", behind).run(TIMEOUT).finished_ok
    assert len(running(relay)) == 1


def test_a_server_with_stock_limits(stock_sshd: RealSshd, reach: Reach, relay: str) -> None:
    (host,) = stock_sshd.hosts(1)
    reach(host, proxy_command=command(relay, host))
    assert Remote("true", [host] * 30).run(TIMEOUT).finished_ok


def test_few_programs_begin_at_a_time(cluster: Cluster, reach: Reach, relay: str) -> None:
    # Each may have to log in to the same gateway, however long that takes.
    for host in cluster.hosts:
        reach(host, proxy_command=f"sleep 0.4; {command(relay, host)}")
    params = [{"connect_timeout": 20 + number} for number in range(5)]
    processes = [on(host, "true", one).start() for one in params for host in cluster.hosts]
    most = 0
    for process in processes:
        while not process.ended:
            now = statistics().connections
            most = max(most, now.dialling + now.silent + now.setting_up)
            process.wait(0.01)
    assert all(process.ok for process in processes), processes
    assert 0 < most <= 8


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("echo no way >&2; exit 7", "exited with 7: no way"),
        ("no-such-program-here", "exited with 127"),
        ("kill -9 $$", "was ended by SIGKILL"),
        ("exec sleep 1000", "no answer within 1 s (connect_timeout)"),
        ("true", "no connection within 1 s (connect_timeout) (it hung up before its first word)"),
        ("echo what is this; cat >&2", "within 1 s (connect_timeout)"),
    ],
)
def test_a_program_that_fails(
    cluster: Cluster, reach: Reach, text: str, said: str, tmp_path: Path
) -> None:
    bad, good = cluster.hosts[:2]
    reach(bad, proxy_command=text)
    remote = Remote("true", [bad, good], {"connect_timeout": 1}, QUIET).run(TIMEOUT)
    failed, fine = remote.processes
    assert (failed.reason, fine.ok) == (Reason.CONNECT, True)
    assert bad.address in failed.message
    assert said in failed.message
    assert failed.error


def test_a_program_that_is_killed_in_the_middle(cluster: Cluster, reach: Reach, relay: str) -> None:
    host = cluster.hosts[0]
    reach(host, proxy_command=f"{command(relay, host)}; echo Terminated >&2")
    process = on(host, "echo ready; cat").start()
    until(lambda: process.stdout)
    before = statistics().connections.lost
    for pid in running(relay):
        os.kill(pid, signal.SIGTERM)
    process.wait(TIMEOUT)
    assert (process.reason, process.stdout) == (Reason.CONNECT, "ready\n")
    lost = "the connection is lost: its proxy command has ended: Terminated"
    assert f"{host.address}: {lost}" in process.message
    assert statistics().connections.lost == before + 1
    assert run(host, "echo again").stdout == "again\n"


def test_what_it_prints_on_stderr_does_no_harm(cluster: Cluster, reach: Reach, relay: str) -> None:
    host = cluster.hosts[0]
    noise = "head -c 1000000 /dev/zero >&2"
    reach(host, proxy_command=f"{noise}; {command(relay, host)}")
    process = run(host, "echo there")
    assert (process.stdout, process.stderr) == ("there\n", "")


@pytest.mark.parametrize("way", ["ends", "is killed"])
def test_nothing_outlives_the_script(
    sshd: RealSshd, tmp_path: Path, relay: str, word: str, way: str
) -> None:
    (host,) = sshd.hosts(1)
    # Of one that ends, the command is told to end by way of the program.
    source = f"""
from dataclasses import replace
import execo.ssh_process as rooms
reach = rooms.connection_to
def behind(host, params):
    name, target = reach(host, params)
    return name, replace(target, proxy_command={command(relay, host)!r})
rooms.connection_to = behind
told = "trap 'echo told > $HOME/told; exit' TERM; echo ready; sleep " + word + " & wait"
ready(SshProcess(told, host).start())
sys.stdin.readline()
"""
    with HostScript(tmp_path, source, host, word) as script:
        script.wait_ready()
        assert len(running(relay)) == 1
        if way == "is killed":
            script.popen.kill()
        _, _, err = script.finish()
        until(lambda: not running(word) and not running(relay))
        if way == "ends":
            assert err == ""  # the connection was there to the end
            (told,) = sshd.folder.glob("home/*/told")
            assert told.read_text() == "told\n"
