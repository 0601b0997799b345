"""Remote: one command on many hosts. On the fake transport, so that no test waits for a connection;
the last ones on hosts of the embedded cluster.
"""

from __future__ import annotations

import asyncio
import logging
import re
import signal
import socket
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ClusterShell.NodeSet import NodeSet

import execo
from execo import (
    Action,
    ActionLifecycleHandler,
    Host,
    ParallelActions,
    ProcessesFailed,
    ProcessLifecycleHandler,
    ProcessOutputHandler,
    Reason,
    Remote,
    Report,
    SequentialActions,
    SshProcess,
    SubstitutionError,
    configuration,
    default_connection_params,
    default_connexion_params,
    filter_bad_hosts,
    transports,
    wait_all_actions,
    wait_any_actions,
)
from execo.errors import HostSetError, ProcessError
from execo.process import ProcessBase
from execo.testing import (
    Cluster,
    Echo,
    Err,
    Exit,
    Fail,
    Gate,
    Out,
    Script,
    Start,
    scripts,
)

pytest_plugins = ["execo.testing.pytest_plugin"]

LONG = 30.0
"""Seconds that nothing here takes: a hang."""


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Hosts are reached by the fake transport, unless the test says otherwise."""
    transports.register("fake", "execo.testing.fake:FakeTransport")
    monkeypatch.setitem(default_connection_params, "transport", "fake")
    yield
    scripts.clear()


def commands(remote: Remote) -> list[Any]:
    return [process.cmd for process in remote.processes]


def addresses(remote: Remote) -> list[str]:
    return [host.address for host in remote.hosts]


def ssh(process: ProcessBase) -> SshProcess:
    assert isinstance(process, SshProcess)
    return process


def ended(action: Action) -> Any:
    action.wait(LONG)
    assert action.ended, f"still running: {[p for p in action.processes if not p.ended]}"
    return action


def exiting(*codes: int) -> str:
    """A command that exits with another code on each host."""
    for code in codes:
        scripts[f"exit {code}"] = Script(Out(b"%d\n" % code), Exit(code))
    return "exit {{" + repr(list(codes)) + "}}"


QUIET = {"nolog_exit_code": True, "nolog_error": True, "nolog_timeout": True}


# -- command and hosts ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "cmd", "hosts"),
    [
        (("uptime", "web1"), "uptime", ["web1"]),
        (("uptime", Host("web1")), "uptime", ["web1"]),
        ((Host("web1"), "uptime"), "uptime", ["web1"]),
        (("uptime", ["web1", "web2"]), "uptime", ["web1", "web2"]),
        ((["web1", "web2"], "uptime"), "uptime", ["web1", "web2"]),
        (([Host("web1"), "web2"], "uptime"), "uptime", ["web1", "web2"]),
        (("uptime", ("web1",)), "uptime", ["web1"]),
        (("uptime", NodeSet("web[1-2]")), "uptime", ["web1", "web2"]),
        ((NodeSet("web[1-2]"), "uptime"), "uptime", ["web1", "web2"]),
        (("uptime", {"web1"}), "uptime", ["web1"]),
        (("uptime", {"web1": 1, "web2": 2}), "uptime", ["web1", "web2"]),
        (("uptime", "web[1-2,4]"), "uptime", ["web1", "web2", "web4"]),
        ((["web[1-2]", "db"], "uptime"), "uptime", ["web1", "web2", "db"]),
        ((["uptime", "-p"], [Host("web1")]), ("uptime", "-p"), ["web1"]),
        (([Host("web1")], ["uptime", "-p"]), ("uptime", "-p"), ["web1"]),
        ((NodeSet("web1"), ("uptime", "-p")), ("uptime", "-p"), ["web1"]),
        (("uptime", ["[::1]", "::1"]), "uptime", ["[::1]", "::1"]),
        (("uptime", None), "uptime", []),
        (("uptime", []), "uptime", []),
        (([], "uptime"), "uptime", []),
    ],
    ids=lambda value: re.sub(r" at 0x\w+", "", str(value)),
)
def test_command_and_hosts_in_either_order(args: Any, cmd: Any, hosts: list[str]) -> None:
    remote = Remote(*args)
    assert commands(remote) == [cmd] * len(hosts)
    assert addresses(remote) == hosts
    assert [ssh(process).host.address for process in remote.processes] == hosts


def test_hosts_may_come_from_a_generator() -> None:
    def nodes() -> Iterator[str]:
        yield from ("a", "b")

    for remote in (Remote("uptime", nodes()), Remote(nodes(), "uptime")):
        assert (commands(remote), addresses(remote)) == (["uptime"] * 2, ["a", "b"])


def test_command_and_hosts_by_keyword() -> None:
    for remote in (
        Remote(cmd="uptime", hosts="web1"),
        Remote(hosts="web1", cmd="uptime"),
        Remote("uptime", hosts=["web1"]),
    ):
        assert (commands(remote), addresses(remote)) == (["uptime"], ["web1"])


def test_two_lists_of_texts_need_keywords() -> None:
    with pytest.raises(TypeError, match=r"say which are the hosts.*cmd=.*hosts="):
        Remote(["echo", "a"], ["web1", "web2"])


def test_with_keywords_a_list_is_what_it_is_said_to_be() -> None:
    remote = Remote(cmd=["echo", "a"], hosts="web1")
    assert (commands(remote), addresses(remote)) == ([("echo", "a")], ["web1"])
    remote = Remote(cmd=["echo", "a"], hosts=["web1", "web2"])
    assert (commands(remote), addresses(remote)) == ([("echo", "a")] * 2, ["web1", "web2"])


def test_hosts_are_copied_and_may_be_there_twice() -> None:
    host = Host("web1", "root")
    remote = Remote("uptime", [host, host, "web1"])
    host.user = "ann"
    assert remote.hosts == [Host("web1", "root"), Host("web1", "root"), Host("web1")]
    script = scripts["uptime"] = Script()
    assert ended(remote.start()).ok
    assert len(script.channels) == 3
    remote.hosts.clear()
    assert len(remote.hosts) == 3


@pytest.mark.parametrize("hosts", [None, [], (), NodeSet()])
def test_no_host_is_an_action_that_ends_at_once(hosts: Any) -> None:
    remote = Remote("uptime", hosts)
    assert remote.processes == []
    assert not remote.ended
    ended(remote.start())
    assert (remote.ok, remote.finished_ok, remote.stats().num_processes) == (True, True, 0)
    assert remote.write("x") == 1
    assert repr(remote) == "<Remote 'uptime': ended, 0 processes>"


@pytest.mark.parametrize(
    ("args", "error"),
    [
        (("uptime", "-oProxyCommand=x"), HostSetError),
        (("uptime", ["web1", "-x"]), HostSetError),
        (("uptime", "web1,web2"), HostSetError),
        (("uptime", ["web*"]), HostSetError),
        (("uptime", 12), TypeError),
        (("uptime", ["web1", None]), TypeError),
        (("uptime", [["web1"]]), TypeError),
        ((b"uptime", "web1"), TypeError),
        ((["sleep", 3], Host("web1")), TypeError),
        ((12, 13), TypeError),
    ],
    ids=str,
)
def test_what_commands_and_hosts_cannot_be(args: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        Remote(*args)


@pytest.mark.parametrize("hosts", [["web1"], []], ids=["a host", "no host"])
def test_a_wrong_argument_is_named_with_the_right_one_at_once(hosts: list[str]) -> None:
    with pytest.raises(TypeError, match=r"connection parameter 'usr'.*'user'"):
        Remote("uptime", hosts, {"usr": "root"})
    with pytest.raises(TypeError, match=r"no argument 'tiemout'.*'timeout'"):
        Remote("uptime", hosts, process_args={"tiemout": 3})
    with pytest.raises(ValueError, match=r"'user'.*a string"):
        Remote("uptime", hosts, {"user": 12})
    with pytest.raises(ValueError, match="fanout"):
        Remote("uptime", hosts, fanout=0)


# -- connection parameters ------------------------------------------------------------------------


def targets(remote: Remote) -> list[Any]:
    command = commands(remote)[0]
    script = scripts[command] = Script()
    ended(remote.start()).raise_if_failed()
    return [channel.request.target for channel in script.channels]


def test_a_host_comes_before_the_parameters_and_these_before_the_defaults(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(default_connexion_params, "user", "default")
    monkeypatch.setitem(default_connexion_params, "keyfile", "/default")
    monkeypatch.setitem(default_connexion_params, "port", 1)
    hosts = [Host("a", "ann", "/a", 3), "b", Host("c", port=4)]
    found = targets(Remote("id", hosts, {"user": "params", "port": 2}))
    assert [(t.user, t.keyfile, t.port) for t in found] == [
        ("ann", "/a", 3),
        ("params", "/default", 2),
        ("params", "/default", 4),
    ]


def test_connexion_is_accepted_wherever_connection_is() -> None:
    remote = Remote("id", "a", connexion_params={"user": "root"})
    assert [target.user for target in targets(remote)] == ["root"]


def test_defaults_that_are_changed_later_are_for_later_remotes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = Remote("id", "a")
    monkeypatch.setitem(default_connection_params, "user", "root")
    assert [target.user for target in targets(before)] == [None]
    assert [target.user for target in targets(Remote("id", "a"))] == ["root"]


def test_addresses_are_rewritten_after_the_substitutions() -> None:
    remote = Remote(
        "ping {{{host}}}", ["a", "b"], {"host_rewrite_func": lambda name: f"{name}.lab"}
    )
    script_a, script_b = (scripts.setdefault(c, Script()) for c in ("ping a", "ping b"))
    ended(remote.start()).raise_if_failed()
    for script, name in ((script_a, "a"), (script_b, "b")):
        target = script.channels[0].request.target
        assert target is not None
        assert (target.address, target.name) == (f"{name}.lab", name)


def test_parameters_of_one_process_are_its_own() -> None:
    remote = Remote("id", ["a", "b"])
    ssh(remote.processes[0]).connection_params["user"] = "root"
    assert [target.user for target in targets(remote)] == ["root", None]


# -- the processes --------------------------------------------------------------------------------


def test_process_args_are_for_each_process() -> None:
    handler = ProcessOutputHandler()
    args = {
        "timeout": "0:01:00",
        "ignore_exit_code": True,
        "nolog_exit_code": True,
        "pty": True,
        "shell": True,
        "cwd": "/tmp",
        "env": {"A": "1"},
        "max_output": 10,
        "default_stderr_handler": False,
        "stdout_handlers": [handler],
        "lifecycle_handlers": (handler for handler in [ProcessLifecycleHandler()]),
        "kill_subprocesses": False,
    }
    given = dict(args)
    remote = Remote("id", ["a", "b"], process_args=args)
    assert args == given
    script = scripts["id"] = Script(Exit(1))
    assert ended(remote.start()).ok
    for process in map(ssh, remote.processes):
        assert (process.timeout, process.max_output) == (60.0, 10)
        assert (process.ignore_exit_code, process.default_stderr_handler) == (True, False)
        assert process.stdout_handlers == [handler]
        assert len(process.lifecycle_handlers) == 1
    for channel in script.channels:
        request = channel.request
        assert (request.pty, request.cwd, request.env) == (True, "/tmp", {"A": "1"})
        assert request.group is False


def test_a_process_may_be_changed_before_the_start_and_the_others_are_not() -> None:
    scripts["work"] = Script(Out(b"x"), Exit(1))
    remote = Remote("work", ["a", "b"], process_args={**QUIET, "stdout_handlers": []})
    first, second = remote.processes
    first.timeout = "0:00:30"
    first.ignore_exit_code = True
    first.stdout_handlers.append(ProcessOutputHandler())
    first.lifecycle_handlers.append(ProcessLifecycleHandler())
    assert (second.timeout, second.ignore_exit_code) == (None, False)
    assert (second.stdout_handlers, second.lifecycle_handlers) == ([], [])
    ended(remote.start())
    assert (first.ok, second.ok, remote.failed) == (True, False, [second])


def test_the_list_of_processes_is_a_copy() -> None:
    remote = Remote("uptime", ["a", "b"])
    remote.processes.clear()
    assert len(remote.processes) == 2


def test_names_of_files_may_differ_from_host_to_host(tmp_path: Path) -> None:
    hosts = ["a", "b"]
    kinds = ["first", "second"]
    scripts["work"] = Script(Out(b"out\n"), Err(b"err\n"))
    args = {
        "stdout_handlers": [
            f"{tmp_path}/{{{{{{host}}}}}}-{{{{kinds}}}}.out",
            str(tmp_path / "all"),
        ],
        "stderr_handlers": [f"{tmp_path}/{{{{{{host}}}}}}.err"],
    }
    assert kinds
    ended(Remote("work", hosts, process_args=args).start()).raise_if_failed()
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "a-first.out": "out\n",
        "b-second.out": "out\n",
        "all": "out\nout\n",
        "a.err": "err\n",
        "b.err": "err\n",
    }


def test_names_of_files_may_be_paths(tmp_path: Path) -> None:
    scripts["work"] = Script(Out(b"out\n"))
    args = {"stdout_handlers": [tmp_path / "{{{host}}}.out"]}
    ended(Remote("work", ["a", "b"], process_args=args).start()).raise_if_failed()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.out", "b.out"]


# -- substitutions --------------------------------------------------------------------------------


def test_the_command_may_differ_from_host_to_host() -> None:
    hosts = ["a", Host("b"), "c"]
    sizes = [10, 20]
    assert sizes
    assert commands(Remote("ping {{{host}}}", hosts)) == ["ping a", "ping b", "ping c"]
    assert commands(Remote("ping <<<host>>>", hosts)) == ["ping a", "ping b", "ping c"]
    assert commands(Remote("dd {{sizes}}", hosts)) == ["dd 10", "dd 20", "dd 10"]
    assert commands(Remote("x {{['u', 'v']}} <<sizes>>", hosts)) == ["x u 10", "x v 20", "x u 10"]
    assert commands(Remote(["dd", "{{sizes}}", "{{{host}}}"], [Host("a"), "b"])) == [
        ("dd", "10", "a"),
        ("dd", "20", "b"),
    ]


def test_a_comprehension_sees_the_locals_of_the_caller() -> None:
    hosts = ["a", "b", "c"]
    ring = hosts[1:] + hosts[:1]
    port = 5000
    remote = Remote("nc {{[f'{name}:{port}' for name in ring]}}", hosts)
    assert (ring, port) == (["b", "c", "a"], 5000)
    assert commands(remote) == ["nc b:5000", "nc c:5000", "nc a:5000"]


def test_the_command_sees_the_names_of_a_helper_function_and_of_its_caller() -> None:
    def everywhere(cmd: str) -> Remote:
        hosts = ["a", "b"]
        return Remote(cmd, hosts)

    sizes = [1, 2]
    assert sizes
    assert commands(everywhere("x {{sizes}} {{hosts}}")) == ["x 1 a", "x 2 b"]


def test_the_command_sees_the_names_of_an_init() -> None:
    class Load:
        def __init__(self, hosts: list[str], rates: list[int]) -> None:
            rates = [10 * rate for rate in rates]
            self.remote = Remote("load --rate {{rates}}", hosts)

    class LoadRemote(Remote):
        def __init__(self, hosts: list[str], rates: list[int]) -> None:
            rates = [10 * rate for rate in rates]
            super().__init__("load --rate {{rates}}", hosts)

    expected = ["load --rate 10", "load --rate 20"]
    assert commands(Load(["a", "b"], [1, 2]).remote) == expected
    assert commands(LoadRemote(["a", "b"], [1, 2])) == expected


def test_a_command_may_be_taken_as_it_is() -> None:
    text = "docker ps --format '{{.Names}}' {{{host}}}"
    with pytest.raises(SubstitutionError, match=r"execo\.raw"):
        Remote(text, "a")
    assert commands(Remote(text, "a", substitute=False)) == [text]
    assert commands(Remote(execo.raw(text), "a")) == [text]
    assert commands(Remote(["echo", execo.raw("{{x}}"), "{{{host}}}"], [Host("a")])) == [
        ("echo", "{{x}}", "a")
    ]
    assert commands(Remote(["{{x}}"], Host("a"), substitute=False)) == [("{{x}}",)]
    assert commands(Remote(r"echo \{{x}} \<<y>>", "a")) == ["echo {{x}} <<y>>"]


def test_what_belongs_to_the_shell_stays() -> None:
    for text in ("cat <<EOF>>out\nx\nEOF", 'wc <<<"$x">>log', "echo $((1<<2>>1))"):
        assert commands(Remote(text, "a")) == [text]


def test_a_failed_substitution_is_an_error_if_there_are_hosts() -> None:
    with pytest.raises(SubstitutionError, match="missing"):
        Remote("echo {{missing}}", ["a"])
    assert Remote("echo {{[]}}", []).run().ok


def test_a_reset_evaluates_again() -> None:
    values = ["1"]
    remote = Remote("exit {{values}}", ["a", "b"], process_args=QUIET)
    exiting(0, 1)
    ended(remote.start())
    assert [process.exit_code for process in remote.processes] == [1, 1]
    values[:] = ["0", "1"]
    assert remote.reset() is remote
    assert commands(remote) == ["exit 0", "exit 1"]
    assert not remote.started
    ended(remote.start())
    assert [process.exit_code for process in remote.processes] == [0, 1]


# -- running --------------------------------------------------------------------------------------


def test_before_the_start() -> None:
    remote = Remote("uptime", ["a", "b"])
    assert (remote.started, remote.running, remote.ended) == (False, False, False)
    assert (remote.ok, remote.finished_ok, remote.failed) == (True, False, [])
    assert repr(remote) == str(remote) == "<Remote 'uptime': not started, 2 processes>"
    assert remote.kill() is remote
    assert not remote.started
    for method in (remote.wait, remote.close_stdin, lambda: remote.write("x")):
        with pytest.raises(ValueError, match="not started"):
            method()


def test_all_run_at_once_and_end_together() -> None:
    script = scripts["work"] = Script(Out(b"1"), Gate(), Out(b"2"))
    remote = Remote("work", "node[1-20]")
    assert remote.start() is remote
    assert remote.start() is remote
    assert len(script.channels) == 20
    assert (remote.started, remote.running, remote.ended) == (True, True, False)
    assert repr(remote) == "<Remote 'work': running, 0 of 20 processes ended>"
    assert not remote.wait(0.01).ended
    script.step()
    assert ended(remote).finished_ok
    assert {process.stdout for process in remote.processes} == {"12"}
    assert repr(remote) == "<Remote 'work': ended, 20 processes>"


def test_its_name_is_the_command_unless_told() -> None:
    assert Remote("uptime", "a").name == "uptime"
    assert Remote(["echo", "a b"], Host("a")).name == "echo 'a b'"
    assert Remote("x" * 100, "a").name == "x" * 36 + "..."
    assert Remote("echo {{{host}}}", "a").name == "echo {{{host}}}"
    assert Remote("uptime", "a", name="load").name == "load"
    assert Remote("uptime", [], name="load").name == "load"
    assert repr(Remote("cat <<X\n\x1b[31m\nX", "a")) == (
        r"<Remote 'cat <<X \x1b[31m X': not started, 1 processes>"
    )


def test_a_process_tells_its_host_in_every_state() -> None:
    scripts["exit 0"] = Script(Gate())
    scripts["exit 3"] = Script(Exit(3))
    scripts["lost"] = Script(Fail(ProcessError("no route to c", reason=Reason.CONNECT, host="c")))
    remote = Remote("{{['exit 0', 'exit 3', 'lost']}}", ["a", "b", "c"], process_args=QUIET)
    running, failed, lost = remote.processes
    assert repr(failed) == "<SshProcess 'exit 3' on b: not started>"
    remote.start()
    failed.wait(LONG)
    lost.wait(LONG)
    assert repr(running).startswith("<SshProcess 'exit 0' on a: running")
    assert repr(failed) == "<SshProcess 'exit 3' on b: exited 3>"
    assert repr(lost) == "<SshProcess 'lost' on c: connect>"
    text = (
        "<Remote \"{{['exit 0', 'exit 3', 'lost']}}\": running, 2 of 3 processes ended, 2 failed>"
    )
    assert repr(remote) == text
    scripts["exit 0"].step()
    ended(remote)
    assert repr(running) == "<SshProcess 'exit 0' on a: exited 0>"


def test_input_goes_to_all() -> None:
    scripts["cat"] = Script(Echo())
    remote = Remote("cat", ["a", "b", "c"]).start()
    assert remote.write("one\n") == 4
    assert remote.write(b"two\n") == 4
    print("three", 4, file=remote, flush=True)
    assert remote.close_stdin() is remote
    ended(remote).raise_if_failed()
    assert {process.stdout for process in remote.processes} == {"one\ntwo\nthree 4\n"}


def test_fanout_is_a_window_on_what_runs() -> None:
    script = scripts["work"] = Script(Gate())
    remote = Remote("work", "node[1-10]", fanout=3).start()
    assert len(script.channels) == 3
    most = 0
    while not remote.ended:
        opened = len(script.channels)  # before the next line: what ends meanwhile does not count
        most = max(most, opened - sum(process.ended for process in remote.processes))
        script.step()
        remote.wait(0.01)
    assert most == 3
    assert len(script.channels) == 10
    assert remote.ok


def test_input_goes_to_those_that_wait_for_their_turn_too() -> None:
    scripts["cat"] = Script(Echo())
    remote = Remote("cat", ["a", "b", "c"], fanout=1).start()
    try:
        remote.write("x\n")
        remote.close_stdin()
        ended(remote)
        assert [process.stdout for process in remote.processes] == ["x\n"] * 3
    finally:
        ended(remote.kill())


def test_a_kill_reaches_all_and_leaves_them_ok() -> None:
    script = scripts["serve"] = Script(Gate())
    remote = Remote("serve", "node[1-5]").start()
    assert remote.kill() is remote
    assert ended(remote).ok
    assert [channel.signals for channel in script.channels] == [[signal.SIGTERM]] * 5


def test_a_kill_gives_up_what_has_not_started() -> None:
    script = scripts["work"] = Script(Gate(), signals={signal.SIGTERM: 0})
    remote = Remote("work", "node[1-5]", fanout=2).start().kill()
    assert ended(remote).ok is False
    assert len(script.channels) == 2
    assert [process.cancelled for process in remote.processes] == [False] * 2 + [True] * 3
    assert [process.reason for process in remote.failed] == [Reason.CANCELLED] * 3


def test_hosts_that_do_not_answer_are_given_up_by_a_kill() -> None:
    scripts["work"] = Script(Start(delay=LONG))
    remote = Remote("work", "node[1-5]").start().kill()
    assert {process.reason for process in ended(remote).processes} == {Reason.CANCELLED}


def test_a_block_kills_and_does_not_wait() -> None:
    script = scripts["serve"] = Script(Gate(), signals={signal.SIGTERM: None, signal.SIGKILL: 0})
    with Remote("serve", ["a", "b"]).start() as servers:
        assert servers.running
    assert servers.running
    assert [channel.signals for channel in script.channels] == [[signal.SIGTERM]] * 2
    script.step()
    assert ended(servers).processes[0].exit_code == 0


def test_await_it() -> None:
    async def main() -> list[str]:
        first, second = Remote("one", ["a", "b"]).start(), Remote("two", "c").start()
        await asyncio.gather(wait(first), wait(second))
        return [process.stdout for process in first.processes + second.processes]

    async def wait(remote: Remote) -> None:
        assert await remote is remote

    scripts["one"], scripts["two"] = Script(Out(b"1")), Script(Out(b"2"))
    assert asyncio.run(asyncio.wait_for(main(), LONG)) == ["1", "1", "2"]


def test_handlers_are_told_of_its_life() -> None:
    class Life(ActionLifecycleHandler):
        def start(self, action: Action) -> None:
            events.append(("start", action))

        def end(self, action: Action) -> None:
            events.append(("end", action))

        def reset(self, action: Action) -> None:
            events.append(("reset", action))

    events: list[tuple[str, Action]] = []
    scripts["work"] = Script()
    remote = Remote("work", ["a", "b"], lifecycle_handlers=[Life()]).run(LONG).reset()
    assert events == [("start", remote), ("end", remote), ("reset", remote)]


# -- failures -------------------------------------------------------------------------------------


def test_failures_are_data() -> None:
    exiting(0, 3)
    scripts["lost"] = Script(
        Fail(ProcessError("c does not answer", reason=Reason.CONNECT, host="c"))
    )
    scripts["slow"] = Script(Gate())
    cmd = "{{['exit 0', 'exit 3', 'lost', 'slow']}}"
    remote = Remote(cmd, ["a", "b", "c", "d"], process_args={**QUIET, "timeout": 0.2}).run(LONG)
    assert (remote.ok, remote.finished_ok) == (False, False)
    assert [ssh(process).host.address for process in remote.failed] == ["b", "c", "d"]
    assert [process.reason for process in remote.processes] == [
        None,
        Reason.EXIT_CODE,
        Reason.CONNECT,
        Reason.TIMEOUT,
    ]
    assert [process.message for process in remote.processes] == [
        "",
        "exited 3",
        "c does not answer",
        "reached its timeout of 0.2 s",
    ]
    assert [process.exit_code for process in remote.processes[:3]] == [0, 3, None]


def test_what_is_ignored_is_ok_and_still_told() -> None:
    remote = Remote(exiting(0, 3), ["a", "b"], process_args=QUIET)
    for process in remote.processes:
        process.ignore_exit_code = True
    assert remote.run(LONG).finished_ok
    assert remote.failed == []
    assert remote.processes[1].reason == Reason.EXIT_CODE


def test_check_raises_with_the_hosts() -> None:
    with pytest.raises(ProcessesFailed) as caught:
        Remote(exiting(0, 3, 4), ["a", "b", "c"], process_args=QUIET).run(LONG, check=True)
    assert [process.host.address for process in caught.value.processes] == ["b", "c"]
    text = str(caught.value)
    assert "2 process(es) failed" in text
    assert "'exit 3' on b: exited 3" in text
    assert "'exit 4' on c: exited 4" in text
    assert "on a" not in text


def test_many_failures_are_named_and_counted() -> None:
    exiting(3)
    remote = Remote("exit 3", "node[1-25]", process_args=QUIET).run(LONG)
    with pytest.raises(ProcessesFailed, match=r"25 process\(es\) failed") as caught:
        remote.raise_if_failed()
    lines = str(caught.value).splitlines()
    assert "on node10:" in lines[10]
    assert lines[11].strip() == "... and 15 more"


def test_failures_beyond_the_limit_are_one_summary(caplog: pytest.LogCaptureFixture) -> None:
    exiting(3)
    with caplog.at_level(logging.WARNING, "execo"):
        Remote("exit 3", "node[1-25]").run(LONG)
    (summary,) = (message for message in caplog.messages if "25 of 25 processes" in message)
    single = [message for message in caplog.messages if message != summary]
    assert len(single) == configuration["max_failure_logs"] == 10
    assert all("<SshProcess 'exit 3' on node" in message for message in single)
    assert "25 exit code" in summary


def test_a_failure_is_logged_with_its_host_and_output(caplog: pytest.LogCaptureFixture) -> None:
    scripts["work"] = Script(Out(b"half\n"), Err(b"disk full\n"), Exit(1))
    with caplog.at_level(logging.WARNING, "execo"):
        Remote("work", "web1").run(LONG)
    (message,) = caplog.messages
    for part in ("<SshProcess 'work' on web1: exited 1>", "stdout:\nhalf", "stderr:\ndisk full"):
        assert part in message


def test_what_is_not_to_be_logged_is_not(caplog: pytest.LogCaptureFixture) -> None:
    exiting(3)
    with caplog.at_level(logging.WARNING, "execo"):
        Remote("exit 3", "node[1-25]", process_args={"nolog_exit_code": True}).run(LONG)
    assert caplog.messages == []


def test_bad_hosts_are_filtered_out() -> None:
    hosts: list[Any] = [Host("a"), Host("b", "root"), Host("c")]
    remote = Remote(exiting(0, 3, 0), hosts, process_args=QUIET).run(LONG)
    assert filter_bad_hosts(remote, hosts) == [Host("a"), Host("c")]
    assert filter_bad_hosts(remote, ["a", "b", "c", "d"]) == ["a", "c", "d"]
    assert filter_bad_hosts(Remote("exit 0", "a").run(LONG), hosts) == hosts


# -- together with others -------------------------------------------------------------------------


def test_parallel_and_sequential_remotes() -> None:
    order: list[str] = []

    class Order(ProcessLifecycleHandler):
        def start(self, process: ProcessBase) -> None:
            order.append(process.name)

    args = {"lifecycle_handlers": [Order()]}
    for name in ("install", "configure", "serve", "load"):
        scripts[name] = Script(Out(name.encode()))
    whole = SequentialActions(
        [
            Remote("install", ["a", "b"], process_args=args),
            ParallelActions(
                [
                    Remote("serve", ["a"], process_args=args),
                    Remote("load", ["b", "c"], process_args=args),
                ]
            ),
        ]
    ).run(LONG)
    assert whole.finished_ok
    assert [process.stdout for process in whole.processes] == [
        *("install", "install", "serve", "load", "load")
    ]
    assert order[:2] == ["install"] * 2
    assert sorted(order[2:]) == ["load", "load", "serve"]


def test_waiting_for_any_and_all() -> None:
    scripts["quick"], slow = Script(), Script(Gate())
    scripts["slow"] = slow
    one, other = Remote("slow", ["a", "b"]).start(), Remote("quick", ["c"]).start()
    assert wait_any_actions([one, other], LONG) == [other]
    assert wait_all_actions([one, other], 0.01) == [other]
    slow.step()
    assert wait_all_actions([one, other], LONG) == [one, other]


def test_reports_and_statistics() -> None:
    scripts["lost"] = Script(Fail(ProcessError("b does not answer", reason=Reason.CONNECT)))
    exiting(0, 3)
    remote = Remote("{{['exit 0', 'lost', 'exit 3']}}", ["a", "b", "c"], process_args=QUIET)
    before = remote.stats()
    assert (before.num_processes, before.num_started, before.num_ok) == (3, 0, 3)
    remote.name = "measure"
    stats = remote.run(LONG).stats()
    assert stats.name == "measure"
    assert (stats.num_processes, stats.num_started, stats.num_ended) == (3, 3, 3)
    assert (stats.num_ok, stats.num_finished_ok, stats.num_errors) == (1, 1, 1)
    assert stats.num_non_zero_exit_codes == 2
    assert dict(stats.reasons) == {"connect": 1, "exit code": 1}
    assert stats.start_date is not None
    assert stats.end_date is not None
    text = Report([remote, Remote("exit 0", "a", name="other").run(LONG)]).to_string(wide=True)
    assert "measure" in text
    assert "other" in text
    assert "connect 1" in text


# -- many hosts -----------------------------------------------------------------------------------

MANY = 10_000


def test_parameters_are_checked_once_however_many_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = count_calls(monkeypatch, "execo.ssh_process.make_connection_params")
    looked = count_calls(monkeypatch, "execo.process_state.check_output_handlers")
    remote = Remote("uptime", f"node[1-{MANY}]", {"user": "root"}, {"timeout": 3})
    assert len(remote.processes) == MANY
    assert remote.processes[-1].timeout == 3.0
    assert ssh(remote.processes[-1]).host == Host(f"node{MANY}")
    assert (len(calls), len(looked)) == (1, 2)


def test_an_expression_is_evaluated_once_however_many_hosts() -> None:
    asked: list[range] = []

    def ports(numbers: range) -> range:
        asked.append(numbers)
        return numbers

    numbers = range(3)
    remote = Remote("nc {{{host}}} {{ports(numbers)}}", f"node[1-{MANY}]")
    assert commands(remote)[-1] == f"nc node{MANY} {(MANY - 1) % 3}"
    assert asked == [numbers]
    assert ports(numbers) is numbers


def test_processes_that_have_not_started_are_small() -> None:
    hosts = [f"node{index}" for index in range(1000)]
    Remote("uptime", hosts)
    tracemalloc.start()
    try:
        remote = Remote("uptime", hosts)
        size = tracemalloc.get_traced_memory()[0] / len(hosts)
    finally:
        tracemalloc.stop()
    assert len(remote.processes) == len(hosts)
    assert size < 1500, f"{size:.0f} bytes of each host"


def test_two_thousand_hosts_run_and_end() -> None:
    scripts["work"] = Script(Out(b"x"), Exit(0))
    remote = Remote("work", "node[1-2000]").run(LONG)
    assert remote.finished_ok, repr(remote)
    assert {process.stdout for process in remote.processes} == {"x"}


def count_calls(monkeypatch: pytest.MonkeyPatch, name: str) -> list[Any]:
    module, _, attribute = name.rpartition(".")
    function: Callable[..., Any] = getattr(sys.modules[module], attribute)
    calls: list[Any] = []

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(args)
        return function(*args, **kwargs)

    monkeypatch.setattr(sys.modules[module], attribute, counted)
    return calls


# -- as scripts of execo 2 use it -----------------------------------------------------------------


def test_pattern_flags_are_set_on_all_processes_before_the_start() -> None:
    remote = Remote(exiting(0, 1), ["a", "b"])
    for p in remote.processes:
        p.ignore_exit_code = p.nolog_exit_code = True
    remote.run()
    assert remote.ok


def test_pattern_a_file_for_each_process(tmp_path: Path) -> None:
    scripts["work"] = Script(Out(b"x\n"))
    remote = Remote("work", ["a", "b"])
    for p in remote.processes:
        ssh(p).stdout_handlers.append(f"{tmp_path}/{ssh(p).host.address}.out")
    remote.run()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.out", "b.out"]


def test_pattern_the_output_of_one_host() -> None:
    scripts["hostname"] = Script(Out(b"web1.lab\n"), Exit(1))
    p = SshProcess("hostname", "web1", ignore_exit_code=True, nolog_exit_code=True).run()
    assert p.stdout.strip() == "web1.lab"


def test_pattern_try_again_until_it_works() -> None:
    scripts["mount"] = Script(Exit(1))
    p = SshProcess("mount", "web1", nolog_exit_code=True).run()
    tries = 1
    while not p.ok and tries < 3:
        scripts["mount"] = Script(Exit(0 if tries == 2 else 1))
        p.reset()
        p.run()
        tries += 1
    assert (tries, p.ok) == (3, True)


def test_pattern_servers_run_as_long_as_the_clients() -> None:
    scripts["iperf -s"] = Script(Out(b"listening\n"), Gate())
    scripts["iperf -c a"], scripts["iperf -c b"] = Script(Out(b"1 Gb/s")), Script(Out(b"2 Gb/s"))
    sites = ["a", "b"]
    servers = Remote("iperf -s", sites)
    clients = Remote("iperf -c {{sites}}", ["c", "d"])
    with servers.start():
        clients.run()
    servers.wait()
    assert Report([servers, clients]).stats().num_finished_ok == 4
    assert [p.stdout for p in clients.processes] == ["1 Gb/s", "2 Gb/s"]
    assert servers.ok


def test_pattern_capture_kill_wait() -> None:
    scripts["tcpdump"] = Script(Out(b"packet\n"), Gate())
    capture = Remote("tcpdump", ["a"]).start()
    capture.kill().wait()
    assert capture.processes[0].stdout == "packet\n"


def test_pattern_run_on_the_hosts_that_are_left() -> None:
    hosts: list[Any] = [Host("a"), Host("b"), Host("c")]
    probe = Remote(exiting(0, 1, 0), hosts, process_args={"nolog_exit_code": True}).run()
    if not probe.ok:
        hosts = filter_bad_hosts(probe, hosts)
    scripts["work"] = Script()
    assert [h.address for h in Remote("work", hosts).run().hosts] == ["a", "c"]


def test_pattern_the_order_of_the_reference_document() -> None:
    scripts["uptime"] = Script(Out(b"up"))
    remote = execo.Remote(hosts=["a", "b"], cmd="uptime")
    remote.start()
    remote.wait()
    assert [p.stdout for p in execo.Remote([Host("a")], "uptime").run().processes] == ["up"]
    assert remote.finished_ok


# -- on real hosts --------------------------------------------------------------------------------


@pytest.fixture(params=["paramiko", "openssh"])
def real(request: pytest.FixtureRequest) -> dict[str, Any]:
    return {"transport": request.param}


def test_a_command_on_many_hosts(cluster: Cluster, real: dict[str, Any]) -> None:
    names = ["one", "two", "three", "four"]
    remote = Remote("echo {{{host}}} {{names}}; exit {{[0, 3]}}", cluster.hosts, real, QUIET)
    remote.run(LONG)
    assert [process.stdout.split()[-1] for process in remote.processes] == names
    assert [p.stdout.split()[-2] for p in remote.processes] == [h.address for h in cluster.hosts]
    assert [process.exit_code for process in remote.processes] == [0, 3, 0, 3]
    assert len(remote.failed) == 2


def test_the_same_host_many_times(cluster: Cluster, real: dict[str, Any]) -> None:
    remote = Remote("echo $((6 * 7))", cluster.hosts[:1] * 25, real).run(LONG)
    assert [process.stdout for process in remote.processes] == ["42\n"] * 25


def test_input_to_many_hosts(cluster: Cluster, real: dict[str, Any]) -> None:
    remote = Remote("cat", cluster.hosts, real).start()
    remote.write("at once\n")
    print("and later", file=remote)
    remote.close_stdin()
    ended(remote)
    assert {process.stdout for process in remote.processes} == {"at once\nand later\n"}


def test_one_bad_host_among_good_ones(cluster: Cluster, real: dict[str, Any]) -> None:
    hosts = cluster.hosts
    hosts[1].port = unused_port(hosts[1].address)
    remote = Remote("echo hi", hosts, {**real, "connect_timeout": 10}, QUIET).run(LONG)
    assert [ssh(process).host for process in remote.failed] == [hosts[1]]
    (bad,) = remote.failed
    assert (bad.reason, bad.exit_code) == (Reason.CONNECT, None)
    assert hosts[1].address in bad.message
    assert filter_bad_hosts(remote, hosts) == [hosts[0], *hosts[2:]]


def test_the_options_of_execo_2_reach_a_host_without_a_command(cluster: Cluster) -> None:
    host = cluster.hosts[0]
    options = (
        "-tt",
        *("-o", "BatchMode=yes", "-o", "PasswordAuthentication=no"),
        *("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"),
        *("-o", "ConnectTimeout=20"),
        *("-i", cluster.keyfile, "-l", cluster.user, "-o", f"Port={host.port}"),
    )
    params = {"transport": "auto", "ssh_options": options}
    remote = Remote("echo $SSH_CONNECTION", host.address, params).run(LONG)
    (process,) = map(ssh, remote.processes)
    assert (process.transport, process.ok) == ("paramiko", True), process.message
    assert process.stdout.split()[-1] == str(host.port)


def unused_port(address: str) -> int:
    with socket.socket() as sock:
        sock.bind((address, 0))
        return int(sock.getsockname()[1])
