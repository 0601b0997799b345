"""Connections that are kept: closed when nobody uses them, asked while somebody does, replaced when
they are found broken; and commands that run once, whatever happens to them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from execo import Host, Remote, configuration, transports
from execo._core.runtime import get_runtime
from execo.errors import Reason
from execo.testing import Cluster
from execo.transports import close_idle, statistics
from execo.transports.base import Target
from execo.transports.set_ups import window_keys
from reaching import Reach
from remote_commands import QUIET, TIMEOUT, logins, on, run, running, until
from sshd import RealSshd

pytest_plugins = ["sshd", "remote_commands", "reaching", "execo.testing.pytest_plugin"]


@pytest.fixture
def hosts(cluster: Cluster) -> Iterator[list[Host]]:
    yield cluster.hosts
    cluster.heal()
    close_idle()


def nap(seconds: float) -> None:
    threading.Event().wait(seconds)


# -- the idle limit --------------------------------------------------------------------------------


def test_what_nobody_uses_is_closed(cluster: Cluster, hosts: list[Host], reach: Reach) -> None:
    reach.options = {"idle_limit": 0.5}
    before = statistics().connections
    assert Remote("true", hosts).run(TIMEOUT).ok
    assert run(hosts[0], "true").ok
    until(lambda: not any(map(cluster.connections, hosts)))
    now = statistics().connections
    assert now.idle_closed - before.idle_closed == 4
    assert (now.lost, now.failed) == (before.lost, before.failed)
    assert (now.hosts, now.ready) == (0, 0)
    assert run(hosts[0], "echo again").stdout == "again\n"


def test_what_somebody_uses_is_not(cluster: Cluster, hosts: list[Host], reach: Reach) -> None:
    reach.options = {"idle_limit": 0.3}
    gateway, behind, busy, idle = hosts
    reach(behind, via=gateway)
    processes = [on(host, "echo ready; cat").start() for host in (behind, busy)]
    assert run(idle, "true").ok
    until(lambda: all(process.stdout for process in processes))
    until(lambda: cluster.connections(idle) == 0)
    nap(0.5)
    assert [cluster.connections(host) for host in hosts] == [1, 1, 1, 0]
    for process in processes:
        process.close_stdin().wait(TIMEOUT)
    until(lambda: not any(map(cluster.connections, hosts)))  # the gateway, too


def test_a_server_left_behind_outlives_its_connection(
    sshd: RealSshd, reach: Reach, word: str
) -> None:
    reach.options = {"idle_limit": 0.3}
    (host,) = sshd.hosts(1)
    left = "nohup sleep {0} >/dev/null 2>&1 &"
    before = statistics().connections.idle_closed
    for number in "12":  # the first command of a connection, and a later one
        assert run(host, left.format(word + number)).ok
    until(lambda: statistics().connections.idle_closed > before)
    until(lambda: not any(t.name == "execo-ssh" for t in threading.enumerate()))
    nap(0.5)  # time for the guard to do harm
    assert [len(running(word + number)) for number in "12"] == [1, 1]


def test_what_survives_a_kill_is_killed_before_the_connection_goes(
    sshd: RealSshd, reach: Reach, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(configuration, "kill_timeout", 1.5)
    reach.options = {"idle_limit": 0.2}
    (host,) = sshd.hosts(1)
    stubborn = f"(trap '' TERM; exec sleep {word} >/dev/null 2>&1) & echo ready; wait"
    process = on(host, stubborn).start()
    until(lambda: process.stdout)
    process.kill().wait(TIMEOUT)
    until(lambda: not running(word))
    until(lambda: not any(t.name == "execo-ssh" for t in threading.enumerate()))


# -- hosts that stop to answer ---------------------------------------------------------------------


def test_a_frozen_session_is_found(sshd: RealSshd, reach: Reach, word: str) -> None:
    reach.options = {"keepalive": 0.8, "keepalive_count": 2}
    frozen, other = sshd.hosts(2)
    session = int(run(frozen, "echo $PPID").stdout)
    before = statistics().connections
    stuck = on(frozen, f"echo ready; sleep {word}").start()
    fine = on(other, "cat").start()
    until(lambda: stuck.stdout and fine.start_date)
    os.kill(session, signal.SIGSTOP)
    try:
        stuck.wait(TIMEOUT)
        assert (stuck.reason, stuck.stdout) == (Reason.CONNECT, "ready\n")
        assert f"{frozen.address}: it has not answered for " in stuck.message
        assert "(keepalive): is it frozen, or off?" in stuck.message
        assert fine.running  # silent for as long, but it answers
        assert run(frozen, "echo new").stdout == "new\n"
    finally:
        os.kill(session, signal.SIGCONT)
    fine.close_stdin().wait(TIMEOUT)
    assert fine.ok
    now = statistics().connections
    assert now.keepalive_losses - before.keepalive_losses == 1
    assert now.lost - before.lost == 1
    assert now.replaced - before.replaced == 1
    until(lambda: not running(word))


def test_a_silent_command_is_left_alone(sshd: RealSshd, reach: Reach) -> None:
    # It is silent for longer than a host may be that does not answer.
    reach.options = {"keepalive": 0.5, "keepalive_count": 2}
    (host,) = sshd.hosts(1)
    assert run(host, "sleep 2.5; echo late").stdout == "late\n"
    nap(2.0)  # idle: nobody is missed
    assert run(host, "sleep 1; echo late").stdout == "late\n"


def test_nobody_is_asked_who_is_not_used(sshd: RealSshd, reach: Reach) -> None:
    reach.options = {"keepalive": 0.5, "keepalive_count": 1}
    (host,) = sshd.hosts(1)
    session = int(run(host, "echo $PPID").stdout)
    os.kill(session, signal.SIGSTOP)
    nap(1.6)
    os.kill(session, signal.SIGCONT)
    assert int(run(host, "echo $PPID").stdout) == session


# -- a broken connection is replaced, and a command runs once --------------------------------------


@pytest.mark.parametrize("way", ["killed session", "stopped session", "killed server"])
def test_a_kept_connection_that_is_broken(way: str) -> None:
    params = {"connect_timeout": 2}
    with RealSshd() as server:
        (host,) = server.hosts(1)
        # More than one connection is kept: one after the other may be as broken.
        kept = Remote("echo $PPID; cat", [host] * 20, params).start()
        until(lambda: all(process.stdout for process in kept.processes))
        kept.close_stdin().wait(TIMEOUT)
        sessions = {int(process.stdout) for process in kept.processes}
        assert len(sessions) == 3
        number = signal.SIGSTOP if way == "stopped session" else signal.SIGKILL
        for session in sessions:
            os.kill(session, number)
        if way == "killed server":
            os.kill(server.pid, signal.SIGKILL)
            until(lambda: statistics().connections.ready == 0)
            process = run(host, "true", params)
            assert process.reason is Reason.CONNECT
            assert "connection refused" in process.message
            return
        remote = Remote("echo {{range(4)}} >> $HOME/ran", [host] * 4, params).run(TIMEOUT)
        assert remote.finished_ok, remote.failed
        (ran,) = server.folder.glob("home/*/ran")
        assert sorted(ran.read_text().split()) == ["0", "1", "2", "3"]
        for session in sessions if way == "stopped session" else ():
            os.kill(session, signal.SIGCONT)
        nap(0.3)
        assert len(ran.read_text().split()) == 4
        close_idle()


def test_a_command_that_may_have_run_is_not_repeated(cluster: Cluster, hosts: list[Host]) -> None:
    ran = cluster.home(0) / "ran"
    before = statistics().connections.resubmitted
    process = on(hosts[0], f"echo once >> {ran}; sleep 1000").start()
    until(ran.exists)
    cluster.fault(hosts[0], "close")
    process.wait(TIMEOUT)
    assert process.reason is Reason.CONNECT
    assert run(hosts[0], "true").ok
    assert ran.read_text() == "once\n"
    assert statistics().connections.resubmitted == before


def test_connections_that_break_again_and_again(cluster: Cluster, hosts: list[Host]) -> None:
    # Whatever the moment: a command has run at most once, and one that has succeeded exactly once.
    host = hosts[0]
    stop = threading.Event()

    def breaking() -> None:
        while not stop.wait(0.02):
            cluster.fault(host, "close")

    ran = cluster.home(0) / "runs"
    thread = threading.Thread(target=breaking)
    thread.start()
    try:
        processes = [run(host, f"echo {number} >> {ran}; echo {number}") for number in range(60)]
    finally:
        stop.set()
        thread.join()
    times = ran.read_text().split() if ran.exists() else []
    assert len(set(times)) == len(times)
    for process in processes:
        assert process.ok or process.reason in (Reason.CONNECT, Reason.AUTH)
        if process.ok:
            assert times.count(process.stdout.strip()) == 1


# -- limits of servers -----------------------------------------------------------------------------


def test_fifty_at_once_and_two_hundred_in_a_row(stock_sshd: RealSshd) -> None:
    (host,) = stock_sshd.hosts(1, first=20)
    before = logins(stock_sshd)
    remote = Remote("echo ready; cat", [host] * 50).start()
    until(lambda: all(process.stdout for process in remote.processes) or remote.failed)
    remote.close_stdin().wait(TIMEOUT)
    assert remote.finished_ok, remote.failed
    for number in range(200):
        assert run(host, f"exit {number % 100}").exit_code == number % 100
    assert logins(stock_sshd) - before <= 8


def test_many_users_of_one_address(cluster: Cluster) -> None:
    # A server counts who has not logged in, whoever it is. Eight at a time are no reason to drop.
    with Cluster(1, max_startups=8) as strict:
        (host,) = strict.hosts
        before = statistics().connections
        params = [{"connect_timeout": 20 + number} for number in range(40)]
        processes = [on(host, "true", one).start() for one in params]
        for process in processes:
            process.wait(TIMEOUT)
        assert all(process.ok for process in processes), processes
        now = statistics().connections
        assert now.made - before.made == 40
        assert now.dial_retries == before.dial_retries
        close_idle()


def test_what_counts_as_one_place() -> None:
    gateway = Target("gw")
    assert window_keys(Target("Web1", user="a")) == window_keys(Target("web1", user="b", port=22))
    assert window_keys(Target("web1")) != window_keys(Target("web1", port=2222))
    assert window_keys(Target("127.0.0.1")) != window_keys(Target("127.0.0.2"))
    direct, one, other = Target("web1"), Target("web1", via=gateway), Target("web2", via=gateway)
    assert not set(window_keys(direct)) & set(window_keys(one))
    assert len(set(window_keys(one)) & set(window_keys(other))) == 1
    first = Target("web1", proxy_command="ssh -W web1:22 gw")
    second = Target("web2", proxy_command="ssh -W web2:22 gw")
    third = Target("web2", proxy_command="ssh -W web2:22 other")
    assert len(set(window_keys(first)) & set(window_keys(second))) == 1
    assert not set(window_keys(second)) & set(window_keys(third))


def test_a_server_that_drops_is_tried_again() -> None:
    with Cluster(1, max_startups=2) as strict:
        (host,) = strict.hosts
        before = statistics().connections.dial_retries
        processes = [on(host, "true", {"connect_timeout": 20 + n}).start() for n in range(20)]
        for process in processes:
            process.wait(TIMEOUT)
        assert all(process.ok for process in processes), processes
        assert statistics().connections.dial_retries > before
        close_idle()


def test_those_given_up_make_room(cluster: Cluster, hosts: list[Host]) -> None:
    cluster.fault(hosts[0], "silent")
    params = [{"connect_timeout": 100 + number} for number in range(12)]
    processes = [on(hosts[0], "true", one).start() for one in params]
    until(lambda: statistics().connections.silent == 8)
    assert statistics().connections.queued == 4
    for process in processes[:6]:
        process.kill().wait(TIMEOUT)
    until(lambda: statistics().connections.silent == 6)
    assert statistics().connections.queued == 0
    cluster.heal()
    for process in processes[6:]:
        process.wait(TIMEOUT)
        assert process.ok


# -- hosts that cannot be reached ------------------------------------------------------------------


def test_a_machine_that_is_off(cluster: Cluster, hosts: list[Host]) -> None:
    # Its queue is full: what more comes is not answered.
    with socket.create_server(("127.0.4.2", 0), backlog=0) as full:
        port = full.getsockname()[1]
        taken = [socket.socket() for _ in range(4)]
        for sock in taken:
            sock.setblocking(False)
            sock.connect_ex(("127.0.4.2", port))
        off = Host("127.0.4.2", hosts[0].user, hosts[0].keyfile, port)
        remote = Remote("true", [off, *hosts], {"connect_timeout": 1}, QUIET).run(TIMEOUT)
        failed, *good = remote.processes
        assert failed.reason is Reason.CONNECT
        assert "cannot connect to 127.0.4.2: no answer within 1 s (connect_timeout)" in (
            failed.message
        )
        assert all(process.ok for process in good)
        for sock in taken:
            sock.close()


@pytest.mark.parametrize(("family", "fine"), [("inet", True), ("inet6", False), (None, True)])
def test_addresses_of_one_family(
    hosts: list[Host], reach: Reach, family: str | None, fine: bool
) -> None:
    reach(hosts[0], family=family)
    process = run(hosts[0], "true", {"connect_timeout": 5})
    assert process.ok is fine
    if not fine:
        assert process.reason is Reason.CONNECT
        assert "its name cannot be resolved to an address of the family 'inet6'" in (
            process.message
        )


# -- variables -------------------------------------------------------------------------------------


def test_variables_that_the_server_takes(reach: Reach) -> None:
    reach.options = {"env": (("LC_WORD", "ä b"), ("OTHER", "x"))}
    with RealSshd({"AcceptEnv": "LC_*"}) as server:
        (host,) = server.hosts(1)
        for _ in range(2):
            process = run(host, 'echo "[$LC_WORD]" "[$OTHER]"')
            assert process.stdout == "[ä b] []\n"
        assert run(host, 'echo "$LC_WORD"', pty=True).stdout.strip() == "ä b"
        close_idle()


# -- what there is ---------------------------------------------------------------------------------


def test_numbers_of_what_there_is(cluster: Cluster, hosts: list[Host]) -> None:
    close_idle()
    before = statistics().connections
    busy = Remote("echo ready; cat", hosts[:2]).start()
    assert run(hosts[2], "true").ok
    until(lambda: all(process.stdout for process in busy.processes))
    cluster.fault(hosts[3], "silent")
    waiting = on(hosts[3], "true").start()
    until(lambda: statistics().connections.silent)
    now = statistics().connections
    assert (now.hosts, now.ready, now.idle, now.silent) == (4, 3, 1, 1)
    assert (now.commands_running, now.commands_waiting) == (2, 1)
    assert now.channels >= 2
    assert (now.dialling, now.setting_up, now.queued) == (0, 0, 0)
    assert now.made - before.made == 3
    waiting.kill().wait(TIMEOUT)
    busy.close_stdin().wait(TIMEOUT)
    cluster.fault(hosts[3], "refuse")
    assert not run(hosts[3], "true").ok
    bad = Host(hosts[2].address, "nobody-here", hosts[2].keyfile, hosts[2].port)
    assert not run(bad, "true").ok
    now = statistics().connections
    assert now.failed_connect - before.failed_connect == 1
    assert now.failed_auth - before.failed_auth == 1
    assert now.failed - before.failed == 2
    text = str(statistics())
    assert "paramiko: " in text
    assert "ready: 3" in text
    assert "silent" not in text
    shown = repr(statistics())
    assert shown.startswith("<Statistics paramiko: ")
    assert shown.endswith(">")
    assert "ready: 3" in shown
    assert "\n" not in shown
    assert repr(now).startswith("<ConnectionStatistics hosts: ")


def test_numbers_where_nothing_was_used() -> None:
    source = "from execo.transports import statistics; print(statistics(), statistics())"
    env: dict[str, Any] = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    done = subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, env=env, check=True
    )
    assert done.stdout == "paramiko: - paramiko: -\n"


def test_other_transports_have_numbers_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    transport = transports.get(get_runtime(), "local")
    monkeypatch.setattr(type(transport), "statistics", lambda _: {"big_ones": 3}, raising=False)
    found = statistics()
    assert found.others["local"] == {"big_ones": 3}  # beside those of tests before
    assert "local: big ones: 3" in str(found)
