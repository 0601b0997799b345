"""Waiting for what many processes print, in actions and handlers; what a failed wait leaves."""

from __future__ import annotations

import asyncio
import gc
import logging
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from execo import (
    STDERR,
    ExpectOutputHandler,
    Local,
    ParallelActions,
    Process,
    ProcessLifecycleHandler,
    ProcessOutputHandler,
    Reason,
    Remote,
    Report,
    SequentialActions,
    SshProcess,
    configuration,
)
from execo.process import ProcessBase
from execo.testing import Cluster

LONG = 20
"""Seconds: a hang, not a speed."""

SILENT: dict[str, Any] = {"nolog_expect_fail": True}
ASK = 'printf "name? "; read name; echo "hello $name"'


def shell(command: str, **options: Any) -> Process:
    return Process(command, shell=True, **{**SILENT, **options})


def local(command: str, **options: Any) -> Local:
    return Local(command, process_args={"shell": True, **SILENT}, **options)


def text(result: Any) -> str | None:
    return None if result[-1] is None else result[-1][0]


@pytest.fixture(scope="module")
def hosts() -> Iterator[Cluster]:
    with Cluster(3) as cluster:
        yield cluster


# -- actions ----------------------------------------------------------------------------------


def test_all_processes_at_once() -> None:
    commands = ["echo ready 1; cat", "sleep 0.1; echo ready 2; cat", "echo never; cat", "exit 0"]
    with ParallelActions([local(command) for command in commands]).start() as group:
        results = group.expect(r"ready \d", 1)
        assert [text(result) for result in results] == ["ready 1", "ready 2", None, None]
        assert [result[0] for result in results] == group.processes
        assert [result[1] for result in results] == [0, 0, None, None]
    group.wait(LONG)
    assert [process.expect_fail for process in group.processes] == [False, False, True, True]
    assert group.stats().num_expect_fail == 2
    assert not group.ok


def test_one_deadline_for_all() -> None:
    with ParallelActions([local("exec sleep 1000") for _ in range(20)]).start() as group:
        # One after the other would be 20 s: longer than a hang.
        thread = threading.Thread(target=group.expect, args=["ready", 1])
        thread.start()
        thread.join(15)
        assert not thread.is_alive()
    group.wait(LONG)


def test_the_next_call_goes_on_for_each_on_its_own() -> None:
    group = ParallelActions([local("echo a b c"), local("echo x y z")]).run()
    assert [text(one) for one in group.expect(r"\w")] == ["a", "x"]
    assert text(group.processes[1].expect(r"\w")) == "y"
    assert [text(one) for one in group.expect(r"\w")] == ["b", "z"]


def test_default_timeouts_of_an_action() -> None:
    group = ParallelActions([local("cat")], default_expect_timeout=0.05).start()
    assert text(group.expect("ready")[0]) is None
    assert text(group.expect("ready", 0)[0]) is None
    group.processes[0].write("ready\n")
    assert text(group.expect("ready", None)[0]) == "ready"
    group.kill().wait(LONG)


def test_what_fanout_holds_back_is_waited_for() -> None:
    group = ParallelActions([local("sleep 0.05; echo ready") for _ in range(6)], fanout=2).start()
    assert [text(one) for one in group.expect("ready", LONG)] == ["ready"] * 6
    assert group.wait(LONG).ok


def test_a_deadline_before_the_start() -> None:
    group = SequentialActions([local("read line"), local("echo ready")]).start()
    waiting = group.processes[1]
    for _ in range(3):
        group.expect("ready", 0)
    assert not waiting.started
    assert waiting.expect_fail
    assert not waiting.ok
    assert waiting.reason is Reason.EXPECT
    assert waiting.message == "did not print 'ready' so far"
    assert waiting.stats().num_expect_fail == 1
    assert "not started" in repr(waiting)
    assert waiting._early_watchers == ()
    group.processes[0].close_stdin()
    group.wait(LONG)
    assert waiting.started
    assert waiting.expect_fail
    assert group.stats().num_expect_fail == 2
    group.reset()
    assert not any(process.expect_fail for process in group.processes)


def test_a_kill_of_what_was_not_started() -> None:
    group = SequentialActions([local("exec sleep 1000"), local("echo ready")]).start()
    thread = threading.Timer(0.05, group.kill)
    thread.start()
    assert [text(one) for one in group.expect("ready")] == [None, None]
    thread.join()
    assert group.wait(LONG).processes[1].cancelled


def test_a_reset_during_expect() -> None:
    group = ParallelActions([local("cat") for _ in range(3)]).start()
    thread = threading.Timer(0.05, group.reset)
    thread.start()
    assert [text(one) for one in group.expect("ready")] == [None] * 3
    thread.join()
    assert not group.started
    assert not any(process.expect_fail for process in group.processes)


def test_a_process_that_is_there_twice() -> None:
    one = local("echo 1 2 3")
    group = ParallelActions([one, one]).run()
    assert [text(result) for result in group.expect(r"\d", LONG)] == ["1", "1"]


def test_an_action_without_processes_and_one_that_was_not_started() -> None:
    assert Remote("true", []).run().expect("ready") == []
    with pytest.raises(ValueError, match="was not started"):
        Local("true").expect("ready")
    with pytest.raises(re.error):
        Remote("true", []).run().expect("(")


def test_many_at_once() -> None:
    group = ParallelActions([local(f"echo {n}; cat") for n in range(100)]).start()
    assert [text(one) for one in group.expect(r"^\d+$", LONG)] == [str(n) for n in range(100)]
    group.kill().wait(LONG)


# -- hosts ------------------------------------------------------------------------------------


def test_hosts_are_talked_to_at_once(hosts: Cluster) -> None:
    with Remote(ASK, hosts.hosts).start() as remote:
        assert [one[1] for one in remote.expect(r"name\? ", LONG)] == [0, 0, 0]
        for number, process in enumerate(remote.processes):
            process.write(f"host {number}\n")
        answers = remote.expect([r"go away", r"hello (.*)\n"], LONG)
        assert [match and match[1] for _, _, match in answers] == ["host 0", "host 1", "host 2"]
        assert remote.wait(LONG).ok


def test_a_terminal_on_a_host(hosts: Cluster) -> None:
    params = {"pty": True}
    with SshProcess(ASK, hosts.hosts[0], connection_params=params).start() as p:
        assert p.expect(r"name\? ", LONG)[0] == 0
        p.write("Ada\n")
        assert text(p.expect(r"hello \w+\r\n", LONG)) == "hello Ada\r\n"
        p.wait(LONG)


def test_a_host_that_is_not_there(hosts: Cluster) -> None:
    hosts.fault(hosts.hosts[0], "refuse")
    try:
        remote = Remote("echo ready", hosts.hosts, process_args={"nolog_error": True, **SILENT})
        results = remote.start().expect("ready", LONG)
        assert [text(one) for one in results] == [None, "ready", "ready"]
        remote.wait(LONG)
        assert remote.processes[0].reason is Reason.CONNECT
    finally:
        hosts.heal()


# -- ExpectOutputHandler ----------------------------------------------------------------------


def test_a_handler_for_many_outputs() -> None:
    handler = ExpectOutputHandler()
    options: dict[str, Any] = {"stdout_handlers": [handler], **SILENT}
    one = shell("echo ready 1; cat", **options).start()
    two = shell("echo oops >&2; echo no; cat", stderr_handlers=[handler], **options).start()
    found = handler.expect([r"ready \d", "oops"], 0.5)
    assert {key: text(match) for key, match in found.items()} == {
        (one, 1): "ready 1",
        (two, 1): None,
        (two, STDERR): "oops",
    }
    assert two.expect_fail
    for p in (one, two):
        p.kill().wait(LONG)


def test_a_handler_has_places_of_its_own() -> None:
    handler = ExpectOutputHandler()
    p = shell("echo 1 2 3", stdout_handlers=[handler]).run()
    assert text(p.expect(r"\d")) == "1"
    assert text(handler.expect(r"\d")[p, 1]) == "1"
    assert text(p.expect(r"\d", expect_output_handler=handler)) == "2"
    assert text(p.expect(r"\d")) == "2"
    seen: list[Any] = []
    thread = threading.Thread(target=lambda: seen.append(handler.expect(r"\d")[p, 1]))
    thread.start()
    thread.join()
    assert text(seen[0]) == "3"


def test_a_handler_that_is_added_late() -> None:
    handler = ExpectOutputHandler()
    p = shell("echo before; cat").start()
    p.expect("before", LONG)
    p.stdout_handlers.append(handler)
    assert handler.expect("before", 0) == {}
    p.write("more\n")
    p.expect("more", LONG)
    p.close_stdin().wait(LONG)
    assert text(handler.expect("before\nmore", 0)[p, 1]) == "before\nmore"


def test_a_handler_given_to_expect() -> None:
    handler = ExpectOutputHandler()
    group = ParallelActions([local("echo 1 2"), local("echo 3 4")]).run()
    assert [text(r) for r in group.expect(r"\d", expect_output_handler=handler)] == ["1", "3"]
    assert [text(match) for match in handler.expect(r"\d").values()] == ["2", "4"]


def test_a_handler_waits_for_nothing_that_was_reset() -> None:
    handler = ExpectOutputHandler()
    p = shell("echo ready", stdout_handlers=[handler]).run()
    assert len(handler.expect("ready")) == 1
    p.reset()
    assert handler.expect("ready") == {}
    p.run()
    assert text(handler.expect("ready")[p, 1]) == "ready"


def test_two_threads_with_one_handler() -> None:
    handler = ExpectOutputHandler()
    p = shell("cat", stdout_handlers=[handler]).start()
    failures: list[Exception] = []
    results: list[Any] = []

    def wait() -> None:
        try:
            results.append(handler.expect("ready", LONG))
        except RuntimeError as exc:
            failures.append(exc)
            p.write("ready\n")  # the one that was first gets it

    threads = [threading.Thread(target=wait) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(failures) == 1
    assert "give each thread one of its own" in str(failures[0])
    assert text(results[0][p, 1]) == "ready"
    p.kill().wait(LONG)


# -- in handlers and elsewhere ----------------------------------------------------------------


class AtStart(ProcessLifecycleHandler):
    """Talks to the process from its start on."""

    def __init__(self) -> None:
        self.seen: list[str | None] = []

    def start(self, process: Any) -> None:
        self.seen.append(text(process.expect(r"name\? ", LONG)))
        process.write("Ada\n")

    def end(self, process: Any) -> None:
        # On whatever thread: it goes on after the match in start().
        self.seen.append(text(process.expect(r"name|hello \w+")))


def test_in_a_lifecycle_handler() -> None:
    handlers = [AtStart() for _ in range(20)]
    with ParallelActions(
        [Local(ASK, {"shell": True, "lifecycle_handlers": [handler]}) for handler in handlers]
    ).start() as group:
        assert group.wait(LONG).ok
    assert [handler.seen for handler in handlers] == [["name? ", "hello Ada"]] * 20


class Answers(ProcessOutputHandler):
    """Waits for a process in the middle of output."""

    def __init__(self, other: Process | None = None) -> None:
        self.other = other
        self.seen: list[str | None] = []

    def read_line(self, process: Any, stream: int, string: str) -> None:
        if string == "ask":
            self.seen.append(text((self.other or process).expect("answer", LONG)))


def test_in_an_output_handler_of_the_same_process() -> None:
    size = configuration["handler_queue_size"]
    handler = Answers()
    command = f"echo ask; sleep 0.1; head -c {3 * size} /dev/zero; echo answer"
    p = shell(command, stdout_handlers=[handler]).run(LONG)
    assert p.ended
    assert handler.seen == ["answer"]


def test_in_an_output_handler_of_another_process() -> None:
    other = shell("sleep 0.1; echo answer; cat").start()
    handler = Answers(other)
    assert shell("echo ask", stdout_handlers=[handler]).run(LONG).ended
    assert handler.seen == ["answer"]
    assert text(other.expect("answer", 0)) == "answer"  # this thread has a place of its own
    other.kill().wait(LONG)


def test_in_a_coroutine() -> None:
    async def talk() -> str | None:
        p = shell("sleep 0.05; echo ready").start()
        found = await asyncio.to_thread(p.expect, "ready", LONG)
        await p
        return text(found)

    assert asyncio.run(talk()) == "ready"


SCRIPTS = {
    "in a forked child": """
import os
kept = Process("echo ready; cat", shell=True).start()
kept.expect("read", 20)
dropped = Process("cat", default_stdout_handler=False, nolog_expect_fail=True).start()
pid = os.fork()
if not pid:
    # What had come is there; the rest is the parent's.
    assert kept.expect("y", 20)[0] == 0
    assert kept.expect("more") == (None, None)
    assert dropped.expect("more") == (None, None)
    assert kept.expect_fail and dropped.expect_fail
    own = Process("echo own").start()
    assert own.expect("own", 20)[0] == 0
    own.wait()
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
kept.write("more")
assert kept.expect("more", 20)[0] == 0
assert not kept.expect_fail
print("well")
""",
    "at the end of the interpreter": """
import atexit
def last():
    assert p.expect("ready")[0] == 0
    assert p.expect("more") == (None, None)
    assert p.expect_fail
    print("well")
atexit.register(last)
p = Process("echo ready; exec sleep 1000", shell=True, nolog_expect_fail=True).start()
while "ready" not in p.stdout:
    p.wait(0.01)
""",
}


@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_where_there_is_no_io_thread(name: str) -> None:
    script = "from execo import Process\n" + SCRIPTS[name]
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.endswith("well\n"), done.stdout + done.stderr
    assert done.returncode == 0


# -- what a failed wait leaves ----------------------------------------------------------------


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_a_failure_is_logged_at_the_end_of_the_process(caplog: pytest.LogCaptureFixture) -> None:
    p = shell("echo almost; read line", nolog_expect_fail=False).start()
    for _ in range(3):
        assert p.expect(["ready", "set"], 0.1) == (None, None)
    assert messages(caplog) == []
    p.close_stdin().wait(LONG)
    (message,) = messages(caplog)
    assert "failed: " in message
    assert "did not print 'ready' or 'set' within 0.1 s" in message
    assert "almost" in message
    p.expect("ready")
    assert len(messages(caplog)) == 1


def test_a_failure_after_the_end_is_logged_at_once(caplog: pytest.LogCaptureFixture) -> None:
    p = shell("echo almost", nolog_expect_fail=False).run()
    for _ in range(3):
        p.expect("ready")
    (message,) = messages(caplog)
    assert "did not print 'ready' to its end" in message


def test_what_was_logged_is_not_logged_again(caplog: pytest.LogCaptureFixture) -> None:
    p = shell("exit 3", nolog_expect_fail=False).run()
    assert len(messages(caplog)) == 1
    p.expect("ready")
    assert len(messages(caplog)) == 1
    assert p.message == "exited 3; did not print 'ready' to its end"
    assert p.reason is Reason.EXPECT


def test_another_failure_that_is_not_logged_hides_none(caplog: pytest.LogCaptureFixture) -> None:
    options = {"ignore_exit_code": True, "nolog_exit_code": True, "nolog_expect_fail": False}
    p = shell("exit 3", **options).run()
    assert messages(caplog) == []
    p.expect("ready")
    assert len(messages(caplog)) == 1


def test_the_flags(caplog: pytest.LogCaptureFixture) -> None:
    silent = shell("true").run()
    silent.expect("ready")
    assert messages(caplog) == []
    assert not silent.ok
    ignored = shell("true", ignore_expect_fail=True).run()
    ignored.expect("ready")
    assert ignored.ok
    assert ignored.expect_fail
    assert ignored.stats().num_expect_fail == 1


def test_many_failures_are_one_summary(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(configuration, "max_failure_logs", 2)
    group = ParallelActions([Local("true") for _ in range(5)]).run()
    with caplog.at_level(logging.WARNING, "execo"):
        group.expect("ready")
    assert len(messages(caplog)) == 3
    assert messages(caplog)[-1].startswith("5 processes did not print what was expected")


def test_a_report_counts_them() -> None:
    group = ParallelActions([local("echo ready"), local("true")]).run()
    group.expect("ready")
    stats = Report([group]).stats()
    assert stats.num_expect_fail == 1
    assert stats.num_ok == 1
    assert stats.reasons == {"expect": 1}


def test_a_long_search_holds_up_nobody_for_long() -> None:
    # Each piece is searched on its own, and others have their turn in between.
    slow = shell("seq 200000").start()
    thread = threading.Thread(target=slow.expect, args=[r"(\d+)\s+(\d+)\s+\2never", LONG])
    thread.start()
    assert text(shell("echo ready").start().expect("ready", LONG)) == "ready"
    thread.join()
    slow.wait(LONG)


def test_a_server_forgets_the_handlers_that_have_asked_it() -> None:
    class Ask(ProcessLifecycleHandler):
        def end(self, process: ProcessBase) -> None:
            server.expect("ready", LONG)

    with shell("echo ready; cat").start() as server:
        for _ in range(20):
            Process("true", lifecycle_handlers=[Ask()]).run(LONG)
        gc.collect()
        assert server._run is not None
        # Save those that the idle threads have run last.
        assert len(server._run.reading._searches) < 10
    server.wait(LONG)
