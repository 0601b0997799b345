"""Progress as a user sees it: scripts in a real terminal, and what is on its screen."""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tmux import Terminal


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    """80 columns and 24 lines."""
    if shutil.which("tmux") is None:
        pytest.skip("tmux is not installed (apt install tmux)")
    made = Terminal(tmp_path)
    try:
        yield made
    finally:
        made.close()


WORK = """
    import os, sys, threading, time
    from execo import *
    from execo.progress import show

    def work(*seconds, name="work", code=0):
        commands = [f"sleep {one}; exit {code}" for one in seconds]
        options = {"shell": True, "nolog_exit_code": True}
        return ParallelActions([Local(one, process_args=options) for one in commands], name=name)

    def until(path):
        while not os.path.exists(path):
            time.sleep(0.02)
"""


def is_bar(line: str, name: str = "work") -> bool:
    return line.startswith(name) and re.search(r"[━─]{10}", line) is not None


def test_the_line_is_below_what_the_script_prints_and_logs(terminal: Terminal) -> None:
    terminal.run(
        WORK
        + """
    import logging
    logging.basicConfig(format="%(message)s")  # keeps the stream that there is now
    print("begin")
    with show(work(0, 100), action := work(0, 100, code=3)):
        action.start()
        for number in range(30):
            print("print", number)
            logging.warning("log %d", number)
            time.sleep(0.02)
        logger.warning("of execo")
        print("unfinished ", end="", flush=True)
        until("go on")
        print("line")
        until("end")
    """
    )
    said = [f"{kind} {number}" for number in range(30) for kind in ("print", "log")]
    lines = terminal.wait_for(lambda lines: lines[-1:] == ["unfinished"], above=100)
    assert lines[:-2] == ["begin", *said]
    assert lines[-2].endswith("of execo")
    (terminal.folder / "go on").touch()

    lines = terminal.wait_for(lambda lines: "1 failed" in lines[-1])
    assert lines[-3] == "unfinished line"
    assert is_bar(lines[-1])
    assert "1/2" in lines[-1]
    assert "1 running" in lines[-1]
    assert is_bar(lines[-2])
    assert "0/2" in lines[-2]
    # Apart from them by an empty line.
    rows = terminal.rows()
    assert rows[rows.index("unfinished line") + 1] == ""

    (terminal.folder / "end").touch()
    lines = terminal.wait_for_end()
    assert lines[-3] == "unfinished line"
    assert [is_bar(line) for line in lines].count(True) == 2, "more than the last state is left"


@pytest.mark.parametrize(
    ("end", "last"),
    [
        ("raise ValueError('that is wrong')", "ValueError: that is wrong"),
        ("sys.exit('enough')", "enough"),
        ("until('never')", "KeyboardInterrupt"),
    ],
)
def test_the_last_state_stays_whatever_ends_the_block(
    terminal: Terminal, end: str, last: str
) -> None:
    terminal.run(
        WORK
        + f"""
    with show(action := work(0, 100)):
        action.start()
        time.sleep(0.6)
        {end}
    """
    )
    terminal.wait_for(lambda lines: any("1/2" in line for line in lines))
    if "never" in end:
        terminal.key("C-c")
    lines = terminal.wait_for_end()
    assert lines[-1] == last
    bars = [index for index, line in enumerate(lines) if is_bar(line)]
    assert len(bars) == 1
    assert "1/2" in lines[bars[0]]
    # The whole line and nothing else: no half of another one, neither before nor behind it.
    before = [line for line in lines[: bars[0]] if line != "^C"]
    assert before == []
    assert lines[bars[0] + 1].startswith(("Traceback", "enough"))


def test_a_script_that_is_killed_leaves_a_terminal_that_can_be_used(terminal: Terminal) -> None:
    terminal.run(
        WORK
        + """
    with show(action := work(0, 100)):
        action.start()
        with open("pid", "w") as file:
            print(os.getpid(), file=file)
        until("never")
    """,
        before="stty -a | md5sum >modes;",
    )
    terminal.wait_for(lambda lines: any(is_bar(line) and "1/2" in line for line in lines))
    os.kill(int((terminal.folder / "pid").read_text()), signal.SIGKILL)
    # What the shell says has a line of its own, and what is below is in nobody's way.
    lines = terminal.wait_for(lambda lines: any(line.startswith("$") for line in lines))
    assert lines[0].startswith("Killed")
    terminal.type("clear; stty -a | md5sum | cmp - modes && echo the same")
    terminal.wait_for(lambda lines: "the same" in lines)


@pytest.mark.parametrize("columns", [40, 20])
def test_lines_are_never_longer_than_a_narrow_terminal(terminal: Terminal, columns: int) -> None:
    terminal.resize(columns, 10)
    terminal.run(
        WORK
        + """
    first = work(*[0] * 50, 100, name="an action with a name that is long", code=1)
    with show(first, work(name="nothing"), *[work(1, name=f"more {i}") for i in range(9)]):
        first.start()
        until("end")
    """
    )
    lines = terminal.wait_for(lambda lines: any("50/51" in line for line in lines))
    assert len(lines) <= 9
    assert all(len(line) < columns for line in lines)
    shown = [line for line in lines if line.startswith("an ")]
    assert len(shown) == 1
    assert columns < 40 or "50 failed" in shown[0]
    assert re.fullmatch(r"and \d more", lines[-1])


def test_the_lines_follow_the_size_of_the_terminal(terminal: Terminal) -> None:
    terminal.run(
        WORK
        + """
    print("before")
    with show(action := work(0, 100, name="work"), work(1, name="workers")):
        action.start()
        until("end")
    """
    )
    terminal.wait_for(lambda lines: len(lines) == 3 and "1/2" in lines[1])
    for columns in (41, 60, 30, 80):
        terminal.resize(columns, 24)

        def fits(lines: list[str], columns: int = columns) -> bool:
            widths = [len(line) for line in lines[-2:]]
            return len(lines) > 2 and columns - 22 < max(widths) < columns

        # tmux breaks the old lines, and may lose count of where it put the cursor: a piece of them
        # can stay above. What was printed stays in any case.
        lines = terminal.wait_for(fits, above=9)
        assert lines[0] == "before"
        assert [line.split()[0] for line in lines[-2:]] == ["work", "workers"]


def test_a_question_is_not_drawn_over(terminal: Terminal) -> None:
    terminal.run(
        WORK
        + """
    import getpass
    with show(action := work(0, 100)):
        action.start()
        time.sleep(1)
        answer = getpass.getpass("How? ")
        print("so:", answer)
        until("end")
    """
    )
    lines = terminal.wait_for(lambda lines: lines and lines[-1].startswith("How?"))
    lines = terminal.wait_for(lambda lines: lines == ["How?"])
    terminal.type("like that")
    lines = terminal.wait_for(lambda lines: is_bar(lines[-1]))
    assert lines[:2] == ["How?", "so: like that"]


def test_nothing_is_drawn_from_the_background(terminal: Terminal) -> None:
    terminal.run(
        WORK
        + """
    with show(action := work(0.1, 0.1)):
        action.start()
        time.sleep(1)
        print("still there")
        until("end")
    """,
        after="&",
    )
    lines = terminal.wait_for(lambda lines: any("still there" in line for line in lines))
    assert not any(is_bar(line) for line in lines)
    terminal.type("fg")
    terminal.wait_for(lambda lines: is_bar(lines[-1]))
    (terminal.folder / "end").touch()
    lines = terminal.wait_for_end()
    assert is_bar(lines[-1])
    assert "2/2" in lines[-1]


def test_what_others_write_has_a_place(terminal: Terminal) -> None:
    terminal.run(
        WORK
        + """
    with show(action := work(0, 100)):
        action.start()
        time.sleep(1)
        os.system("echo from a child")
        time.sleep(1.5)
        if not os.fork():
            print("from a fork")
            sys.exit()
        os.wait()
        until("end")
    """
    )
    lines = terminal.wait_for(lambda lines: "from a fork" in lines and is_bar(lines[-1]))
    assert lines[:-1] == ["from a child", "from a fork"]
    (terminal.folder / "end").touch()
    assert [line for line in terminal.wait_for_end() if not is_bar(line)] == lines[:-1]


def test_blocks_of_several_threads_are_shown_together(terminal: Terminal) -> None:
    terminal.run(
        WORK
        + """
    def one(name):
        with show(action := work(0, 100, name=name)):
            action.start()
            until("end " + name)

    threads = [threading.Thread(target=one, args=(name,)) for name in ("first", "second")]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    names = {one.name for one in threading.enumerate()}
    hooked = [one for one in (sys.stdout, sys.stderr) if "write" in vars(one.buffer)]
    print("nothing is left", *hooked, *names & {"execo-progress"})
    """
    )
    lines = terminal.wait_for(lambda lines: len(lines) == 2 and all("1/2" in i for i in lines))
    names = sorted(line.split()[0] for line in lines)
    assert names == ["first", "second"]
    (terminal.folder / "end first").touch()
    # Its last state stays, and the lines that go on are below that and an empty line.
    terminal.wait_for(lambda _: [row[:5] for row in terminal.rows()[:3]] == ["first", "", "secon"])
    (terminal.folder / "end second").touch()
    lines = terminal.wait_for_end()
    assert [line.split()[0] for line in lines] == ["first", "second", "nothing"]
    assert lines[-1] == "nothing is left"


def test_the_configuration_shows_all_actions_while_they_run(terminal: Terminal) -> None:
    terminal.run(
        WORK
        + """
    configuration["progress"] = True
    work(0, name="work quickly").run()
    first, second = work(0, 1.5, name="work first"), work(100, name="work second")
    second.start()
    first.run()
    until("end")
    raise SystemExit("bye")
    """
    )
    lines = terminal.wait_for(lambda lines: len(lines) == 2 and "1/2" in lines[1])
    assert is_bar(lines[0], "work second")
    assert is_bar(lines[1], "work first")
    assert terminal.wait_for(lambda lines: len(lines) == 1)[0].startswith("work second")
    (terminal.folder / "end").touch()
    assert terminal.wait_for_end() == ["bye"]


def test_transfers_and_hosts_that_fail(terminal: Terminal) -> None:
    terminal.run(
        WORK
        + """
    from execo.testing import Cluster
    with open("data", "wb") as file:
        file.truncate(3_000_000)
    with Cluster(2) as cluster:
        hosts = [*cluster.hosts, Host("127.9.9.1", port=1), Host("127.9.9.2", port=1)]
        put = Put(hosts, "data", "copy/{{{host}}}", name="put it",
                  process_args={"nolog_error": True})
        with show(put):
            put.run()
        Remote("rm -rf copy", cluster.hosts).run()
    """
    )
    terminal.resize(120, 24)
    lines = terminal.wait_for_end()
    assert lines[-1].startswith("put it  ━━━━━")
    assert "6.0/12.0 MB" in lines[-1]
    assert "4/4" in lines[-1]
    assert "2 failed: 127.9.9.[1-2]" in lines[-1]
    assert re.search(r"in \d+s$", lines[-1])


def test_an_experiment_shows_its_sweep(terminal: Terminal) -> None:
    terminal.run(
        WORK
        + """
    from execo.engine import experiment

    @experiment(factors={"seconds": [0, 1, 2, 60]}, hosts=0)
    def waiting(trial):
        return f"sleep {trial['seconds']}"

    waiting.main(["--jobs", "4", "--on-interrupt", "cancel"], folder="results")
    """
    )
    lines = terminal.wait_for(lambda lines: any(re.match(r"waiting .* 3/4 ", i) for i in lines))
    assert "1 running" in lines[-1]
    terminal.key("C-c")
    lines = [line for line in terminal.wait_for_end() if line.startswith("waiting ")]
    assert "3/4" in lines[0]
