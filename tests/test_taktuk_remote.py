"""TaktukRemote is Remote by another way: the same scripts, with the same results.

Each test runs with Remote, over connections of this process, and with TaktukRemote.
"""

from __future__ import annotations

import logging
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

import test_remote
from execo import (
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
    filter_bad_hosts,
    wait_all_actions,
    wait_any_actions,
)
from execo.taktuk import TaktukProcess, TaktukRemote
from remote_commands import until
from sshd import RealSshd

# On the embedded cluster, with the fixture ``real`` of this module.
from test_remote import (  # noqa: F401
    test_a_command_on_many_hosts,
    test_input_to_many_hosts,
    test_one_bad_host_among_good_ones,
    test_the_same_host_many_times,
)

pytest_plugins = ["sshd", "execo.testing.pytest_plugin"]

if shutil.which("taktuk") is None:
    pytest.skip("needs taktuk, see tests/install-servers", allow_module_level=True)

LONG = 40.0
"""Seconds that nothing here takes: a hang."""

QUIET = {"nolog_exit_code": True, "nolog_error": True, "nolog_timeout": True}


@pytest.fixture(params=[Remote, TaktukRemote], ids=lambda kind: kind.__name__)
def kind(request: pytest.FixtureRequest) -> type[Remote]:
    chosen: type[Remote] = request.param
    return chosen


@pytest.fixture
def hosts(sshd: RealSshd) -> list[Host]:
    return sshd.hosts(3)


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(test_remote, "Remote", TaktukRemote)
    return {}


def ended(action: Any) -> Any:
    action.wait(LONG)
    assert action.ended, action.processes
    return action


def outputs(action: Any) -> list[str]:
    return [process.stdout for process in action.processes]


def test_it_is_a_remote(hosts: list[Host]) -> None:
    action = TaktukRemote(hosts=hosts, cmd="true", name="work")
    assert isinstance(action, Remote)
    assert {type(process) for process in action.processes} == {TaktukProcess}
    assert repr(action) == "<TaktukRemote 'work': not started, 3 processes>"
    assert repr(action.processes[0]) == "<TaktukProcess 'true' on 127.0.1.1: not started>"
    assert repr(ended(action.start())) == "<TaktukRemote 'work': ended, 3 processes>"


def test_the_order_of_the_reference_document(kind: type[Remote], hosts: list[Host]) -> None:
    assert outputs(kind(hosts, "echo up").run()) == ["up\n"] * 3
    assert outputs(kind("echo up", hosts[0]).run()) == ["up\n"]
    assert outputs(kind(["echo", "a b"], [hosts[0]]).run()) == ["a b\n"]


def test_no_host_is_an_action_that_ends_at_once(kind: type[Remote]) -> None:
    action = ended(kind("uptime", []).start())
    assert (action.ok, action.finished_ok, action.processes) == (True, True, [])


def test_the_command_may_differ_from_host_to_host(kind: type[Remote], hosts: list[Host]) -> None:
    sizes = [10, 20]
    action = kind("echo {{{host}}} {{sizes}}", hosts).run(LONG)
    wanted = zip(hosts, [*sizes, 10], strict=True)
    assert outputs(action) == [f"{host.address} {size}\n" for host, size in wanted]


def test_a_reset_evaluates_and_runs_again(kind: type[Remote], hosts: list[Host]) -> None:
    values = ["1"]
    action = kind("exit {{values}}", hosts, process_args=QUIET)
    ended(action.start())
    assert [process.exit_code for process in action.processes] == [1, 1, 1]
    values[:] = ["0", "2"]
    ended(action.reset().start())
    assert [process.exit_code for process in action.processes] == [0, 2, 0]


def test_connection_parameters(kind: type[Remote], hosts: list[Host]) -> None:
    first = hosts[0]
    params: dict[str, Any] = {"user": first.user, "keyfile": first.keyfile, "port": first.port}
    params["host_rewrite_func"] = lambda name: first.address
    action = kind("echo {{{host}}}", ["one", "two"], params).run(LONG)
    assert outputs(action) == ["one\n", "two\n"]


def test_input(kind: type[Remote], hosts: list[Host]) -> None:
    action = kind("cat", hosts).start()
    action.write("at once\n")
    print("and later", file=action)
    action.close_stdin()
    assert set(outputs(ended(action))) == {"at once\nand later\n"}


def test_fanout_is_a_window_on_what_runs(kind: type[Remote], hosts: list[Host]) -> None:
    action = kind("cat", hosts, process_args=QUIET, fanout=2).start()
    action.write("x")
    until(lambda: sum(process.running for process in action.processes) == 2)
    assert not action.processes[2].started
    action.close_stdin()
    assert outputs(ended(action)) == ["x", "x", "x"]


def test_failures_are_data(
    kind: type[Remote], hosts: list[Host], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "execo"):
        action = ended(kind("echo {{[1, 2, 3]}}; exit {{[0, 3]}}", hosts).start())
    assert (action.ok, action.failed) == (False, [action.processes[1]])
    bad = action.processes[1]
    assert (bad.exit_code, bad.reason, bad.stdout) == (3, Reason.EXIT_CODE, "2\n")
    assert filter_bad_hosts(action, hosts) == [hosts[0], hosts[2]]
    (text,) = [record.getMessage() for record in caplog.records if record.name == "execo"]
    assert "127.0.1.2" in text
    with pytest.raises(ProcessesFailed, match=r"127\.0\.1\.2"):
        action.raise_if_failed()


def test_what_is_ignored_is_ok(kind: type[Remote], hosts: list[Host]) -> None:
    args = {**QUIET, "ignore_exit_code": True, "ignore_timeout": True, "timeout": 1}
    action = ended(kind("{{['exit 4', 'sleep 1000']}}", hosts, process_args=args).start())
    assert action.ok
    first, second, _ = action.processes
    assert (first.exit_code, first.timeouted) == (4, False)
    assert (second.exit_code, second.timeouted) == (-signal.SIGTERM, True)


def test_kill(kind: type[Remote], hosts: list[Host]) -> None:
    with kind("echo ready; sleep 1000", hosts).start() as action:
        until(lambda: all(outputs(action)))
    ended(action)
    assert action.ok
    assert {process.exit_code for process in action.processes} == {-signal.SIGTERM}
    assert all(process.killed for process in action.processes)


def test_one_that_ignores_term_is_killed_later(kind: type[Remote], hosts: list[Host]) -> None:
    action = kind("trap '' TERM; echo ready; while :; do sleep 0.1; done", hosts).start()
    until(lambda: all(outputs(action)))
    action.kill(auto_force_kill_timeout=0.3)
    ended(action)
    assert {process.exit_code for process in action.processes} == {-signal.SIGKILL}
    assert all(process.forced_kill for process in action.processes)


def test_handlers_are_told(kind: type[Remote], hosts: list[Host], tmp_path: Path) -> None:
    told: list[str] = []

    class Life(ProcessLifecycleHandler):
        def start(self, process: Any) -> None:
            told.append(f"start {process.host.address}")

        def end(self, process: Any) -> None:
            told.append(f"end {process.host.address} {process.exit_code}")

    class ActionLife(ActionLifecycleHandler):
        def end(self, action: Any) -> None:
            told.append("end of all")

    class Lines(ProcessOutputHandler):
        def read_line(self, process: Any, stream: int, string: str) -> None:
            told.append(f"{process.host.address} {stream} {string}")

    args = {
        "lifecycle_handlers": [Life()],
        "stdout_handlers": [Lines(), f"{tmp_path}/{{{{{{host}}}}}}.out"],
        "stderr_handlers": [Lines()],
    }
    text = "echo one; echo two; echo err >&2; printf three"
    ended(kind(text, hosts, process_args=args, lifecycle_handlers=[ActionLife()]).start())
    assert told[-1] == "end of all"
    for host in hosts:
        own = [line for line in told if host.address in line]
        assert (own[0], own[-1]) == (f"start {host.address}", f"end {host.address} 0")
        assert [line.split()[-1] for line in own[1:-1] if " 1 " in line] == ["one", "two", "three"]
        assert f"{host.address} 2 err" in own
        assert (tmp_path / f"{host.address}.out").read_text() == "one\ntwo\nthree"


def test_expect(kind: type[Remote], hosts: list[Host]) -> None:
    action = kind("echo ready 42; cat", hosts).start()
    for process in action.processes:
        index, match = process.expect([r"no", r"ready (\d+)"], timeout=LONG)
        assert match is not None
        assert (index, match[1]) == (1, "42")
    action.close_stdin()
    ended(action)


def test_trees_and_reports(kind: type[Remote], hosts: list[Host]) -> None:
    tree = SequentialActions(
        [
            ParallelActions([kind("echo a", hosts), kind("echo b", hosts[:1])]),
            kind("echo c; exit {{[0, 1]}}", hosts, process_args=QUIET),
        ]
    )
    ended(tree.start())
    assert outputs(tree) == ["a\n"] * 3 + ["b\n"] + ["c\n"] * 3
    stats = Report([tree]).stats()
    assert (stats.num_processes, stats.num_ended, stats.num_non_zero_exit_codes) == (7, 7, 1)


def test_waiting_for_any_and_all(kind: type[Remote], hosts: list[Host]) -> None:
    quick, slow = kind("true", hosts).start(), kind("cat", hosts).start()
    assert wait_any_actions([slow, quick], timeout=LONG) == [quick]
    slow.close_stdin()
    assert wait_all_actions([slow, quick], timeout=LONG) == [slow, quick]


def test_binary_output_and_no_capture(kind: type[Remote], hosts: list[Host]) -> None:
    text = r"printf 'a\000\377\r\nb'"
    action = kind(text, hosts).run(LONG)
    assert {process.stdout_bytes for process in action.processes} == {b"a\0\xff\r\nb"}
    action = kind("seq 1000", hosts, process_args={"max_output": 100}).run(LONG)
    assert all(process.truncated for process in action.processes)
    action = kind(text, hosts, process_args={"default_stdout_handler": False}).run(LONG)
    assert outputs(action) == [""] * 3
