"""Hosts that are reached through other hosts."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from execo import Host, Remote
from execo.errors import Reason
from execo.testing import Cluster
from execo.transports import close_idle, statistics
from reaching import Reach
from remote_commands import QUIET, TIMEOUT, logins, on, run, running, until
from sshd import RealSshd

pytest_plugins = ["sshd", "remote_commands", "reaching", "execo.testing.pytest_plugin"]

SOON: dict[str, Any] = {"connect_timeout": 1}


@pytest.fixture
def hosts(cluster: Cluster) -> Iterator[list[Host]]:
    yield cluster.hosts
    cluster.heal()
    close_idle()


# -- what works ------------------------------------------------------------------------------------


def test_a_host_behind_another(cluster: Cluster, hosts: list[Host], reach: Reach) -> None:
    gateway, first, second = hosts[:3]
    for host in (first, second):
        reach(host, via=gateway)
    remote = Remote("echo $SSH_CONNECTION; exit 3", [first, second], process_args=QUIET)
    remote.run(TIMEOUT)
    assert [process.exit_code for process in remote.processes] == [3, 3]
    assert [process.stdout.split()[2] for process in remote.processes] == [
        first.address,
        second.address,
    ]
    # Both, and commands on it, share one connection to the gateway.
    assert run(gateway, "true").ok
    assert [cluster.connections(host) for host in hosts] == [1, 1, 1, 0]
    assert run(first, "echo again").stdout == "again\n"
    close_idle()
    until(lambda: [cluster.connections(host) for host in hosts] == [0, 0, 0, 0])


def test_several_hops(cluster: Cluster, hosts: list[Host], reach: Reach) -> None:
    for gateway, host in itertools.pairwise(hosts):
        reach(host, via=gateway)
    assert run(hosts[3], "echo far").stdout == "far\n"
    assert run(hosts[1], "echo near").stdout == "near\n"
    assert [cluster.connections(host) for host in hosts] == [1, 1, 1, 1]
    close_idle()
    until(lambda: not any(cluster.connections(host) for host in hosts))


def test_behind_a_real_server(sshd: RealSshd, stock_sshd: RealSshd, reach: Reach) -> None:
    gateway = stock_sshd.hosts(1)[0]
    behind = sshd.hosts(60, first=100)
    for host in behind:
        reach(host, via=gateway)
    before = logins(stock_sshd)
    remote = Remote("echo {{{host}}}", behind).run(TIMEOUT)
    assert [process.stdout.strip() for process in remote.processes] == [h.address for h in behind]
    # The most that one address takes (MaxStartups), seen from the gateway.
    one = stock_sshd.hosts(1, first=7)[0]
    reach(one, via=gateway)
    assert Remote("true", [one] * 50).run(TIMEOUT).finished_ok
    assert logins(stock_sshd) - before <= 1 + 6


def test_much_goes_both_ways(sshd: RealSshd, reach: Reach) -> None:
    gateway, host = sshd.hosts(2)
    reach(host, via=gateway)
    data = bytes(range(256)) * 80_000
    remote = Remote("cat", [host] * 3).start()
    remote.write(data)
    remote.close_stdin().wait(TIMEOUT)
    assert [process.stdout_bytes == data for process in remote.processes] == [True] * 3


def test_one_that_is_not_read_holds_up_no_other(sshd: RealSshd, reach: Reach) -> None:
    class Slow:
        gate = threading.Event()

        def write(self, text: str) -> int:
            self.gate.wait(TIMEOUT)
            return len(text)

    gateway, flooding, other = sshd.hosts(3)
    for host in (flooding, other):
        reach(host, via=gateway)
    flood = on(flooding, "head -c 20000000 /dev/zero", stdout_handlers=[Slow()]).start()
    until(lambda: flood.stdout_bytes)
    try:
        for number in range(3):
            assert run(other, f"echo {number}").stdout == f"{number}\n"
        assert not flood.ended
        assert len(flood.stdout_bytes) < 15_000_000  # the rest waits on the host
    finally:
        Slow.gate.set()
    flood.wait(TIMEOUT)
    assert len(flood.stdout_bytes) == 20_000_000


def test_kill_reaches_what_runs_behind(sshd: RealSshd, reach: Reach, word: str) -> None:
    gateway, host = sshd.hosts(2)
    reach(host, via=gateway)
    process = on(host, f"setsid sleep {word} & sleep {word}").start()
    until(lambda: len(running(word)) >= 2)
    process.kill().wait(TIMEOUT)
    assert process.killed
    until(lambda: not running(word))


def test_two_hundred_behind_one(reach: Reach) -> None:
    with Cluster(201) as cluster:
        gateway, *behind = cluster.hosts
        for host in behind:
            reach(host, via=gateway)
        for _ in range(2):
            remote = Remote("echo {{{host}}}", behind).run(TIMEOUT)
            assert remote.finished_ok, remote.failed
            assert [p.stdout.strip() for p in remote.processes] == [h.address for h in behind]
        assert cluster.connections(gateway) == 1
        close_idle()


# -- what does not ---------------------------------------------------------------------------------


def test_a_gateway_that_cannot_be_reached(
    cluster: Cluster, hosts: list[Host], reach: Reach
) -> None:
    gateway, behind, beside = hosts[:3]
    cluster.fault(gateway, "refuse")
    reach(behind, via=gateway)
    remote = Remote("true", [behind, beside], SOON, QUIET).run(TIMEOUT)
    bad, good = remote.processes
    assert (bad.reason, good.ok) == (Reason.CONNECT, True)
    assert f"cannot connect to {behind.address} through {gateway.address}: port" in bad.message
    assert "connection refused" in bad.message


def test_a_gateway_that_does_not_let_us_in(hosts: list[Host], reach: Reach, tmp_path: Path) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    gateway, middle, behind = hosts[:3]
    reach(middle, via=Host(gateway.address, gateway.user, key, gateway.port))
    reach(behind, via=middle)
    process = run(behind, "true")
    assert process.reason is Reason.AUTH
    assert process.message.count("cannot connect to") == 2
    for host in (gateway, middle, behind):
        assert host.address in process.message
    assert f"it refused {key}" in process.message


def test_a_host_that_its_gateway_cannot_reach(
    cluster: Cluster, hosts: list[Host], reach: Reach
) -> None:
    gateway, behind, other = hosts[:3]
    cluster.fault(behind, "refuse")
    for host in (behind, other):
        reach(host, via=gateway)
    remote = Remote("true", [behind, other], SOON, QUIET).run(TIMEOUT)
    bad, good = remote.processes
    assert (bad.reason, good.ok) == (Reason.CONNECT, True)
    assert f"cannot connect to {behind.address} through {gateway.address}: " in bad.message
    assert "connect failed" in bad.message


@pytest.mark.parametrize(
    ("fault", "said"), [("silent", "says nothing"), ("drop", "hung up"), ("garbage", "SSH")]
)
def test_a_faulty_host_behind_another(
    cluster: Cluster, hosts: list[Host], reach: Reach, fault: str, said: str
) -> None:
    gateway, behind, other = hosts[:3]
    cluster.fault(behind, fault)
    for host in (behind, other):
        reach(host, via=gateway)
    remote = Remote("true", [behind, other], SOON, QUIET).run(TIMEOUT)
    bad, good = remote.processes
    assert (bad.reason, good.ok) == (Reason.CONNECT, True)
    assert behind.address in bad.message
    assert said in bad.message


def test_a_gateway_that_forbids_it(sshd: RealSshd, reach: Reach) -> None:
    with RealSshd({"AllowTcpForwarding": "no"}) as closed:
        gateway, host = closed.hosts(1)[0], sshd.hosts(1)[0]
        reach(host, via=gateway)
        process = run(host, "true")
        assert process.reason is Reason.CONNECT
        assert f"cannot connect to {host.address} through {gateway.address}: " in process.message
        assert "see AllowTcpForwarding" in process.message
        close_idle()


def test_many_behind_a_dead_gateway_fail_together(reach: Reach, plain: Host) -> None:
    # Its queue is full: what more comes is not answered, as by a machine that is off.
    with socket.create_server(("127.0.4.1", 0), backlog=0) as full:
        port = full.getsockname()[1]
        taken = [socket.socket() for _ in range(4)]
        for sock in taken:
            sock.setblocking(False)
            sock.connect_ex(("127.0.4.1", port))
        gateway = Host("127.0.4.1", plain.user, plain.keyfile, port)
        behind = [Host(f"127.0.5.{n}", plain.user, plain.keyfile, 22) for n in range(1, 101)]
        for host in behind:
            reach(host, via=gateway)
        remote = Remote("true", behind, SOON, QUIET).run(20)  # not a hundred times a second
        assert remote.ended
        assert {process.reason for process in remote.processes} == {Reason.CONNECT}
        assert all(
            f"cannot connect to {host.address} through {gateway.address}: no answer within 1 s"
            in process.message
            for host, process in zip(behind, remote.processes, strict=True)
        )
        for sock in taken:
            sock.close()


# -- gateways that are lost ------------------------------------------------------------------------


def test_a_gateway_that_is_lost_takes_all_behind_it(
    cluster: Cluster, hosts: list[Host], reach: Reach
) -> None:
    gateway, first, second, beside = hosts
    for host in (first, second):
        reach(host, via=gateway)
    remote = Remote("echo ready; cat", [first, second, beside], None, QUIET).start()
    until(lambda: all(process.stdout for process in remote.processes))
    before = statistics().connections
    cluster.fault(gateway, "close")
    for process in remote.processes[:2]:
        process.wait(TIMEOUT)
        assert (process.reason, process.stdout) == (Reason.CONNECT, "ready\n")
        assert f"{process.host.address}: the connection is lost: " in process.message
        assert gateway.address in process.message
    cluster.heal()
    remote.close_stdin().wait(TIMEOUT)
    assert remote.processes[2].ok
    again = Remote("echo back", [first, second]).run(TIMEOUT)
    assert [process.stdout for process in again.processes] == ["back\n"] * 2
    now = statistics().connections
    assert now.lost - before.lost == 3
    assert now.replaced - before.replaced == 3


def test_a_kept_gateway_that_has_died_is_replaced(
    cluster: Cluster, hosts: list[Host], reach: Reach, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("execo.transports.liveness.FRESH", 0.2)
    gateway, first, second = hosts[:3]
    for host in (first, second):
        reach(host, via=gateway)
    params = {"connect_timeout": 4}
    assert run(first, "true", params).ok
    before = statistics().connections
    assert cluster.connections(gateway) == 1
    cluster.fault(gateway, "freeze")  # without a word, as by a power cut
    threading.Event().wait(0.3)
    # One that was behind it before, and one that was not.
    command = "echo there >> $HOME/ran; echo there"
    processes = [on(host, command, params).start() for host in (first, second)]
    until(lambda: statistics().connections.lost > before.lost)
    cluster.heal()
    for host, process in zip((first, second), processes, strict=True):
        process.wait(TIMEOUT)
        assert process.stdout == "there\n"
        assert (cluster.home(host) / "ran").read_text() == "there\n"


def test_the_session_of_a_gateway_that_is_stopped(sshd: RealSshd, reach: Reach, word: str) -> None:
    reach.options = {"keepalive": 0.8, "keepalive_count": 2}
    gateway, host, beside = sshd.hosts(3)
    reach(host, via=gateway)
    pid = int(run(gateway, "echo $PPID").stdout)
    stuck = on(host, f"sleep {word}").start()
    other = on(beside, "cat").start()
    until(lambda: stuck.start_date and other.start_date)
    os.kill(pid, signal.SIGSTOP)
    try:
        stuck.wait(TIMEOUT)
        assert stuck.reason is Reason.CONNECT
        assert host.address in stuck.message
        assert "has not answered for" in stuck.message
        assert other.running
    finally:
        os.kill(pid, signal.SIGCONT)
    other.close_stdin().wait(TIMEOUT)
    assert other.ok
    until(lambda: not running(word))  # the guard sees that the client is lost


def test_few_log_in_at_a_time_through_one_gateway(reach: Reach) -> None:
    with Cluster(61) as cluster:
        gateway, *behind = cluster.hosts
        for host in behind:
            reach(host, via=gateway)
        assert run(gateway, "true").ok
        remote = Remote("true", behind).start()
        most = 0
        while not remote.ended:
            now = statistics().connections
            most = max(most, now.dialling + now.setting_up)
            remote.wait(0.005)
        assert remote.finished_ok
        assert 0 < most <= 8
        close_idle()
