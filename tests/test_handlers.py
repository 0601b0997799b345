"""Handlers: what they are given, in which order, what waits for them, what happens if they fail."""

from __future__ import annotations

import io
import logging
import os
import tempfile
import threading
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import execo.process_base
from execo import STDERR, STDOUT, Local, Process, configuration
from execo.process import ProcessLifecycleHandler, ProcessOutputHandler


class Lines(ProcessOutputHandler):
    """Collects lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def read_line(self, process: Any, stream: int, string: str) -> None:
        self.lines.append(string)


class OldLines(ProcessOutputHandler):
    """Collects what the form before 2.7 is given."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, bool, bool]] = []

    def read_line(  # type: ignore[override]
        self, process: Any, stream: int, string: str, eof: bool, error: bool
    ) -> None:
        self.calls.append((string, eof, error))


class Pieces(ProcessOutputHandler):
    """Collects all that read() is given."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, int, str, bool, bool]] = []

    def read(self, process: Any, stream: int, string: str, eof: bool, error: bool) -> None:
        self.calls.append((process, stream, string, eof, error))


class Journal(ProcessLifecycleHandler, ProcessOutputHandler):
    """Writes down what it is told, in order."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def start(self, process: Any) -> None:
        self.events.append("start")

    def end(self, process: Any) -> None:
        self.events.append("end")

    def reset(self, process: Any) -> None:
        self.events.append("reset")

    def read_line(self, process: Any, stream: int, string: str) -> None:
        self.events.append(f"{stream}: {string}")


class AtEnd(ProcessLifecycleHandler):
    """Calls a function at the end of a process."""

    def __init__(self, function: Any) -> None:
        self.end = function  # type: ignore[method-assign]


class Gate(ProcessOutputHandler):
    """Holds the first piece of output until it is opened; counts the bytes."""

    def __init__(self) -> None:
        self.reached, self.open = threading.Event(), threading.Event()
        self.size = self.checksum = 0

    def read(self, process: Any, stream: int, string: str, eof: bool, error: bool) -> None:
        self.reached.set()
        self.open.wait(30)
        self.size += len(string)
        self.checksum = zlib.crc32(string.encode(), self.checksum)


# -- lifecycle handlers -----------------------------------------------------------------------


def test_start_output_end_in_this_order() -> None:
    journal = Journal()
    cmd = "echo a; echo b"
    p = Process(cmd, shell=True, lifecycle_handlers=[journal], stdout_handlers=[journal]).run()
    p.reset().run()
    assert journal.events == [
        *["start", "1: a", "1: b", "end"],
        *["reset", "reset"],  # as a lifecycle handler and as an output handler
        *["start", "1: a", "1: b", "end"],
    ]


def test_at_the_end_everything_is_known() -> None:
    seen: list[Any] = []
    at_end = AtEnd(lambda p: seen.append((p.ended, p.ok, p.exit_code, p.stdout, p.reason)))
    Process("seq 3; exit 3", shell=True, nolog_exit_code=True, lifecycle_handlers=[at_end]).run()
    assert seen == [(True, False, 3, "1\n2\n3\n", "exit code")]


def test_at_the_start_it_runs_and_has_a_pid() -> None:
    seen: list[Any] = []

    class AtStart(ProcessLifecycleHandler):
        def start(self, process: Any) -> None:
            seen.append((process.started, process.pid, process.start_date is not None))
            process.write("from the handler")
            process.close_stdin()

    p = Process("cat", lifecycle_handlers=[AtStart()]).run()
    assert seen == [(True, p.pid, True)]
    assert p.stdout == "from the handler"


def test_one_that_cannot_be_started_has_a_start_and_an_end() -> None:
    journal = Journal()
    Process("no-such-command-anywhere", nolog_error=True, lifecycle_handlers=[journal]).run()
    Process("unbalanced '", nolog_error=True, lifecycle_handlers=[journal]).run()
    assert journal.events == ["start", "end", "start", "end"]


def test_several_handlers_are_called_in_their_order() -> None:
    seen: list[int] = []
    handlers = [AtEnd(lambda p, n=n: seen.append(n)) for n in range(5)]
    Process("true", lifecycle_handlers=handlers).run()
    assert seen == [0, 1, 2, 3, 4]


def test_wait_returns_after_the_end_handler() -> None:
    done = []

    def slow(process: Any) -> None:
        threading.Event().wait(0.3)
        done.append(process)

    p = Process("true", lifecycle_handlers=[AtEnd(slow)]).run()
    assert done == [p]


def test_a_timeout_of_wait_is_kept_while_a_handler_works() -> None:
    release = threading.Event()
    p = Process("true", lifecycle_handlers=[AtEnd(lambda p: release.wait(30))]).start()
    p.wait(0.5)
    ended = p.ended
    release.set()
    p.wait()
    assert ended


# -- output handlers --------------------------------------------------------------------------


def test_what_read_is_given() -> None:
    pieces = Pieces()
    p = Process(
        "echo out; echo err >&2", shell=True, stdout_handlers=[pieces], stderr_handlers=[pieces]
    ).run()
    for stream, text in ((STDOUT, "out\n"), (STDERR, "err\n")):
        calls = [call for call in pieces.calls if call[1] == stream]
        assert all(call[0] is p for call in calls)
        assert "".join(call[2] for call in calls) == text
        assert [call[3] for call in calls] == [False] * (len(calls) - 1) + [True]
        assert not any(call[4] for call in calls)


def test_lines_come_without_their_ends() -> None:
    lines = Lines()
    Process(r"printf 'a\nb\r\n\nc'", shell=True, stdout_handlers=[lines]).run()
    assert lines.lines == ["a", "b", "", "c"]


def test_the_old_form_of_read_line() -> None:
    old = OldLines()
    Process(r"printf 'a\nb\r\n\nc'", shell=True, stdout_handlers=[old]).run()
    assert [call[0] for call in old.calls] == ["a\n", "b\r\n", "\n", "c", ""]
    assert [call[1:] for call in old.calls] == [(False, False)] * 4 + [(True, False)]


def test_lines_and_characters_cut_by_reads() -> None:
    lines = Lines()
    parts = [r"a\r", r"\nb\303", r"\251c", r"\360\237", r"\230\200\r\n", "end"]
    cmd = "; sleep 0.1; ".join(f"printf '{part}'" for part in parts)
    Process(cmd, shell=True, stdout_handlers=[lines]).run()
    assert lines.lines == ["a", "béc😀", "end"]


@given(st.lists(st.text(st.sampled_from("ab\n\r\x0b\x85\u2028"), max_size=4), max_size=12))
def test_however_the_output_is_cut(pieces: list[str]) -> None:
    new, old, text = Lines(), OldLines(), "".join(pieces)
    p = Process("never started")
    for piece in pieces:
        new.read(p, STDOUT, piece, False, False)
        old.read(p, STDOUT, piece, False, False)
    new.read(p, STDOUT, "", True, False)
    old.read(p, STDOUT, "", True, True)
    assert new.lines == text.splitlines()
    assert [call[0] for call in old.calls] == [*text.splitlines(keepends=True), ""]
    assert old.calls[-1] == ("", True, True)


def test_a_very_long_line_in_many_pieces() -> None:
    lines = Lines()
    p = Process("never started")
    for _ in range(200_000):
        lines.read(p, STDOUT, "ten chars.", False, False)
    lines.read(p, STDOUT, "\n", True, False)
    assert lines.lines == ["ten chars." * 200_000]


def test_a_very_long_line_of_a_process() -> None:
    lines = Lines()
    Process("head -c 20000000 /dev/zero; echo", shell=True, stdout_handlers=[lines]).run()
    assert [len(line) for line in lines.lines] == [20_000_000]


def test_one_handler_for_many_processes() -> None:
    class Sorted(ProcessOutputHandler):
        def __init__(self) -> None:
            self.lines: dict[tuple[Any, int], list[str]] = {}

        def read_line(self, process: Any, stream: int, string: str) -> None:
            self.lines.setdefault((process, stream), []).append(string)

    handler = Sorted()
    cmd = "for i in 1 2 3; do printf $0; echo $i; printf $0 >&2; echo e$i >&2; done"
    processes = [
        Process(["sh", "-c", cmd, name], stdout_handlers=[handler], stderr_handlers=[handler])
        for name in "abcdefghij"
    ]
    for p in processes:
        p.start()
    for p, name in zip(processes, "abcdefghij", strict=True):
        p.wait()
        assert handler.lines[p, STDOUT] == [f"{name}{i}" for i in (1, 2, 3)]
        assert handler.lines[p, STDERR] == [f"{name}e{i}" for i in (1, 2, 3)]


def test_reset_forgets_unfinished_lines() -> None:
    lines = Lines()
    p = Process("never started")
    lines.read(p, STDOUT, "unfinished", False, False)
    lines.reset(p)
    lines.read(p, STDOUT, "line\n", True, False)
    assert lines.lines == ["line"]


def test_a_handler_that_is_added_while_it_runs() -> None:
    gate, lines = Gate(), Lines()
    gate.open.set()
    p = Process("echo early; cat", shell=True, stdout_handlers=[gate]).start()
    assert gate.reached.wait(20)
    p.stdout_handlers.append(lines)
    p.write("late\n")
    p.close_stdin().wait()
    assert lines.lines == ["late"]


def test_handlers_work_without_the_capture() -> None:
    lines = Lines()
    p = Process("echo x", default_stdout_handler=False, stdout_handlers=[lines]).run()
    assert (p.stdout, lines.lines) == ("", ["x"])


# -- files and descriptors --------------------------------------------------------------------

NOISE = rb"printf 'line\n\351 \377\303\251'"
NOISE_OUT = b"line\n\xe9 \xff\xc3\xa9"


def noise(handler: Any) -> Process:
    return Process(NOISE.decode(), shell=True, stdout_handlers=[handler]).run()


@pytest.mark.parametrize("kind", [str, Path])
def test_a_file_by_its_name_is_appended_to(kind: Any, tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"before\n")
    noise(kind(path))
    assert path.read_bytes() == b"before\n" + NOISE_OUT


def test_a_file_by_its_name_is_there_without_output_too(tmp_path: Path) -> None:
    Process("true", stdout_handlers=[tmp_path / "out"]).run()
    assert (tmp_path / "out").read_bytes() == b""


def test_one_file_for_many_processes_and_both_streams(tmp_path: Path) -> None:
    path = tmp_path / "out"
    cmd = "for i in 1 2 3 4 5; do echo o$0$i; echo e$0$i >&2; sleep 0.01; done"
    processes = [
        Process(["sh", "-c", cmd, name], stdout_handlers=[str(path)], stderr_handlers=[path])
        for name in "abcdefghijkl"
    ]
    for p in processes:
        p.start()
    for p in processes:
        p.wait()
    expected = [f"{s}{name}{i}" for s in "oe" for name in "abcdefghijkl" for i in range(1, 6)]
    assert sorted(path.read_text().splitlines()) == sorted(expected)


def test_a_file_is_complete_when_wait_returns(tmp_path: Path) -> None:
    path = tmp_path / "out"
    Process("seq 100000", stdout_handlers=[path]).run()
    assert path.read_text() == "".join(f"{n}\n" for n in range(1, 100_001))


def test_a_file_shared_with_a_forked_child(tmp_path: Path) -> None:
    path, gate = tmp_path / "out", Gate()
    gate.open.set()
    p = Process("echo a; cat", shell=True, stdout_handlers=[path, gate]).start()
    assert gate.reached.wait(20)
    child = os.fork()
    if child == 0:
        Process("echo b", stdout_handlers=[path]).run(20)
        os._exit(0)
    os.waitpid(child, 0)
    p.write("c\n")
    p.close_stdin().wait()
    assert path.read_text() == "a\nb\nc\n"


def test_a_descriptor() -> None:
    reading, writing = os.pipe()
    noise(writing)
    os.close(writing)
    with open(reading, "rb") as file:
        assert file.read() == NOISE_OUT


def test_a_binary_file(tmp_path: Path) -> None:
    with open(tmp_path / "out", "wb") as file:
        noise(file)
        assert (tmp_path / "out").read_bytes() == NOISE_OUT  # flushed
    buffer = io.BytesIO()
    noise(buffer)
    assert buffer.getvalue() == NOISE_OUT


def test_a_text_file(tmp_path: Path) -> None:
    with open(tmp_path / "out", "w", encoding="utf-8") as file:
        Process(r"printf 'h\303\251\n'", shell=True, stdout_handlers=[file]).run()
        assert (tmp_path / "out").read_text("utf-8") == "hé\n"
        noise(file)
    assert "line\n" in (tmp_path / "out").read_text("utf-8")
    assert (tmp_path / "out").read_text("utf-8").endswith("é")


def test_a_stringio() -> None:
    buffer = io.StringIO()
    noise(buffer)
    assert buffer.getvalue() == NOISE_OUT.decode("utf-8", "surrogateescape")


def test_an_object_that_takes_bytes_and_does_not_say_so() -> None:
    with tempfile.NamedTemporaryFile() as file:
        cmd = r"printf '\303'; sleep 0.1; printf '\251\n'"
        Process(cmd, shell=True, stdout_handlers=[file]).run()
        assert Path(file.name).read_bytes() == "é\n".encode()


def test_none_is_passed_over() -> None:
    lines = Lines()
    assert Process("echo x", stdout_handlers=[None, lines, None]).run().ok
    assert lines.lines == ["x"]


@pytest.mark.parametrize("what", ["folder", "no folder", "closed descriptor", "closed file"])
def test_a_file_that_cannot_be_written(
    what: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lines, broken = Lines(), io.StringIO()
    broken.close()
    reading, writing = os.pipe()
    os.close(reading)
    handlers: dict[str, Any] = {
        "folder": tmp_path,
        "no folder": str(tmp_path / "missing" / "out"),
        "closed descriptor": writing,
        "closed file": broken,
    }
    try:
        p = Process(
            "for i in 1 2 3; do echo $i; sleep 0.05; done",
            shell=True,
            stdout_handlers=[handlers[what], lines],
        ).run()
    finally:
        os.close(writing)
    assert lines.lines == ["1", "2", "3"]
    assert p.stdout == "1\n2\n3\n"
    assert p.ok
    errors = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert len(errors) == 1
    assert "for i in" in errors[0].getMessage()
    if what != "closed file":
        assert p.stdout_ioerror


# -- a handler that raises --------------------------------------------------------------------


class Raises(ProcessLifecycleHandler, ProcessOutputHandler):
    """Raises in one of its methods."""

    def __init__(self, where: str, error: BaseException) -> None:
        def fail(*args: Any) -> None:
            raise error

        setattr(self, where, fail)

    def read_line(self, process: Any, stream: int, string: str) -> None:
        pass


@pytest.mark.parametrize("error", [ZeroDivisionError("oops"), SystemExit(3), KeyboardInterrupt()])
@pytest.mark.parametrize("where", ["start", "end", "reset"])
def test_a_lifecycle_handler_that_raises(
    where: str, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    journal, neighbour = Journal(), Process("cat").start()
    p = Process("echo fine", lifecycle_handlers=[Raises(where, error), journal]).run(20)
    assert p.finished_ok
    shown = repr(p)
    p.reset()
    assert journal.events == ["start", "end", "reset"]
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.exc_info
    assert record.exc_info[1] is error
    assert "'echo fine'" in record.getMessage(), shown
    assert neighbour.close_stdin().wait(20).ok


@pytest.mark.parametrize("error", [ZeroDivisionError("oops"), SystemExit(3), OSError(5, "disk")])
@pytest.mark.parametrize("where", ["read", "read_line"])
def test_an_output_handler_that_raises_is_logged_once(
    where: str, error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    lines = Lines()
    cmd = "for i in 1 2 3; do echo $i; sleep 0.05; done"
    p = Process(cmd, shell=True, stdout_handlers=[Raises(where, error), lines]).run(20)
    assert p.finished_ok
    assert lines.lines == ["1", "2", "3"]
    assert p.stdout == "1\n2\n3\n"
    (record,) = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert record.exc_info
    assert record.exc_info[1] is error
    assert "for i in" in record.getMessage()


def test_a_line_that_a_handler_cannot_take_does_not_cost_it_the_next_ones(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Numbers(ProcessOutputHandler):
        def __init__(self) -> None:
            self.numbers: list[int] = []

        def read_line(self, process: Any, stream: int, string: str) -> None:
            self.numbers.append(int(string))

    numbers = Numbers()
    Process(r"printf '1\ntwo\n3\nfour\n5'", shell=True, stdout_handlers=[numbers]).run()
    assert numbers.numbers == [1, 3, 5]
    assert len([r for r in caplog.records if r.exc_info]) == 1


def test_a_handler_that_fails_keeps_nothing_of_its_processes() -> None:
    class Fails(ProcessOutputHandler):
        def read_line(self, process: Any, stream: int, string: str) -> None:
            raise ValueError

    fails = Fails()
    p = Process("printf unfinished", stdout_handlers=[fails]).run()
    assert not any(
        p in pending or (p, STDOUT) in pending for pending in vars(fails).values() if pending
    )


def test_an_object_whose_write_raises(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def write(self, data: Any) -> None:
            raise ZeroDivisionError

    lines = Lines()
    assert Process("echo x", stdout_handlers=[Broken(), lines]).run().ok
    assert lines.lines == ["x"]
    assert len([r for r in caplog.records if r.levelno == logging.ERROR]) == 1


@pytest.mark.parametrize(
    "handlers", ["name", Path("name"), io.StringIO(), 5, [3.5], [b"name"], [object()], Lines()]
)
@pytest.mark.parametrize("parameter", ["stdout_handlers", "stderr_handlers"])
def test_what_is_no_list_of_output_handlers(parameter: str, handlers: Any) -> None:
    options: Any = {parameter: handlers}
    with pytest.raises(TypeError):
        Process("true", **options)


# -- handlers that wait, start, kill ----------------------------------------------------------


def test_a_handler_that_waits_for_its_own_process() -> None:
    class Waits(ProcessOutputHandler):
        def __init__(self) -> None:
            self.text, self.waited = "", False

        def read(self, process: Any, stream: int, string: str, eof: bool, error: bool) -> None:
            self.text += string
            if not self.waited:
                self.waited = True
                process.wait()
                assert process.ended

    waits = Waits()
    # More than fits into the queue: its output is taken while the handler waits.
    p = Process("seq 500000", stdout_handlers=[waits], default_stdout_handler=False).run(60)
    assert p.ended
    assert waits.waited
    assert len(waits.text) == sum(len(str(n)) + 1 for n in range(1, 500_001))


def test_a_handler_that_waits_for_its_own_process_at_every_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    got: list[str] = []

    class Waits(ProcessOutputHandler):
        def read_line(self, process: Any, stream: int, string: str) -> None:
            got.append(string)
            process.wait()

    cmd = "i=0; while [ $i -lt 300 ]; do echo $i; sleep 0.002; i=$((i+1)); done"
    Process(cmd, shell=True, stdout_handlers=[Waits()]).run(60)
    assert sorted(map(int, got)) == list(range(300))
    assert caplog.records == []


def test_handlers_that_wait_in_start_and_end() -> None:
    seen = []

    class Waits(ProcessLifecycleHandler):
        def start(self, process: Any) -> None:
            seen.append(process.wait().ended)

        def end(self, process: Any) -> None:
            seen.append(process.wait().ended)

    Process("echo x", lifecycle_handlers=[Waits()]).run(60)
    assert seen == [True, True]


def test_handlers_that_wait_for_each_others_processes() -> None:
    processes: list[Process] = []
    met = threading.Barrier(2)

    class Waits(ProcessLifecycleHandler):
        def start(self, process: Any) -> None:
            met.wait(20)
            for p in processes:
                p.close_stdin().wait()

        def end(self, process: Any) -> None:
            for p in processes:
                p.wait()

    waits = Waits()
    processes += [Process("cat", lifecycle_handlers=[waits]) for _ in range(2)]
    for p in processes:
        p.start()
    assert all(p.wait(60).ended for p in processes)


def test_a_handler_that_starts_processes() -> None:
    outputs: list[str] = []

    def more(process: Any) -> None:
        children = [Process(f"echo {process.stdout.strip()}{n}").start() for n in range(3)]
        found = [child.wait().stdout for child in children]
        outputs.extend(found)

    processes = [Process(f"echo {c}", lifecycle_handlers=[AtEnd(more)]) for c in "abcdefgh"]
    for p in processes:
        p.start()
    for p in processes:
        p.wait(60)
    assert sorted(outputs) == [f"{c}{n}\n" for c in "abcdefgh" for n in range(3)]


def test_a_handler_that_kills_its_process() -> None:
    class Kills(ProcessOutputHandler):
        def read_line(self, process: Any, stream: int, string: str) -> None:
            process.kill()

    p = Process("echo enough; exec sleep 1000", shell=True, stdout_handlers=[Kills()]).run(60)
    assert p.killed
    assert p.ok


def test_a_handler_that_writes_to_its_process() -> None:
    class Answers(ProcessOutputHandler):
        def read_line(self, process: Any, stream: int, string: str) -> None:
            process.write("answer\n")
            process.close_stdin()

    p = Process("echo question; cat", shell=True, stdout_handlers=[Answers()]).run(60)
    assert p.stdout == "question\nanswer\n"


def test_a_handler_that_starts_its_process_again() -> None:
    runs: list[int | None] = []
    third = threading.Event()

    def again(process: Any) -> None:
        runs.append(process.exit_code)
        if len(runs) < 3:
            process.reset().start()
        else:
            third.set()

    p = Process("exit 3", shell=True, nolog_exit_code=True, lifecycle_handlers=[AtEnd(again)])
    p.start()
    assert third.wait(20)
    p.wait(20)
    assert runs == [3, 3, 3]


# -- slow handlers ----------------------------------------------------------------------------


def test_a_slow_handler_holds_up_its_process_and_loses_nothing() -> None:
    gate = Gate()
    cmd = "head -c 50000000 /dev/zero"
    before = _resident()
    p = Process(cmd, default_stdout_handler=False, stdout_handlers=[gate]).start()
    assert gate.reached.wait(20)
    assert p.wait(0.5).running
    grown = _resident() - before
    gate.open.set()
    assert p.wait(60).finished_ok
    assert gate.size == 50_000_000
    assert gate.checksum == zlib.crc32(bytes(50_000_000))
    assert grown < 20_000_000


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_the_queue_of_a_slow_handler_may_be_shorter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(configuration, "handler_queue_size", 1)
    gate = Gate()
    p = Process("seq 100000", default_stdout_handler=False, stdout_handlers=[gate]).start()
    assert gate.reached.wait(20)
    assert p.wait(0.3).running
    gate.open.set()
    assert p.wait(60).finished_ok
    assert gate.size == sum(len(str(n)) + 1 for n in range(1, 100_001))


def test_a_process_that_is_held_up_can_be_killed() -> None:
    gate = Gate()
    p = Process("yes", default_stdout_handler=False, stdout_handlers=[gate]).start()
    assert gate.reached.wait(20)
    p.kill().wait(0.5)
    gate.open.set()
    assert p.wait(60).exit_code == -15


def test_slow_handlers_freeze_nobody_else() -> None:
    release = threading.Event()
    held = [
        Process("true", lifecycle_handlers=[AtEnd(lambda p: release.wait(60))]) for _ in range(12)
    ]
    for p in held:
        p.start()
    try:
        journal = Journal()
        quick = Process("echo x", lifecycle_handlers=[journal], stdout_handlers=[journal])
        assert quick.run(30).finished_ok
        assert journal.events == ["start", "1: x", "end"]
        assert Process("echo y").run(30).stdout == "y\n"
    finally:
        release.set()
        for p in held:
            p.wait(30)
    assert all(p.finished_ok for p in held)


def test_many_processes_with_handlers_all_have_their_end() -> None:
    ended: list[Any] = []
    at_end = AtEnd(ended.append)
    processes = [Process("true", lifecycle_handlers=[at_end]) for _ in range(60)]
    for p in processes:
        p.start()
    for p in processes:
        p.wait(60)
    assert set(ended) == set(processes)
    assert len(ended) == 60


@pytest.mark.parametrize("of", ["a process", "an action"])
def test_a_handler_that_holds_up_a_wait_is_named_once(
    of: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    class Slow(ProcessLifecycleHandler):
        def end(self, process: Any) -> None:
            go_on.wait(20)

    go_on = threading.Event()
    monkeypatch.setattr(execo.process_base, "SLOW_HANDLER", 0.2)
    action = Local("true", {"lifecycle_handlers": [Slow()]})
    waited_for = action.start() if of == "an action" else action.process.start()
    waited_for.wait(0.05)
    assert caplog.records == []
    waited_for.wait(0.5)
    (record,) = caplog.records
    go_on.set()
    waited_for.wait()
    assert "Slow object" in record.getMessage()
    assert "true" in record.getMessage()
    assert "holds up wait()" in record.getMessage()
