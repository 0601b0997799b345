"""A process: its attributes, its outcome, its end, and what is said of it."""

from __future__ import annotations

import asyncio
import datetime
import itertools
import logging
import os
import re
import select
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from execo import Local, Process, ProcessesFailed, Reason, SequentialActions, configuration, logger
from execo._core.runtime import get_runtime
from execo.process import ProcessLifecycleHandler, ProcessOutputHandler

IGNORES_TERM = "trap '' TERM; echo ready; while :; do sleep 0.05; done"
FOREVER = "sleep 1000"


class Ready(ProcessOutputHandler):
    """Knows when a line has come."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._came = threading.Event()

    def read_line(self, process: Any, stream: int, string: str) -> None:
        self.lines.append(string)
        self._came.set()

    def wait(self) -> str:
        assert self._came.wait(20), "no line came"
        return self.lines[0]


def gone(pid: int) -> bool:
    """Whether this process, not necessarily a child, ends within a while."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([fd], [], [], 5)[0])
    finally:
        os.close(fd)


# -- the attributes, through the life of a process ---------------------------------------------


NOT_YET = {
    "started": False,
    "running": False,
    "ended": False,
    "start_date": None,
    "end_date": None,
    "pid": None,
    "exit_code": None,
    "exit_status_raw": None,
    "error": False,
    "error_reason": None,
    "timeout_date": None,
    "timeouted": False,
    "killed": False,
    "forced_kill": False,
    "cancelled": False,
    "stdout": "",
    "stderr": "",
    "stdout_bytes": b"",
    "stderr_bytes": b"",
    "stdout_ioerror": False,
    "stderr_ioerror": False,
    "write_error": False,
    "expect_fail": False,
    "truncated": 0,
    "drained": True,
    "waited": False,
    "reason": None,
    "message": "",
    "ok": True,
    "finished_ok": False,
    "process": None,
    "stdin_fd": None,
    "stdout_fd": None,
    "stderr_fd": None,
}


@pytest.mark.parametrize(("attribute", "value"), NOT_YET.items())
def test_before_the_start(attribute: str, value: object) -> None:
    assert getattr(Process("cat", timeout=5), attribute) == value


def test_while_it_runs() -> None:
    before = time.time()
    p = Process("cat", timeout=100).start()
    assert (p.started, p.running, p.ended, p.ok, p.finished_ok) == (True, True, False, True, False)
    assert p.start_date is not None
    assert before - 1 <= p.start_date <= time.time() + 1
    assert p.timeout_date == p.start_date + 100
    assert (p.end_date, p.exit_code, p.exit_status_raw, p.reason) == (None, None, None, None)
    assert isinstance(p.pid, int)
    assert p.process.pid == p.pid
    assert all(isinstance(fd, int) for fd in (p.stdin_fd, p.stdout_fd, p.stderr_fd))
    assert (p.error, p.killed, p.timeouted, p.message) == (False, False, False, "")
    p.close_stdin().wait()


def test_after_its_end() -> None:
    p = Process("echo out; echo err >&2", shell=True).start()
    pid = p.pid
    p.wait()
    assert (p.started, p.running, p.ended, p.ok, p.finished_ok) == (True, False, True, True, True)
    assert p.pid == pid
    assert p.start_date is not None
    assert p.end_date is not None
    assert p.end_date >= p.start_date - 1
    assert (p.stdout, p.stderr) == ("out\n", "err\n")
    assert (p.stdout_bytes, p.stderr_bytes) == (b"out\n", b"err\n")
    assert (p.exit_code, p.exit_status_raw, p.reason, p.message) == (0, 0, None, "")
    assert (p.stdin_fd, p.stdout_fd, p.stderr_fd) == (None, None, None)
    assert p.drained


def test_when_it_cannot_be_started() -> None:
    p = Process("no-such-command-anywhere", nolog_error=True).start()
    assert (p.started, p.running, p.ended, p.ok) == (True, False, True, False)
    assert p.error
    assert isinstance(p.error_reason, FileNotFoundError)
    assert p.pid is p.start_date is p.exit_code is p.exit_status_raw is None
    assert p.end_date is not None
    assert p.reason is Reason.SPAWN


def test_the_parameters_are_attributes_that_may_be_changed_before_the_start() -> None:
    p = Process("exit 3")
    assert (p.shell, p.pty, p.kill_subprocesses, p.cwd, p.env) == (False, False, None, None, None)
    p.shell = True
    p.ignore_exit_code = p.nolog_exit_code = True
    p.name = "my own"
    assert p.run().ok
    assert p.exit_code == 3
    assert "my own" in repr(p)


@pytest.mark.parametrize(
    "flag",
    [
        f"{verb}_{what}"
        for verb in ("ignore", "nolog")
        for what in ("exit_code", "timeout", "error", "expect_fail", "write_error")
    ],
)
def test_each_flag_is_a_parameter_and_an_attribute(flag: str) -> None:
    assert getattr(Process("true"), flag) is False
    options: Any = {flag: True}
    assert getattr(Process("true", **options), flag) is True


@pytest.mark.parametrize("timeout", [90, 90.0, "90", "0:01:30", datetime.timedelta(minutes=1.5)])
def test_a_timeout_in_any_format(timeout: Any) -> None:
    p = Process("true", timeout=timeout).run()
    assert p.timeout == 90
    assert p.start_date is not None
    assert p.timeout_date == pytest.approx(p.start_date + 90)


def test_the_command_is_a_text_or_words_with_or_without_a_shell() -> None:
    assert Process("printf '%s|' 'a b' c").run().stdout == "a b|c|"
    assert Process(["printf", "%s|", "a b", "c"]).run().stdout == "a b|c|"
    assert Process(("printf", "%s|", "a b", "$HOME"), shell=True).run().stdout == "a b|$HOME|"
    assert (
        Process("printf '%s|' \"$x\" | tr x y", shell=True, env={"x": "xx"}).run().stdout == "yy|"
    )
    assert Process([Path("/bin/echo"), "x"]).run().stdout == "x\n"  # type: ignore[list-item]


def test_cwd_and_env(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INHERITED", "yes")
    monkeypatch.setenv("UNWANTED", "no")
    env = {"ADDED": "é", "UNWANTED": None}
    p = Process(
        'pwd; echo "$INHERITED $ADDED ${UNWANTED-unset}"', shell=True, cwd=tmp_path, env=env
    )
    env["ADDED"] = "changed too late"
    assert p.run().stdout == f"{tmp_path.resolve()}\nyes é unset\n"
    assert p.cwd == str(tmp_path)


def test_a_relative_command_is_found_from_its_cwd(tmp_path: Path) -> None:
    script = tmp_path / "hello"
    script.write_text("#!/bin/sh\necho hello\n")
    script.chmod(0o755)
    assert Process("./hello", cwd=tmp_path).run().stdout == "hello\n"
    assert Process("./hello", cwd=tmp_path, pty=True).run().stdout == "hello\r\n"


def test_the_methods_chain() -> None:
    p = Process("cat")
    assert p.start() is p
    assert p.close_stdin() is p
    assert p.wait() is p
    assert p.kill() is p
    assert p.reset() is p
    p.start().kill().wait().reset()
    assert not p.started


def test_wait_needs_a_start() -> None:
    with pytest.raises(ValueError, match="not started"):
        Process("true").wait()


def test_a_second_start_does_nothing() -> None:
    p = Process("echo $$", shell=True).start()
    pid = p.pid
    assert p.start().wait().start().pid == pid
    assert p.stdout == f"{pid}\n"


@pytest.mark.parametrize("timeout", [0.05, "0.05", datetime.timedelta(seconds=0.05), 0])
def test_wait_with_a_timeout_gives_up_in_silence(timeout: Any) -> None:
    p = Process("cat").start()
    assert p.wait(timeout) is p
    assert p.running
    assert not p.killed
    assert p.close_stdin().run(timeout=20).finished_ok


# -- exit codes and outcomes ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cmd", "code", "raw", "reason", "message"),
    [
        ("exit 0", 0, 0, None, ""),
        ("exit 3", 3, 3 << 8, Reason.EXIT_CODE, "exited 3"),
        ("exit 255", 255, 255 << 8, Reason.EXIT_CODE, "exited 255"),
        ("kill -TERM $$", -15, 15, Reason.SIGNAL, "died of SIGTERM"),
        ("kill -KILL $$", -9, 9, Reason.SIGNAL, "died of SIGKILL"),
    ],
)
def test_exit_codes_are_decoded(
    cmd: str, code: int, raw: int, reason: Reason | None, message: str
) -> None:
    p = Process(cmd, shell=True, nolog_exit_code=True).run()
    assert (p.exit_code, p.exit_status_raw, p.reason, p.message) == (code, raw, reason, message)
    assert not p.killed
    assert p.ok == (code == 0)


def exit_0() -> Process:
    return Process("true").run()


def exit_3() -> Process:
    return Process("exit 3", shell=True, nolog_exit_code=True).run()


def own_signal() -> Process:
    return Process("kill -USR1 $$", shell=True, nolog_exit_code=True).run()


def killed() -> Process:
    return Process(FOREVER).start().kill().wait()


def killed_by_usr1() -> Process:
    return Process(FOREVER).start().kill(signal.SIGUSR1).wait()


def signalled_then_exit_3() -> Process:
    ready = Ready()
    cmd = "trap 'exit 3' USR1; echo ready; while :; do sleep 0.05; done"
    p = Process(cmd, shell=True, nolog_exit_code=True, stdout_handlers=[ready]).start()
    ready.wait()
    return p.kill(signal.SIGUSR1).wait()


def timed_out() -> Process:
    return Process(FOREVER, timeout=0.05, nolog_timeout=True).run()


def no_command() -> Process:
    return Process("no-such-command-anywhere", nolog_error=True).run()


def unread() -> Process:
    p = Process("exec <&-; echo closed; exec sleep 1000", shell=True, nolog_write_error=True)
    ready = Ready()
    p.stdout_handlers.append(ready)
    p.start()
    ready.wait()
    p.write("x")
    return p.kill().wait()


@pytest.mark.parametrize(
    ("make", "facts"),
    [
        (exit_0, {"exit": 0}),
        (exit_3, {"exit": 3}),
        (own_signal, {"exit": -10}),
        (killed, {"exit": -15, "killed": True}),
        (killed_by_usr1, {"exit": -10, "killed": True}),
        (signalled_then_exit_3, {"exit": 3}),
        (timed_out, {"exit": -15, "killed": True, "timeout": True}),
        (no_command, {"exit": None, "error": True}),
        (unread, {"exit": -15, "killed": True, "write": True}),
    ],
)
def test_what_is_ok(make: Any, facts: dict[str, Any]) -> None:
    p = make()
    assert p.exit_code == facts["exit"]
    assert p.killed == facts.get("killed", False)
    assert p.timeouted == facts.get("timeout", False)
    assert p.error == facts.get("error", False)
    assert p.write_error == facts.get("write", False)
    flags = ["ignore_exit_code", "ignore_timeout", "ignore_error", "ignore_write_error"]
    for values in itertools.product([False, True], repeat=len(flags)):
        ignored = dict(zip(flags, values, strict=True))
        for flag, value in ignored.items():
            setattr(p, flag, value)
        code_ok = p.exit_code == 0 or ignored["ignore_exit_code"] or p.killed
        expected = (
            (not p.write_error or ignored["ignore_write_error"])
            and (not p.error or ignored["ignore_error"])
            and (not p.timeouted or ignored["ignore_timeout"])
            and (code_ok or p.error)  # not startable: ignore_error is enough
        )
        assert p.ok == p.finished_ok == expected, ignored


def test_a_write_error_shows_before_the_end() -> None:
    ready = Ready()
    p = Process("exec <&-; echo closed; exec sleep 1000", shell=True, nolog_write_error=True)
    p.stdout_handlers.append(ready)
    p.start()
    ready.wait()
    p.write("nobody reads this")
    with p:
        for _ in range(1000):
            if p.write_error:
                break
            p.wait(0.01)
        assert p.running
        assert not p.ok
    p.wait()


def test_given_up_before_the_start_is_never_ok() -> None:
    first, second = Local(FOREVER), Local("true", process_args={"ignore_error": True})
    steps = SequentialActions([first, second]).start()
    steps.kill().wait()
    p = second.processes[0]
    assert p.cancelled
    assert p.ended
    assert not p.ok
    assert p.reason is Reason.CANCELLED
    assert p.stats().num_cancelled == 1


def test_failures_raise_only_on_request() -> None:
    p = Process("exit 3", shell=True, nolog_exit_code=True)
    with pytest.raises(ProcessesFailed, match="exited 3") as caught:
        p.run(check=True)
    assert caught.value.processes == [p]
    with pytest.raises(ProcessesFailed):
        p.raise_if_failed()
    p.ignore_exit_code = True
    assert p.raise_if_failed() is p
    assert Process("true").run(check=True).ok


# -- killing ----------------------------------------------------------------------------------


def test_kill_just_after_the_start() -> None:
    p = Process(FOREVER).start().kill().wait()
    assert (p.killed, p.forced_kill, p.exit_code, p.ok) == (True, False, -15, True)


@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGHUP, signal.SIGKILL, 9, 15])
def test_kill_with_a_signal_of_choice(sig: int) -> None:
    p = Process(FOREVER).start().kill(sig).wait()
    assert p.exit_code == -sig
    assert p.killed
    assert not p.forced_kill


def test_a_signal_that_talks_to_it_does_not_count_as_killing() -> None:
    ready = Ready()
    cmd = "trap 'exit 0' USR1; echo ready; while :; do sleep 0.05; done"
    p = Process(cmd, shell=True, stdout_handlers=[ready]).start()
    ready.wait()
    p.kill(signal.SIGUSR1).wait()
    assert p.exit_code == 0
    assert not p.killed


def test_a_real_time_signal() -> None:
    p = Process(FOREVER).start()
    try:
        p.kill(signal.SIGRTMIN + 1).wait(10)
    finally:
        p.kill().wait()
    assert p.exit_code == -(signal.SIGRTMIN + 1)


def test_kill_finds_nothing_to_do_before_the_start_and_after_the_end() -> None:
    p = Process("true").kill()
    assert not p.started
    assert not p.run().kill().killed


def test_a_stopped_process_ends_too() -> None:
    p = Process(FOREVER).start().kill(signal.SIGSTOP).kill().wait()
    assert p.exit_code == -15


@pytest.mark.parametrize("after", [0.1, "0.1", datetime.timedelta(seconds=0.1)])
def test_one_that_ignores_term_is_forced(after: Any) -> None:
    ready = Ready()
    p = Process(IGNORES_TERM, shell=True, stdout_handlers=[ready]).start()
    ready.wait()
    p.kill(auto_force_kill_timeout=after).wait()
    assert (p.killed, p.forced_kill, p.exit_code, p.ok) == (True, True, -9, True)


def test_kill_timeout_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(configuration, "kill_timeout", "0.1")
    ready = Ready()
    p = Process(IGNORES_TERM, shell=True, stdout_handlers=[ready]).start()
    ready.wait()
    assert p.kill().wait().forced_kill


@pytest.mark.parametrize("never", [None, False])
def test_kill_without_force(never: bool | None) -> None:
    ready = Ready()
    p = Process(IGNORES_TERM, shell=True, stdout_handlers=[ready]).start()
    ready.wait()
    assert p.kill(auto_force_kill_timeout=never).wait(0.3).running
    assert not p.kill(signal.SIGKILL).wait().forced_kill


def test_kill_twice() -> None:
    ready = Ready()
    p = Process(IGNORES_TERM, shell=True, stdout_handlers=[ready]).start()
    ready.wait()
    p.kill().kill(auto_force_kill_timeout=None).kill(auto_force_kill_timeout=False)
    assert p.wait(0.1).running
    p.kill(signal.SIGKILL).wait()


def test_a_second_kill_may_be_more_urgent() -> None:
    ready = Ready()
    p = Process(IGNORES_TERM, shell=True, stdout_handlers=[ready]).start()
    ready.wait()
    p.kill(auto_force_kill_timeout=1000).kill(auto_force_kill_timeout=0.1).wait(10)
    forced = p.forced_kill
    p.kill(signal.SIGKILL).wait()
    assert forced


def test_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    p = Process(FOREVER, timeout="0.1", nolog_timeout=True).run()
    assert (p.timeouted, p.killed, p.forced_kill, p.exit_code) == (True, True, False, -15)
    assert (p.ok, p.reason, p.message) == (False, Reason.TIMEOUT, "reached its timeout of 0.1 s")
    monkeypatch.setitem(configuration, "kill_timeout", 0.1)
    p = Process(IGNORES_TERM, shell=True, timeout=0.3, nolog_timeout=True).run()
    assert (p.timeouted, p.forced_kill, p.exit_code) == (True, True, -9)
    assert "ignored TERM" in p.message


def test_many_equal_deadlines() -> None:
    processes = [Process(FOREVER, timeout=0.2, nolog_timeout=True) for _ in range(20)]
    for p in processes:
        p.start()
    assert all(p.wait().timeouted for p in processes)


def test_a_timeout_that_is_not_reached_does_nothing() -> None:
    p = Process("true", timeout=1000).run()
    assert not p.timeouted
    assert p.ok


def test_killing_ends_all_that_it_started() -> None:
    ready = Ready()
    cmd = "sleep 1000 & echo $!; wait"
    p = Process(cmd, shell=True, stdout_handlers=[ready]).start()
    child = int(ready.wait())
    p.kill().wait()
    assert gone(child)
    assert p.drained


def test_kill_subprocesses_false_signals_the_command_alone() -> None:
    ready = Ready()
    child_cmd = "trap 'echo signalled' TERM; echo $$; while :; do sleep 0.05; done"
    cmd = "trap 'sleep 0.3; kill -KILL $child; exit 4' TERM; sh -c \"$CMD\" & child=$!; wait"
    p = Process(cmd, shell=True, kill_subprocesses=False, env={"CMD": child_cmd})
    p.stdout_handlers.append(ready)
    p.start()
    child = int(ready.wait())
    assert p.kill().wait().exit_code == 4
    assert gone(child)
    assert p.stdout == f"{child}\n"


def test_what_has_left_the_process_group_ends_too() -> None:
    ready = Ready()
    # timeout(1) puts itself and its command into a process group of their own.
    cmd = "timeout 1000 sh -c 'echo $$; exec sleep 1000'; true"
    p = Process(cmd, shell=True, stdout_handlers=[ready]).start()
    child = int(ready.wait())
    p.kill().wait()
    assert gone(child)


def test_what_has_left_the_session_is_left_alone() -> None:
    ready = Ready()
    cmd = "setsid -w sh -c 'echo $$; exec sleep 1000'; true"
    p = Process(cmd, shell=True, stdout_handlers=[ready]).start()
    child = int(ready.wait())
    p.kill().wait()
    try:
        assert not p.drained  # it still holds the output open
    finally:
        os.kill(child, signal.SIGKILL)


@pytest.mark.parametrize("cmd", ["timeout 5 echo x", "setsid -w echo x", "sh -mc 'echo x'"])
def test_wait_returns_for_what_changes_its_group(cmd: str) -> None:
    p = Process(cmd).run(20)
    assert p.finished_ok
    assert p.stdout == "x\n"


def test_survivors_of_a_killed_leader_are_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(configuration, "kill_timeout", 0.2)
    ready = Ready()
    cmd = "sh -c 'trap \"\" TERM; echo $$; while :; do sleep 0.05; done' & wait"
    p = Process(cmd, shell=True, stdout_handlers=[ready]).start()
    child = int(ready.wait())
    p.kill().wait()
    assert gone(child)


def test_as_a_context_manager_it_is_killed_without_waiting() -> None:
    ready = Ready()
    with Process(IGNORES_TERM, shell=True, stdout_handlers=[ready]).start() as p:
        ready.wait()
    assert p.killed
    assert p.running
    p.kill(signal.SIGKILL).wait()
    with Process(FOREVER).start() as p:
        pass
    assert p.wait().exit_code == -15
    with pytest.raises(KeyError), Process(FOREVER).start() as p:
        raise KeyError("exceptions pass")
    assert p.wait().killed
    with Process("true") as p:
        pass
    assert not p.started


# -- what it leaves behind --------------------------------------------------------------------


def test_a_server_left_in_the_background_does_not_hold_up_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(configuration, "drain_timeout", 0.1)
    p = Process("sleep 1000 & echo $!", shell=True).run(20)
    assert p.ended
    assert p.ok
    assert not p.drained
    assert "not drained" in repr(p)
    assert p.stats().num_undrained == 1
    server = int(p.stdout)
    os.kill(server, signal.SIGKILL)
    assert gone(server)


def test_output_after_the_end_is_counted_and_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(configuration, "drain_timeout", 0.1)
    go = tmp_path / "go"
    os.mkfifo(go)
    p = Process(f"(read x <{go}; echo late; echo done >{go}) & echo early", shell=True).run(20)
    assert p.ended
    assert p.truncated == 0
    with open(go, "w") as file:
        file.write("now\n")
    with open(go) as file:
        assert file.read() == "done\n"  # it did not die of SIGPIPE
    for _ in range(1000):
        if p.truncated:
            break
        threading.Event().wait(0.01)
    assert p.truncated == len("late\n")
    assert p.stdout == "early\n"


def test_silence_does_not_count_while_the_i_o_thread_is_held_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(configuration, "drain_timeout", 2)
    go = tmp_path / "go"
    os.mkfifo(go)
    p = Process(f"(read x <{go}; echo late) & exit 3", shell=True, nolog_exit_code=True).start()
    while p.exit_code is None:
        threading.Event().wait(0.01)
    get_runtime().loop.run_sync(threading.Event().wait, 2.2)  # as if it got no time
    go.write_text("now\n")
    p.wait(20)
    assert (p.exit_code, p.drained, p.stdout) == (3, True, "late\n")


def _noisy(options: dict[str, Any]) -> tuple[Process, int]:
    ready = Ready()
    cmd = "(while :; do echo noise; sleep 0.02; done) & echo $!; exit 0"
    p = Process(cmd, shell=True, stdout_handlers=[ready], **options).start()
    return p, int(ready.wait())


@pytest.mark.parametrize("how", ["timeout", "kill"])
def test_what_it_left_behind_and_is_never_silent_can_be_ended(how: str) -> None:
    p, left = _noisy({"timeout": 1, "nolog_timeout": True} if how == "timeout" else {})
    try:
        p.wait(1.5)
        if how == "kill":
            p.kill()
        ended = p.wait(5).ended
    finally:
        os.kill(left, signal.SIGKILL)
        p.wait()
    assert ended


def test_reset_forgets_what_is_left_of_the_run_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(configuration, "drain_timeout", 0.1)
    go = tmp_path / "go"
    os.mkfifo(go)
    lines = Ready()
    cmd = f"test -e {tmp_path}/second || {{ (read x <{go}; echo old) & }}; echo new; cat"
    p = Process(cmd, shell=True, stdout_handlers=[lines]).start().close_stdin().wait(20)
    assert p.ended
    (tmp_path / "second").touch()
    p.reset().start()
    go.write_text("now\n")
    p.wait(0.2)
    p.close_stdin().wait(20)
    assert p.stdout == "new\n"
    assert lines.lines == ["new", "new"]


# -- reset ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("attribute", "value"), NOT_YET.items())
def test_reset_goes_back_to_the_initial_state(attribute: str, value: object) -> None:
    p = Process("echo x; exit 3", shell=True, timeout=5, nolog_exit_code=True).run().reset()
    assert getattr(p, attribute) == value


def test_retry_with_reset(tmp_path: Path) -> None:
    cmd = f"test -e {tmp_path}/x && echo second || {{ touch {tmp_path}/x; echo first; exit 1; }}"
    p = Process(cmd, shell=True, nolog_exit_code=True, timeout=100).run()
    assert (p.stdout, p.ok) == ("first\n", False)
    assert p.reset().run().ok
    assert (p.stdout, p.timeout) == ("second\n", 100)


def test_reset_kills_what_runs_and_keeps_the_handlers() -> None:
    class Handler(ProcessLifecycleHandler):
        seen: list[str]

        def __init__(self) -> None:
            self.seen = []

        def start(self, process: Any) -> None:
            self.seen.append("start")

        def end(self, process: Any) -> None:
            self.seen.append("end")

        def reset(self, process: Any) -> None:
            self.seen.append("reset")

    handler = Handler()
    p = Process("cat", lifecycle_handlers=[handler]).start()
    p.reset()
    assert not p.started
    p.start().close_stdin().wait()
    assert handler.seen == ["start", "end", "reset", "start", "end"]


# -- texts ------------------------------------------------------------------------------------


def test_the_name_is_the_command_on_one_short_line() -> None:
    assert Process("echo  a\n\tb").name == "echo a b"
    assert Process(["echo", "a b"]).name == "echo 'a b'"
    assert Process("x" * 39).name == "x" * 39
    assert Process("x" * 40).name == "x" * 36 + "..."
    assert Process("true", name="mine").name == "mine"


def test_repr_and_str_are_one_line_that_tells_the_state() -> None:
    p = Process("echo 'a\x1b[31m' \n read x; exit 3", shell=True, nolog_exit_code=True)
    seen = [repr(p)]
    p.start()
    seen.append(repr(p))
    p.close_stdin().wait()
    seen.append(repr(p))
    assert seen[0].endswith(": not started>")
    assert re.search(r": (starting|running, pid \d+)>$", seen[1])
    assert seen[2].endswith(": exited 3>")
    assert all("\n" not in text and "\x1b" not in text for text in [*seen, str(p)])
    assert str(p) == repr(p)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (exit_0, "exited 0"),
        (killed, "died of SIGTERM, killed"),
        (timed_out, "died of SIGTERM, timeout"),
        (no_command, "spawn"),
    ],
)
def test_repr_tells_how_it_ended(make: Any, text: str) -> None:
    assert repr(make()).endswith(f": {text}>")


def test_dump_is_short_and_safe_for_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(configuration, "compact_output_threshold", 100)
    cmd = r"seq 10000; printf '\351\033[2J\r\n' >&2; exit 2"
    p = Process(cmd, shell=True, nolog_exit_code=True).run()
    text = p.dump()
    assert repr(p) in text
    assert "exited 2" in text
    assert "[...]" in text
    assert len(text) < 1000
    assert "\x1b" not in text
    text.encode()  # no surrogates
    assert p.stdout.endswith("\n10000\n")


def test_statistics() -> None:
    p = Process("echo hello; exit 3", shell=True, nolog_exit_code=True, name="me", max_output=2)
    stats = p.stats()
    assert (stats.num_processes, stats.num_started, stats.num_ended) == (1, 0, 0)
    p.start()
    assert p.stats().num_started == 1
    stats = p.wait().stats()
    assert (stats.name, stats.start_date, stats.end_date) == ("me", p.start_date, p.end_date)
    assert (stats.num_ended, stats.num_ok, stats.num_finished_ok) == (1, 0, 0)
    assert (stats.num_non_zero_exit_codes, stats.num_errors, stats.num_truncated) == (1, 0, 1)
    assert stats.reasons == {"exit code": 1}
    assert exit_0().stats().num_finished_ok == 1
    assert no_command().stats().num_errors == 1
    assert timed_out().stats().num_timeouts == 1
    assert unread().stats().num_write_error == 1


# -- events, conditions, coroutines, threads --------------------------------------------------


def test_events() -> None:
    p = Process("cat")
    assert not p.started_event.is_set()
    assert not p.ended_event.is_set()
    p.start()
    assert p.started_event.wait(20)
    assert not p.ended_event.is_set()
    p.close_stdin()
    assert p.ended_event.wait(20)
    p.wait().reset()
    assert not p.started_event.is_set()
    assert not p.ended_event.is_set()


def test_events_that_are_first_asked_for_later() -> None:
    p = Process("true").run()
    assert p.started_event.is_set()
    assert p.ended_event.is_set()
    p = Process("no-such-command-anywhere", nolog_error=True).run()
    assert p.ended_event.is_set()


def test_conditions() -> None:
    p = Process("cat")
    with p.started_condition:
        p.start()
        assert p.started_condition.wait(20)
    with p.ended_condition:
        p.close_stdin()
        assert p.ended_condition.wait(20)


def test_await() -> None:
    async def main() -> None:
        p = Process("cat").start()

        async def waiter() -> str:
            return (await p).stdout

        async def writer() -> None:
            await asyncio.sleep(0)
            p.write("hello")
            p.close_stdin()

        first, _, second = await asyncio.gather(waiter(), writer(), waiter())
        assert first == second == "hello"
        assert await p is p
        slow = Process(FOREVER).start()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(_awaiting(slow), 0.05)
        assert slow.running
        assert (await slow.kill()).killed
        with pytest.raises(ValueError, match="not started"):
            await Process("true")

    asyncio.run(main())


async def _awaiting(p: Process) -> None:
    await p


def test_many_threads_wait_for_one_process() -> None:
    p = Process("cat").start()
    threads = [threading.Thread(target=p.wait) for _ in range(30)]
    for thread in threads:
        thread.start()
    p.close_stdin()
    for thread in threads:
        thread.join(20)
    assert not any(thread.is_alive() for thread in threads)


def test_many_threads_start_and_kill_one_process() -> None:
    p = Process(FOREVER)
    pids: set[int | None] = set()

    def work() -> None:
        p.start()
        p.kill()
        p.wait()
        pids.add(p.pid)

    threads = [threading.Thread(target=work) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert pids == {p.pid}
    assert p.ended


def test_wait_is_prompt() -> None:
    begin = time.monotonic()
    for _ in range(50):
        Process("true").run()
    assert time.monotonic() - begin < 20


def test_the_script_may_wait_for_the_child_itself() -> None:
    p = Process("sleep 0.1; exit 4", shell=True, nolog_exit_code=True).start()
    p.process.wait()
    assert p.wait(20).exit_code == 4


# -- the log ----------------------------------------------------------------------------------


def test_nothing_is_logged_when_all_goes_well(caplog: pytest.LogCaptureFixture) -> None:
    Process("echo fine; echo quiet >&2", shell=True).run()
    Process(FOREVER).start().kill().wait()
    assert caplog.records == []


def test_a_failure_is_one_warning_with_the_output(caplog: pytest.LogCaptureFixture) -> None:
    p = Process("echo this is out; echo this is err >&2; exit 3", shell=True).run()
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    text = record.getMessage()
    assert repr(p) in text
    assert "exited 3" in text
    assert "this is out" in text
    assert "this is err" in text


@pytest.mark.parametrize("what", ["exit_code", "timeout", "error", "write_error"])
def test_ignore_does_not_silence_and_nolog_does(
    what: str, caplog: pytest.LogCaptureFixture
) -> None:
    commands: dict[str, dict[str, Any]] = {
        "exit_code": {"cmd": "exit 3", "shell": True},
        "timeout": {"cmd": FOREVER, "timeout": 0.05},
        "error": {"cmd": "no-such-command-anywhere"},
        "write_error": {"cmd": "head -c 1"},
    }

    def run(**flag: bool) -> Process:
        p = Process(**commands[what], **flag).start()  # type: ignore[arg-type]
        if what == "write_error":
            p.write("x" * 1_000_000)
        return p.wait()

    assert run(**{f"ignore_{what}": True}).ok
    assert len(caplog.records) == 1
    caplog.clear()
    assert not run(**{f"nolog_{what}": True}).ok
    assert caplog.records == []


def test_long_output_is_logged_shortened(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(configuration, "compact_output_threshold", 50)
    p = Process("seq 1000; exit 1", shell=True).run()
    assert "[...]" in caplog.text
    assert "\n500\n" not in caplog.text
    assert "\n500\n" in p.stdout
    caplog.clear()
    monkeypatch.setitem(configuration, "compact_output_threshold", 0)
    p.reset().run()
    assert "\n500\n" in caplog.text


def test_no_text_is_made_for_what_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Counting(Process):
        texts = 0

        def dump(self) -> str:
            self.texts += 1
            return super().dump()

        def __repr__(self) -> str:
            self.texts += 1
            return super().__repr__()

    well, quiet = Counting("true").run(), Counting("false", nolog_exit_code=True).run()
    caplog.set_level(logging.ERROR, logger.name)
    below = Counting("false").run()
    assert (well.texts, quiet.texts, below.texts) == (0, 0, 0)
    caplog.set_level(logging.WARNING, logger.name)
    assert Counting("false").run().texts > 0
