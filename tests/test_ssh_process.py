"""SshProcess as an object: its arguments, its states, its outcome. On the fake transport, and a few
on hosts of the embedded cluster. What is done on the way to a host is tested with the transports.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ClusterShell.NodeSet import NodeSet

from execo import (
    Host,
    ProcessesFailed,
    ProcessLifecycleHandler,
    ProcessOutputHandler,
    Reason,
    SshProcess,
    default_connection_params,
    transports,
)
from execo.errors import HostSetError, ProcessError
from execo.process import ProcessBase
from execo.testing import (
    CloseStdin,
    Cluster,
    Echo,
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


def ended(process: ProcessBase) -> ProcessBase:
    process.wait(LONG)
    assert process.ended, f"still there: {process!r}"
    return process


def request_of(process: SshProcess) -> Any:
    """What its transport is asked for: the process is run for it."""
    command = process._command_text()
    script = scripts.setdefault(command, Script())
    ended(process.start())
    assert process.ok, process.message
    return script.channels[-1].request


# -- its arguments --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "cmd", "host"),
    [
        (("uptime", "web1"), "uptime", Host("web1")),
        (("uptime", Host("web1", "root")), "uptime", Host("web1", "root")),
        ((Host("web1", "root"), "uptime"), "uptime", Host("web1", "root")),
        ((["uptime", "-p"], "web1"), ("uptime", "-p"), Host("web1")),
        (("web1", ["uptime", "-p"]), ("uptime", "-p"), Host("web1")),
        ((Host("web1"), ("uptime", "-p")), ("uptime", "-p"), Host("web1")),
        (("cat", "[::1]"), "cat", Host("[::1]")),
        (("cat", "::1"), "cat", Host("::1")),
    ],
)
def test_command_and_host_in_either_order(args: Any, cmd: Any, host: Host) -> None:
    process = SshProcess(*args)
    assert (process.cmd, process.remote_cmd, process.host) == (cmd, cmd, host)


def test_command_and_host_by_keyword() -> None:
    for process in (
        SshProcess(cmd="uptime", host="web1"),
        SshProcess(host="web1", cmd="uptime"),
        SshProcess("uptime", host="web1"),
    ):
        assert (process.cmd, process.host) == ("uptime", Host("web1"))
    assert SshProcess(cmd=["uptime", "-p"], host="web1").cmd == ("uptime", "-p")


def test_a_keyword_is_never_taken_for_the_other_one() -> None:
    with pytest.raises(TypeError):
        SshProcess(cmd="uptime", host=["web1"])  # type: ignore[arg-type]


def test_the_host_is_a_copy() -> None:
    host = Host("web1", "root", "/key", 23)
    process = SshProcess("uptime", host)
    assert process.host == host
    host.user = "ann"
    assert process.host.user == "root"


@pytest.mark.parametrize(
    ("args", "error"),
    [
        (("uptime", "-oProxyCommand=x"), HostSetError),
        (("uptime", "node[1-3]"), HostSetError),
        (("uptime", ""), HostSetError),
        (("uptime", "a b"), HostSetError),
        (("uptime", None), TypeError),
        (("uptime", 12), TypeError),
        (("uptime", NodeSet("web[1-2]")), TypeError),
        (("uptime", [Host("web1")]), TypeError),
        ((["uptime"], ["web1"]), TypeError),
        ((b"uptime", Host("web1")), TypeError),
        (({"uptime": 1}, Host("web1")), TypeError),
        ((["sleep", 3], Host("web1")), TypeError),
        ((None, Host("web1")), TypeError),
    ],
)
def test_what_a_command_or_host_cannot_be(args: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        SshProcess(*args)


def test_a_wrong_argument_is_named_with_the_right_one() -> None:
    with pytest.raises(TypeError, match=r"SshProcess has no argument 'tiemout'.*'timeout'"):
        SshProcess("uptime", "web1", tiemout=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"unknown connection parameter 'usr'.*'user'"):
        SshProcess("uptime", "web1", {"usr": "root"})
    with pytest.raises(ValueError, match=r"'port'.*1 to 65535"):
        SshProcess("uptime", "web1", {"port": 0})
    with pytest.raises(ValueError, match="not negative"):
        SshProcess("uptime", "web1", timeout=-1)


def test_connexion_is_accepted_wherever_connection_is() -> None:
    process = SshProcess("uptime", "web1", connexion_params={"user": "root"})
    assert process.connection_params["user"] == "root"


def test_all_arguments_of_a_process_are_taken() -> None:
    handler = ProcessOutputHandler()
    process = SshProcess(
        "uptime",
        "web1",
        timeout="0:00:05",
        ignore_exit_code=True,
        nolog_exit_code=True,
        ignore_timeout=True,
        nolog_timeout=True,
        ignore_error=True,
        nolog_error=True,
        ignore_expect_fail=True,
        nolog_expect_fail=True,
        ignore_write_error=True,
        nolog_write_error=True,
        default_expect_timeout=3,
        default_stdout_handler=False,
        default_stderr_handler=False,
        max_output=100,
        lifecycle_handlers=(ProcessLifecycleHandler(),),
        stdout_handlers=(handler, "out.txt", 2),
        stderr_handlers=iter([handler]),
        name="load",
        shell=True,
        kill_subprocesses=False,
    )
    assert process.timeout == 5.0
    assert process.max_output == 100
    assert process.stdout_handlers == [handler, "out.txt", 2]
    assert process.stderr_handlers == [handler]
    assert len(process.lifecycle_handlers) == 1
    assert (process.name, process.ignore_write_error, process.default_stdout_handler) == (
        "load",
        True,
        False,
    )


def test_what_the_transport_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    process = SshProcess("make", "web1", pty=True, cwd=Path("~/src"), env={"A": "1", "LANG": None})
    request = request_of(process)
    assert (request.command, request.cwd, request.pty) == ("make", "~/src", True)
    assert request.env == {"A": "1", "LANG": None}
    assert (request.group, request.detach) == (True, False)
    assert (request.target.address, request.target.name) == ("web1", "web1")
    assert request_of(SshProcess("make", "web1", kill_subprocesses=False)).group is False
    assert request_of(SshProcess(["echo", "a b"], "web1")).command == ("echo", "a b")


@pytest.mark.parametrize("wrong", [{"A": 1}, {1: "a"}])
def test_an_environment_is_made_of_texts(wrong: Any) -> None:
    with pytest.raises(TypeError, match="env takes texts"):
        SshProcess("make", "web1", env=wrong)


def test_a_terminal_is_asked_for_by_the_argument_or_the_parameters() -> None:
    assert SshProcess("top", "web1").pty is False
    assert SshProcess("top", "web1", pty=True).pty is True
    assert SshProcess("top", "web1", {"pty": True}).pty is True


# -- connection parameters ------------------------------------------------------------------------


def test_the_host_comes_before_the_parameters_and_these_before_the_defaults(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(default_connection_params, "user", "default")
    monkeypatch.setitem(default_connection_params, "port", 1)
    monkeypatch.setitem(default_connection_params, "keyfile", "/default")
    params = {"user": "params", "port": 2}
    target = request_of(SshProcess("id", Host("h", user="host"), params)).target
    assert (target.user, target.port, target.keyfile) == ("host", 2, "/default")


def test_the_defaults_hold_at_the_time_when_it_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    before = SshProcess("id", "h")
    monkeypatch.setitem(default_connection_params, "user", "root")
    assert request_of(before).target.user is None
    assert request_of(SshProcess("id", "h")).target.user == "root"


def test_the_parameters_given_are_copied_and_may_be_changed_until_the_start() -> None:
    params = {"user": "ann"}
    process = SshProcess("id", "h", params)
    params["user"] = "bob"
    assert process.connection_params["user"] == "ann"
    process.connection_params["user"] = "cid"
    process.host.port = 2222
    target = request_of(process).target
    assert (target.user, target.port) == ("cid", 2222)


def test_the_transport_is_chosen_at_the_start() -> None:
    process = SshProcess("nope", "h", {"transport": "telnet"}, nolog_error=True)
    ended(process.start())
    assert (process.ok, process.reason) == (False, Reason.SPAWN)
    assert "no transport named 'telnet'; there are: " in process.message
    named = process.message.partition("there are: ")[2].split(", ")
    assert {"local", "openssh", "paramiko", "taktuk"} <= set(named)
    # They stand between others, and are chosen by execo itself.
    assert not {"become", "forward", "transfer"} & set(named)


def test_an_address_that_cannot_be_rewritten_fails_this_process_alone() -> None:
    def rewrite(address: str) -> str:
        raise KeyError(f"no {address} in the table")

    process = SshProcess("id", "h", {"host_rewrite_func": rewrite}, nolog_error=True)
    assert ended(process.start()).reason == Reason.SPAWN
    assert "no h in the table" in process.message
    assert isinstance(process.error_reason, KeyError)


# -- its states -----------------------------------------------------------------------------------


def test_before_the_start() -> None:
    process = SshProcess("uptime", "web1")
    assert (process.started, process.running, process.ended) == (False, False, False)
    assert (process.ok, process.finished_ok) == (True, False)
    assert (process.pid, process.exit_code, process.start_date) == (None, None, None)
    assert (process.stdout, process.stderr, process.message) == ("", "", "")
    assert repr(process) == str(process) == "<SshProcess 'uptime' on web1: not started>"
    process.kill()
    assert not process.started
    for method in (process.wait, process.close_stdin, lambda: process.write("x")):
        with pytest.raises(ValueError, match="not started"):
            method()


def test_from_the_start_to_the_end() -> None:
    script = scripts["work"] = Script(Out(b"1\n"), Gate(), Out(b"2\n"), Err(b"!\n"), Exit(3))
    process = SshProcess("work", "web1", nolog_exit_code=True)
    assert process.start() is process
    assert process.start() is process, "a second start does nothing"
    assert len(script.channels) == 1
    assert (process.started, process.running, process.ended, process.ok) == (
        True,
        True,
        False,
        True,
    )
    assert process.started_event.wait(LONG)
    assert "on web1: running" in repr(process)
    assert not process.wait(0.01).ended
    script.step()
    assert process.wait(LONG) is process
    assert process.ended_event.is_set()
    assert (process.stdout, process.stderr, process.exit_code) == ("1\n2\n", "!\n", 3)
    assert (process.ok, process.finished_ok, process.reason) == (False, False, Reason.EXIT_CODE)
    assert process.message == "exited 3"
    assert repr(process) == "<SshProcess 'work' on web1: exited 3>"
    assert process.start_date is not None
    assert process.end_date is not None
    assert process.start_date <= process.end_date


def test_its_events_say_the_same_whenever_they_are_asked_for() -> None:
    scripts["uptime"] = Script(Start(delay=LONG))
    before, after = SshProcess("uptime", "web1"), SshProcess("uptime", "web1")
    event = before.started_event
    before.start(), after.start()
    try:
        assert (before.pid, after.pid) == (None, None)
        assert event.is_set() == after.started_event.is_set()
    finally:
        ended(before.kill()), ended(after.kill())


def test_a_host_that_waits_for_its_connection_is_starting() -> None:
    scripts["uptime"] = Script(Start(delay=LONG))
    process = SshProcess("uptime", "web1").start()
    assert (process.started, process.pid) == (True, None)
    assert repr(process) == "<SshProcess 'uptime' on web1: starting>"
    process.kill()
    assert ended(process).reason == Reason.CANCELLED
    assert (process.ok, process.cancelled) == (False, True)
    assert repr(process) == "<SshProcess 'uptime' on web1: cancelled>"


@pytest.mark.parametrize("reason", [Reason.CONNECT, Reason.AUTH, Reason.HOST_KEY])
def test_a_host_that_cannot_be_reached_is_no_failing_command(
    reason: Reason, caplog: pytest.LogCaptureFixture
) -> None:
    text = "web1 refuses: check the port"
    scripts["uptime"] = Script(Fail(ProcessError(text, reason=reason, host="web1")))
    process = SshProcess("uptime", "web1")
    with caplog.at_level(logging.WARNING, "execo"):
        ended(process.start())
    assert (process.error, process.ok, process.exit_code) == (True, False, None)
    assert (process.reason, process.message) == (reason, text)
    assert repr(process) == f"<SshProcess 'uptime' on web1: {reason}>"
    (message,) = caplog.messages
    assert "'uptime' on web1" in message
    assert text in message


def test_a_text_for_people_is_one_line_however_odd_the_command() -> None:
    process = SshProcess("cat <<EOF\n\x1b[31mred\r\nEOF", Host("web1", "root", "/secret", 23))
    for text in (repr(process), str(process), process.name):
        assert text.splitlines() == [text]
    assert "\x1b" not in repr(process)
    assert "on web1: not started" in repr(process)


def test_its_name_is_the_command_unless_told() -> None:
    assert SshProcess(["echo", "a b"], "web1").name == "echo 'a b'"
    assert SshProcess("x" * 100, "web1").name == "x" * 36 + "..."
    assert SshProcess("uptime", "web1", name="load").name == "load"
    assert (
        repr(SshProcess("uptime", "web1", name="load"))
        == "<SshProcess 'load' on web1: not started>"
    )


def test_an_empty_command_is_an_outcome() -> None:
    process = SshProcess("", "web1", nolog_error=True).run(LONG)
    assert (process.ok, process.reason) == (False, Reason.SPAWN)
    assert "the command is empty" in process.message


def test_it_is_run_again_after_a_reset() -> None:
    scripts["work"] = Script(Out(b"x"), Exit(1))
    process = SshProcess("work", "web1", nolog_exit_code=True).run(LONG)
    assert not process.ok
    scripts["work"] = Script(Out(b"y"))
    assert process.reset() is process
    assert (process.started, process.stdout, process.exit_code) == (False, "", None)
    assert process.run(LONG).ok
    assert process.stdout == "y"


# -- what can be done to it -----------------------------------------------------------------------


def test_input_goes_down_in_order() -> None:
    scripts["cat"] = Script(Echo())
    process = SshProcess("cat", "web1").start()
    assert process.write("one\n") == 4
    process.write(b"two\n")
    print("three", "four", file=process, flush=True)
    process.close_stdin()
    assert ended(process).stdout == "one\ntwo\nthree four\n"


def test_input_that_nobody_reads_is_a_write_error() -> None:
    script = scripts["head"] = Script(Read(b"\n"), CloseStdin(), Gate())
    process = SshProcess("head", "web1", nolog_write_error=True).start()
    process.write("1\n")
    process.write("2\n")
    script.step()
    assert (ended(process).reason, process.ok) == (Reason.WRITE, False)


def test_handlers_are_told_of_its_output_and_its_life() -> None:
    class Life(ProcessLifecycleHandler):
        def start(self, process: ProcessBase) -> None:
            events.append(("start", process))

        def end(self, process: ProcessBase) -> None:
            events.append(("end", process))

    class Lines(ProcessOutputHandler):
        def read_line(self, process: ProcessBase, stream: int, string: str) -> None:
            events.append((string, process))

    events: list[tuple[str, ProcessBase]] = []
    scripts["work"] = Script(Out(b"a\nb\n"))
    process = SshProcess("work", "web1", lifecycle_handlers=[Life()])
    process.stdout_handlers.append(Lines())
    process.run(LONG)
    assert [name for name, _ in events] == ["start", "a", "b", "end"]
    assert {one for _, one in events} == {process}


def test_a_timeout_ends_it(caplog: pytest.LogCaptureFixture) -> None:
    scripts["work"] = Script(Gate())
    process = SshProcess("work", "web1", timeout=0.05).run(LONG)
    assert (process.timeouted, process.killed, process.ok) == (True, True, False)
    assert process.reason == Reason.TIMEOUT
    assert "timeout of 0.05 s" in process.message
    ignored = SshProcess("work", "web1", timeout=0.05, ignore_timeout=True).run(LONG)
    assert (ignored.timeouted, ignored.ok) == (True, True)


def test_killed_on_purpose_is_ok() -> None:
    script = scripts["serve"] = Script(Out(b"ready\n"), Gate())
    process = SshProcess("serve", "web1").start()
    assert process.kill() is process
    assert ended(process).exit_code == -signal.SIGTERM
    assert script.channels[0].signals == [signal.SIGTERM]
    assert (process.killed, process.ok, process.forced_kill) == (True, True, False)
    assert repr(process) == "<SshProcess 'serve' on web1: died of SIGTERM, killed>"


def test_a_block_kills_it_and_does_not_wait() -> None:
    script = scripts["serve"] = Script(Gate(), signals={signal.SIGTERM: None})
    with SshProcess("serve", "web1").start() as process:
        assert process.running
    assert process.running
    assert script.channels[0].signals == [signal.SIGTERM]
    process.kill(signal.SIGKILL)
    assert ended(process).exit_code == -signal.SIGKILL


def test_check_raises_with_the_host() -> None:
    scripts["work"] = Script(Exit(3))
    with pytest.raises(ProcessesFailed, match="'work' on web1: exited 3") as caught:
        SshProcess("work", "web1", nolog_exit_code=True).run(LONG, check=True)
    assert [process.host.address for process in caught.value.processes] == ["web1"]
    process = SshProcess("work", "web1", ignore_exit_code=True, nolog_exit_code=True)
    assert process.run(LONG, check=True).ok


def test_await_it() -> None:
    async def main() -> str:
        process = await SshProcess("work", "web1").start()
        return process.stdout

    scripts["work"] = Script(Out(b"done"))
    assert asyncio.run(asyncio.wait_for(main(), LONG)) == "done"


def test_its_statistics() -> None:
    scripts["work"] = Script(Exit(3))
    process = SshProcess("work", "web1", nolog_exit_code=True)
    assert (process.stats().num_processes, process.stats().num_started) == (1, 0)
    stats = process.run(LONG).stats()
    assert (stats.name, stats.num_ended, stats.num_ok) == ("work", 1, 0)
    assert (stats.num_non_zero_exit_codes, dict(stats.reasons)) == (1, {"exit code": 1})


# -- on real hosts --------------------------------------------------------------------------------


@pytest.fixture(params=["paramiko", "openssh"])
def real(request: pytest.FixtureRequest) -> dict[str, Any]:
    return {"transport": request.param}


def test_a_command_on_a_host(cluster: Cluster, real: dict[str, Any]) -> None:
    host = cluster.hosts[0]
    process = SshProcess("echo $0; printf é; echo oops >&2; exit 3", host, real)
    process.ignore_exit_code = process.nolog_exit_code = True
    process.run(LONG)
    assert (process.stdout.splitlines()[1], process.stderr) == ("é", "oops\n")
    assert (process.exit_code, process.ok, process.pid) == (3, True, None)


def test_words_reach_the_program_as_they_are(cluster: Cluster, real: dict[str, Any]) -> None:
    words = ["printf", "%s|", "a b", "$HOME", "'", '"', "", "*", "-n", "\n"]
    process = SshProcess(words, cluster.hosts[0], real).run(LONG)
    assert process.stdout == "a b|$HOME|'|\"||*|-n|\n|"


def test_a_folder_and_an_environment_there(cluster: Cluster, real: dict[str, Any]) -> None:
    host = cluster.hosts[0]
    (cluster.home(host) / "a b").mkdir(exist_ok=True)
    process = SshProcess(
        'pwd; echo "$WHO${USER-unset}"', host, real, cwd="~/a b", env={"WHO": "me ", "USER": None}
    ).run(LONG)
    assert process.stdout == f"{cluster.home(host)}/a b\nme unset\n", process.message


def test_killed_on_purpose_is_ok_on_a_host(cluster: Cluster, real: dict[str, Any]) -> None:
    up = threading.Event()
    process = SshProcess("echo up; sleep 1000", cluster.hosts[0], real)
    process.stdout_handlers.append(Once("up", up))
    with process.start():
        assert up.wait(LONG)
        assert not process.ended
    ended(process)
    assert (process.killed, process.ok, process.stdout) == (True, True, "up\n"), process.message


def test_killed_before_its_start_nothing_runs_on_a_host(
    cluster: Cluster, real: dict[str, Any]
) -> None:
    trace = cluster.home(0) / f"killed-early-{real['transport']}"
    process = SshProcess(f"touch {trace}; sleep 1000", cluster.hosts[0], real).start().kill()
    assert ended(process).ok is not process.cancelled
    if process.cancelled:
        assert not trace.exists()


class Once(ProcessOutputHandler):
    """Sets an event when a line comes."""

    def __init__(self, line: str, event: threading.Event) -> None:
        super().__init__()
        self.line, self.event = line, event

    def read_line(self, process: ProcessBase, stream: int, string: str) -> None:
        if string == self.line:
            self.event.set()
