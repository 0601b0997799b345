"""What progress says of actions, transfers and sweeps, and what it does to streams.

How it looks in a real terminal is in ``test_progress_terminal.py``.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import re
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from execo import Host, Local, ParallelActions, Process, Put, Remote, configuration, transports
from execo.engine import ParamSweeper
from execo.errors import CancelledError
from execo.progress import show
from execo.progress.lines import Line, fitted
from execo.progress.paces import Pace, Seldom, number_of_bytes
from execo.progress.rows import Row, row_of
from execo.testing import Exit, Fail, Gate, Script, scripts

ROOT = Path(__file__).resolve().parent.parent
PATIENCE = 30.0


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Remote]:
    """Makes a Remote whose commands follow scripts."""
    transports.register("fake", "execo.testing.fake:FakeTransport")
    monkeypatch.setattr("execo.testing.script.scripts", scripts)

    def make(commands: dict[str, Script], hosts: list[str], **options: Any) -> Remote:
        for text, script in commands.items():
            monkeypatch.setitem(scripts, text, script)
        names = list(commands)  # noqa: F841 - for the command
        return Remote(
            "{{names}}",
            hosts,
            {"transport": "fake"},
            {"nolog_exit_code": True, "nolog_error": True},
            **options,
        )

    return make


class Terminal:
    """A pseudo terminal as stderr, or as stdout too; all that is written to it is kept."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("TERM", "xterm-256color")
        monkeypatch.delenv("NO_COLOR", raising=False)
        self._ours, theirs = os.openpty()
        self.number = theirs
        termios.tcsetwinsize(theirs, (24, 200))
        self.stream = io.TextIOWrapper(os.fdopen(theirs, "wb", 0), "utf-8", write_through=True)
        self._monkeypatch = monkeypatch
        self.data = b""
        self.times: list[float] = []
        """Of each drawing."""
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def use(self, *names: str) -> None:
        """From now on. Not by the fixture: pytest sets these streams after it."""
        for name in names or ("stderr",):
            self._monkeypatch.setattr(sys, name, self.stream)

    def close(self) -> None:
        self._monkeypatch.undo()
        self.stream.close()
        self._thread.join()
        os.close(self._ours)

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # the other side is closed
            while data := os.read(self._ours, 65536):
                with self._changed:
                    self.times += [time.monotonic()] * data.count(b"\x1b7")
                    self.data += data
                    self._changed.notify_all()

    def wait_for(self, text: str, times: int = 1) -> None:
        self.wait_until(lambda: self.plain().count(text) >= times)

    def wait_until(self, test: Callable[[], bool]) -> None:
        with self._changed:
            assert self._changed.wait_for(test, PATIENCE), self.data

    def plain(self) -> str:
        """What was written, without colours and the like."""
        return re.sub(r"\x1b(\[[0-9;?]*[A-Za-z]|[78])|\r", "", self.data.decode())


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    made = Terminal(monkeypatch)
    yield made
    made.close()


def line_of(row: Row) -> Line:
    row.look()
    return row.known(last=True)


# -- what a row says ---------------------------------------------------------------------------


def test_an_action_says_how_many_of_its_processes_are_done(fake: Callable[..., Remote]) -> None:
    gate = Script(Gate(), Exit(0))
    lost = Script(Fail(CancelledError("not wanted")))
    hosts = ["node1", "node2", "node3", "other"]
    remote = fake({"good": Script(), "bad": Script(Exit(3)), "late": gate, "never": lost}, hosts)
    row = row_of(remote)
    assert line_of(row) == Line(remote.name, "0/4", (0, 0))
    remote.start()
    remote.processes[0].wait()
    remote.processes[1].wait()
    remote.processes[3].wait()
    line = line_of(row)
    assert (line.count, line.parts, line.now) == ("3/4", (0.25, 0.5), "1 running")
    assert line.failed == "1 failed: node2, 1 given up"
    gate.step()
    remote.wait()
    line = line_of(row)
    assert (line.count, line.parts, line.now) == ("4/4", (0.5, 0.5), "")
    assert re.fullmatch(r"in \d+s", line.time)


def test_hosts_that_fail_are_folded(fake: Callable[..., Remote]) -> None:
    hosts = [f"node{number}" for number in range(1, 601)]
    few, many = (fake({"bad": Script(Exit(1))}, some).run() for some in (hosts[:7], hosts))
    assert line_of(row_of(few)).failed == "7 failed: node[1-7]"
    assert line_of(row_of(many)).failed == "600 failed: node[1-500], ..."


def test_what_happens_later_is_told_to_the_row(fake: Callable[..., Remote]) -> None:
    remote = fake({"good": Script(), "bad": Script(Exit(3))}, ["a", "b"])
    row = row_of(remote)
    row.look()
    remote.run()
    first, second = remote.processes
    row.started(first)
    row.started(second)
    assert row.known().now == "2 running"
    row.ended(second)
    assert (row.known().count, row.known().failed) == ("1/2", "1 failed: b")
    row.started(second)  # again
    assert (row.known().count, row.known().now) == ("0/2", "2 running")


def test_one_process_and_no_process() -> None:
    line = line_of(row_of(Process("true", name="alone").run()))
    assert (line.name, line.count, line.failed) == ("alone", "1/1", "")
    line = line_of(row_of(Remote("true", [], name="nobody").run()))
    assert (line.name, line.count, line.parts) == ("nobody", "0/0", None)


def test_a_sweep_says_what_is_done_and_how_long_the_rest_takes(tmp_path: Path) -> None:
    combinations = [{"n": n} for n in range(10)]
    with contextlib.closing(ParamSweeper(tmp_path / "sizes", combinations, lease=None)) as sweeper:
        for _ in range(4):
            sweeper.done(sweeper.get_next() or {})
        row = row_of(sweeper)
        assert line_of(row) == Line("sizes", "4/10", (0.4, 0), time="0s")
        taken = sweeper.get_next_batch(3)
        sweeper.failed(taken[0], retry=False)
        line = row.known(last=True)
        assert (line.count, line.parts, line.now) == ("4/10", (0.4, 0.1), "2 running")
        assert sweeper.counts() == (10, 3, 1, 2, 4) == tuple(map(len, sweeper.stats()))
        assert line.failed == "1 failed or skipped"
        assert line.time.endswith("s left")

    # Nothing has ended yet in this run: as long as those of the earlier ones took.
    with contextlib.closing(ParamSweeper(tmp_path / "sizes", combinations, lease=None)) as sweeper:
        sweeper.get_next_batch(1)
        assert line_of(row_of(sweeper)).time == "0s left"


def test_any_sweeper_with_sets_will_do() -> None:
    class Other:
        name = "<b>\x1b[31mother"
        asked = 0

        def get_next(self) -> None: ...

        def stats(self) -> tuple[set[int], ...]:
            self.asked += 1
            if self.asked > 1:
                raise RuntimeError("no more")
            return {1, 2, 3}, {1}, set(), {2}, {3}

    row = row_of(Other())
    line = row.known(last=True)
    assert (line.count, line.now) == ("1/3", "1 running")
    assert row.known(last=True) == line
    assert fitted([line], 80, 5)[0].plain.startswith("<b>\\x1b[31mother")


def test_a_sweeper_that_cannot_be_asked_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def get_next(self) -> None: ...

        def stats(self) -> None:
            raise RuntimeError("no file")

    row = row_of(Broken())
    assert [row.known(), row.known()] == [Line("Broken", "?")] * 2
    assert len(caplog.records) == 1
    assert "no file" in caplog.text


def test_an_action_of_a_kind_of_its_own_that_raises_is_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Odd(ParallelActions):
        @property
        def processes(self) -> list[Any]:
            raise RuntimeError("none of your business")

    row = row_of(Odd([Local("true")]))
    row.look()
    row.look()
    assert row.known() == Line("Odd", "?")
    assert caplog.text.count("progress of a Odd is not shown any more") == 1


@pytest.mark.parametrize("thing", [None, "web1", 3, ParallelActions, [Local("true")], object()])
def test_anything_else_is_refused(thing: object) -> None:
    with pytest.raises(TypeError, match="what is shown is an action, a process or a sweeper"):
        show(thing)


def test_rates_and_bytes() -> None:
    pace = Pace()
    pace.begin(10)
    assert pace.left(10, 20) is None
    assert pace.left(20, 20) is None
    pace.begin(10, time.time() - 100)  # it has been running: those 10 took 100 seconds
    assert pace.left(10, 20) == pytest.approx(100, rel=0.1)
    pace.begin(10, time.time())  # it has just begun: those 10 are of before
    assert pace.left(10, 20) is None
    assert number_of_bytes(0) == "0 B"
    assert number_of_bytes(999, 1000) == "1.0/1.0 kB"
    assert number_of_bytes(3_400_000_000) == "3.4 GB"
    assert number_of_bytes(5, None) == "5 B"


def test_what_takes_long_is_asked_seldom() -> None:
    asked = []

    def slow() -> int:
        asked.append(threading.Event().wait(0.05))
        return len(asked)

    seldom = Seldom(slow)
    assert {seldom.ask() for _ in range(100)} == {1}
    assert seldom.ask(last=True) == 2


# -- how it fits -------------------------------------------------------------------------------

LINES = [
    Line("a rather long name of an action", "812/1000", (0.8, 0.012), "12 running", "", "34s left"),
    Line("名前", "1.2/3.4 GB", (0.3, 0.1), "85 MB/s", "3 failed: web[1,3-9]", "1h2m3s left"),
    Line("tab\tand\nnewline", "0/3"),
]


@pytest.mark.parametrize("width", range(1, 200, 3))
def test_lines_fit(width: int) -> None:
    for most in (1, 2, 3, 9):
        texts = fitted(LINES, width, most)
        assert len(texts) == min(most, len(LINES))
        assert all(text.cell_len < max(width, 2) for text in texts)
        assert all("\n" not in text.plain for text in texts)


def test_what_matters_most_is_left_in_a_narrow_terminal() -> None:
    wide = [text.plain for text in fitted(LINES, 120, 9)]
    assert re.fullmatch(
        r"a rather long name of an acti…  ━+─+  +812/1000  12 running +34s left", wide[0]
    )
    assert re.fullmatch(
        r"名前 +━+─+  1\.2/3\.4 GB  85 MB/s +3 failed: web\[1,3-9\]  1h2m3s left", wide[1]
    )
    assert re.fullmatch(r"tab and newline  ─+ +0/3", wide[2]) is None  # nothing is known for a bar
    narrow = [text.plain for text in fitted(LINES[:2], 40, 9)]
    assert all("812/1000" in text or "1.2/3.4 GB" in text for text in narrow)
    assert "3 failed" in narrow[1]
    assert [text.plain for text in fitted(LINES, 80, 2)][1] == "and 2 more"


def test_the_bar_is_full_only_when_all_is_done_and_shows_every_failure() -> None:
    for parts, plain in [
        ((0, 0), "----------"),
        ((0.999, 0), "#########-"),
        ((1, 0), "##########"),
        ((0.999, 0.001), "##########"),
    ]:
        bar = fitted([Line("x", "1", parts)], 17, 1, plain=True)[0]
        assert plain in bar.plain
        reds = [span for span in bar.spans if "red" in str(span.style)]
        assert bool(reds) == (parts[1] > 0)


# -- on a stream -------------------------------------------------------------------------------


def test_it_is_drawn_at_most_four_times_a_second_by_a_thread_of_its_own(
    terminal: Terminal, fake: Callable[..., Remote]
) -> None:
    terminal.use()
    commands = {f"{i}": Script(Exit(0, delay=i / 100)) for i in range(150)}
    remote = fake(commands, [f"node{i}" for i in range(150)])
    with show(remote):
        remote.start()
        names = {thread.name for thread in threading.enumerate()}
        assert "execo-progress" in names
        remote.wait()
    assert "execo-progress" not in {thread.name for thread in threading.enumerate()}
    terminal.wait_for("150/150")
    gaps = [late - early for early, late in zip(terminal.times, terminal.times[1:], strict=False)]
    assert len(gaps) >= 2
    # By the clock of who reads, which may be late for the first one of two.
    assert terminal.times[-1] - terminal.times[0] >= 0.24 * len(gaps) - 0.1


def test_streams_are_as_they_were_afterwards(terminal: Terminal) -> None:
    terminal.use("stdout", "stderr")
    modes = termios.tcgetattr(terminal.number)
    buffer: Any = terminal.stream.buffer
    before = buffer.write
    with show(action := Local("sleep 0.6", name="a nap")):
        assert buffer.write != before
        action.run()
        terminal.wait_for("0/1")
    assert buffer.write == before
    assert "write" not in vars(buffer)
    assert termios.tcgetattr(terminal.number) == modes
    assert b"?25l" not in terminal.data  # the cursor is never hidden


def test_log_handlers_that_keep_the_stream_are_heard(terminal: Terminal) -> None:
    terminal.use()
    log = logging.getLogger("a script of its own")
    handler = logging.StreamHandler(terminal.stream)
    log.addHandler(handler)
    with show(Local("sleep 1", name="a nap").start()):
        terminal.wait_for("0/1")
        log.warning("hello")
        terminal.wait_for("hello")
    log.removeHandler(handler)
    # The line was removed before, and so is what is below the cursor.
    assert re.search(rb"\x1b\[J(\x1b8)?\x1b\[Jhello\r?\n", terminal.data)


@pytest.mark.parametrize(
    ("environ", "color_mode", "colours"),
    [({}, None, True), ({"NO_COLOR": "1"}, None, False), ({}, False, False)],
)
def test_colours(
    terminal: Terminal,
    monkeypatch: pytest.MonkeyPatch,
    environ: dict[str, str],
    color_mode: bool | None,
    colours: bool,
) -> None:
    terminal.use()
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setitem(configuration, "color_mode", color_mode)
    with show(Local("true").run()):
        pass
    terminal.wait_for("1/1")
    assert (re.search(rb"\x1b\[[0-9;]*m", terminal.data) is not None) == colours


@pytest.mark.parametrize("environ", [{"TERM": "dumb"}, {"TERM": ""}, {}])
def test_nothing_at_all_where_it_is_not_wanted(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, environ: dict[str, str]
) -> None:
    terminal.use()
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    if not environ:
        monkeypatch.setitem(configuration, "progress", False)
    threads = threading.active_count()
    with show(action := Local("sleep 0.6")):
        assert threading.active_count() == threads
        assert "write" not in vars(terminal.stream.buffer)
        action.run()
    assert terminal.data == b""


def test_a_terminal_that_is_gone_does_not_end_the_script(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal.use()
    with show(action := Local("sleep 0.6", name="a nap")):
        action.start()
        terminal.wait_for("a nap")
        terminal.stream.close()
        action.wait()
    assert action.ok


def test_actions_are_shown_without_a_name_while_they_run(terminal: Terminal) -> None:
    terminal.use()
    with show():
        Local("true", name="too quick").run()
        inner = [Local(f"sleep {seconds}", name="inner") for seconds in (0.3, 1)]
        ParallelActions(inner, name="outer").run()
    terminal.wait_for("1/2")
    text = terminal.plain()
    assert "0/2" in text
    assert "inner" not in text
    assert "too quick" not in text
    # In the end nothing is left of it: it is removed, from where the cursor is.
    terminal.wait_until(lambda: terminal.data.endswith(b"\x1b8\x1b[J"))


def test_what_is_started_again_is_counted_again(terminal: Terminal, tmp_path: Path) -> None:
    terminal.use()
    flag = tmp_path / "flag"
    command = f"test -e {flag} || exit 1"
    action = ParallelActions(
        [Local(c, process_args={"shell": True, "nolog_exit_code": True}) for c in ("true", command)]
    )
    with show(action):
        action.run()
        flag.touch()
        action.retry_failed().wait()
    terminal.wait_for("2/2")
    assert "failed" not in terminal.plain().splitlines()[-1]


def test_a_transfer_of_a_process_that_runs(terminal: Terminal, tmp_path: Path) -> None:
    terminal.use()
    (tmp_path / "file").write_bytes(b"x" * 1000)
    put = Put([Host("127.9.9.1", port=1)], tmp_path / "file", process_args={"nolog_error": True})
    with show(put.run(), put.processes[0]):
        pass
    terminal.wait_for("\n", 2)
    lines = terminal.plain().splitlines()
    assert len(lines) == 2
    assert all("0.0/1.0 kB" in line for line in lines)
    assert all("1 failed: 127.9.9.1" in line for line in lines)


# -- scripts -----------------------------------------------------------------------------------


def script(code: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_nothing_is_written_to_a_pipe_and_rich_is_not_loaded() -> None:
    done = script(
        "import sys\n"
        "from execo import Local, configuration\n"
        "from execo.progress import show\n"
        "configuration['progress'] = True\n"
        "with show(a := Local('sleep 0.5')), show():\n"
        "    a.run()\n"
        "print('rich' in sys.modules)\n",
        TERM="xterm",
    )
    assert (done.stdout, done.stderr) == ("False\n", "")


def test_without_rich_one_warning_says_how_to_get_it() -> None:
    done = script(
        "import os, pty, sys\n"
        "ours, theirs = pty.openpty()\n"
        "out = sys.stderr\n"
        "sys.stderr = os.fdopen(theirs, 'w')\n"
        "sys.modules['rich'] = sys.modules['rich.console'] = None\n"
        "from execo import Local, configuration\n"
        "from execo.progress import show\n"
        "configuration['progress'] = True\n"
        "with show(a := Local('true')):\n"
        "    print(a.run().ok)\n"
        "Local('true').run()\n"
        "sys.stderr = out\n"
        "print(os.read(ours, 10000).decode())\n",
        TERM="xterm",
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.split("\n")
    assert lines[0] == "True"
    assert done.stdout.count("pip install 'execo[cli]'") == 1


def test_a_forked_child_can_print_and_show() -> None:
    done = script(
        "import os, pty, sys, threading, time\n"
        "from execo import Local\n"
        "from execo.progress import show\n"
        "ours, theirs = pty.openpty()\n"
        "sys.stderr = os.fdopen(theirs, 'w')\n"
        "def read():\n"
        "    while os.read(ours, 1000): pass\n"
        "threading.Thread(target=read, daemon=True).start()\n"
        "with show(Local('sleep 1').start()):\n"
        "    for _ in range(20):\n"
        "        child = os.fork()\n"
        "        if not child:\n"
        "            print('child', file=sys.stderr)\n"
        "            with show(Local('true')): pass\n"
        "            os._exit(7)\n"
        "        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7\n"
        "        time.sleep(0.03)\n"
        "print('done')\n",
        TERM="xterm",
        PYTHONWARNINGS="ignore",
    )
    assert done.stdout == "done\n"
