"""Retry, start_rate, max_failures and retry_failed() of actions, with scripted failures."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from execo import (
    Action,
    ActionLifecycleHandler,
    Get,
    Local,
    ParallelActions,
    Put,
    Reason,
    Remote,
    RemoteSerial,
    Report,
    Retry,
    SequentialActions,
    default_connection_params,
    transports,
)
from execo.errors import ProcessError
from execo.process import ProcessBase, ProcessLifecycleHandler
from execo.testing import Exit, Fail, FakeTransport, Gate, Out, Script, Start

LONG = 30.0
"""Seconds that nothing here takes: a hang."""

QUICK = Retry(times=2, backoff=0.01)
QUIET = {"nolog_exit_code": True, "nolog_error": True, "nolog_timeout": True}


class Turns(dict[str, list[Script]]):
    """Command -> its scripts, one for each start; the last one for all that follow."""

    def get(self, command: str, _: Any = None) -> Any:
        turns = self[command]
        return turns.pop(0) if len(turns) > 1 else turns[0]


turns = Turns()


class TurnsTransport(FakeTransport):
    """The fake transport, with other scripts at each start."""

    def __init__(self, runtime: Any) -> None:
        super().__init__(runtime, scripts=cast(Any, turns))


@pytest.fixture(autouse=True)
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    transports.register("turns", f"{__name__}:TurnsTransport")
    monkeypatch.setitem(default_connection_params, "transport", "turns")
    turns.clear()
    yield
    turns.clear()


def fails(reason: Reason = Reason.CONNECT, **options: float) -> Script:
    return Script(Fail(ProcessError(f"no {reason}", reason=reason, host="a"), **options))


def works() -> Script:
    return Script(Out(b"done\n"))


def ended(action: Action) -> Any:
    action.wait(LONG)
    assert action.ended, f"still running: {[p for p in action.processes if not p.ended]}"
    return action


def eventually(condition: Any) -> None:
    """Return once ``condition()`` holds."""
    deadline, nap = time.monotonic() + LONG, threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        nap.wait(0.005)


def per_host(*commands: str) -> tuple[str, list[str]]:
    """A command of its own for each of so many hosts."""
    return "{{" + repr(list(commands)) + "}}", [f"h{n}" for n in range(len(commands))]


# -- retry ------------------------------------------------------------------------------------


def test_a_connection_that_fails_is_tried_again() -> None:
    turns["work"] = [fails(), fails(), works()]
    remote = Remote("work", "a", retry=QUICK).run(LONG)
    (process,) = remote.processes
    assert remote.finished_ok
    assert (process.stdout, process.attempts, process.reason) == ("done\n", 3, None)
    assert process.message == ""
    assert remote.stats().num_retries == 2
    assert remote.stats().num_errors == 0
    assert str(Report([remote])).splitlines()[-1] == "also: retries 2"


def test_without_a_policy_there_is_one_attempt() -> None:
    turns["work"] = [fails(), works()]
    remote = Remote("work", "a", process_args=QUIET)
    assert remote.processes[0].attempts == 0
    remote.run(LONG)
    assert [(p.attempts, p.reason) for p in remote.processes] == [(1, Reason.CONNECT)]
    assert remote.processes[0].message == "no connect"
    assert "retries" not in str(Report([remote]))


def test_the_last_failure_is_the_outcome(caplog: pytest.LogCaptureFixture) -> None:
    turns["work"] = [fails()]
    process = Remote("work", "a", retry=QUICK).run(LONG).processes[0]
    assert (process.attempts, process.reason) == (3, Reason.CONNECT)
    assert process.message == "no connect (3 attempts)"
    failures = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(failures) == 1
    assert "no connect (3 attempts)" in failures[0].getMessage()


def test_retries_are_told_once_at_the_end(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="execo")
    turns["flaky"], turns["dead"], turns["well"] = [fails(), works()], [fails()], [works()]
    cmd, hosts = per_host("flaky", "dead", "well")
    Remote(cmd, hosts, name="all", retry=QUICK, process_args=QUIET).run(LONG)
    told = [r.getMessage() for r in caplog.records if "started again" in r.getMessage()]
    assert len(told) == 1
    assert told[0].startswith("2 of 3 processes of <Remote 'all': ")
    assert told[0].endswith("were started again; 1 of them are ok")


@pytest.mark.parametrize("reason", [Reason.AUTH, Reason.HOST_KEY, Reason.SPAWN])
def test_other_reasons_only_if_named(reason: Reason) -> None:
    turns["work"] = [fails(reason), works()]
    remote = Remote("work", "a", retry=QUICK, process_args=QUIET).run(LONG)
    assert (remote.processes[0].attempts, remote.processes[0].reason) == (1, reason)
    turns["work"] = [fails(reason), works()]
    named = Retry(backoff=0.01, on=(reason,))
    remote = Remote("work", "a", retry=named, process_args=QUIET).run(LONG)
    assert (remote.processes[0].attempts, remote.ok) == (2, True)


def test_what_may_have_run_is_never_started_again() -> None:
    lost = Fail(ProcessError("the connection is lost", reason=Reason.CONNECT, host="a"))
    turns["work"] = [Script(Out(b"half"), lost), works()]
    process = Remote("work", "a", retry=QUICK, process_args=QUIET).run(LONG).processes[0]
    assert (process.attempts, process.stdout, process.reason) == (1, "half", Reason.CONNECT)
    assert process.message == "the connection is lost; not started again, since it may have run"


def test_a_command_without_an_answer_may_have_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its start was asked for, the connection was lost before the answer: not ``failed``."""
    turns["work"] = [fails(delay=0.05), works()]
    monkeypatch.setattr(
        "execo.testing.fake.FakeChannel.failed",
        property(lambda channel: False, lambda channel, value: None),
        raising=False,
    )
    process = Remote("work", "a", retry=QUICK, process_args=QUIET).run(LONG).processes[0]
    assert (process.attempts, process.reason) == (1, Reason.CONNECT)
    assert "may have run" in process.message


def test_failing_commands_are_not_run_again() -> None:
    turns["work"] = [Script(Exit(3)), works()]
    remote = Remote("work", "a", retry=QUICK, process_args=QUIET).run(LONG)
    assert (remote.processes[0].attempts, remote.processes[0].exit_code) == (1, 3)


def test_nothing_outside_sees_the_attempts_between() -> None:
    class Life(ProcessLifecycleHandler):
        def start(self, process: ProcessBase) -> None:
            seen.append("start")

        def end(self, process: ProcessBase) -> None:
            seen.append("end")

    class All(ActionLifecycleHandler):
        def end(self, action: Action) -> None:
            seen.append("all")

    seen: list[str] = []
    turns["work"] = [fails(), fails(delay=0.05), Script(Out(b"ready\n"), Gate())]
    gate = turns["work"][-1]
    life = {"lifecycle_handlers": [Life()]}
    remote = Remote("work", "a", retry=QUICK, process_args=life, lifecycle_handlers=[All()])
    remote.start()
    (process,) = remote.processes
    process.write("kept for the one that runs\n")
    # Waits through all the attempts, as does expect().
    assert process.expect("ready", timeout=LONG)[1] is not None
    assert (process.started, process.running, process.ended) == (True, True, False)
    assert not process.wait(0.01).ended
    assert bytes(gate.channels[0].received) == b""
    gate.step()
    ended(remote)
    assert seen == ["start", "end", "all"]


def test_input_goes_to_the_attempt_that_runs() -> None:
    from execo.testing import Echo

    turns["cat"] = [fails(), Script(Echo())]
    remote = Remote("cat", "a", retry=QUICK).start()
    remote.write("hello\n")
    remote.close_stdin()
    assert ended(remote).processes[0].stdout == "hello\n"


def test_start_does_not_wait_for_the_attempts() -> None:
    turns["work"] = [fails()]
    remote = Remote("work", "a", retry=Retry(backoff=1000), process_args=QUIET).start()
    assert remote.running
    remote.kill()
    assert ended(remote).processes[0].reason is Reason.CONNECT


def test_a_killed_process_is_not_tried_again() -> None:
    turns["work"] = [fails(delay=1000.0)]
    script = turns["work"][0]
    remote = Remote("work", "a", retry=QUICK, process_args=QUIET).start()
    eventually(lambda: script.channels)
    remote.kill()
    assert ended(remote).processes[0].cancelled
    assert len(script.channels) == 1


def test_a_process_that_waits_for_its_next_attempt_can_be_reset() -> None:
    turns["work"] = [fails(), works()]
    remote = Remote("work", "a", retry=Retry(backoff=1000), process_args=QUIET).start()
    assert remote.reset().processes[0].attempts == 0
    assert remote.run(LONG).ok


def test_a_command_that_cannot_be_found_may_come() -> None:
    """A process whose start fails in execo itself has no channel."""
    turns["work"] = [works()]
    remote = Remote("work", "a", retry=Retry(backoff=0.01, on="spawn"), process_args=QUIET)
    process, tries = remote.processes[0], []
    request = process._request

    def request_later() -> Any:
        tries.append(1)
        if len(tries) < 3:
            raise OSError("the disk is not there yet")
        return request()

    process._request = request_later  # type: ignore[method-assign]
    assert remote.run(LONG).ok
    assert (len(tries), process.attempts) == (3, 3)


def test_an_action_of_actions_lends_its_retry() -> None:
    turns["work"], turns["never"] = [fails(), works()], [fails()]
    never = Remote("never", "b", retry=Retry(times=0), process_args=QUIET)
    inner = SequentialActions([Remote("work", "a"), never])
    ParallelActions([inner], retry=QUICK).run(LONG)
    assert [process.attempts for process in inner.processes] == [2, 1]
    turns["work"] = [fails(), works()]
    alone = Remote("work", "a", process_args=QUIET)
    ParallelActions([alone], retry=QUICK)
    assert alone.run(LONG).processes[0].attempts == 1


def test_many_are_tried_again_and_all_are_told() -> None:
    commands = [f"work {n}" for n in range(200)]
    for command in commands:
        turns[command] = [fails(), works()]
    remote = Remote(*per_host(*commands), retry=QUICK, fanout=20).run(LONG)
    assert remote.ok
    assert remote.stats().num_retries == 200


# -- start_rate -------------------------------------------------------------------------------


def test_children_start_one_after_the_other() -> None:
    turns["work"] = [works()]
    remote = Remote("work", [f"h{n}" for n in range(11)], start_rate=50).run(LONG)
    assert remote.ok
    starts = [process.start_date or 0.0 for process in remote.processes]
    assert starts == sorted(starts)
    # 10 gaps of 20 ms, less what a late timer may catch up.
    assert starts[-1] - starts[0] >= 0.15


def test_a_slow_rate_holds_back_the_rest() -> None:
    turns["work"] = [works()]
    remote = Remote("work", ["a", "b", "c"], start_rate=0.001).start()
    first, *rest = remote.processes
    first.wait(LONG)
    assert first.ok
    assert [process.started for process in rest] == [False, False]
    remote.kill()
    ended(remote)
    assert [process.cancelled for process in rest] == [True, True]
    assert rest[0].message == "given up before its start: its action was killed"


def test_a_rate_and_a_fanout_hold_together() -> None:
    turns["work"] = [Script(Gate())]
    script = turns["work"][0]
    remote = Remote("work", [f"h{n}" for n in range(6)], fanout=2, start_rate=1000).start()
    for rounds in range(1, 4):
        eventually(lambda at=rounds: len(script.channels) == 2 * at)
        assert sum(process.running for process in remote.processes) == 2
        script.step()
    assert ended(remote).ok


def test_a_rate_for_actions() -> None:
    turns["work"] = [works()]
    group = ParallelActions([Remote("work", "a"), Remote("work", "b")], start_rate=0.001).start()
    first, second = group.actions
    first.wait(LONG)
    assert not second.started
    group.kill()
    ended(group)


def test_thousands_at_a_high_rate() -> None:
    turns["work"] = [works()]
    remote = Remote("work", [f"h{n}" for n in range(2000)], start_rate=100_000).run(LONG)
    assert remote.ok


# -- max_failures -----------------------------------------------------------------------------


def test_the_rest_is_given_up_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    turns["bad"], turns["good"] = [Script(Exit(1))], [works()]
    cmd, hosts = per_host("good", "bad", "bad", "good", "good")
    remote = Remote(cmd, hosts, name="all", fanout=1, max_failures=1, process_args=QUIET).run(LONG)
    why = "2 of 5 processes of 'all' failed, more than max_failures=1"
    assert [process.cancelled for process in remote.processes] == [False] * 3 + [True] * 2
    assert remote.processes[4].message == f"given up before its start: {why}"
    assert [r.getMessage() for r in caplog.records] == [f"what has not started is given up: {why}"]
    assert remote.stats().num_cancelled == 2


def test_as_many_as_are_allowed_may_fail() -> None:
    turns["bad"], turns["good"] = [Script(Exit(1))], [works()]
    cmd, hosts = per_host("bad", "bad", "good")
    remote = Remote(cmd, hosts, fanout=1, max_failures=2, process_args=QUIET).run(LONG)
    assert [process.reason for process in remote.processes] == [*[Reason.EXIT_CODE] * 2, None]


def test_a_percentage_is_of_all() -> None:
    turns["bad"], turns["good"] = [Script(Exit(1))], [works()]
    cmd, hosts = per_host(*["bad"] * 3, *["good"] * 17)
    remote = Remote(cmd, hosts, fanout=1, max_failures="10%", process_args=QUIET).run(LONG)
    assert len(remote.by_reason()[Reason.EXIT_CODE]) == 3
    assert len(remote.by_reason()[Reason.CANCELLED]) == 17
    cmd, hosts = per_host(*["bad"] * 2, *["good"] * 18)
    remote = Remote(cmd, hosts, fanout=1, max_failures="10%", process_args=QUIET).run(LONG)
    assert remote.stats().num_cancelled == 0


def test_what_runs_goes_on() -> None:
    turns["bad"], turns["slow"] = [Script(Exit(1))], [Script(Gate(), Out(b"done\n"))]
    slow = turns["slow"][0]
    cmd, hosts = per_host("slow", "bad", "slow")
    remote = Remote(cmd, hosts, fanout=2, max_failures=0, process_args=QUIET).start()
    eventually(lambda: remote.processes[2].cancelled)
    assert remote.processes[0].running
    slow.step()
    ended(remote)
    assert remote.processes[0].stdout == "done\n"


def test_what_is_still_being_connected_is_given_up() -> None:
    turns["bad"] = [Script(Exit(1))]
    turns["slow"] = [Script(Start(delay=1000.0), Out(b"done\n"))]
    cmd, hosts = per_host("slow", "bad", "slow")
    remote = Remote(cmd, hosts, name="all", max_failures=0, process_args=QUIET).run(LONG)
    ended(remote)
    assert [process.cancelled for process in remote.processes] == [True, False, True]
    why = "1 of 3 processes of 'all' failed, more than max_failures=0"
    assert remote.processes[0].message == f"given up while it waited for its start: {why}"


def test_what_waits_to_be_tried_again_is_not_tried_again() -> None:
    turns["bad"], turns["lost"] = [Script(Exit(1))], [fails()]
    cmd, hosts = per_host("lost", "bad")
    retry = Retry(backoff=1000)
    remote = Remote(cmd, hosts, retry=retry, max_failures=0, process_args=QUIET).run(LONG)
    assert [process.reason for process in ended(remote).processes] == [
        Reason.CONNECT,
        Reason.EXIT_CODE,
    ]


def test_a_failure_that_a_retry_mends_is_none() -> None:
    turns["work"] = [fails(), works()]
    remote = Remote("work", ["a", "b"], fanout=1, retry=QUICK, max_failures=0).run(LONG)
    assert remote.ok


def test_what_is_ignored_or_killed_on_purpose_is_no_failure() -> None:
    turns["bad"] = [Script(Exit(1))]
    ignore = {"ignore_exit_code": True, "nolog_exit_code": True}
    remote = Remote("bad", ["a", "b"], fanout=1, max_failures=0, process_args=ignore).run(LONG)
    assert remote.finished_ok
    turns["serve"] = [Script(Gate())]
    server = Remote("serve", ["a", "b"], fanout=1, max_failures=0).start()
    server.processes[0].kill().wait(LONG)
    eventually(lambda: server.processes[1].running)
    server.kill()
    ended(server)


def test_a_sequence_that_stops_at_its_first_failure() -> None:
    turns["bad"], turns["good"] = [Script(Exit(1))], [works()]
    bad = Remote("bad", ["a", "b"], process_args=QUIET)
    steps = [Remote("good", "a"), bad, ParallelActions([Remote("good", "a")])]
    sequence = SequentialActions(steps, name="steps", max_failures=0).run(LONG)
    assert steps[0].ok
    why = "1 of 3 actions of 'steps' failed, more than max_failures=0"
    (last,) = steps[2].processes
    assert last.message == f"given up before its start: {why}"
    assert (sequence.ended, steps[2].started) == (True, False)


def test_what_waits_in_the_actions_below_is_given_up_too() -> None:
    turns["bad"], turns["slow"] = [Script(Exit(1))], [Script(Gate())]
    slow = Remote("slow", ["a", "b"], fanout=1)
    bad = Remote("bad", "c", process_args=QUIET)
    group = ParallelActions([slow, bad], max_failures=0).start()
    eventually(lambda: slow.processes[1].cancelled)
    assert slow.processes[0].running
    turns["slow"][0].step()
    assert ended(group).stats().num_cancelled == 1


def test_all_may_fail_at_once() -> None:
    turns["bad"] = [Script(Exit(1))]
    remote = Remote("bad", [f"h{n}" for n in range(50)], max_failures=0, process_args=QUIET)
    assert len(ended(remote.run(LONG)).failed) == 50
    assert Remote("bad", [], max_failures="10%").run(LONG).ok


# -- hosts and reasons ------------------------------------------------------------------------


def test_hosts_and_reasons() -> None:
    turns["good"], turns["bad"], turns["lost"] = [works()], [Script(Exit(1))], [fails()]
    remote = Remote(*per_host("good", "bad", "lost", "bad"), process_args=QUIET)
    assert (remote.ok_hosts, remote.failed_hosts, remote.by_reason()) == ([], [], {})
    remote.run(LONG)
    assert [host.address for host in remote.ok_hosts] == ["h0"]
    assert [host.address for host in remote.failed_hosts] == ["h1", "h2", "h3"]
    _, one, two, three = remote.processes
    assert remote.by_reason() == {Reason.EXIT_CODE: [one, three], Reason.CONNECT: [two]}
    assert remote.by_reason()["connect"] == [two]  # type: ignore[index]


def test_a_host_is_as_good_as_all_that_ran_there() -> None:
    turns["good"], turns["bad"], turns["slow"] = [works()], [Script(Exit(1))], [Script(Gate())]
    good = Remote("good", ["a", "b", "c", "a"])
    group = ParallelActions(
        [good, Remote("bad", "b", process_args=QUIET), Local("true"), Remote("slow", "c")]
    ).start()
    eventually(lambda: sum(p.ended for p in group.processes) == 6)
    assert [host.address for host in group.ok_hosts] == ["a"]
    assert [host.address for host in group.failed_hosts] == ["b"]
    turns["slow"][0].step()
    assert [host.address for host in ended(group).ok_hosts] == ["a", "c"]


# -- retry_failed() ---------------------------------------------------------------------------


def test_only_what_has_failed_is_run_again() -> None:
    turns["good"], turns["bad"] = [works(), Script(Exit(9))], [Script(Exit(1)), works()]
    remote = Remote(*per_host("good", "bad"), process_args=QUIET).run(LONG)
    processes = remote.processes
    assert remote.failed == [processes[1]]
    assert remote.retry_failed() is remote
    assert ended(remote).ok
    assert remote.processes == processes
    assert [process.stdout for process in processes] == ["done\n", "done\n"]
    assert remote.retry_failed().ended  # nothing left to do


def test_retry_failed_returns_at_once() -> None:
    turns["work"] = [Script(Exit(1)), Script(Gate())]
    gate = turns["work"][1]
    remote = Remote("work", "a", process_args=QUIET).run(LONG).retry_failed()
    assert remote.running
    eventually(lambda: gate.channels)
    gate.step()
    assert ended(remote).ok


def test_what_was_given_up_is_run_by_retry_failed() -> None:
    turns["bad"], turns["good"] = [Script(Exit(1)), works()], [works()]
    cmd, hosts = per_host("bad", "good", "good")
    remote = Remote(cmd, hosts, fanout=1, max_failures=0, process_args=QUIET).run(LONG)
    assert remote.stats().num_cancelled == 2
    assert remote.retry_failed().wait(LONG).ok


def test_retry_failed_keeps_the_command() -> None:
    turns["work 1"] = [Script(Exit(1)), works()]
    numbers = iter(range(1, 10))  # noqa: F841 - for the command
    remote = Remote("work {{[next(numbers)]}}", "a", process_args=QUIET).run(LONG)
    assert remote.retry_failed().wait(LONG).ok
    assert remote.processes[0].cmd == "work 1"


def test_a_reset_action_starts_all_again() -> None:
    turns["bad"], turns["good"] = [Script(Exit(1)), works()], [works()]
    script = turns["good"][0]
    remote = Remote(*per_host("bad", "good"), process_args=QUIET).run(LONG)
    remote.retry_failed().wait(LONG).reset().run(LONG)
    assert remote.ok
    assert len(script.channels) == 2


def test_retry_failed_of_actions_of_actions() -> None:
    turns["bad"], turns["good"] = [Script(Exit(1)), works()], [works()]
    script = turns["good"][0]
    fine, mixed = Remote("good", "a"), Remote(*per_host("good", "bad"), process_args=QUIET)
    later = Remote("good", "z")
    steps = SequentialActions([fine, ParallelActions([mixed]), later], max_failures=0).run(LONG)
    assert len(script.channels) == 2
    assert [host.address for host in steps.failed_hosts] == ["h1", "z"]
    assert steps.retry_failed().wait(LONG).ok
    assert len(script.channels) == 3  # the step that had not been run


def test_handlers_are_told_of_a_second_start_and_end() -> None:
    events: list[str] = []

    class Life(ActionLifecycleHandler):
        def start(self, action: Action) -> None:
            events.append("start")

        def end(self, action: Action) -> None:
            events.append("end")

        def reset(self, action: Action) -> None:
            events.append("reset")

    turns["bad"] = [Script(Exit(1)), works()]
    remote = Remote("bad", "a", process_args=QUIET, lifecycle_handlers=[Life()]).run(LONG)
    remote.retry_failed().wait(LONG)
    assert events == ["start", "end", "start", "end"]


def test_the_end_handler_may_ask_for_another_run() -> None:
    class Again(ActionLifecycleHandler):
        def end(self, action: Action) -> None:
            if not action.ok:
                action.retry_failed().wait()
            done.set()

    done = threading.Event()
    turns["bad"] = [Script(Exit(1)), works()]
    remote = Remote("bad", "a", process_args=QUIET, lifecycle_handlers=[Again()]).run(LONG)
    assert done.wait(LONG)
    assert ended(remote).ok


def test_retry_failed_needs_an_end() -> None:
    turns["slow"] = [Script(Gate())]
    remote = Remote("slow", "a")
    with pytest.raises(ValueError, match="was not started"):
        remote.retry_failed()
    with remote.start(), pytest.raises(ValueError, match="call wait"):
        remote.retry_failed()
    ended(remote)


def test_local_commands_too(tmp_path: Path) -> None:
    place = tmp_path / "there"
    action = Local(["ls", os.fspath(place)], QUIET).run(LONG)
    assert not action.ok
    place.mkdir()
    assert action.retry_failed().wait(LONG).ok


# -- every kind of action takes them ----------------------------------------------------------

KINDS: list[Any] = [
    lambda **policy: Remote("work", "a", **policy),
    lambda **policy: RemoteSerial("a", "/dev/null", 9600, **policy),
    lambda **policy: Put("a", "file", **policy),
    lambda **policy: Get("a", "file", **policy),
    lambda **policy: ParallelActions([], **policy),
    lambda **policy: SequentialActions([], **policy),
]


@pytest.mark.parametrize("make", KINDS)
def test_all_kinds_have_the_policies(make: Any) -> None:
    action = make(start_rate=5, retry=QUICK, max_failures="5%")
    assert (action.start_rate, action.retry, action.max_failures) == (5, QUICK, "5%")
    plain = make()
    assert (plain.start_rate, plain.retry, plain.max_failures) == (None, None, None)


@pytest.mark.parametrize("make", KINDS)
@pytest.mark.parametrize(
    ("policy", "error", "told"),
    [
        ({"start_rate": 0}, ValueError, "above 0"),
        ({"start_rate": "fast"}, TypeError, "start_rate"),
        ({"retry": 3}, TypeError, r"Retry\(times=3\)"),
        ({"max_failures": "many"}, ValueError, "'10%'"),
        ({"max_failures": 0.1}, TypeError, "'10%'"),
        ({"max_failure": 1}, TypeError, "max_failure"),
    ],
)
def test_what_cannot_be(make: Any, policy: Any, error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told):
        make(**policy)


def test_what_was_set_to_nonsense_is_an_error_of_start() -> None:
    turns["work"] = [works()]
    remote = Remote("work", "a")
    remote.max_failures = "all"
    with pytest.raises(ValueError, match="max_failures"):
        remote.start()
    remote.max_failures = None
    assert remote.run(LONG).ok
