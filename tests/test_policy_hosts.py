"""Policies on hosts that fail and recover: the embedded cluster, over each transport."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from execo import Action, Get, Host, Put, Reason, Remote, Retry, TaktukRemote
from execo.testing import Cluster

LONG = 60.0
"""Seconds that nothing here takes: a hang."""

QUIET = {"nolog_exit_code": True, "nolog_error": True}
AGAIN = Retry(times=40, backoff=0.05, jitter=0)


@pytest.fixture(scope="module")
def hosts() -> Iterator[Cluster]:
    with Cluster(4) as cluster:
        yield cluster


@pytest.fixture
def cluster(hosts: Cluster) -> Iterator[Cluster]:
    yield hosts
    hosts.heal()


@pytest.fixture
def short_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses that do not double, for a host that comes back when the test says so."""
    monkeypatch.setattr("execo.policy.LONGEST_PAUSE", 0.1)


def eventually(condition: Callable[[], object]) -> None:
    """Return once ``condition()`` holds."""
    deadline, nap = time.monotonic() + LONG, threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        nap.wait(0.01)


def recovers(action: Action, cluster: Cluster, *bad: int) -> Any:
    """``action`` at its end, on hosts that refuse connections until it has tried them twice."""
    for place in bad:
        cluster.fault(place, "refuse")
    action.start()
    tried = [action.processes[place] for place in bad]
    eventually(lambda: all(process.attempts >= 2 for process in tried))
    assert [process.ended for process in tried] == [False] * len(bad)
    cluster.heal()
    action.wait(LONG)
    assert action.ended
    return action


@pytest.mark.usefixtures("short_backoff")
def test_hosts_that_come_back_are_reached(cluster: Cluster) -> None:
    remote = Remote("echo here", cluster.hosts, cluster.params, retry=AGAIN)
    recovers(remote, cluster, 1, 2)
    assert remote.finished_ok
    assert remote.ok_hosts == cluster.hosts
    assert [process.stdout for process in remote.processes] == ["here\n"] * 4
    first, second, third, _ = remote.processes
    assert first.attempts == 1
    assert min(second.attempts, third.attempts) >= 2


@pytest.mark.usefixtures("short_backoff")
def test_files_are_put_and_got_after_a_retry(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "file").write_text("content")
    put = Put(cluster.hosts, tmp_path / "tree", "put/", cluster.params, retry=AGAIN)
    recovers(put, cluster, 0, 3)
    assert put.finished_ok
    for host in cluster.hosts:
        assert (cluster.home(host) / "put" / "tree" / "file").read_text() == "content"
    # The connections are kept: new ones are made for other parameters.
    params = {**cluster.params, "connect_timeout": 19}
    place = tmp_path / "{{{host}}}"
    get = Get(cluster.hosts, "put/tree/file", f"{place}/", params, retry=AGAIN)
    recovers(get, cluster, 1)
    assert get.finished_ok
    for host in cluster.hosts:
        assert (tmp_path / host.address / "file").read_text() == "content"
        shutil.rmtree(cluster.home(host) / "put")


def test_a_command_that_is_lost_is_not_run_again(cluster: Cluster) -> None:
    params = {**cluster.params, "connect_timeout": 18}
    count = cluster.home(0) / "runs"
    command = "echo once >> runs; echo begun; sleep 1000"
    remote = Remote(command, cluster.hosts[:1], params, QUIET, retry=AGAIN).start()
    assert remote.expect("begun", timeout=LONG)[0][1] is not None
    cluster.fault(0, "close")
    remote.wait(LONG)
    (process,) = remote.processes
    assert (process.reason, process.attempts) == (Reason.CONNECT, 1)
    assert "not started again, since it may have run" in process.message
    assert count.read_text() == "once\n"
    count.unlink()


def test_who_is_not_let_in_is_not_tried_again(cluster: Cluster) -> None:
    with Cluster(1) as other:
        locked = Host(cluster.hosts[0], keyfile=other.keyfile)
        remote = Remote("true", locked, cluster.params, QUIET, retry=AGAIN).run(LONG)
    assert [(p.reason, p.attempts) for p in remote.processes] == [(Reason.AUTH, 1)]


def test_only_the_failed_hosts_once_more(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("first")
    for place in (1, 3):
        (cluster.home(place) / "there").write_text("in the way")
    put = Put(cluster.hosts, tmp_path / "file", "there/", cluster.params, process_args=QUIET)
    put.run(LONG)
    assert put.failed_hosts == [cluster.hosts[1], cluster.hosts[3]]
    for place in (1, 3):
        (cluster.home(place) / "there").unlink()
    (tmp_path / "file").write_text("second")
    assert put.retry_failed().wait(LONG).finished_ok
    found = [(cluster.home(host) / "there" / "file").read_text() for host in cluster.hosts]
    assert found == ["first", "second", "first", "second"]
    for host in cluster.hosts:
        shutil.rmtree(cluster.home(host) / "there")


def test_too_many_dead_hosts_end_the_action(cluster: Cluster) -> None:
    for place in (0, 1):
        cluster.fault(place, "refuse")
    params = {**cluster.params, "connect_timeout": 17}
    remote = Remote(
        "touch ran", cluster.hosts, params, QUIET, name="all", fanout=1, max_failures="25%"
    ).run(LONG)
    assert [process.reason for process in remote.processes] == [
        *[Reason.CONNECT] * 2,
        *[Reason.CANCELLED] * 2,
    ]
    why = "2 of 4 processes of 'all' failed, more than max_failures='25%'"
    assert remote.processes[3].message == f"given up before its start: {why}"
    assert not (cluster.home(3) / "ran").exists()


def test_silent_hosts_are_given_up_when_too_many_have_failed(cluster: Cluster) -> None:
    cluster.fault(0, "refuse")
    cluster.fault(1, "silent")
    params = {**cluster.params, "connect_timeout": 1000}
    remote = Remote("sleep 0.2", cluster.hosts, params, QUIET, max_failures=0).run(LONG)
    refused, silent, *others = remote.processes
    assert (refused.reason, silent.reason) == (Reason.CONNECT, Reason.CANCELLED)
    assert "more than max_failures=0" in silent.message
    assert all(process.ok or process.cancelled for process in others)


def test_an_ssh_command_of_its_own_is_not_started_again(cluster: Cluster) -> None:
    cluster.fault(0, "refuse")
    # A connection that is not shared: ssh connects and runs the command in one.
    alone = {"transport": "openssh", "ssh_options": ("-o", "ControlPath=/nowhere/%C")}
    params = {**cluster.params, **alone}
    remote = Remote("true", cluster.hosts[:1], params, QUIET, retry=AGAIN).run(LONG)
    (process,) = remote.processes
    assert (process.reason, process.attempts) == (Reason.CONNECT, 1)
    assert "not started again, since it may have run" in process.message


@pytest.mark.usefixtures("short_backoff")
def test_hosts_that_come_back_are_reached_over_shared_connections(cluster: Cluster) -> None:
    params = {**cluster.params, "transport": "openssh"}
    remote = Remote("echo here", cluster.hosts, params, retry=AGAIN)
    recovers(remote, cluster, 2)
    assert [process.stdout for process in remote.processes] == ["here\n"] * 4


@pytest.mark.taktuk
@pytest.mark.usefixtures("short_backoff")
@pytest.mark.skipif(shutil.which("taktuk") is None, reason="needs taktuk")
def test_hosts_that_come_back_are_reached_by_taktuk(cluster: Cluster) -> None:
    remote = TaktukRemote("echo here", cluster.hosts, cluster.params, retry=AGAIN)
    recovers(remote, cluster, 2)
    assert remote.finished_ok
    assert [process.stdout for process in remote.processes] == ["here\n"] * 4
