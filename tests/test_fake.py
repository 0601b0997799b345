"""The scripted fake transport, as tests of users' programs use it."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from execo import ParallelActions, Process, Reason, transports
from execo.errors import SpawnError
from execo.remote import Local
from execo.testing import (
    CloseStdin,
    Echo,
    Eof,
    Err,
    Exit,
    Fail,
    Gate,
    Out,
    Read,
    Script,
    Start,
    scripts,
)

TIMEOUT = 20.0


class FakeProcess(Process):
    """Runs on the fake."""

    transport = "fake"


@pytest.fixture(autouse=True)
def fake() -> Iterator[None]:
    transports.register("fake", "execo.testing.fake:FakeTransport")
    yield
    scripts.clear()


def test_a_command_follows_its_script() -> None:
    scripts["uptime"] = Script(Out(b"up 3 "), Err(b"and tired\n"), Out(b"days\n"), Exit(3))
    process = Process("uptime", nolog_exit_code=True)
    process.transport = "fake"
    process.run(TIMEOUT)
    assert (process.stdout, process.stderr) == ("up 3 days\n", "and tired\n")
    assert (process.exit_code, process.ok, process.reason) == (3, False, Reason.EXIT_CODE)


def test_an_empty_script_is_a_success() -> None:
    scripts["true"] = Script()
    process = FakeProcess("true").run(TIMEOUT)
    assert (process.ok, process.exit_code, process.stdout) == (True, 0, "")
    assert process.pid is not None
    assert process.start_date is not None


def test_words_are_found_as_a_shell_would_write_them() -> None:
    scripts["echo 'a b' c"] = Script(Out(b"yes"))
    assert FakeProcess(["echo", "a b", "c"]).run(TIMEOUT).stdout == "yes"
    assert FakeProcess("echo 'a b'   c").run(TIMEOUT).stdout == "yes"
    assert FakeProcess("echo 'a b' c", shell=True).run(TIMEOUT).stdout == "yes"


def test_a_command_without_a_script_says_what_to_add() -> None:
    process = FakeProcess("uptime -p", nolog_error=True).run(TIMEOUT)
    assert (process.ok, process.reason, process.pid) == (False, Reason.SPAWN, None)
    assert "scripts['uptime -p'] = Script(...)" in process.message


def test_a_gate_opens_step_by_step() -> None:
    script = scripts["work"] = Script(Out(b"1"), Gate(), Out(b"2"), Gate(), Out(b"3"), Exit(4))
    process = FakeProcess("work", ignore_exit_code=True).start()
    script.channels[0].step()
    assert (process.stdout, process.ended) == ("12", False)
    script.step()
    process.wait(TIMEOUT)
    assert (process.stdout, process.exit_code) == ("123", 4)


def test_many_follow_one_script() -> None:
    script = scripts["work"] = Script(Gate(), Out(b"done"))
    processes = [FakeProcess("work") for _ in range(50)]
    for process in processes:
        process.start()
    script.step()
    assert [process.wait(TIMEOUT).stdout for process in processes] == ["done"] * 50
    assert len(script.channels) == 50


def test_delays_pass() -> None:
    tick = Out(b"tick ", delay=0.02)
    scripts["clock"] = Script(tick, tick, Exit(0, delay=0.02))
    process = FakeProcess("clock").run(TIMEOUT)
    assert process.stdout == "tick tick "
    assert process.end_date is not None
    assert process.start_date is not None
    assert process.end_date - process.start_date >= 0.05


def test_a_timeout_in_the_middle_of_a_delay() -> None:
    scripts["slow"] = Script(Out(b"never", delay=1000))
    process = FakeProcess("slow", timeout=0.05, nolog_timeout=True).run(TIMEOUT)
    assert (process.timeouted, process.exit_code, process.stdout) == (True, -15, "")


def test_stdin_is_read_and_kept() -> None:
    script = scripts["login"] = Script(
        Out(b"name: "), Read(until=b"\n"), Out(b"password: "), Read(until=b"\n"), Read(), Exit()
    )
    process = FakeProcess("login").start()
    process.write("me\nsec")
    process.write("ret\n")
    process.write("rest")
    process.close_stdin()
    process.wait(TIMEOUT)
    assert process.stdout == "name: password: "
    assert script.channels[0].received == b"me\nsecret\nrest"


def test_a_line_that_never_ends_is_read_at_the_end() -> None:
    scripts["read x"] = Script(Read(until=b"\r\n"), Out(b"got it"))
    process = FakeProcess("read x").start()
    process.write(b"x" * 500_000 + b"\r")
    process.close_stdin()
    assert process.wait(TIMEOUT).stdout == "got it"
    assert not process.write_error


def test_echo() -> None:
    scripts["cat"] = Script(Echo())
    process = FakeProcess("cat").start()
    process.write("x" * 300_000)
    process.close_stdin()
    assert process.wait(TIMEOUT).stdout == "x" * 300_000


def test_a_closed_stdin_is_a_write_error() -> None:
    script = scripts["deaf"] = Script(CloseStdin(), Out(b"closed"), Gate())
    process = FakeProcess("deaf", nolog_write_error=True).start()
    process.write("x")
    script.step()
    process.wait(TIMEOUT)
    assert (process.write_error, process.reason) == (True, Reason.WRITE)


def test_signals_and_their_reactions() -> None:
    script = scripts["serve"] = Script(
        Gate(), signals={signal.SIGTERM: None, signal.SIGINT: 7, signal.SIGKILL: None}
    )
    polite = FakeProcess("serve").start()
    polite.kill(auto_force_kill_timeout=None)
    assert not polite.ended
    polite.kill(signal.SIGINT).wait(TIMEOUT)
    assert polite.exit_code == 7
    stubborn = FakeProcess("serve").start()
    stubborn.kill(auto_force_kill_timeout=0.05).wait(TIMEOUT)
    assert (stubborn.exit_code, stubborn.forced_kill) == (-9, True)
    assert script.channels[0].signals == [signal.SIGTERM, signal.SIGINT]
    assert script.channels[1].signals == [signal.SIGTERM, signal.SIGKILL]


def test_a_harmless_signal_is_ignored() -> None:
    script = scripts["work"] = Script(Gate())
    process = FakeProcess("work").start().kill(signal.SIGWINCH).kill(signal.SIGCONT)
    script.step()
    assert process.wait(TIMEOUT).exit_code == 0


def test_one_is_lost_in_the_middle() -> None:
    scripts["ssh x"] = Script(
        Out(b"half"), Fail(SpawnError("the line broke", reason=Reason.CONNECT)), Out(b"never")
    )
    process = FakeProcess("ssh x", nolog_error=True).run(TIMEOUT)
    assert (process.stdout, process.exit_code) == ("half", None)
    assert (process.reason, process.message) == (Reason.CONNECT, "the line broke")


def test_one_cannot_be_started() -> None:
    scripts["x"] = Script(Fail(SpawnError("no such thing")))
    process = FakeProcess("x", nolog_error=True).start()
    assert process.ended  # as a local one: known when start() returns
    assert (process.error, process.message, process.pid) == (True, "no such thing", None)


def test_an_exit_status_is_lost() -> None:
    scripts["x"] = Script(Exit(None))
    process = FakeProcess("x", nolog_error=True).run(TIMEOUT)
    assert (process.exit_code, process.error) == (None, True)


def test_the_output_outlives_the_exit() -> None:
    script = scripts["daemon"] = Script(Eof(2), Out(b"hi"), Exit(), Gate(), Out(b"late"))
    process = FakeProcess("daemon").run(TIMEOUT)
    assert (process.drained, process.stdout) == (False, "hi")
    script.step()
    assert (process.stdout, process.truncated) == ("hi", 4)


def test_reading_fails() -> None:
    scripts["x"] = Script(Out(b"some"), Eof(1, OSError(5, "I/O error")))
    process = FakeProcess("x", nolog_error=True).run(TIMEOUT)
    assert (process.stdout, process.stdout_ioerror, process.stderr_ioerror) == ("some", True, False)
    assert (process.ok, process.exit_code) == (False, 0)
    assert process.message == "some of its output could not be read: I/O error"
    assert process.reason is Reason.WRITE  # not spawn: it has run


def test_one_waits_for_a_slot() -> None:
    script = scripts["queued"] = Script(Gate(), Start(waited=7.0), Out(b"x"))
    process = FakeProcess("queued").start()
    assert (process.running, process.pid) == (True, None)
    script.step()
    process.wait(TIMEOUT)
    assert (process.waited, process.stdout) == (True, "x")


def test_one_is_given_up_while_it_waits_for_its_slot() -> None:
    scripts["queued"] = Script(Gate(), Start())
    process = FakeProcess("queued", nolog_error=True).start().kill().wait(TIMEOUT)
    assert (process.cancelled, process.reason) == (True, Reason.CANCELLED)


def test_an_action_of_fakes() -> None:
    scripts["good"] = Script(Out(b"fine"))
    scripts["bad"] = Script(Exit(2))
    actions = [Local(command) for command in ("good", "bad")]
    for action in actions:
        for process in action.processes:
            process.transport = "fake"
            process.nolog_exit_code = True
    both = ParallelActions(actions).run()
    assert [action.ok for action in actions] == [True, False]
    assert not both.ok
