"""Handlers as users put them together: on many hosts, with files, descriptors and objects, shared
by many processes, and with the mistakes that are made with them."""

from __future__ import annotations

import io
import logging
import os
import queue
import sys
import tempfile
import threading
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from execo import (
    STDERR,
    STDOUT,
    Action,
    ActionLifecycleHandler,
    Host,
    Local,
    ParallelActions,
    Process,
    ProcessLifecycleHandler,
    ProcessOutputHandler,
    Remote,
    SequentialActions,
    SubstitutionError,
    sleep,
)
from execo.process import ProcessBase
from execo.testing import Cluster

LONG = 60
"""Seconds that nothing here takes: a hang."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(3) as cluster:
        yield cluster


@pytest.fixture
def hosts(cluster: Cluster) -> list[Host]:
    return cluster.hosts


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files(folder: Path) -> dict[str, list[str]]:
    return {p.name: sorted(p.read_text().splitlines()) for p in folder.iterdir()}


# -- output line by line ---------------------------------------------------------------------------


def test_lines_of_many_hosts_with_one_handler(hosts: list[Host]) -> None:
    class ByHost(ProcessOutputHandler):
        def __init__(self) -> None:
            super().__init__()
            self.lines: dict[tuple[str, int], list[str]] = defaultdict(list)

        def read_line(self, process: Any, stream: int, string: str) -> None:
            self.lines[process.host.address, stream].append(string)

    handler = ByHost()
    both: Any = {"stdout_handlers": [handler], "stderr_handlers": [handler]}
    Remote("echo a; echo b; echo {{{host}}} >&2", hosts, process_args=both).run()
    for host in hosts:
        assert handler.lines[host.address, STDOUT] == ["a", "b"]
        assert handler.lines[host.address, STDERR] == [host.address]


def test_the_same_handler_in_both_forms(hosts: list[Host]) -> None:
    class New(ProcessOutputHandler):
        def __init__(self) -> None:
            self.seen: list[Any] = []

        def read_line(self, process: Any, stream: int, string: str) -> None:
            self.seen.append(string)

    class Old(ProcessOutputHandler):
        def __init__(self) -> None:
            self.seen: list[Any] = []

        def read_line(  # type: ignore[override]
            self, process: Any, stream: int, string: str, eof: bool, error: bool
        ) -> None:
            self.seen.append((string, eof))

    new, old = New(), Old()
    args = {"stdout_handlers": [new, old]}
    Remote("printf 'a\\nb'", hosts[:1], process_args=args).run()
    assert new.seen == ["a", "b"]
    assert old.seen == [("a\n", False), ("b", False), ("", True)]


def test_the_old_form_with_defaults_is_called_for_each_line() -> None:
    class Lines(ProcessOutputHandler):
        def __init__(self) -> None:
            self.seen: list[str] = []

        def read_line(
            self, process: Any, stream: int, string: str, eof: bool = False, error: bool = False
        ) -> None:
            self.seen.append(string)

    lines = Lines()
    Process("printf 'a\\nb\\n'", stdout_handlers=[lines]).run()
    assert lines.seen == ["a", "b"]


def test_a_line_at_a_time_while_it_runs() -> None:
    arrived: queue.Queue[str] = queue.Queue()

    class Live(ProcessOutputHandler):
        def read_line(self, process: Any, stream: int, string: str) -> None:
            arrived.put(string)

    p = Process("cat", stdout_handlers=[Live()]).start()
    for word in ("one", "two"):
        print(word, file=p)
        assert arrived.get(timeout=LONG) == word
        assert p.running
    p.close_stdin().wait()
    assert arrived.empty()


def test_lines_of_a_terminal_have_no_empty_ones_between(hosts: list[Host]) -> None:
    class Lines(ProcessOutputHandler):
        def __init__(self) -> None:
            self.seen: list[str] = []

        def read_line(self, process: Any, stream: int, string: str) -> None:
            self.seen.append(string)

    lines = Lines()
    args = {"stdout_handlers": [lines], "pty": True}
    Remote("echo a; echo b", hosts[:1], process_args=args).run()
    assert lines.seen == ["a", "b"]


def test_a_handler_that_stops_its_process_at_a_word() -> None:
    class Until(ProcessOutputHandler):
        def read_line(self, process: Any, stream: int, string: str) -> None:
            if string == "ready":
                process.kill()

    p = Process("echo ready; exec sleep 1000", shell=True, stdout_handlers=[Until()]).run(LONG)
    assert (p.ended, p.killed, p.ok) == (True, True, True)


def test_a_handler_added_after_the_making(hosts: list[Host]) -> None:
    r = Remote("echo {{{host}}}", hosts)
    outputs = {}
    for p in r.processes:
        outputs[p] = io.StringIO()
        p.stdout_handlers.append(outputs[p])
    r.run()
    assert [o.getvalue() for o in outputs.values()] == [f"{h.address}\n" for h in hosts]


# -- files and descriptors -------------------------------------------------------------------------


def test_a_file_for_each_host_by_each_spelling(hosts: list[Host], folder: Path) -> None:
    names = [h.address[-1] for h in hosts]
    Remote(
        "echo {{{host}}}",
        hosts,
        process_args={"stdout_handlers": ["a-{{{host}}}", "b-<<<host>>>", "c-{{names}}"]},
    ).run()
    expected = {f"a-{h.address}": [h.address] for h in hosts}
    expected |= {f"b-{h.address}": [h.address] for h in hosts}
    expected |= {f"c-{n}": [h.address] for n, h in zip(names, hosts, strict=True)}
    assert files(folder) == expected


def test_host_with_two_braces_is_said_to_want_three(hosts: list[Host], folder: Path) -> None:
    with pytest.raises(SubstitutionError, match=r"\{\{\{host\}\}\}"):
        Remote("true", hosts, process_args={"stdout_handlers": ["{{host}}.out"]})
    host = [h.address for h in hosts]
    Remote("echo x", hosts, process_args={"stdout_handlers": ["{{host}}.out"]}).run()
    assert files(folder) == {f"{address}.out": ["x"] for address in host}


def test_both_streams_of_all_hosts_in_one_file(hosts: list[Host], folder: Path) -> None:
    args = {"stdout_handlers": ["all.log", None], "stderr_handlers": [None, "all.log"]}
    Remote("echo out; echo err >&2", hosts, process_args=args).run()
    assert files(folder) == {"all.log": ["err"] * 3 + ["out"] * 3}


def test_a_file_is_continued_by_the_next_run(hosts: list[Host], folder: Path) -> None:
    r = Remote("echo {{{host}}}", hosts[:1], process_args={"stdout_handlers": ["log"]}).run()
    r.reset()
    r.run()
    Process("echo here", stdout_handlers=["log"]).run()
    assert files(folder) == {"log": sorted([hosts[0].address] * 2 + ["here"])}


def test_the_next_run_may_write_to_another_file(hosts: list[Host], folder: Path) -> None:
    run = ["first"]
    r = Remote("echo {{run}}", hosts[:1], process_args={"stdout_handlers": ["{{run}}.out", None]})
    r.run()
    run[0] = "second"
    r.processes[0].stdout_handlers[1] = "mine"
    r.reset()
    r.run()
    assert files(folder) == {"first.out": ["first"], "second.out": ["second"], "mine": ["second"]}


def test_one_file_under_two_names_is_one_file(folder: Path) -> None:
    names: Any = ["log", "./log", folder / "log"]
    actions = [Local("echo x", {"stdout_handlers": [name]}) for name in names]
    ParallelActions(actions).run()
    assert files(folder) == {"log": ["x"] * 3}


def test_a_file_stays_where_the_script_was_at_the_start(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "elsewhere").mkdir()
    p = Process("cat", stdout_handlers=["log"]).start()
    monkeypatch.chdir(folder / "elsewhere")
    p.write("text")
    p.close_stdin().wait()
    assert (folder / "log").read_text() == "text"


def test_a_file_in_a_folder_that_is_missing_is_told_and_costs_nothing_else(
    hosts: list[Host], caplog: pytest.LogCaptureFixture
) -> None:
    args: Any = {"stdout_handlers": ["no/such/folder/log"]}
    r = Remote("echo x", hosts[:1], process_args=args).run()
    assert "no/such/folder/log" in caplog.text
    assert "No such file or directory" in caplog.text
    assert hosts[0].address in caplog.text
    assert (r.processes[0].stdout, r.ok, r.processes[0].stdout_ioerror) == ("x\n", True, True)


def test_a_descriptor_of_many_hosts(hosts: list[Host]) -> None:
    with tempfile.TemporaryFile() as file:
        args: Any = {"stdout_handlers": [file.fileno()]}
        Remote("echo {{{host}}}", hosts, process_args=args).run()
        file.seek(0)
        found = file.read().decode().split()
    assert sorted(found) == [h.address for h in hosts]


def test_a_pipe_to_another_program() -> None:
    sort = Process("sort -n").start()
    assert sort.stdin_fd is not None
    ParallelActions([Local(f"echo {n}", {"stdout_handlers": [sort]}) for n in (3, 1, 2)]).run()
    assert sort.close_stdin().wait(LONG).stdout == "1\n2\n3\n"


def test_all_kinds_in_one_list(hosts: list[Host], folder: Path) -> None:
    class Sized(ProcessOutputHandler):
        size = 0

        def read(self, process: Any, stream: int, string: str, eof: bool, error: bool) -> None:
            self.size += len(string)

    sized, text, raw = Sized(), io.StringIO(), io.BytesIO()
    with open("text", "w") as named, open("raw", "wb") as binary, open("fd", "wb") as numbered:
        every: Any = [sized, None, text, raw, named, binary, numbered.fileno(), "by-name"]
        Remote("echo é", hosts[:1], process_args={"stdout_handlers": every}).run()
    assert sized.size == 2
    assert text.getvalue() == "é\n" == raw.getvalue().decode()
    assert files(folder) == {name: ["é"] for name in ("text", "raw", "fd", "by-name")}


def test_sys_stdout_as_a_handler(capsys: pytest.CaptureFixture[str]) -> None:
    Process("echo shown", stdout_handlers=[sys.stdout]).run()
    assert capsys.readouterr().out == "shown\n"


# -- the life of processes and actions -------------------------------------------------------------


class Diary(ProcessLifecycleHandler, ActionLifecycleHandler):
    """Writes down what it is told, with the name of whom it concerns."""

    def __init__(self) -> None:
        self.entries: list[str] = []

    def start(self, subject: Any) -> None:
        self.entries.append(f"{subject.name} start")

    def end(self, subject: Any) -> None:
        self.entries.append(f"{subject.name} end")

    def reset(self, subject: Any) -> None:
        self.entries.append(f"{subject.name} reset")


def test_one_diary_for_an_action_and_its_process() -> None:
    diary = Diary()
    a = Local("true", {"lifecycle_handlers": [diary], "name": "p"}, [diary], name="a").run()
    assert sorted(diary.entries) == ["a end", "a start", "p end", "p start"]
    assert diary.entries.index("p start") < diary.entries.index("p end")
    assert diary.entries.index("a start") < diary.entries.index("a end")
    diary.entries.clear()
    a.reset()
    assert sorted(diary.entries) == ["a reset", "p reset"]


def test_a_diary_of_steps() -> None:
    diary = Diary()
    steps = [Local("true", lifecycle_handlers=[diary], name=name) for name in ("one", "two")]
    SequentialActions(steps, [diary], name="all").run()
    # The next step does not wait for what handlers of the one before still do.
    for earlier, later in (
        ("one start", "one end"),
        ("one start", "two start"),
        ("two start", "two end"),
    ):
        assert diary.entries.index(earlier) < diary.entries.index(later)
    steps_alone = [entry for entry in diary.entries if not entry.startswith("all")]
    assert sorted(steps_alone) == ["one end", "one start", "two end", "two start"]
    assert diary.entries[-1] == "all end"


def test_the_end_handler_has_everything_and_wait_waits_for_it(hosts: list[Host]) -> None:
    results: dict[str, tuple[str, int | None, bool]] = {}

    class Collect(ProcessLifecycleHandler):
        def end(self, process: Any) -> None:
            threading.Event().wait(0.1)
            results[process.host.address] = process.stdout, process.exit_code, process.ok

    args: Any = {"lifecycle_handlers": [Collect()], "nolog_exit_code": True}
    Remote("echo {{{host}}}; exit {{range(3)}}", hosts, process_args=args).run()
    assert results == {h.address: (f"{h.address}\n", n, n == 0) for n, h in enumerate(hosts)}


def test_a_handler_of_an_unreachable_host_has_its_start_and_its_end(
    hosts: list[Host], cluster: Cluster
) -> None:
    diary = Diary()
    cluster.fault(0, "refuse")
    args: Any = {"lifecycle_handlers": [diary], "nolog_error": True}
    try:
        Remote("true", hosts[:1], process_args=args).run()
    finally:
        cluster.heal()
    assert diary.entries == ["true start", "true end"]


def test_the_next_step_is_started_by_the_end_of_the_one_before() -> None:
    second = Process("echo second")

    class Then(ProcessLifecycleHandler):
        def end(self, process: Any) -> None:
            second.start()

    Process("true", lifecycle_handlers=[Then()]).run()
    assert second.wait(LONG).stdout == "second\n"


# -- mistakes --------------------------------------------------------------------------------------


def test_a_handler_that_raises_is_named_once_with_its_process_and_traceback(
    hosts: list[Host], caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(ProcessOutputHandler):
        def read_line(self, process: Any, stream: int, string: str) -> None:
            raise ZeroDivisionError(f"at {string}")

    r = Remote("seq 5", hosts[:1], process_args={"stdout_handlers": [Broken()]}).run()
    (record,) = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ZeroDivisionError)
    assert hosts[0].address in record.getMessage()
    assert "'seq 5'" in record.getMessage()
    assert (r.ok, r.processes[0].stdout) == (True, "1\n2\n3\n4\n5\n")


def test_a_lifecycle_handler_that_raises_does_not_stop_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken(ProcessLifecycleHandler):
        def start(self, process: Any) -> None:
            raise KeyError("missing")

    diary = Diary()
    p = Process("true", lifecycle_handlers=[Broken(), diary]).run()
    assert (p.ok, diary.entries) == (True, ["true start", "true end"])
    assert caplog.text.count("Traceback") == 1
    assert "KeyError: 'missing'" in caplog.text


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("stdout_handlers", True, "given as a list"),
        ("stdout_handlers", [True], "True is no output handler"),
        ("stderr_handlers", [False], "False is no output handler"),
        ("stdout_handlers", "log", "given as a list"),
        ("stdout_handlers", 1, "given as a list"),
        ("stdout_handlers", [print], "no output handler"),
        ("stdout_handlers", [ProcessOutputHandler], "is a class: give an instance"),
        ("stdout_handlers", [io.StringIO], "is a class: give an instance"),
        ("lifecycle_handlers", [ProcessLifecycleHandler], "is a class: give an instance"),
        ("lifecycle_handlers", ProcessLifecycleHandler(), "given as a list"),
    ],
)
def test_what_is_no_handler_is_said_at_once(option: str, value: Any, message: str) -> None:
    args: Any = {option: value}
    for make in (lambda: Process("true", **args), lambda: Remote("true", ["a"], None, args)):
        with pytest.raises(TypeError, match=message):
            make()


def test_a_closed_file_is_told_and_costs_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    with open("log", "w") as file:
        pass
    p = Process("echo x", stdout_handlers=[file]).run()
    assert "closed file" in caplog.text
    assert (p.stdout, p.ok) == ("x\n", True)


def test_a_descriptor_that_is_not_open_is_told(caplog: pytest.LogCaptureFixture) -> None:
    read, write = os.pipe()
    os.close(read)
    os.close(write)
    p = Process("echo x", stdout_handlers=[write]).run()
    assert "Bad file descriptor" in caplog.text
    assert (p.stdout, p.ok, p.stdout_ioerror) == ("x\n", True, True)


def test_the_end_of_an_action_is_told_after_that_of_its_processes() -> None:
    told: list[str] = []

    class Slow(ProcessLifecycleHandler):
        def end(self, process: ProcessBase) -> None:
            sleep(0.05)
            told.append("process")

    class Summary(ActionLifecycleHandler):
        def end(self, action: Action) -> None:
            told.append("action")

    Local("true", {"lifecycle_handlers": [Slow()]}, [Summary()]).run()
    assert told == ["process", "action"]
