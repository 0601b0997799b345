"""The contract of the seam, one for all transports: what they tell a sink, and in which order.

Beside each command stands what the scripted fake does in its place. The transports under test are
the ``PROVIDERS`` of contract.py.
"""

from __future__ import annotations

import errno
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from contract import PROVIDERS, SCRIPTS, TIMEOUT, Place, Provider, Recorder, command, over
from execo._core import child
from execo._core.runtime import get_runtime
from execo.config import configuration
from execo.errors import CancelledError, NotSupported, Reason, SpawnError
from execo.log import logger
from execo.testing import CloseStdin, Cluster, Echo, Eof, Err, Exit, Fail, Gate, Out, Read, Script
from execo.transports.base import Exec, Forward, Target, Transport
from execo.transports.local import LocalTransport

pytest_plugins = ["become_users", "gateways", "sshd", "execo.testing.pytest_plugin"]


@pytest.fixture(scope="session", autouse=True)
def there_before_any_comparison(cluster: Cluster) -> None:
    """The embedded host, and the thread that waits for children without pidfds."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(child, "USE_PIDFD", False)
        transport = LocalTransport(get_runtime())
        Place(transport, get_runtime().loop).run("true")
        transport.close()


@pytest.fixture
def place(
    request: pytest.FixtureRequest,
    provider: Provider,
    monkeypatch: pytest.MonkeyPatch,
    complaints: list[str],
) -> Iterator[Place]:
    yield from _place(provider.make(monkeypatch), provider.target(request))
    assert complaints == []


@pytest.fixture
def narrow_place(
    request: pytest.FixtureRequest,
    provider: Provider,
    monkeypatch: pytest.MonkeyPatch,
    complaints: list[str],
) -> Iterator[Place]:
    """It runs one command at a time."""
    yield from _place(provider.make_narrow(monkeypatch), provider.target(request))
    assert complaints == []


def _place(transport: Transport, target: Target | None) -> Iterator[Place]:
    here = Place(transport, get_runtime().loop, target)
    yield here
    transport.close()
    for sink in here.sinks:
        sink.wait_over()
        sink.check()


@pytest.fixture
def complaints() -> Iterator[list[str]]:
    """Errors that the I/O thread has logged."""
    found: list[str] = []
    handler = logging.Handler(logging.ERROR)
    handler.emit = lambda record: found.append(record.getMessage())  # type: ignore[method-assign]
    logger.addHandler(handler)
    yield found
    logger.removeHandler(handler)


# -- output and exit ----------------------------------------------------------------------------

HELLO = command("printf hello; exit 3", Out(b"hello"), Exit(3))
BOTH = command("printf one; printf two >&2", Out(b"one"), Err(b"two"))
ZEROS = command("head -c 300000 /dev/zero; exit 3", *[Out(bytes(60_000))] * 5, Exit(3))
BYTES = command(
    r"printf '\000\001\377\376\r\n\303(\200'; printf '\000\377' >&2",
    Out(b"\0\1\xff\xfe\r\n\xc3(\x80"),
    Err(b"\0\xff"),
)
# More than pipes and the windows of SSH hold.
FLOOD = command("head -c 8000000 /dev/zero; exit 3", *[Out(bytes(80_000))] * 100, Exit(3))
HELD = command("(sleep 1; echo late) & echo hi", Out(b"hi\n"), Exit(), Gate(), Out(b"late\n"))
CLOSED = command("exec >&- 2>&-; read x; exit 5", Eof(1), Eof(2), Read(until=b"\n"), Exit(5))
CAT = command("cat", Echo())
LINE = command("read x; echo hi; exit 3", Read(until=b"\n"), Out(b"hi\n"), Exit(3))
SLEEP = command("exec sleep 1000", Gate())
STUBBORN = command(
    "trap '' TERM; echo ready; cat", Out(b"ready\n"), Echo(), signals={signal.SIGTERM: None}
)


@over()
def test_a_command_writes_and_exits(place: Place) -> None:
    before = time.time()
    sink = place.run(HELLO)
    assert (sink.out, sink.err, sink.status, sink.error) == (b"hello", b"", 3 << 8, None)
    assert sink.eofs == {1: None, 2: None}
    assert sink.channel is not None
    assert sink.channel.start_date is not None
    assert before - 1 <= sink.channel.start_date <= time.time()
    assert 0 <= sink.channel.waited < TIMEOUT
    assert not sink.channel.failed


@over()
def test_stderr_is_apart(place: Place) -> None:
    sink = place.run(BOTH)
    assert (sink.out, sink.err) == (b"one", b"two")


@over()
def test_bytes_are_exact(place: Place) -> None:
    sink = place.run(BYTES)
    assert (sink.out, sink.err) == (b"\0\1\xff\xfe\r\n\xc3(\x80", b"\0\xff")


@over()
def test_output_in_the_pipe_at_the_exit_is_not_lost(place: Place) -> None:
    sink = place.run(ZEROS)
    assert (sink.out, sink.status) == (bytes(300_000), 3 << 8)


@over("exit first")
def test_the_exit_does_not_wait_for_what_holds_the_output(place: Place) -> None:
    sink = place.open(HELD)
    sink.wait(lambda sink: "exit" in sink.calls and sink.out == b"hi\n")
    assert sink.eofs == {}
    SCRIPTS[HELD].step()
    sink.wait_over()
    assert sink.out == b"hi\nlate\n"
    assert sink.calls.index("exit") < sink.calls.index("eof 1")


@over("exit first")
def test_the_end_of_the_output_is_not_the_exit(place: Place) -> None:
    sink = place.open(CLOSED).wait(lambda sink: len(sink.eofs) == 2)
    assert "exit" not in sink.calls
    place.do(sink, "write", b"go\n")
    assert sink.wait_over().exit_code == 5


EXITS = {code: command(f"exit {code}", Exit(code)) for code in (0, 1, 126, 127, 255)}


@over()
@pytest.mark.parametrize("code", EXITS)
def test_an_exit_code_is_a_wait_status(place: Place, code: int) -> None:
    assert place.run(EXITS[code]).status == code << 8


DEATHS = {
    number: command(f"ulimit -c 0; kill -{int(number)} $$", Exit(-number))
    for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV, signal.SIGPIPE, signal.SIGUSR1)
}


@over("all signals", "signals")
@pytest.mark.parametrize("number", DEATHS)
def test_a_death_by_signal_is_a_wait_status(place: Place, number: signal.Signals) -> None:
    assert place.run(DEATHS[number]).exit_code == -number


QUOTED = ("printf", "%s|", "a b", "$HOME;exit 4", "")
SCRIPTS["printf '%s|' 'a b' '$HOME;exit 4' ''"] = Script(Out(b"a b|$HOME;exit 4||"))


@over()
def test_words_pass_by_the_shell(place: Place) -> None:
    sink = place.run(Exec(QUOTED))
    assert (sink.out, sink.status) == (b"a b|$HOME;exit 4||", 0)


NUMBERED = {n: command(f"echo {n}; exit {n}", Out(b"%d\n" % n), Exit(n)) for n in range(30)}


@over()
def test_each_sink_gets_what_is_its_own(place: Place) -> None:
    sinks = place.open_all(*(Exec(text) for text in NUMBERED.values()))
    for n, sink in enumerate(sinks):
        sink.wait_over()
        assert (sink.out, sink.exit_code) == (b"%d\n" % n, n)


@over()
def test_any_thread_may_open(place: Place) -> None:
    threads = [
        threading.Thread(target=lambda: [place.open(text) for text in NUMBERED.values()])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(place.sinks) == 4 * len(NUMBERED)
    codes = sorted(sink.wait_over().exit_code or 0 for sink in place.sinks)
    assert codes == sorted([*NUMBERED] * 4)


@over("instant")
def test_it_runs_when_open_all_returns(place: Place) -> None:
    sink = place.open(CAT)
    assert sink.channel is not None
    assert sink.channel.pid is not None
    assert sink.channel.start_date is not None
    place.end(sink)


@over("pid")
def test_its_pid_is_the_real_one(place: Place) -> None:
    sink = place.run("echo $$")
    assert sink.channel is not None
    assert sink.out == b"%d\n" % (sink.channel.pid or 0)


FORWARDLESS = [provider for provider in PROVIDERS if "forward" in provider.lacks]


@pytest.mark.parametrize("provider", FORWARDLESS, ids=lambda provider: provider.name)
def test_a_kind_of_request_that_it_lacks_is_refused(place: Place, provider: Provider) -> None:
    sink = Recorder(place.loop)
    with pytest.raises(NotSupported, match="cannot do Forward"):
        place.transport.open_all([(Forward("localhost", 80), sink)])
    assert sink.calls == []


@over("popen")
def test_an_exit_status_that_others_have_taken_is_told_as_lost(place: Place) -> None:
    sink = place.open("read x; exit 3")
    channel = sink.channel
    assert channel is not None
    assert channel.pid is not None
    pid = channel.pid

    def end_and_take() -> None:
        channel.write(b"\n")
        os.waitpid(pid, 0)

    # In one call on the I/O thread, which therefore cannot come first.
    place.loop.run_sync(end_and_take)
    sink.wait_over()
    assert sink.status is None
    assert isinstance(sink.error, SpawnError)
    assert "lost" in str(sink.error)


# -- stdin --------------------------------------------------------------------------------------

DEAF = command("exec <&-; echo closed; exec sleep 1000", CloseStdin(), Out(b"closed\n"), Gate())


@over()
def test_megabytes_go_through_cat_and_hold_nobody_up(place: Place) -> None:
    data = os.urandom(8 << 20)  # more than pipes and the windows of SSH hold
    sink = place.open(CAT)
    place.do(sink, "pause")
    place.do(sink, "write", data)
    place.do(sink, "close_stdin")
    sink.wait(lambda sink: sink.written)
    # Pipes hold some of it, never all; what they do not take waits with us.
    assert (sink.out, sink.written < len(data)) == (b"", True)
    place.do(sink, "resume")
    sink.wait_over()
    assert sink.out == data
    assert (sink.written, sink.write_errors, sink.status) == (len(data), [], 0)


@over()
def test_writes_stay_in_order(place: Place) -> None:
    lines = [b"%d\n" % n for n in range(3000)]
    sink = place.open(CAT)
    for line in lines:
        place.loop.call_soon(getattr(sink.channel, "write"), line)  # noqa: B009
    place.end(sink)
    assert sink.out == b"".join(lines)
    assert sink.written == len(sink.out)


@over()
def test_write_may_be_called_from_a_callback(place: Place) -> None:
    sink = place.open(CAT)

    def again(call: str) -> None:
        assert sink.channel is not None
        if call == "written":
            if sink.written < 10:
                sink.channel.write(b"%d" % sink.written)
            else:
                sink.channel.close_stdin()

    sink.react = again
    place.do(sink, "write", b"0")
    sink.wait_over()
    assert (sink.out, sink.written) == (b"0123456789", 10)


@over()
def test_close_stdin_is_the_end_of_its_input(place: Place) -> None:
    sink = place.open(CAT)
    place.do(sink, "write", b"")
    place.do(sink, "write", b"x")
    place.do(sink, "close_stdin")
    place.do(sink, "close_stdin")
    sink.wait_over()
    assert (sink.out, sink.status, sink.written, sink.write_errors) == (b"x", 0, 1, [])


@over()
def test_a_write_after_close_stdin_is_an_error(place: Place) -> None:
    sink = place.open(CAT)
    place.do(sink, "pause")
    place.do(sink, "write", b"x")
    place.do(sink, "close_stdin")
    place.do(sink, "write", b"y")
    assert len(sink.write_errors) == 1
    place.do(sink, "resume")
    sink.wait_over()
    assert (sink.out, sink.status) == (b"x", 0)


@over()
def test_a_write_after_the_exit_is_an_error(place: Place) -> None:
    sink = place.run(HELLO)
    place.do(sink, "write", b"x")
    place.do(sink, "close_stdin")
    assert [error.errno for error in sink.write_errors] == [errno.EPIPE]
    assert sink.written == 0


@over("unread")
def test_a_write_to_a_process_that_closed_its_stdin_is_an_error(place: Place) -> None:
    sink = place.open(DEAF).wait(lambda sink: sink.out == b"closed\n")
    place.do(sink, "write", b"x")
    sink.wait(lambda sink: sink.write_errors)
    assert "exit" not in sink.calls
    place.do(sink, "send_signal", signal.SIGTERM)
    sink.wait_over()


@over("unread")
def test_input_that_it_leaves_unread_is_an_error(place: Place) -> None:
    sink = place.open(LINE)
    place.do(sink, "write", b"line\n" * 200_000)
    sink.wait_over().wait(lambda sink: sink.write_errors)
    assert (sink.out, sink.exit_code) == (b"hi\n", 3)
    assert sink.written < 1_000_000


# -- what cannot be started ---------------------------------------------------------------------

UNSTARTABLE = {
    "not found": (Exec(("execo-nowhere", "x")), "execo-nowhere", "not found"),
    "no such file": (Exec(("/nowhere/x",)), "/nowhere/x", "no such file"),
    "not executable": (Exec(("/etc/passwd",)), "/etc/passwd", "permission denied"),
    "a folder": (Exec(("/etc",)), "/etc", "folder"),
    "no such cwd": (Exec(("true",), cwd="/nowhere"), "true", "'/nowhere'"),
    "a cwd that is a file": (Exec(("true",), cwd="/etc/passwd"), "true", "'/etc/passwd'"),
    "a NUL byte": (Exec(("echo", "a\0b")), "echo", "NUL"),
    "a NUL byte in the shell's": (Exec("echo a\0b"), "", "NUL"),
    "a NUL byte in env": (Exec(("echo",), env={"A": "\0"}), "echo", "NUL"),
    "a NUL byte in cwd": (Exec(("echo",), cwd="/\0"), "echo", "NUL"),
    "too long": (Exec(("echo", "x" * 3_000_000)), "echo", "too long"),
}


@over("spawn errors", "files")
@pytest.mark.parametrize("case", UNSTARTABLE)
def test_what_cannot_be_started_says_why(place: Place, case: str) -> None:
    request, name, words = UNSTARTABLE[case]
    sink = place.run(request)
    assert sink.calls == ["open", "error"]
    assert isinstance(sink.error, SpawnError)
    assert name in str(sink.error)
    assert words in str(sink.error)
    assert sink.error.__cause__ is not None
    assert name in (sink.error.command or "")


@over("spawn errors", "files", "pty")
@pytest.mark.parametrize("case", [case for case in UNSTARTABLE if case != "a NUL byte in cwd"])
def test_a_terminal_changes_nothing_about_it(place: Place, case: str) -> None:
    request, name, words = UNSTARTABLE[case]
    sink = place.run(Exec(request.command, cwd=request.cwd, env=request.env, pty=True))
    assert sink.calls == ["open", "error"]
    assert isinstance(sink.error, SpawnError)
    assert name in str(sink.error)
    assert words in str(sink.error)


@over("spawn errors", "files")
@pytest.mark.parametrize("pty", [False, True])
def test_a_script_that_the_system_does_not_know_cannot_be_started(
    place: Place, tmp_path: Path, pty: bool
) -> None:
    lost = tmp_path / "lost"
    lost.write_text("#!/nowhere/sh\n")
    plain = tmp_path / "plain"
    plain.write_text("echo hi\n")
    for path in (lost, plain):
        path.chmod(0o755)
    sink = place.run(Exec((str(lost),), pty=pty))
    assert sink.calls == ["open", "error"]
    assert "interpreter" in str(sink.error)
    if not pty:  # the shell that prepares a terminal runs it all the same
        sink = place.run(Exec((str(plain),)))
        assert sink.calls == ["open", "error"]
        assert "first line" in str(sink.error)


NOWHERE = Exec(("nowhere",))
SCRIPTS["nowhere"] = Script(Fail(SpawnError("cannot start 'nowhere'", command="nowhere")))


@over("spawn errors")
def test_what_cannot_be_started_can_still_be_asked_for_anything(place: Place) -> None:
    sink = place.run(NOWHERE)
    assert isinstance(sink.error, SpawnError)
    assert "nowhere" in str(sink.error)
    assert sink.error.reason is Reason.SPAWN
    assert sink.channel is not None
    assert (sink.channel.failed, sink.channel.pid, sink.channel.start_date) == (True, None, None)
    for method in ("close_stdin", "pause", "resume", "abort", "abort"):
        place.do(sink, method)
    place.do(sink, "send_signal", signal.SIGTERM)
    assert sink.calls == ["open", "error"]


@over("spawn errors", "instant")
def test_others_start_beside_what_cannot(place: Place) -> None:
    sinks = place.open_all(Exec(HELLO), NOWHERE, Exec(HELLO))
    assert [sink.wait_over().exit_code for sink in sinks] == [3, None, 3]
    assert sinks[1].channel is not None
    assert sinks[1].channel.failed


# -- where it runs ------------------------------------------------------------------------------


@over("env")
def test_variables_are_set_and_unset(place: Place) -> None:
    show = 'printf "%s|" "$EXECO_TEST_NEW" "${LOGNAME-unset}" "${EXECO_TEST_NOT-unset}"'
    changes = {"EXECO_TEST_NEW": "a b\n=é", "LOGNAME": None, "EXECO_TEST_NOT": None}
    sink = place.run(Exec(show, env=changes))
    assert sink.out.decode() == "a b\n=é|unset|unset|"


@over("env", "heir")
def test_other_variables_are_inherited(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXECO_TEST_OLD", "old")
    monkeypatch.setenv("EXECO_TEST_GONE", "gone")
    show = 'printf "%s|" "$EXECO_TEST_OLD" "${EXECO_TEST_GONE-unset}" "$PATH"'
    sink = place.run(Exec(show, env={"EXECO_TEST_GONE": None}))
    assert sink.out.decode() == f"old|unset|{os.environ['PATH']}|"


@over("cwd")
@pytest.mark.parametrize("pty", [False, True])
def test_it_runs_in_its_folder(place: Place, tmp_path: Path, pty: bool) -> None:
    tool = tmp_path / "tool"
    tool.write_text("#!/bin/sh\npwd -P\n")
    tool.chmod(0o755)
    for show in ("pwd -P", ("./tool",)):
        sink = place.run(Exec(show, cwd=str(tmp_path), pty=pty))
        assert sink.out.decode().rstrip() == str(tmp_path.resolve())


@over("files")
def test_it_inherits_no_descriptors(place: Place) -> None:
    other = place.open(CAT)
    # The fourth is the listing's own.
    assert place.run("ls /proc/self/fd").out.split() == [b"0", b"1", b"2", b"3"]
    place.end(other)


# -- terminals ----------------------------------------------------------------------------------


@over("pty")
def test_a_terminal_is_one(place: Place) -> None:
    sink = place.run("test -t 0 && test -t 1 && stty size && echo on it >/dev/tty", pty=True)
    assert (sink.out, sink.err) == (b"24 80\r\non it\r\n", b"")
    assert sink.eofs == {1: None, 2: None}


@over("pty", "third stream")
def test_stderr_is_apart_beside_a_terminal(place: Place) -> None:
    sink = place.run("! test -t 2 && echo out; echo e >&2", pty=True)
    assert (sink.out, sink.err) == (b"out\r\n", b"e\n")


@over("pty")
def test_a_terminal_does_not_echo_and_eot_ends_it(place: Place) -> None:
    sink = place.open(CAT, pty=True)
    place.do(sink, "write", b"hello\n")
    sink.wait(lambda sink: sink.out)
    place.end(sink)
    assert (sink.out, sink.status) == (b"hello\r\n", 0)


@over("pty")
def test_a_terminal_counts_the_bytes_of_the_user_alone(place: Place) -> None:
    sink = place.open(CAT, pty=True)
    place.do(sink, "write", b"hello\n")
    place.end(sink)
    assert sink.written == len(b"hello\n")


@over("pty")
def test_a_terminal_ends_in_the_middle_of_a_line(place: Place) -> None:
    sink = place.open(CAT, pty=True)
    place.do(sink, "write", b"one\ntwo")
    place.end(sink)
    assert (sink.out, sink.status) == (b"one\r\ntwo", 0)


@over("pty")
def test_a_terminal_takes_many_lines(place: Place) -> None:
    lines = b"".join(b"%d\n" % n for n in range(20_000))
    sink = place.open(CAT, pty=True)
    place.do(sink, "write", lines)
    place.end(sink)
    assert sink.out == lines.replace(b"\n", b"\r\n")


@over("pty")
def test_a_terminal_loses_no_output_at_the_exit(place: Place) -> None:
    sink = place.run(ZEROS, pty=True)
    assert (len(sink.out), sink.exit_code) == (300_000, 3)


@over("all signals", "pty")
def test_ctrl_c_on_a_terminal_interrupts(place: Place) -> None:
    sink = place.open("echo ready; exec sleep 1000", pty=True)
    sink.wait(lambda sink: sink.out)
    place.do(sink, "write", b"\x03")
    assert sink.wait_over().exit_code == -signal.SIGINT


@over("pty", "signals")
def test_a_signal_ends_what_runs_on_a_terminal(place: Place) -> None:
    sink = place.open("sleep 1000 & sleep 1001", pty=True)
    place.do(sink, "send_signal", signal.SIGTERM)
    assert sink.wait_over().exit_code == -signal.SIGTERM


# -- signals ------------------------------------------------------------------------------------

POLITE = command(
    "trap 'exit 7' USR1; echo ready; read x",
    Out(b"ready\n"),
    Gate(),
    signals={signal.SIGUSR1: 7},
)


@over("signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGKILL])
def test_a_signal_ends_it(place: Place, number: signal.Signals) -> None:
    sink = place.open(SLEEP)
    place.do(sink, "send_signal", number)
    assert sink.wait_over().exit_code == -number


@over()
def test_a_signal_that_it_handles_is_its_own_affair(place: Place) -> None:
    sink = place.open(POLITE).wait(lambda sink: sink.out)
    place.do(sink, "send_signal", signal.SIGUSR1)
    assert sink.wait_over().exit_code == 7


@over("signals")
def test_one_that_ignores_term_needs_kill(place: Place) -> None:
    sink = place.open(STUBBORN).wait(lambda sink: sink.out == b"ready\n")
    place.do(sink, "send_signal", signal.SIGTERM)
    place.do(sink, "write", b"still here\n")
    sink.wait(lambda sink: sink.out == b"ready\nstill here\n")
    place.do(sink, "send_signal", signal.SIGKILL)
    assert sink.wait_over().exit_code == -signal.SIGKILL


@over("signals")
def test_a_stopped_one_ends_by_term(place: Place) -> None:
    sink = place.open(SLEEP)
    place.do(sink, "send_signal", signal.SIGSTOP)
    place.do(sink, "send_signal", signal.SIGTERM)
    assert sink.wait_over().exit_code == -signal.SIGTERM


@over("signals")
def test_a_signal_may_be_sent_as_soon_as_it_has_started(place: Place) -> None:
    sink = Recorder(place.loop)
    place.sinks.append(sink)

    def kill(call: str) -> None:
        assert sink.channel is not None
        if call == "start":
            sink.channel.send_signal(signal.SIGTERM)

    sink.react = kill
    place.start([(Exec(SLEEP), sink)])
    assert sink.wait_over().exit_code == -signal.SIGTERM


@over()
def test_a_signal_after_the_exit_does_nothing(place: Place) -> None:
    sink = place.run(HELLO)
    place.do(sink, "send_signal", signal.SIGTERM)
    place.do(sink, "abort")
    assert sink.exit_code == 3


# All hold the output open: its end tells that nobody is left.
FAMILIES = {
    "in the background": "sleep 1000 & echo ready; sleep 1001",
    "in a subshell": "(sleep 1000; true) & (echo ready; sleep 1001; true)",
    "in another group": "timeout 1000 sleep 1000 & echo ready; timeout 1000 sleep 1001; true",
    "under job control": "set -m; sleep 1000 & echo ready; sleep 1001; true",
}


@over("group", "signals")
@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_reaches_all_that_it_has_started(
    place: Place, kind: str, number: signal.Signals
) -> None:
    sink = place.open(FAMILIES[kind]).wait(lambda sink: sink.out)
    place.do(sink, "send_signal", number)
    assert sink.wait_over().exit_code == -number


@over("group", "signals")
def test_what_survives_its_leader_is_killed_in_the_end(place: Place) -> None:
    stubborn = "(trap '' TERM; echo ready; exec sleep 1000) & wait"
    sink = place.open(stubborn, kill_timeout=0.3).wait(lambda sink: sink.out)
    place.do(sink, "send_signal", signal.SIGTERM)
    assert sink.wait_over().exit_code == -signal.SIGTERM


@over("group", "pid", "signals")
@pytest.mark.parametrize("alone", [{"group": False}, {"kill_timeout": None}])
def test_what_is_to_be_left_alone_is(place: Place, alone: dict[str, Any]) -> None:
    stubborn = "(trap '' TERM; exec sh -c 'echo $$; exec sleep 1000') & wait"
    sink = place.open(stubborn, **alone).wait(lambda sink: sink.out.endswith(b"\n"))
    place.do(sink, "send_signal", signal.SIGTERM)
    sink.wait(lambda sink: "exit" in sink.calls)
    assert sink.eofs == {}
    os.kill(int(sink.out), signal.SIGKILL)
    sink.wait_over()


# -- pause --------------------------------------------------------------------------------------


@over()
def test_pause_holds_output_back_and_loses_none(place: Place) -> None:
    sink = place.open(LINE)
    place.do(sink, "pause")
    place.do(sink, "write", b"\n")
    sink.wait(lambda sink: "exit" in sink.calls)
    assert (sink.out, sink.eofs) == (b"", {})
    place.do(sink, "resume")
    sink.wait_over()
    assert (sink.out, sink.exit_code) == (b"hi\n", 3)


@over()
def test_pause_in_the_middle_of_the_output_holds_the_command_up(place: Place) -> None:
    sink = Recorder(place.loop)
    place.sinks.append(sink)

    def pause_once(call: str) -> None:
        assert sink.channel is not None
        if call == "data 1" and sink.calls.count(call) == 1:
            sink.channel.pause()
            sink.channel.pause()

    sink.react = pause_once
    place.start([(Exec(FLOOD), sink)])
    sink.wait(lambda sink: sink.out)
    for _ in range(200):
        place.loop.run_sync(lambda: None)
    assert sink.calls == ["open", "start", "data 1"]
    place.do(sink, "resume")
    place.do(sink, "resume")
    sink.wait_over()
    assert (sink.out, sink.exit_code) == (bytes(8_000_000), 3)


@over()
def test_pause_in_on_start_holds_all_back(place: Place) -> None:
    sink = Recorder(place.loop)
    place.sinks.append(sink)

    def pause_at_start(call: str) -> None:
        assert sink.channel is not None
        if call == "start":
            sink.channel.pause()

    sink.react = pause_at_start
    place.start([(Exec(HELLO), sink)])
    sink.wait(lambda sink: "exit" in sink.calls)
    assert (sink.out, sink.eofs) == (b"", {})
    place.do(sink, "resume")
    assert sink.wait_over().out == b"hello"


# -- abort and waiting for a slot ---------------------------------------------------------------


@over("signals")
def test_abort_kills_what_runs(place: Place) -> None:
    sink = place.open(STUBBORN).wait(lambda sink: sink.out)
    place.do(sink, "abort")
    place.do(sink, "abort")
    assert sink.wait_over().exit_code == -signal.SIGKILL


@over("slots")
def test_one_waits_for_its_slot(narrow_place: Place) -> None:
    place = narrow_place
    first, second, third = place.open_all(Exec(CAT), Exec(HELLO), Exec(HELLO))
    first.wait(lambda sink: "start" in sink.calls)
    place.do(second, "send_signal", signal.SIGTERM)  # not started: nothing happens
    assert (second.calls, third.calls) == (["open"], ["open"])
    assert second.channel is not None
    assert (second.channel.pid, second.channel.start_date) == (None, None)
    place.end(first)
    for sink in (second, third):
        assert sink.wait_over().exit_code == 3
    assert third.channel is not None
    assert third.channel.waited > 0


@over("slots")
def test_two_hundred_that_wait_are_given_up_at_once(narrow_place: Place) -> None:
    place = narrow_place
    first, *waiting = place.open_all(Exec(CAT), *[Exec(HELLO)] * 200)
    first.wait(lambda sink: "start" in sink.calls)
    for sink in waiting:
        place.do(sink, "abort")
        place.do(sink, "abort")
    for sink in waiting:
        assert sink.calls == ["open", "error"]
        assert isinstance(sink.error, CancelledError)
        assert sink.error.reason is Reason.CANCELLED
    place.end(first)
    # Their slots are not lost, and nobody waits behind them.
    assert place.run(HELLO).exit_code == 3


@over("slots", "spawn errors")
def test_what_cannot_be_started_gives_its_slot_back(narrow_place: Place) -> None:
    sinks = narrow_place.open_all(*[NOWHERE] * 3, Exec(HELLO))
    assert [sink.wait_over().exit_code for sink in sinks] == [None, None, None, 3]


# -- close --------------------------------------------------------------------------------------


@pytest.fixture
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(configuration, "term_timeout", 1.0)


@over("signals")
def test_close_ends_what_runs(place: Place, short_patience: None) -> None:
    stubborn, sleeping, done = place.open_all(Exec(STUBBORN), Exec(SLEEP), Exec(HELLO))
    stubborn.wait(lambda sink: sink.out)
    sleeping.wait(lambda sink: "start" in sink.calls)
    done.wait_over()
    place.transport.close()
    assert stubborn.wait_over().exit_code == -signal.SIGKILL
    assert sleeping.wait_over().exit_code == -signal.SIGTERM
    assert done.exit_code == 3


@over("group", "signals")
@pytest.mark.parametrize("kind", FAMILIES)
def test_close_ends_all_that_was_started(place: Place, short_patience: None, kind: str) -> None:
    sink = place.open(FAMILIES[kind]).wait(lambda sink: sink.out)
    place.transport.close()
    assert sink.wait_over().exit_code == -signal.SIGTERM


@over("pid", "signals")
def test_close_leaves_alone_what_is_detached(place: Place) -> None:
    detached, sleeping = place.open_all(Exec(SLEEP, detach=True), Exec(SLEEP))
    place.transport.close()
    sleeping.wait_over()
    assert detached.channel is not None
    pid = detached.channel.pid
    assert pid is not None
    assert "exit" not in detached.calls
    os.kill(pid, signal.SIGUSR1)
    assert detached.wait_over().exit_code == -signal.SIGUSR1


@over("slots")
def test_close_gives_up_what_waits(narrow_place: Place) -> None:
    first, *waiting = narrow_place.open_all(Exec(SLEEP), *[Exec(SLEEP)] * 20)
    narrow_place.transport.close()
    first.wait_over()
    for sink in waiting:
        assert isinstance(sink.wait_over().error, CancelledError)


@over("popen", "slots")
def test_close_ends_what_is_about_to_start(
    narrow_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What has got its slot waits for the thread that starts it, which is busy at the moment.
    workers = get_runtime().workers
    first, second = narrow_place.open_all(Exec(CAT), Exec(SLEEP))
    given: list[Any] = []
    monkeypatch.setattr(workers, "submit", lambda function, *args: given.append(function))
    narrow_place.end(first)
    narrow_place.loop.run_sync(lambda: None)
    monkeypatch.undo()
    (start,) = given
    closing = threading.Thread(target=narrow_place.transport.close)
    closing.start()
    closing.join(1.0)  # it waits for the start, to end it
    start()
    closing.join(TIMEOUT)
    assert not closing.is_alive()
    second.wait_over()
