"""What execo 2.8.2 got wrong in users' scripts, each as a script that has to work here."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from execo import (
    Host,
    Local,
    ParallelActions,
    Process,
    ProcessLifecycleHandler,
    ProcessOutputHandler,
    Remote,
    Report,
    SequentialActions,
    SshProcess,
)
from execo.process import ProcessBase
from execo.testing import Cluster

LONG = 60
"""Seconds that nothing here takes: a hang."""

ROOT = Path(__file__).resolve().parent.parent

QUIET: dict[str, Any] = {"nolog_exit_code": True, "nolog_timeout": True, "nolog_error": True}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(2) as cluster:
        yield cluster


@pytest.fixture
def hosts(cluster: Cluster) -> list[Host]:
    return cluster.hosts


def until_it_says(word: str, process: ProcessBase) -> None:
    while word not in process.stdout:
        assert not process.wait(0.02).ended, process.dump()


class Lines(ProcessOutputHandler):
    """Collects lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def read_line(self, process: Any, stream: int, string: str) -> None:
        self.lines.append(string)


class AtEnd(ProcessLifecycleHandler):
    """Calls a function at the end of a process."""

    def __init__(self, function: Any) -> None:
        self.function = function

    def end(self, process: Any) -> None:
        self.function(process)


# -- waiting ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command", ["timeout 5 echo x", "setsid echo x", "setsid -w echo x", "bash -mc 'echo x & wait'"]
)
def test_commands_that_leave_their_process_group_are_waited_for(command: str) -> None:
    p = Process(command).run(LONG)
    assert (p.ended, p.ok, p.stdout) == (True, True, "x\n")


def test_a_server_left_in_the_background_holds_up_nobody() -> None:
    p = Process("sleep 1000 & echo $!", shell=True).run(LONG)
    assert (p.ended, p.drained) == (True, False)
    os.kill(int(p.stdout), signal.SIGKILL)


def test_after_wait_the_end_handlers_have_returned() -> None:
    ended: list[str] = []

    def slowly(process: Any) -> None:
        threading.Event().wait(0.1)
        ended.append(process.name)

    Process("true", lifecycle_handlers=[AtEnd(slowly)], name="one").run()
    assert ended == ["one"]
    Local("true", {"lifecycle_handlers": [AtEnd(slowly)], "name": "two"}).run()
    assert ended == ["one", "two"]


def test_no_end_is_lost_among_many() -> None:
    ended: set[Any] = set()
    handler = AtEnd(ended.add)
    many = [Local("true", {"lifecycle_handlers": [handler]}) for _ in range(150)]
    all_of_them = ParallelActions(many).run(LONG)
    assert all_of_them.finished_ok
    assert ended == set(all_of_them.processes)
    assert all_of_them.stats()["num_ended"] == 150


def test_a_slow_handler_freezes_nobody_else() -> None:
    gate = threading.Event()
    slow = Local("true", {"lifecycle_handlers": [AtEnd(lambda process: gate.wait(LONG))]}).start()
    try:
        others = [Local("true", {"lifecycle_handlers": [AtEnd(print)]}) for _ in range(20)]
        assert ParallelActions(others).run(LONG).finished_ok
    finally:
        gate.set()
    assert slow.wait(LONG).finished_ok


# -- one bad process among good ones ---------------------------------------------------------------


@pytest.mark.parametrize(
    "command", ["echo 'unbalanced", "echo nul\0byte", "", "/no/such/program", "/etc/passwd", "/"]
)
def test_a_command_that_cannot_be_started_costs_the_others_nothing(command: str) -> None:
    bad, good = Local(command, QUIET), Local("echo fine")
    both = ParallelActions([bad, good]).run(LONG)
    assert (bad.process.error, bad.process.exit_code, bad.ok) == (True, None, False)
    assert isinstance(bad.process.error_reason, (OSError, ValueError))
    assert bad.process.message
    assert (good.finished_ok, good.process.stdout) == (True, "fine\n")
    assert both.ended


def test_a_timeout_may_be_a_text_or_become_one() -> None:
    for timeout in ("0.1", "0:00:00.1"):
        assert Process("sleep 1000", timeout=timeout, **QUIET).run(LONG).timeouted
    p = Process("sleep 1000", **QUIET)
    p.timeout = "0.1"
    assert p.run(LONG).timeouted


def test_equal_timeouts_and_many_of_them() -> None:
    many = [Local("sleep 1000", {"timeout": 0.2, **QUIET}) for _ in range(100)]
    assert ParallelActions(many).run(LONG).stats()["num_timeouts"] == 100


def test_kill_twice_while_the_first_is_still_escalating() -> None:
    p = Process("trap '' TERM; echo set; while :; do sleep 0.1; done", shell=True).start()
    until_it_says("set", p)
    p.kill(auto_force_kill_timeout=1000)
    p.kill()
    p.kill(auto_force_kill_timeout=0.1).wait(LONG)
    assert (p.ended, p.forced_kill, p.exit_code) == (True, True, -9)


# -- stdin -----------------------------------------------------------------------------------------


def test_the_end_of_input_can_be_said(hosts: list[Host]) -> None:
    local, remote = Process("sort").start(), Remote("sort", hosts).start()
    for one in (local, remote):
        print("b\na", file=one)
        one.close_stdin()
    assert local.wait(LONG).stdout == "a\nb\n"
    assert {p.stdout for p in remote.wait(LONG).processes} == {"a\nb\n"}


def test_a_pipe_that_is_full_blocks_nobody() -> None:
    flags: Any = {"ignore_write_error": True, "nolog_write_error": True}
    p = Process("sleep 1000", **flags).start()
    assert p.write("x" * 1_000_000) == 1_000_000
    assert Process("echo meanwhile").run(LONG).stdout == "meanwhile\n"
    p.kill().wait(LONG)
    assert p.ended


def test_a_long_text_reaches_a_terminal_whole() -> None:
    p = Process("cat", pty=True).start()
    for n in range(2000):
        p.write(f"line {n}\n")
    p.close_stdin().wait(LONG)
    assert p.stdout.split("\r\n") == [*(f"line {n}" for n in range(2000)), ""]
    assert not p.write_error


# -- kill ------------------------------------------------------------------------------------------


def test_kill_just_after_the_start_kills_all(hosts: list[Host]) -> None:
    actions = [Local("sleep 1000"), Remote("exec sleep 1000", hosts * 3)]
    for action in actions:
        action.start().kill().wait(LONG)
    assert all(action.ended for action in actions)


def test_a_killed_sequence_starts_no_further_step(tmp_path: Path) -> None:
    steps = [Local("sleep 1000"), Local(["touch", str(tmp_path / "second")])]
    sequence = SequentialActions(steps).start()
    sequence.kill().wait(LONG)
    assert sequence.ended
    assert not list(tmp_path.iterdir())
    assert steps[1].process.cancelled


def test_kill_ends_the_children_of_children() -> None:
    p = Process("sleep 1000 & (sleep 1000 & echo $!; wait)", shell=True).start()
    until_it_says("\n", p)
    grandchild = int(p.stdout)
    p.kill().wait(LONG)
    assert p.ended
    for _ in range(LONG * 50):
        if not _alive(grandchild):
            break
        threading.Event().wait(0.02)
    assert not _alive(grandchild)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# -- output ----------------------------------------------------------------------------------------


def test_characters_that_are_cut_by_reads_are_whole() -> None:
    lines = Lines()
    command = "printf 'caf\\303'; sleep 0.2; printf '\\251\\n'"
    p = Process(command, shell=True, stdout_handlers=[lines]).run(LONG)
    assert lines.lines == [p.stdout.strip()] == ["café"]


def test_what_is_no_utf8_reaches_every_kind_of_file(tmp_path: Path) -> None:
    raw = b"\xff\xfe caf\xe9\n"
    with open(tmp_path / "fd", "wb") as numbered, open(tmp_path / "text", "w") as text:
        sinks: Any = [str(tmp_path / "name"), numbered.fileno(), text]
        p = Process(["printf", r"\377\376 caf\351\n"], stdout_handlers=sinks).run(LONG)
    assert (tmp_path / "name").read_bytes() == (tmp_path / "fd").read_bytes() == raw
    assert (tmp_path / "text").read_text() == "\\xff\\xfe caf\\xe9\n"
    assert p.stdout_bytes == raw


def test_line_ends_of_terminals_make_no_empty_lines() -> None:
    lines = Lines()
    command = "printf 'a\\r'; sleep 0.2; printf '\\nb\\r\\n'"
    Process(command, shell=True, stdout_handlers=[lines]).run(LONG)
    assert lines.lines == ["a", "b"]


def test_one_that_never_stops_printing_starves_nobody() -> None:
    with Process("yes", max_output=100).start() as fast:
        assert [Process(f"echo {n}").run(LONG).stdout for n in range(5)] == [
            f"{n}\n" for n in range(5)
        ]
    assert fast.wait(LONG).stdout == "y\n" * 50
    assert fast.truncated > 0


def test_one_that_closes_its_output_costs_no_processor_time() -> None:
    script(
        """
        import resource
        from execo import Process
        p = Process("exec sleep 1000 >&- 2>&-", shell=True).start()
        used = resource.getrusage(resource.RUSAGE_SELF)
        p.wait(2)
        now = resource.getrusage(resource.RUSAGE_SELF)
        assert p.running
        assert now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime < 1
        """
    )


# -- where names are looked up ---------------------------------------------------------------------


def test_commands_made_in_an_init_or_by_a_helper_see_the_names_around_them(
    hosts: list[Host],
) -> None:
    class Bench:
        def __init__(self, sizes: list[int]) -> None:
            half = [size // 2 for size in sizes]
            self.run = Remote("echo {{[s * 2 for s in half]}}", hosts)
            assert half

    def on_all(command: str) -> Remote:
        return Remote(command, hosts)

    def experiment() -> Remote:
        ports = [8001, 8002]
        assert ports
        return on_all("echo {{ports}}")

    assert [p.stdout for p in Bench([4, 8]).run.run(LONG).processes] == ["4\n", "8\n"]
    assert [p.stdout for p in experiment().run(LONG).processes] == ["8001\n", "8002\n"]


def test_the_name_of_a_host_is_never_code() -> None:
    name = "{{__import__('os').getpid()}}"
    assert Remote("echo {{{host}}}", [Host(name)]).processes[0].cmd == f"echo {name}"


def test_a_host_that_looks_like_an_option_is_refused() -> None:
    for make in (Host, lambda name: SshProcess("true", name), lambda name: Remote("true", [name])):
        with pytest.raises(ValueError, match="-oProxyCommand"):
            make("-oProxyCommand=touch x")


# -- what it costs ---------------------------------------------------------------------------------


def test_statistics_count_failed_writes() -> None:
    p = Process("exec <&-; echo closed; sleep 0.2", shell=True, nolog_write_error=True).start()
    until_it_says("closed", p)
    p.write("x")
    action = ParallelActions([Local("true")]).run()
    assert p.wait(LONG).write_error
    stats = Report([p, action]).stats()
    assert (stats["num_write_error"], stats["num_expect_fail"]) == (1, 0)


def test_no_thread_for_each_process_or_handler() -> None:
    before = threading.active_count()
    many = [Local("sleep 1000", {"lifecycle_handlers": [AtEnd(id)]}) for _ in range(60)]
    with ParallelActions(many).start() as running:
        assert threading.active_count() - before < 20
    assert running.wait(LONG).ended


def test_an_action_keeps_nothing_of_the_function_that_made_it(hosts: list[Host]) -> None:
    class Data:
        pass

    def make() -> tuple[Remote, weakref.ref[Data]]:
        data = Data()
        words = ["a", "b"]
        return Remote("echo {{words}}", hosts) if words else Remote("", []), weakref.ref(data)

    action, data = make()
    gc.collect()
    assert data() is None
    assert [p.stdout for p in action.run(LONG).processes] == ["a\n", "b\n"]


def test_more_processes_than_descriptors_all_run() -> None:
    script(
        """
        import resource
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        from execo import Local, ParallelActions
        all_of_them = ParallelActions([Local(f"echo {n}") for n in range(100)]).run()
        assert all_of_them.finished_ok, all_of_them.failed[0].message
        assert [p.stdout for p in all_of_them.processes] == [f"{n}\\n" for n in range(100)]
        """
    )


def test_a_forked_child_can_run_commands() -> None:
    out = script(
        """
        import multiprocessing
        from execo import Process
        def work(n):
            return Process(f"echo {n}").run().stdout
        Process("true").run()
        with multiprocessing.get_context("fork").Pool(2) as pool:
            print(pool.map(work, range(4)))
        """
    )
    assert out == "['0\\n', '1\\n', '2\\n', '3\\n']\n"


def test_a_root_logger_does_not_show_messages_twice() -> None:
    out = script(
        """
        import logging, sys
        logging.basicConfig(stream=sys.stdout)
        from execo import Process
        Process("false").run()
        """
    )
    assert out.count("'false'") == 1


def script(text: str) -> str:
    """What a script of its own prints; it must end well."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(text)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LONG,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout
