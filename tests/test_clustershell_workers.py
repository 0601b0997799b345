"""``execo.clustershell``: workers on files, by rsh and pdsh, over SSH, through gateways."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from execo import Host, Reason, default_connection_params, transports
from execo.clustershell import (
    EngineClientNotSupportedError,
    EventHandler,
    ExecWorker,
    NodeSetParseError,
    StreamWorker,
    Task,
    TaskError,
    TopologyError,
    WorkerError,
    WorkerPdsh,
    WorkerRsh,
    task_cleanup,
    task_self,
)
from gateways import Gateways
from sshd import RealSshd

pytest_plugins = ["gateways", "sshd"]


@pytest.fixture
def task() -> Iterator[Task]:
    task = task_self()
    yield task
    task_cleanup()


class Events(EventHandler):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []

    def ev_start(self, worker: Any) -> None:
        self.events.append(("start",))

    def ev_read(self, worker: Any, node: Any, sname: str, msg: bytes) -> None:
        self.events.append(("read", node, sname, msg))

    def ev_hup(self, worker: Any, node: Any, rc: int | None) -> None:
        self.events.append(("hup", node, rc))

    def ev_close(self, worker: Any, timedout: bool) -> None:
        self.events.append(("close", timedout))


def over_ssh(task: Task, hosts: list[Host]) -> str:
    """Have a task reach hosts; their addresses."""
    task.set_info("ssh_user", hosts[0].user)
    task.set_info("ssh_options", f"-i {hosts[0].keyfile} -p {hosts[0].port}")
    return ",".join(host.address for host in hosts)


# -- bad input --------------------------------------------------------------------------------


def test_a_bad_node_set_says_where(task: Task) -> None:
    with pytest.raises(NodeSetParseError, match="position 4 of 'n1, x\\[1-'"):
        task.shell("true", nodes="n1, x[1-")
    task.resume()


@pytest.mark.parametrize("nodes", ["", [], ()])
def test_no_nodes_run_nothing_and_are_told_of(
    task: Task, nodes: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    handler = Events()
    task.run(f"touch {tmp_path}/mark", nodes=nodes, handler=handler)
    assert not (tmp_path / "mark").exists()
    assert handler.events == [("start",), ("close", False)]
    assert "is empty" in caplog.text


def test_a_tree_needs_a_topology(task: Task, tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="load_topology"):
        task.shell("true", nodes="n1", tree=True)
    wrong = tmp_path / "topology.conf"
    wrong.write_text("[routes]\na: b\nb: a\n")
    with pytest.raises(TopologyError):
        task.load_topology(wrong)
    assert task.topology is None


def test_an_unknown_pattern_is_an_error_of_the_run(task: Task) -> None:
    task.shell("date +%Y", nodes="n1", remote=False)
    with pytest.raises(WorkerError, match=r"'Y' is not a valid pattern.*date"):
        task.resume()
    assert task.run("date +%%Y", nodes="n1", remote=False).node_rc("n1") == 0


def test_a_class_that_is_no_worker(task: Task) -> None:
    with pytest.raises(TypeError, match="WORKER_CLASS = None"):
        task.set_default("distant_workername", "json")
    with pytest.raises(ImportError):
        task.set_default("distant_workername", "nobody_has_this")
    assert task.default("distant_workername") == "ssh"


# -- files ------------------------------------------------------------------------------------


def test_a_regular_file_is_read(task: Task, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"line\n" * 100_000 + b"last")
    worker = StreamWorker(None, key="k")
    with path.open("rb") as file:
        worker.set_reader("stdout", file)
        task.schedule(worker)
        task.resume()
    assert worker.read() == path.read_bytes()


def test_what_is_written_arrives_and_ends(task: Task) -> None:
    read, write = os.pipe()
    there, back = os.pipe()
    worker = StreamWorker(None, key="k")
    worker.set_writer("in", write)
    worker.set_reader("stdout", there, closefd=True)
    os.write(back, b"answer\n")
    os.close(back)
    worker.write(b"text", "in")
    worker.set_write_eof("in")
    task.schedule(worker)
    task.resume()
    with os.fdopen(read, "rb") as file:
        assert file.read() == b"text"
    assert worker.read() == b"answer"


# -- rsh and pdsh -----------------------------------------------------------------------------


def program(path: Path, text: str) -> str:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_rsh_tells_return_codes(task: Task, tmp_path: Path) -> None:
    # As rsh: a shell there reads the rest of the words, joined.
    rsh = program(tmp_path / "rsh", 'echo "$2 at $3"; shift 3; sh -c "$*"; exit 0')
    task.set_info("rsh_path", rsh)
    task.set_info("rsh_user", "me")
    worker = WorkerRsh("n[1-2]", None, 30, command="(printf out; exit 3)")
    task.schedule(worker)
    task.resume()
    assert dict(worker.iter_node_retcodes()) == {"n1": 3, "n2": 3}
    assert worker.node_buffer("n2") == b"me at n2\nout"


def test_pdsh_tells_nodes_apart(task: Task, tmp_path: Path) -> None:
    lines = "n1: a: b\nn2: out\nn1: "
    text = (
        f"echo \"$*\" > {tmp_path}/words; printf '{lines}\\n'\n"
        "echo 'pdsh@here: n2: ssh exited with exit code 3' >&2; echo 'no such option' >&2"
    )
    task.set_info("pdsh_path", program(tmp_path / "pdsh", text))
    handler = Events()
    worker = WorkerPdsh("n[1-2]", handler, 30, command="uname", stderr=True)
    with pytest.raises(EngineClientNotSupportedError):
        worker.write(b"text")
    task.schedule(worker)
    task.resume()
    assert worker.node_buffer("n1") == b"a: b\n"
    assert worker.node_error("n1") == worker.node_error("n2") == b"no such option"
    assert dict(worker.iter_node_retcodes()) == {"n1": 0, "n2": 3}
    assert handler.events[-1] == ("close", False)
    assert (tmp_path / "words").read_text().split() == "-b -f 64 -w n[1-2] uname".split()


def test_a_worker_of_a_module_of_ones_own(
    task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "greeting_worker.py").write_text(
        "from execo.clustershell import ExecClient, ExecWorker\n"
        "class Client(ExecClient):\n"
        "    def _build_cmd(self):\n"
        "        return ['sh', '-c', 'echo $GREETING $1 $2', 'sh', str(self.key), self.command],"
        " {'GREETING': 'hello'}\n"
        "class WORKER_CLASS(ExecWorker):\n"
        "    SHELL_CLASS = Client\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    task.set_default("distant_workername", "greeting_worker")
    worker = task.run("word", nodes="n[1-2]")
    assert worker.node_buffer("n2") == b"hello n2 word"
    del sys.modules["greeting_worker"]


# -- over SSH ---------------------------------------------------------------------------------


def test_nodes_over_ssh_keep_their_connections(task: Task, sshd: RealSshd) -> None:
    nodes = over_ssh(task, sshd.hosts(5))
    handler = Events()
    worker = task.run("echo out; echo err >&2; exit 3", nodes=nodes, stderr=True, handler=handler)
    assert [(rc, len(found)) for rc, found in worker.iter_retcodes()] == [(3, 5)]
    assert [(bytes(text), len(found)) for text, found in worker.iter_buffers()] == [(b"out", 5)]
    assert [(bytes(text), len(found)) for text, found in worker.iter_errors()] == [(b"err", 5)]
    assert worker.node_reason("127.0.1.1") is None
    made = transports.statistics().connections.made
    task.run("true", nodes=nodes)
    assert transports.statistics().connections.made == made


def test_a_node_that_is_not_reached_is_told_apart(task: Task, sshd: RealSshd) -> None:
    (host,) = sshd.hosts(1)
    over_ssh(task, [Host(host.address, "nobody-here", host.keyfile, host.port)])
    worker = task.run("exit 255", nodes=host.address)
    assert worker.node_rc(host.address) == 255
    assert worker.node_reason(host.address) is Reason.AUTH
    assert host.address.encode() in worker.node_buffer(host.address)
    over_ssh(task, [Host(host.address, host.user, host.keyfile, 1)])
    worker = task.run("exit 255", nodes=host.address, stderr=True)
    assert worker.node_reason(host.address) is Reason.CONNECT
    assert worker.node_buffer(host.address) is None
    assert worker.node_error(host.address)


def test_copies_as_by_scp(task: Task, sshd: RealSshd, tmp_path: Path) -> None:
    nodes = over_ssh(task, sshd.hosts(2))
    folder = tmp_path / "some folder"
    folder.mkdir()
    (folder / "file").write_text("text")
    task.copy(folder / "file", "one", nodes)
    task.copy(folder, "new", nodes)
    task.resume()
    assert task.max_retcode() == 0
    task.copy(folder, "new", nodes)
    task.resume()
    worker = task.run(f"cat one; ls new new/{shlex.quote(folder.name)}", nodes=nodes.split(",")[0])
    found = bytes(next(iter(worker.iter_buffers()))[0]).decode()
    assert found == "textnew:\nfile\nsome folder\n\nnew/some folder:\nfile"
    back = tmp_path / "back"
    back.mkdir()
    task.rcopy("one", back, nodes)
    task.rcopy("new", back, nodes)
    task.rcopy("nothing", back, nodes)
    task.resume()
    assert sorted(path.name for path in back.iterdir()) == [
        f"{name}.{node}" for name in ("new", "one") for node in nodes.split(",")
    ]
    assert (back / "new.127.0.1.2" / "file").read_text() == "text"
    assert task.max_retcode() != 0
    assert b"nothing" in task.key_buffer("127.0.1.1")


def test_through_gateways(task: Task, gateways: Gateways, monkeypatch: pytest.MonkeyPatch) -> None:
    hosts = gateways.hosts(3)
    for key, value in gateways.access().items():
        monkeypatch.setitem(default_connection_params, key, value)
    task.topology = gateways.topology(hosts, 1)
    handler = Events()
    worker = task.run(
        "echo $SSH_CONNECTION; exit 3", nodes=",".join(h.address for h in hosts), handler=handler
    )
    assert sorted(worker.iter_node_retcodes()) == [(host.address, 3) for host in hosts]
    assert handler.events[-1] == ("close", False)
    direct = task.run("echo $SSH_CONNECTION", nodes=hosts[0].address, tree=False)
    assert direct.node_rc(hosts[0].address) == 0


def test_a_worker_made_by_hand(task: Task) -> None:
    worker = ExecWorker("n[1-3]", None, 30, command="echo %h; echo %n", fanout=1)
    task.schedule(worker)
    task.resume()
    assert [worker.node_buffer(f"n{i}") for i in (1, 2, 3)] == [b"n1\n0", b"n2\n1", b"n3\n2"]
