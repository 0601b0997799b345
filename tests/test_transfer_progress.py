"""How far transfers are: what is counted, who is told and when."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from execo import Action, Host
from execo.testing import Cluster
from execo.transfer import ChainPut, Get, Progress, Put, TaktukGet, TaktukPut
from local_hosts import FolderHosts
from sshd import RealSshd
from test_transfer import make_tree, write

pytest_plugins = ["local_hosts", "sshd"]


class Told:
    """A callback that keeps what it is told."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, Progress]] = []
        self.threads: set[str] = set()
        self.moving = threading.Event()

    def __call__(self, subject: Any, progress: Progress) -> None:
        self.calls.append((subject, progress))
        self.threads.add(threading.current_thread().name.rpartition("-")[0])
        if progress.transferred:
            self.moving.set()

    @property
    def last(self) -> Progress:
        return self.calls[-1][1]


def slow_pipe(path: Path, size: int, pieces: int, *moving: threading.Event) -> threading.Thread:
    """Reads so many bytes from a pipe in pieces, the second one when all ``moving`` are set."""
    os.mkfifo(path)

    def read() -> None:
        with path.open("rb") as file:
            file.read(size // pieces)
            for each in moving:
                each.wait(60)
            while file.read(size // pieces):
                pass

    thread = threading.Thread(target=read)
    thread.start()
    return thread


# -- what is counted ------------------------------------------------------------------------------


def test_one_file(hosts: FolderHosts) -> None:
    write("f", os.urandom(1_000_000))
    web = hosts("web1", "web2")
    put, get = Told(), Told()
    action = Put(web, "f", progress=put)
    assert action.progress == Progress(0, None, 0.0, False)
    action.run(check=True)
    # The last call has been made when run() returns.
    assert put.calls[-1][0] is action
    assert put.last == action.progress
    assert (put.last.transferred, put.last.total, put.last.ended) == (2_000_000, 2_000_000, True)
    assert put.last.rate > 0
    assert put.threads == {"execo-handler"}
    for process in action.processes:
        assert process.transferred == process.total == 1_000_000
    fetched = Get(web, "f", "{{{host}}}/", progress=get).run(check=True)
    assert get.last == fetched.progress
    assert (get.last.transferred, get.last.total) == (2_000_000, 2_000_000)
    action.reset()
    assert action.progress == Progress(0, None, 0.0, False)
    action.run(check=True)
    assert action.progress.transferred == 2_000_000


def test_an_archive_is_as_long_as_was_said(hosts: FolderHosts) -> None:
    make_tree(Path("tree"))
    for length in (98, 99, 100, 101, 511, 600, 700):
        folder = "/".join(["tree", *["d" * 90] * (length // 100), "x" * (length % 100 or 1)])
        write(Path(folder) / "é", "1")
        write(Path(folder + "f"), "1" * length)
    Path("tree/locked").mkdir()
    write("tree/locked/f", "f")
    Path("tree/locked").chmod(0o555)
    host = hosts("web1")
    action = Put(host, ["tree"]).run(check=True)
    assert action.progress.transferred == action.progress.total
    files = sum(path.stat().st_size for path in Path("tree").rglob("*") if path.is_file())
    fetched = Get(host, "tree", "back").run(check=True)
    # How much a folder holds is known when it has come.
    assert fetched.progress.total is None
    assert fetched.progress.transferred > files
    Path("tree/locked").chmod(0o755)


def test_small_and_empty_files(hosts: FolderHosts) -> None:
    for size in (0, 1):
        write("f", b"x" * size)
        action = Put(hosts("web1"), "f").run(check=True)
        assert (action.progress.transferred, action.progress.total) == (size, size)
        fetched = Get(hosts("web1"), "f", "g").run(check=True)
        assert fetched.progress.transferred == size


@pytest.mark.parametrize("transport", ["paramiko", "openssh"])
def test_over_real_connections(
    sshd: RealSshd, transport: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    hosts = sshd.hosts(3)
    write("f", os.urandom(2_000_000))
    params = {"transport": transport}
    put = Put(hosts, "f", "p/{{{host}}}", params).run(check=True)
    get = Get(hosts, "p/{{{host}}}", "back/", params).run(check=True)
    for action in (put, get):
        assert (action.progress.transferred, action.progress.total) == (6_000_000, 6_000_000)


def test_through_taktuk(sshd: RealSshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    hosts = sshd.hosts(2)
    write("f", os.urandom(500_000))
    put = TaktukPut(hosts, "f", "t/{{{host}}}").run(check=True)
    get = TaktukGet(hosts, "t/{{{host}}}", "back/").run(check=True)
    for action in (put, get):
        assert (action.progress.transferred, action.progress.total) == (1_000_000, 1_000_000)


def test_scp_tells_the_end_alone(
    sshd: RealSshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write("f", "f")
    told, each = Told(), Told()
    options = ("-F", "none", "-o", "LogLevel=ERROR")
    params = {"scp": "scp", "scp_options": options}
    args = {"progress": each}
    Put(sshd.hosts(), "f", "scp-f", params, progress=told, process_args=args).run(check=True)
    assert [progress for _, progress in each.calls] == [Progress(0, None, 0.0, True)]
    assert [progress for _, progress in told.calls] == [Progress(0, None, 0.0, True)]


# -- who is told, and when ------------------------------------------------------------------------


def test_meanwhile_and_at_the_end(hosts: FolderHosts) -> None:
    size = 8_000_000
    write("f", os.urandom(size))
    web = hosts("web1")
    told, each, looked = Told(), Told(), threading.Event()
    reader = slow_pipe(hosts.home("web1") / "pipe", size, 4, told.moving, each.moving, looked)
    begin = time.monotonic()
    args = {"progress": each}
    action = Put(web, "f", "pipe", progress=told, process_args=args).start()
    assert told.moving.wait(60)
    seen = action.progress  # without a callback, too
    looked.set()
    assert 0 < seen.transferred < size == seen.total
    assert not seen.ended
    action.wait(check=True)
    most = (time.monotonic() - begin) / 0.25 + 1
    reader.join()
    assert {subject for subject, _ in told.calls} == {action}
    assert {subject for subject, _ in each.calls} == set(action.processes)
    for one in (told, each):
        counts = [progress.transferred for _, progress in one.calls]
        assert counts == sorted(counts)
        assert 2 <= len(counts) <= most
        assert counts[-1] == size
        assert [progress.ended for _, progress in one.calls] == [False] * (len(counts) - 1) + [True]
        assert all(progress.rate > 0 for _, progress in one.calls if progress.transferred)


def test_the_total_of_those_that_wait_is_known(hosts: FolderHosts) -> None:
    size = 4_000_000
    write("f", os.urandom(size))
    web = hosts("web1", "web2", "web3")
    told = Told()
    reader = slow_pipe(hosts.home("web1") / "pipe", size, 4, told.moving)
    action = Put(web, "f", "pipe", fanout=1, progress=told).run(check=True)
    reader.join()
    assert told.calls[0][1].total == 3 * size
    assert action.progress.transferred == 3 * size


def test_an_error_in_a_callback_is_logged_once(
    hosts: FolderHosts, caplog: pytest.LogCaptureFixture
) -> None:
    size = 4_000_000
    write("f", os.urandom(size))
    calls = Told()

    def broken(action: Action, progress: Progress) -> None:
        calls(action, progress)
        raise ValueError("mine")

    reader = slow_pipe(hosts.home("web1") / "pipe", size, 3, calls.moving)
    Put(hosts("web1"), "f", "pipe", progress=broken).run(check=True)
    reader.join()
    failures = [record for record in caplog.records if record.exc_info]
    assert len(failures) == 1
    assert "progress callback" in failures[0].getMessage()
    assert [progress.ended for _, progress in calls.calls] == [False, True]


def test_an_error_for_each_host_is_logged_once(
    hosts: FolderHosts, caplog: pytest.LogCaptureFixture
) -> None:
    write("f", "f")
    args = {"progress": lambda progress: None}  # a parameter too few
    put = Put(hosts("web1", "web2", "web3"), "f", process_args=args).run(check=True)
    assert put.progress.transferred == 3
    (failure,) = [record for record in caplog.records if record.exc_info]
    assert "progress callback" in failure.getMessage()


def test_what_cannot_begin_is_told_once(hosts: FolderHosts, sshd: RealSshd) -> None:
    told, each = Told(), Told()
    args = {"progress": each, "nolog_error": True}
    Put(hosts("web1", "web2"), "missing", progress=told, process_args=args).run()
    assert [progress for _, progress in told.calls] == [Progress(0, None, 0.0, True)]
    assert sorted(process.host.address for process, _ in each.calls) == ["web1", "web2"]
    each.calls.clear()
    write("f", "f")
    params = {"transport": "paramiko"}
    Put(Host("127.0.9.9", port=9), "f", ".", params, process_args=args).run()
    assert [progress.transferred for _, progress in each.calls] == [0]


def test_each_run_is_told(hosts: FolderHosts) -> None:
    write("f", "ff")
    write(hosts.home("web2") / "d", "a file")
    told = Told()
    args = {"nolog_exit_code": True}
    action = ChainPut(hosts("web1", "web2"), "f", "d/", progress=told, process_args=args).run()
    assert len(action.failed) == 1
    (hosts.home("web2") / "d").unlink()
    action.retry_failed().wait(check=True)
    ends = [progress for _, progress in told.calls if progress.ended]
    assert len(ends) == 2
    assert ends[-1].transferred == 4


def test_a_callback_is_what_can_be_called(hosts: FolderHosts) -> None:
    with pytest.raises(TypeError, match="progress is what is called"):
        Put(hosts("web1"), "f", progress=True)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="progress is what is called"):
        Put(hosts("web1"), "f", process_args={"progress": 1})


def test_the_rate_of_many_is_that_of_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write("f", os.urandom(5_000_000))
    with Cluster(4) as cluster:
        action = Put(cluster.hosts, "f", "{{{host}}}").run(check=True)
        rates = [process.progress.rate for process in action.processes]  # type: ignore[attr-defined]
    assert action.progress.transferred == 20_000_000
    assert 0 < action.progress.rate <= sum(rates)
