"""The kinds of actions and processes that the configuration, or a host, decides on; and the helpers
of execo 2.8.2 that scripts import."""

from __future__ import annotations

import io
import multiprocessing
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import execo
from execo import (
    STDOUT,
    Get,
    Host,
    Process,
    ProcessOutputHandler,
    Put,
    Remote,
    SshProcess,
    configuration,
    default_connection_params,
)
from execo.config import CHAINPUT, SCP, SSH, TAKTUK, load_configuration
from execo.errors import ConfigError
from execo.factory import (
    ActionFactory,
    default_action_factory,
    get_fileget,
    get_fileput,
    get_process,
    get_remote,
)
from execo.handlers import handle_process_output
from execo.ssh_utils import (
    get_rewritten_host_address,
    get_scp_command,
    get_ssh_command,
    get_ssh_scp_auth_options,
    get_taktuk_connector_command,
)
from execo.testing import Cluster
from execo.utils import (
    do_once,
    get_port,
    intr_event_wait,
    is_string,
    memoize,
    name_from_cmdline,
    singleton_to_collection,
)

pytest_plugins = ["execo.testing.pytest_plugin"]

TIMEOUT = 40.0


# -- actions ----------------------------------------------------------------------------------


def kind(action: object) -> str:
    return type(action).__name__


def test_the_default_tools(cluster: Cluster, tmp_path: Path) -> None:
    remote = get_remote("echo {{{host}}}", cluster.hosts, cluster.params).run()
    assert type(remote) is Remote
    assert [p.stdout.strip() for p in remote.processes] == [h.address for h in cluster.hosts]
    (tmp_path / "file").write_text("x")
    put = get_fileput(cluster.hosts, [tmp_path / "file"], connection_params=cluster.params).run()
    get = get_fileget(cluster.hosts, ["file"], tmp_path / "{{{host}}}/", cluster.params).run()
    assert (type(put), put.ok, type(get), get.ok) == (Put, True, Get, True)


def test_the_default_factory_follows_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    assert kind(get_remote("true", [])) == "Remote"
    monkeypatch.setitem(configuration, "remote_tool", TAKTUK)
    monkeypatch.setitem(configuration, "fileput_tool", CHAINPUT)
    monkeypatch.setitem(configuration, "fileget_tool", TAKTUK)
    assert kind(get_remote("true", ["h"])) == "TaktukRemote"
    assert kind(get_fileput(["h"], ["f"])) == "ChainPut"
    assert kind(get_fileget(["h"], ["f"])) == "TaktukGet"
    monkeypatch.setitem(configuration, "fileput_tool", TAKTUK)
    assert kind(default_action_factory.get_fileput(["h"], ["f"])) == "TaktukPut"


def test_a_factory_keeps_the_tools_that_it_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    factory = ActionFactory(remote_tool=SSH, fileput_tool=SCP)
    monkeypatch.setitem(configuration, "remote_tool", TAKTUK)
    monkeypatch.setitem(configuration, "fileput_tool", TAKTUK)
    assert kind(factory.get_remote("true", ["h"])) == "Remote"
    assert kind(factory.get_fileput(["h"], ["f"])) == "Put"
    assert repr(factory) == "ActionFactory(remote_tool=SSH, fileput_tool=SCP)"


@pytest.mark.parametrize(
    ("tools", "message"),
    [
        ({"remote_tool": SCP}, "remote_tool cannot be SCP: choose SSH or TAKTUK"),
        ({"fileput_tool": SSH}, "fileput_tool cannot be SSH: choose SCP or TAKTUK or CHAINPUT"),
        ({"fileget_tool": CHAINPUT}, "fileget_tool cannot be CHAINPUT: choose SCP or TAKTUK"),
        ({"remote_tool": 17}, "remote_tool cannot be 17"),
        ({"remote_tool": "SSH"}, "remote_tool cannot be 'SSH'"),
        ({"remote_tool": False}, "remote_tool cannot be False"),
        ({"remote_tool": []}, r"remote_tool cannot be \[\]"),
    ],
)
def test_a_tool_that_cannot_do_it(tools: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ActionFactory(**tools)


def test_a_wrong_tool_in_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(configuration, "remote_tool", 9)
    with pytest.raises(ValueError, match="remote_tool cannot be 9: choose SSH or TAKTUK"):
        get_remote("true", ["h"])


# -- processes --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "kwargs", "kind", "cmd"),
    [
        (("uptime",), {}, Process, "uptime"),
        (("uptime", True), {}, Process, "uptime"),
        ((["ls", "-l"],), {"timeout": 3}, Process, ("ls", "-l")),
        ((), {"cmd": "uptime"}, Process, "uptime"),
        (("uptime",), {"host": None, "connection_params": {"user": "u"}}, Process, "uptime"),
        (("uptime",), {"host": None, "connexion_params": {}}, Process, "uptime"),
        (("uptime",), {"host": "h"}, SshProcess, "uptime"),
        (("uptime",), {"host": Host("h"), "connection_params": {"port": 3}}, SshProcess, "uptime"),
        (("uptime", "h"), {}, SshProcess, "uptime"),
        (("uptime", Host("h"), {"port": 3}), {}, SshProcess, "uptime"),
        ((Host("h"), "uptime"), {}, SshProcess, "uptime"),
        ((["ls", "-l"], "h"), {"shell": True}, SshProcess, ("ls", "-l")),
        ((), {"cmd": "uptime", "host": "h"}, SshProcess, "uptime"),
    ],
)
def test_a_process_with_or_without_a_host(args: Any, kwargs: Any, kind: type, cmd: Any) -> None:
    process = get_process(*args, **kwargs)
    assert type(process) is kind
    assert process.cmd == cmd
    if isinstance(process, SshProcess):
        assert process.host == Host("h")


def test_the_parameters_of_the_connection_reach_the_process() -> None:
    for name in ("connection_params", "connexion_params"):
        params: dict[str, Any] = {name: {"port": 33}}
        process = get_process("uptime", "h", **params)
        assert isinstance(process, SshProcess)
        assert process.connection_params["port"] == 33


def test_neither_kind_takes_anything() -> None:
    with pytest.raises(TypeError, match="cwdd"):
        get_process("uptime", cwdd="/")
    with pytest.raises(TypeError):
        get_process()


# -- output, passed on ------------------------------------------------------------------------


class Lines(ProcessOutputHandler):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def read_line(self, process: Any, stream: int, string: str) -> None:
        self.lines.append(string)


def test_output_goes_to_any_kind_of_handler(tmp_path: Path) -> None:
    process = Process("true")
    lines, text, path = Lines(), io.StringIO(), tmp_path / "out"
    reading, writing = os.pipe()
    for handler in (lines, text, str(path), path, writing, None):
        for string, eof in (("one\ntw\udce9", False), ("o", True)):
            handle_process_output(process, STDOUT, handler, string, eof, False)
    os.close(writing)
    with os.fdopen(reading, "rb") as file:
        assert file.read() == b"one\ntw\xe9o"
    assert lines.lines == ["one", "tw\udce9o"]
    assert text.getvalue() == "one\ntw\udce9o"
    assert path.read_bytes() == b"one\ntw\xe9o" * 2


def test_output_for_what_is_no_handler() -> None:
    with pytest.raises(TypeError, match="no output handler"):
        handle_process_output(Process("true"), STDOUT, 1.5, "x", False, False)


# -- small helpers ----------------------------------------------------------------------------


def test_memoize_calls_once_for_equal_arguments() -> None:
    calls = []

    @memoize
    def double(x: Any, times: int = 2) -> Any:
        """Twice."""
        calls.append(x)
        return x * times

    assert [double(2), double(2), double(3), double([1]), double([1])] == [4, 4, 6, [1, 1], [1, 1]]
    assert [double(2, times=3), double(2, times=3)] == [6, 6]
    assert calls == [2, 3, [1], 2]
    assert double.__doc__ == "Twice."
    assert len(double.cache) == 4  # type: ignore[attr-defined]


def test_do_once_calls_once_for_a_key() -> None:
    calls: list[Any] = []

    def call(*args: Any, **kwargs: Any) -> int:
        calls.append((args, kwargs))
        return len(calls)

    key, other = object(), object()
    assert [do_once(key, call, 1, x=2), do_once(key, call), do_once(other, call)] == [1, 1, 2]
    assert calls == [((1,), {"x": 2}), ((), {})]


def test_do_once_makes_other_threads_wait() -> None:
    key, entered, go = object(), threading.Event(), threading.Event()
    results: list[Any] = []

    def slow() -> str:
        entered.set()
        assert go.wait(TIMEOUT)
        return "done"

    threads = [
        threading.Thread(target=lambda: results.append(do_once(key, slow))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    assert entered.wait(TIMEOUT)
    assert results == []
    go.set()
    for thread in threads:
        thread.join(TIMEOUT)
    assert results == ["done"] * 4


def test_do_once_in_a_child_that_was_forked_meanwhile() -> None:
    inside, go_on = threading.Event(), threading.Event()

    def slow() -> None:
        inside.set()
        go_on.wait(TIMEOUT)

    thread = threading.Thread(target=do_once, args=("forked meanwhile", slow))
    thread.start()
    assert inside.wait(TIMEOUT)
    child = multiprocessing.get_context("fork").Process(
        target=do_once, args=("forked meanwhile", int)
    )
    child.start()
    child.join(TIMEOUT)
    code = child.exitcode
    child.kill()
    child.join()
    child.close()
    go_on.set()
    thread.join()
    assert code == 0


def test_a_call_that_raises_was_not_done() -> None:
    key = object()
    with pytest.raises(ZeroDivisionError):
        do_once(key, lambda: 1 // 0)
    assert do_once(key, lambda: 5) == 5


@pytest.mark.parametrize(
    ("arg", "expected"),
    [("a", ["a"]), (["a"], ["a"]), (("a",), ("a",)), ({"a"}, {"a"}), (None, []), (1, [1])],
)
def test_singleton_to_collection(arg: Any, expected: Any) -> None:
    assert singleton_to_collection(arg) == expected


@pytest.mark.parametrize(
    "cmd", ["ls   -l\n x", "x" * 50, "y" * 39, "y" * 40, ["ls", "-l"], ("echo", "a b")]
)
def test_a_name_is_that_of_a_process(cmd: Any) -> None:
    if isinstance(cmd, str):
        assert name_from_cmdline(cmd) == Process(cmd).name
    else:
        assert name_from_cmdline(cmd) == " ".join(cmd)


def test_is_string() -> None:
    assert [is_string(x) for x in ("a", b"a", 1, None)] == [True, False, False, False]


def test_waiting_for_an_event() -> None:
    event = threading.Event()
    assert intr_event_wait(event, 0.01) is False
    assert intr_event_wait(event, "00:00:00.01") is False
    event.set()
    assert intr_event_wait(event) is True


def test_a_free_port() -> None:
    first, last = configuration["port_range"]
    port = get_port()
    assert first <= port <= last
    with socket.socket() as server:
        server.bind(("127.0.0.1", port))


# -- command lines of ssh ---------------------------------------------------------------------


def test_the_command_lines_reach_a_host(cluster: Cluster, tmp_path: Path) -> None:
    host = cluster.hosts[0]
    assert host.port is not None
    auth = (host.user, host.keyfile, host.port)
    for words in (get_ssh_command(*auth), get_taktuk_connector_command(*auth)):
        done = subprocess.run(
            [*words, host.address, "echo hello"], capture_output=True, timeout=TIMEOUT, check=True
        )
        assert (done.stdout, done.stderr) == (b"hello\n", b"")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_text("x")
    copy = [*get_scp_command(*auth), str(tmp_path / "folder"), f"{host.address}:arrived"]
    subprocess.run(copy, check=True, timeout=TIMEOUT, capture_output=True)
    assert SshProcess("cat arrived/file", host).run(TIMEOUT).stdout == "x"


def test_who_logs_in() -> None:
    assert get_ssh_scp_auth_options() == ()
    params = {"user": "z", "keyfile": "k", "port": 2222}
    options = ("-o", "User=z", "-i", "k", "-o", "Port=2222")
    assert get_ssh_scp_auth_options(connection_params=params) == options
    given = get_ssh_scp_auth_options("u", "/key", 22, params)
    assert given == ("-o", "User=u", "-i", "/key", "-o", "Port=22")


def test_the_defaults_are_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert get_ssh_command()[0] == "ssh"
    monkeypatch.setitem(default_connection_params, "ssh", "/opt/ssh -4")
    monkeypatch.setitem(default_connection_params, "ssh_options", ("-v",))
    monkeypatch.setitem(default_connection_params, "user", "root")
    assert get_ssh_command()[:5] == ("/opt/ssh", "-4", "-o", "User=root", "-v")
    strict = get_scp_command(connection_params={"host_key_policy": "strict"})
    assert "StrictHostKeyChecking=yes" in strict
    assert "UserKnownHostsFile=/dev/null" not in strict
    assert strict[-1] == "-rp"


def test_an_address_is_rewritten(monkeypatch: pytest.MonkeyPatch) -> None:
    assert get_rewritten_host_address("h", None) == "h"
    rewrite = {"host_rewrite_func": lambda address: address + ".x"}
    assert get_rewritten_host_address("h", rewrite) == "h.x"
    monkeypatch.setitem(default_connection_params, "host_rewrite_func", str.upper)
    assert get_rewritten_host_address("h", {}) == "H"


# -- the conductor ----------------------------------------------------------------------------


# A script of its own: what the runtime keeps for the next process is another one afterwards.
TERMINATE = """
import threading
from execo import Process, Remote
from execo.conductor import the_conductor
from execo.testing import Cluster

with Cluster(2) as cluster:
    assert the_conductor.start() is the_conductor
    here = Process("sleep 1000").start()
    there = Remote("echo ready; sleep 1000", cluster.hosts, cluster.params).start()
    nap = threading.Event()
    while not all(process.stdout for process in there.processes):
        nap.wait(0.01)
    the_conductor.terminate()
    print(here.wait(20).ended, here.ok, here.killed, here.exit_code)
    print(there.wait(20).ended)
    the_conductor.terminate()
    print(Process("echo again").run(20).stdout, end="")
    print(Remote("echo again", cluster.hosts, cluster.params).run(20).ok)
    left = Process("sleep 1000").start()
"""


def test_the_conductor_ends_everything_and_more_can_be_started() -> None:
    done = subprocess.run(
        [sys.executable, "-c", TERMINATE],
        capture_output=True,
        text=True,
        timeout=TIMEOUT * 2,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(execo.__file__).parent.parent)},
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == ["True True True -15", "True", "again", "True"]


# -- dicts of a script's own ------------------------------------------------------------------


def test_a_script_loads_dicts_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "lab.py"
    path.write_text("lab = {'nodes': 3}\nconfiguration = {'kill_timeout': 3}\nother = 5\n")
    lab, own = {"nodes": 1, "site": "x"}, {"kill_timeout": 9}
    before = dict(configuration)
    assert load_configuration(path, ((lab, "lab"), (own, "configuration"), ({}, "none")))
    assert (lab, own) == ({"nodes": 3, "site": "x"}, {"kill_timeout": 3})
    assert configuration == before
    assert load_configuration(tmp_path / "absent", [(lab, "lab")]) is False
    with pytest.raises(ConfigError, match="other must be a dict"):
        load_configuration(path, [(lab, "other")])


def test_the_helpers_are_attributes_of_the_package() -> None:
    for room in ("utils", "ssh_utils", "conductor", "exception", "process", "action", "log"):
        assert getattr(execo, room).__name__ == f"execo.{room}"
