"""What the attributes of processes and actions say in each state, as execo 2.8.2 has it.

The tables are those of execo 2.8.2. What differs on purpose stands in ``DEFAULTS_THAT_DIFFER``, or
in a test that says so, and in ``doc/coming_from/execo2.rst``.
"""

from __future__ import annotations

import inspect
import logging
import time
from pathlib import Path
from typing import Any

import pytest

from execo import (
    STDERR,
    Action,
    ExpectOutputHandler,
    Host,
    Local,
    ParallelActions,
    Process,
    Remote,
    Report,
    SequentialActions,
    Serial,
    configuration,
    default_connection_params,
    filter_bad_hosts,
    get_remote,
    wait_all_actions,
    wait_any_actions,
)

LONG = 60
"""Seconds that nothing here takes: a hang."""

# -- the states of a process ------------------------------------------------------------------

BEFORE: dict[str, Any] = {
    "started": False,
    "running": False,
    "ended": False,
    "start_date": None,
    "end_date": None,
    "pid": None,
    "exit_code": None,
    "error": False,
    "error_reason": None,
    "timeout_date": None,
    "timeouted": False,
    "killed": False,
    "forced_kill": False,
    "stdout": "",
    "stderr": "",
    "stdout_ioerror": False,
    "stderr_ioerror": False,
    "write_error": False,
    "expect_fail": False,
    "ok": True,
    "finished_ok": False,
}


def states(process: Process) -> dict[str, Any]:
    return {name: getattr(process, name) for name in BEFORE}


def quiet(cmd: str, **options: Any) -> Process:
    """A process whose failures are not logged."""
    nolog: dict[str, Any] = {
        f"nolog_{what}": True
        for what in ("exit_code", "timeout", "error", "expect_fail", "write_error")
    }
    return Process(cmd, **{**nolog, **options})


def test_before_the_start() -> None:
    p = Process("true", timeout=7)
    assert states(p) == BEFORE
    assert p.timeout == 7
    assert not p.started_event.is_set()
    assert not p.ended_event.is_set()


def test_while_it_runs() -> None:
    before = time.time()
    p = Process("cat", timeout=1000).start()
    assert p.start_date is not None
    assert before - 1 <= p.start_date <= time.time() + 1
    assert p.timeout_date == p.start_date + 1000
    assert isinstance(p.pid, int)
    running = {"started": True, "running": True}
    dates = {name: getattr(p, name) for name in ("start_date", "timeout_date", "pid")}
    assert states(p) == {**BEFORE, **running, **dates}
    print("so far", file=p)
    assert p.expect("so far", timeout=LONG)[0] == 0
    assert p.stdout == "so far\n"
    p.close_stdin().wait(LONG)
    assert p.finished_ok


def test_after_its_end() -> None:
    p = Process("echo out; echo err >&2", shell=True).run(LONG)
    assert p.start_date is not None
    assert p.end_date is not None
    assert p.start_date <= p.end_date
    assert isinstance(p.pid, int)  # kept
    assert states(p) == {
        **BEFORE,
        **{name: getattr(p, name) for name in ("start_date", "end_date", "pid")},
        "started": True,
        "ended": True,
        "exit_code": 0,
        "stdout": "out\n",
        "stderr": "err\n",
        "finished_ok": True,
    }
    assert p.started_event.is_set()
    assert p.ended_event.is_set()


def test_one_that_could_not_be_started_has_ended_at_once() -> None:
    p = quiet("/no/such/program").start()
    assert p.started
    assert p.ended
    assert p.error
    assert isinstance(p.error_reason, FileNotFoundError)
    assert (p.pid, p.exit_code) == (None, None)
    assert not p.ok
    assert p.stats()["num_non_zero_exit_codes"] == 1
    assert p.wait(LONG) is p


def test_a_timeout() -> None:
    p = quiet("sleep 1000", timeout=0.1).run(LONG)
    assert (p.timeouted, p.killed, p.forced_kill, p.ok) == (True, True, False, False)
    ignored = quiet("sleep 1000", timeout=0.1, ignore_timeout=True).run(LONG)
    assert ignored.ok


def test_a_kill_is_ok_whatever_the_exit_code() -> None:
    p = Process("sleep 1000").start().kill().wait(LONG)
    assert (p.killed, p.timeouted, p.forced_kill, p.ok) == (True, False, False, True)
    with Process("sleep 1000").start() as block:
        pass
    assert block.wait(LONG).killed
    assert block.ok
    late = Process("true").run(LONG).kill()
    assert not late.killed


def test_a_forced_kill() -> None:
    p = Process("trap '' TERM; echo ready; while :; do sleep 0.05; done", shell=True).start()
    assert p.expect("ready", timeout=LONG)[0] == 0
    p.kill(auto_force_kill_timeout=0.1).wait(LONG)
    assert (p.killed, p.forced_kill, p.exit_code, p.ok) == (True, True, -9, True)
    straight = Process("sleep 1000").start().kill(9).wait(LONG)
    assert (straight.killed, straight.forced_kill) == (True, False)


def test_output_that_is_not_kept() -> None:
    p = Process(
        "echo out; echo err >&2",
        shell=True,
        default_stdout_handler=False,
        default_stderr_handler=False,
    ).run(LONG)
    assert (p.stdout, p.stderr) == ("", "")


def test_a_failed_write_makes_it_not_ok_at_once() -> None:
    p = quiet("exec 0<&-; echo closed; read x <&1; sleep 1000", shell=True).start()
    assert p.expect("closed", timeout=LONG)[0] == 0
    p.write("x" * 1_000_000)
    event = p.ended_event
    for _ in range(600):
        if p.write_error:
            break
        event.wait(0.05)
    assert p.write_error
    assert not p.ok
    assert not p.ended
    p.ignore_write_error = True
    assert p.ok
    p.kill().wait(LONG)


def test_a_reset_brings_back_the_initial_state() -> None:
    p = Process("echo out; exit 3", shell=True, nolog_exit_code=True, timeout=100).run(LONG)
    handlers = p.stdout_handlers
    assert states(p) != BEFORE
    assert p.reset() is p
    assert states(p) == BEFORE
    assert p.stdout_handlers is handlers
    assert p.timeout == 100
    assert not p.ended_event.is_set()
    assert p.run(LONG).exit_code == 3


FAILURES: list[tuple[str, dict[str, Any], str]] = [
    ("exit 3", {"shell": True}, "exit_code"),
    ("sleep 1000", {"timeout": 0.1}, "timeout"),
    ("/no/such/program", {}, "error"),
]


@pytest.mark.parametrize(("cmd", "options", "what"), FAILURES, ids=[one[2] for one in FAILURES])
def test_ignored_is_ok_and_still_logged(
    cmd: str, options: dict[str, Any], what: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "execo"):
        p = Process(cmd, **options, **{f"ignore_{what}": True}).run(LONG)  # type: ignore[arg-type]
    assert p.ok
    assert len(caplog.records) == 1


@pytest.mark.parametrize(("cmd", "options", "what"), FAILURES, ids=[one[2] for one in FAILURES])
def test_not_logged_is_still_not_ok(
    cmd: str, options: dict[str, Any], what: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "execo"):
        p = Process(cmd, **options, **{f"nolog_{what}": True}).run(LONG)  # type: ignore[arg-type]
    assert not p.ok
    assert caplog.records == []


def test_waiting_and_starting_twice() -> None:
    with pytest.raises(ValueError, match="not started"):
        Process("true").wait()
    p = Process("cat").start()
    pid = p.pid
    assert p.start() is p
    assert p.pid == pid
    assert p.wait(0.01) is p  # the time is over: neither an error nor a kill
    assert p.running
    assert not p.killed
    p.close_stdin().wait(LONG)


def test_names_are_on_one_line_and_39_characters() -> None:
    assert Process("a  b\n c").name == "a b c"
    assert Process("x" * 39).name == "x" * 39
    assert Process("x" * 40).name == "x" * 36 + "..."
    assert Process("true", name="mine").name == "mine"


def test_an_action_is_called_by_its_command() -> None:
    assert Remote("uptime", ["a"]).name == "uptime"
    assert Local("uptime").name == "uptime"
    assert SequentialActions([]).name.startswith("SequentialActions 0x")


def test_a_process_as_a_text_is_one_line() -> None:
    p = Process("exit 3", shell=True, nolog_exit_code=True).run(LONG)
    assert str(p) == repr(p) == "<Process 'exit 3': exited 3>"


# -- the states of an action ------------------------------------------------------------------


def test_an_action_from_beginning_to_end() -> None:
    a = Local("cat")
    assert (a.started, a.ended, a.ok, a.finished_ok) == (False, False, True, False)
    a.start()
    assert (a.started, a.ended, a.ok, a.finished_ok) == (True, False, True, False)
    assert a.stats()["end_date"] is None
    a.close_stdin().wait(LONG)
    assert (a.started, a.ended, a.ok, a.finished_ok) == (True, True, True, True)
    a.reset()
    assert (a.started, a.ended, a.ok, a.finished_ok) == (False, False, True, False)


def test_no_hosts_are_an_action_that_ends_at_once() -> None:
    for r in (Remote("true", []).run(LONG), Remote("true", None).run(LONG)):
        assert r.processes == []
        assert r.finished_ok


def test_a_sequence_goes_on_after_a_failure() -> None:
    failing = Local("false", {"nolog_exit_code": True})
    s = SequentialActions([failing, Local("true")], name="steps").run(LONG)
    assert [a.ok for a in s.actions] == [False, True]
    assert not s.ok
    assert [one["name"] for one in s.stats()["sub_stats"]] == ["false", "true"]


KEYS = """
    name start_date end_date num_processes num_started num_ended num_errors num_timeouts
    num_forced_kills num_non_zero_exit_codes num_expect_fail num_write_error num_ok num_finished_ok
    sub_stats
""".split()


def test_the_keys_of_statistics() -> None:
    for stats in (Process("true").stats(), Local("true").stats(), Report.empty_stats()):
        assert set(KEYS) <= set(stats)


# -- defaults ---------------------------------------------------------------------------------

CONFIGURATION: dict[str, Any] = {
    "log_level": logging.INFO,
    "remote_tool": 0,
    "fileput_tool": 1,
    "fileget_tool": 1,
    "compact_output_threshold": 4096,
    "kill_timeout": 60,
    "intr_period": 1,
    "port_range": (25500, 26700),
    "kill_childs_at_end": True,
}
"""Of execo 2.8.2, as the next; ``color_mode`` depends on the terminal in both."""

CONNECTION: dict[str, Any] = {
    "user": None,
    "keyfile": None,
    "port": None,
    "ssh": "ssh",
    "scp": "scp",
    "taktuk": "taktuk",
    "taktuk_options": ("-s",),
    "taktuk_connector": "ssh",
    "chainput_nc_client_timeout": 5,
    "chainput_nc_server_timeout": 30,
    "nc": "/bin/nc.traditional -v -v",
    "chainput_host_retry": 5,
    "chainput_chain_retry": 10,
    "chainput_try_delay": 1,
    "forwarding_timeout": 25,
    "pty": False,
    "host_rewrite_func": None,
}

DEFAULTS_THAT_DIFFER: dict[str, Any] = {
    "log_level": logging.WARNING,  # nothing is shown while all works
    "ssh": None,  # set, they select the openssh transport
    "scp": None,
}


def test_the_values_of_the_configuration() -> None:
    for key, value in CONFIGURATION.items():
        assert configuration[key] == DEFAULTS_THAT_DIFFER.get(key, value), key


def test_the_values_of_the_connection_parameters() -> None:
    for key, value in CONNECTION.items():
        assert default_connection_params[key] == DEFAULTS_THAT_DIFFER.get(key, value), key


def test_the_flags_of_a_process_by_default() -> None:
    p = Process("true")
    assert not any(getattr(p, name) for name in dir(p) if name.startswith(("ignore_", "nolog_")))
    assert p.default_stdout_handler
    assert p.default_stderr_handler
    assert (p.timeout, p.default_expect_timeout) == (None, None)
    assert (p.lifecycle_handlers, p.stdout_handlers, p.stderr_handlers) == ([], [], [])
    assert (p.shell, p.pty, p.kill_subprocesses) == (False, False, None)


# -- what is typed wrong ----------------------------------------------------------------------


@pytest.mark.parametrize("data", [3, True, [1, 2], None, 2.5])
def test_what_is_neither_text_nor_bytes_is_not_written(data: Any) -> None:
    p = Process("cat").start()
    with pytest.raises(TypeError, match="text or bytes"):
        p.write(data)
    p.close_stdin().wait(LONG)
    assert p.stdout_bytes == b""


def test_a_pattern_that_is_none_is_named() -> None:
    p = Process("cat").start()
    with pytest.raises(Exception, match=r"no regular expression: 'b\(' at position 1"):
        p.expect(["a", "b("], timeout=LONG)
    assert not p.expect_fail
    p.close_stdin().wait(LONG)


@pytest.mark.parametrize("wait", [wait_any_actions, wait_all_actions])
def test_waiting_for_what_is_no_action(wait: Any) -> None:
    p = Process("true").run(LONG)
    with pytest.raises(TypeError, match=r"Process 'true'.*wait\(\) of its own"):
        wait([p])


@pytest.mark.parametrize("group", [ParallelActions, SequentialActions])
def test_the_arguments_of_a_tree_are_shown(group: Any) -> None:
    shown = list(inspect.signature(group).parameters)
    assert shown[:4] == ["actions", "lifecycle_handlers", "name", "default_expect_timeout"]
    with pytest.raises(TypeError, match="unexpected keyword argument 'nam'"):
        group([], nam="x")


def test_a_sequence_has_no_fanout() -> None:
    options: dict[str, Any] = {"fanout": 3}
    with pytest.raises(TypeError, match=r"SequentialActions.*unexpected keyword argument 'fanout'"):
        SequentialActions([], **options)


def test_a_command_that_is_none_beside_hosts() -> None:
    with pytest.raises(TypeError, match="a command is a text or a list of words, not 3"):
        Remote(3, ["a"])


def test_the_arguments_of_a_serial_port_are_those_of_a_process() -> None:
    with pytest.raises(TypeError, match="did you mean 'shell'"):
        Serial("/dev/ttyUSB0", 9600, shel=True)


@pytest.mark.parametrize("entries", ["ab", [3]])
def test_what_is_no_lifecycle_handler(entries: Any) -> None:
    with pytest.raises(TypeError, match="no lifecycle handler"):
        Process("true", lifecycle_handlers=entries)


def test_bytes_are_no_list_of_descriptors() -> None:
    handlers: Any = b"\x01"
    with pytest.raises(TypeError, match="as a list"):
        Process("true", stdout_handlers=handlers)


# -- hosts that work --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hosts", "good"),
    [
        ("n1", ["n1"]),
        ("n2", []),
        ("n[1-3]", ["n1", "n3"]),
        (["n3", "n2"], ["n3"]),
        (Host("n1"), [Host("n1")]),
        ([Host("n2"), "n1"], ["n1"]),
        (None, []),
    ],
    ids=repr,
)
def test_hosts_that_work_are_given_as_to_the_action(hosts: Any, good: list[Any]) -> None:
    params = {"transport": "no such transport"}
    bad = Remote("true", ["n2"], params, {"nolog_error": True}).run(LONG)
    assert not bad.ok
    assert filter_bad_hosts(bad, hosts) == good


# -- types ------------------------------------------------------------------------------------


def test_a_typed_script_needs_no_casts(tmp_path: Path) -> None:
    # Checked by mypy with the rest of the tests; run here for its types' sake.
    r = Remote("true", ["a", "b"])
    assert [p.host.address for p in r.processes] == ["a", "b"]
    assert [h.address for h in get_remote("true", "a").hosts] == ["a"]
    assert Local("true").processes[0].stdin_fd is None
    mixed: list[str | Host] = ["a", Host("b")]
    assert filter_bad_hosts(r, mixed) == mixed
    actions: list[Action] = [r, Local("true")]
    assert len(ParallelActions(actions, name="both").processes) == 3
    reader = ExpectOutputHandler()
    log = tmp_path / "out"
    p = Process("echo x >&2", shell=True, stderr_handlers=[reader, log, str(log)]).run(LONG)
    assert list(reader.expect("x", timeout=LONG)) == [(p, STDERR)]
