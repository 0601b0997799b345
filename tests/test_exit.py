"""The end of a script: what it still runs ends with it, whatever the way it ends.

Each test runs a script in an interpreter of its own. Its commands carry a word that nobody else
has, and are looked for in the system's table of processes afterwards.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

HEAD = """
import os, signal, sys, threading, time
from execo import *

mark = sys.argv[1]
stubborn = ["sh", "-c", "trap '' TERM INT HUP; echo ready; while :; do sleep 0.1; done", mark]
meek = ["sh", "-c", "echo ready; sleep 1000; :", mark]

def ready(*processes):
    for process in processes:
        while "ready" not in process.stdout:
            process.wait(0.01)
    print("ready", flush=True)

"""


class Script:
    """A script that runs, and what it has started."""

    def __init__(self, path: Path, source: str) -> None:
        self.mark = f"execo-test-{uuid.uuid4()}"
        path.write_text(HEAD + source)
        self.popen = subprocess.Popen(
            [sys.executable, str(path), self.mark],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "EXECO_TEST_MARK": self.mark},
        )

    def wait_ready(self) -> None:
        assert self.popen.stdout is not None
        assert self.popen.stdout.readline() == "ready\n"

    def finish(self, timeout: float = 30) -> tuple[int, str, str]:
        """(exit code, stdout, stderr) at its end."""
        out, err = self.popen.communicate(timeout=timeout)
        return self.popen.returncode, out, err

    def commands(self) -> list[int]:
        """The live processes with the word among their arguments."""
        return self._find("cmdline", f"\0{self.mark}\0")

    def everything(self) -> list[int]:
        """All live processes that this script has started, its watchdog too."""
        return self._find("environ", f"\0EXECO_TEST_MARK={self.mark}\0")

    def _find(self, file: str, text: str) -> list[int]:
        found = []
        for proc in Path("/proc").glob("[0-9]*"):
            try:
                content = b"\0" + (proc / file).read_bytes()
            except OSError:
                continue
            if text.encode() in content and int(proc.name) != self.popen.pid:
                found.append(int(proc.name))
        return found

    def assert_gone(self, within: float = 6.0) -> None:
        """All that it has started is gone, now or soon."""
        deadline = time.monotonic() + within
        nap = threading.Event()
        while (left := self.everything()) and time.monotonic() < deadline:
            nap.wait(0.02)
        assert not left, [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in left]

    def clean_up(self) -> None:
        self.popen.kill()
        self.popen.communicate()
        for pid in self.everything():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


@pytest.fixture
def script(tmp_path: Path) -> Iterator[ScriptMaker]:
    maker = ScriptMaker(tmp_path)
    yield maker
    for one in maker.made:
        one.clean_up()


class ScriptMaker:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made: list[Script] = []

    def __call__(self, source: str) -> Script:
        path = self.folder / f"script{len(self.made)}.py"
        self.made.append(Script(path, source))
        return self.made[-1]


# -- an orderly end ---------------------------------------------------------------------------

ENDS = {
    "end of script": ("", 0, ""),
    "sys.exit": ("sys.exit(3)", 3, ""),
    "exception": ("1 / 0", 1, "ZeroDivisionError"),
}


@pytest.mark.parametrize("way", ENDS)
def test_children_end_with_the_script(script: ScriptMaker, way: str) -> None:
    source, code, error = ENDS[way]
    run = script(
        "processes = [Process(meek).start() for _ in range(5)]\nready(*processes)\n" + source
    )
    returncode, _, err = run.finish()
    assert returncode == code
    assert run.everything() == []  # not soon but now: the script has waited for them
    if error:
        assert err.startswith("Traceback")
        assert err.rstrip().splitlines()[-1].startswith(error)
        assert err.count("Traceback") == 1
    else:
        assert err == ""


def test_children_that_ignore_term_are_killed_after_two_seconds(script: ScriptMaker) -> None:
    run = script("ready(Process(stubborn).start(), Process(meek).start())")
    run.wait_ready()
    before = time.monotonic()
    assert run.finish() == (0, "", "")
    assert time.monotonic() - before > 1.5  # they were given the time to clean up
    assert run.everything() == []


def test_what_children_have_started_ends_too(script: ScriptMaker) -> None:
    run = script(
        """
inner = "trap '' TERM; while :; do sleep 0.1; done"
ready(Process(["sh", "-c", 'timeout 1000 sh -c "$1" $0 & echo ready; wait', mark, inner]).start())
"""
    )
    assert run.finish()[0] == 0
    assert run.everything() == []


def test_an_action_that_goes_on_starts_nothing_at_the_end(script: ScriptMaker) -> None:
    run = script(
        """
steps = [Local(meek) for _ in range(4)]
action = SequentialActions([ParallelActions(steps, fanout=1), Local(meek)]).start()
ready(steps[0].process)
"""
    )
    assert run.finish() == (0, "ready\n", "")
    run.assert_gone()


def test_a_thread_that_starts_processes_until_the_end_leaves_none(script: ScriptMaker) -> None:
    for _ in range(5):
        run = script(
            """
def work():
    while True:
        Process(meek).start()

threading.Thread(target=work, daemon=True).start()
time.sleep(0.1)
print("ready", flush=True)
"""
        )
        code, _, err = run.finish()
        assert code == 0
        run.assert_gone(3.0)
        assert "Fatal" not in err


def test_queued_processes_are_given_up(script: ScriptMaker) -> None:
    run = script(
        """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
processes = [Process(meek) for _ in range(50)]
for process in processes:
    process.start()
ready(processes[0])
"""
    )
    assert run.finish() == (0, "ready\n", "")
    run.assert_gone()


def test_a_second_ctrl_c_kills_at_once(script: ScriptMaker, tmp_path: Path) -> None:
    run = script(
        """
configuration["term_timeout"] = 600.0
told = ["sh", "-c", "trap 'echo > told' TERM; trap '' INT; echo ready; while :; do sleep 0.1; done"]
try:
    os.chdir(os.path.dirname(__file__))
    ready(Process([*told, mark]).start())
    time.sleep(60)
except KeyboardInterrupt:
    print("ready", flush=True)
"""
    )
    run.wait_ready()
    run.popen.send_signal(signal.SIGINT)
    run.wait_ready()
    # The first one has its effect: the script ends, and waits for what it has told to end.
    nap, deadline = threading.Event(), time.monotonic() + 30
    while not (tmp_path / "told").exists():
        assert time.monotonic() < deadline
        nap.wait(0.02)
    nap.wait(0.3)
    run.popen.send_signal(signal.SIGINT)
    code, _, err = run.finish()
    assert (code, err) == (0, "")
    assert run.everything() == []


def test_many_ctrl_c_in_a_row(script: ScriptMaker) -> None:
    run = script(
        """
processes = [Process(stubborn).start() for _ in range(10)]
try:
    ready(*processes)
    processes[0].wait()
except KeyboardInterrupt:
    pass
"""
    )
    run.wait_ready()
    for _ in range(6):
        run.popen.send_signal(signal.SIGINT)
        threading.Event().wait(0.05)
    run.finish()  # impatience may cost messages, not children, and no hang
    run.assert_gone()


def test_ctrl_c_once_is_the_usual_traceback(script: ScriptMaker) -> None:
    run = script("p = Process(meek).start()\nready(p)\np.wait()\n")
    run.wait_ready()
    threading.Event().wait(0.1)
    run.popen.send_signal(signal.SIGINT)
    code, _, err = run.finish()
    assert code == -signal.SIGINT
    assert err.count("Traceback") == 1
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert run.everything() == []


def test_ctrl_c_in_the_wait_of_an_action(script: ScriptMaker) -> None:
    run = script(
        """
action = ParallelActions([Local(meek), Local(meek)]).start()
try:
    ready(*action.processes)
    action.wait()
except KeyboardInterrupt:
    action.kill().wait(10)
    print(action.ended, action.ok)
"""
    )
    run.wait_ready()
    threading.Event().wait(0.1)
    run.popen.send_signal(signal.SIGINT)
    assert run.finish() == (0, "True True\n", "")


@pytest.mark.parametrize("thread", ["execo-io", "execo-worker-1"])
@pytest.mark.parametrize("raising", [False, True], ids=["default", "with a handler that raises"])
def test_ctrl_c_while_the_threads_of_execo_start(
    script: ScriptMaker, thread: str, raising: bool
) -> None:
    run = script(
        f"""
real = threading.Thread.start

def start(self):
    real(self)
    if self.name == {thread!r} and not came:
        came.append(True)
        signal.raise_signal(signal.SIGINT)

def stop(number, frame):
    raise SystemExit(5)

came = []
if {raising}:
    signal.signal(signal.SIGTERM, stop)
threading.Thread.start = start
try:
    Process("true").run()
except KeyboardInterrupt:
    print("broken off")
print(Process("true").run().ok)
print(sum(one.name == "execo-io" for one in threading.enumerate()))
"""
    )
    assert run.finish() == (0, "broken off\nTrue\n1\n", "")


# -- a sudden end -----------------------------------------------------------------------------

SUDDEN = {
    "os._exit": ("os._exit(7)", None, 7),
    "kill -9": ("time.sleep(60)", signal.SIGKILL, -signal.SIGKILL),
    "kill -TERM": ("time.sleep(60)", signal.SIGTERM, -signal.SIGTERM),
    "crash": ("os.kill(os.getpid(), signal.SIGSEGV)", None, -signal.SIGSEGV),
}


@pytest.mark.parametrize("way", SUDDEN)
def test_the_watchdog_ends_the_children_of_a_lost_script(script: ScriptMaker, way: str) -> None:
    source, number, code = SUDDEN[way]
    run = script(f"ready(Process(meek).start(), Process(stubborn).start())\n{source}\n")
    run.wait_ready()
    if number is not None:
        run.popen.send_signal(number)
    assert run.finish()[::2] == (code, "")
    run.assert_gone(3.0)


def test_the_watchdog_finds_other_process_groups_of_the_session(script: ScriptMaker) -> None:
    run = script(
        """
inner = "trap '' TERM; while :; do sleep 0.1; done"
ready(Process(["sh", "-c", 'timeout 1000 sh -c "$1" $0 & echo ready; wait', mark, inner]).start())
os.kill(os.getpid(), signal.SIGKILL)
"""
    )
    run.finish()
    run.assert_gone(3.0)


@pytest.mark.parametrize("way", ["end of script", "kill -9"])
def test_what_an_ended_command_left_behind_is_left_alone(script: ScriptMaker, way: str) -> None:
    run = script(
        """
server = Process(["sh", "-c", "nohup sh -c 'sleep 1000; :' $0 >/dev/null 2>&1 &", mark]).run()
assert server.ok
ready(Process(meek).start())
"""
        + ("" if way == "end of script" else "os.kill(os.getpid(), signal.SIGKILL)")
    )
    run.finish()
    deadline = time.monotonic() + 5
    nap = threading.Event()
    # The server, and the sleep that it runs, which does not carry the word.
    while len(run.everything()) > 2 and time.monotonic() < deadline:
        nap.wait(0.02)
    nap.wait(1.0)  # time for the watchdog to do harm
    assert len(run.commands()) == 1  # and not the one that ran
    assert len(run.everything()) == 2


@pytest.mark.parametrize("way", ["end of script", "kill -9"])
def test_kill_childs_at_end_false_leaves_them_alive(script: ScriptMaker, way: str) -> None:
    run = script(
        """
configuration["kill_childs_at_end"] = False
ready(Process([*meek[:2], "echo ready; sleep 1000 >/dev/null 2>&1; :", mark]).start())
"""
        + ("" if way == "end of script" else "os.kill(os.getpid(), signal.SIGKILL)")
    )
    code, _, err = run.finish()
    assert err == ""
    assert code == (0 if way == "end of script" else -signal.SIGKILL)
    threading.Event().wait(1.0)
    assert len(run.commands()) == 1
    assert len(run.everything()) == 2  # with its sleep; no watchdog


KILLED_WHILE_SPAWNING = """
def work():
    while True:
        ParallelActions([Local(meek) for _ in range(3)]).start()

for _ in range(3):
    threading.Thread(target=work, daemon=True).start()
print("ready", flush=True)
time.sleep(60)
"""


@pytest.mark.slow
def test_kill_9_while_spawning_leaves_nothing(script: ScriptMaker) -> None:
    chance = random.Random(9)
    runs = []
    for _ in range(20):
        run = script(KILLED_WHILE_SPAWNING)
        run.wait_ready()
        threading.Event().wait(chance.uniform(0, 0.15))
        run.popen.kill()
        run.finish()
        runs.append(run)
        if len(runs) > 2:
            runs.pop(0).assert_gone()
    for run in runs:
        run.assert_gone()


# -- threads, handlers, odd moments -----------------------------------------------------------


def test_a_handler_that_blocks_does_not_hold_up_the_end(script: ScriptMaker) -> None:
    run = script(
        """
entered = threading.Event()

class Block(ProcessLifecycleHandler):
    def end(self, process):
        entered.set()
        threading.Event().wait()

class BlockAction(ActionLifecycleHandler):
    def end(self, action):
        threading.Event().wait()

Process("true", lifecycle_handlers=[Block()]).start()
Local("true", lifecycle_handlers=[BlockAction()]).start()
entered.wait()
ready(Process(meek).start())
"""
    )
    assert run.finish(10) == (0, "ready\n", "")
    assert run.everything() == []


def test_a_handler_that_waits_for_a_process_does_not_hold_up_the_end(script: ScriptMaker) -> None:
    run = script(
        """
other = Process(meek).start()

class Wait(ProcessLifecycleHandler):
    def end(self, process):
        other.wait()

Process("true", lifecycle_handlers=[Wait()]).start()
ready(other)
"""
    )
    assert run.finish(10) == (0, "ready\n", "")
    assert run.everything() == []


def test_a_daemon_thread_that_waits_does_not_hold_up_the_end(script: ScriptMaker) -> None:
    run = script(
        """
process = Process(meek).start()
threading.Thread(target=process.wait, daemon=True).start()
ready(process)
"""
    )
    assert run.finish(10) == (0, "ready\n", "")
    assert run.everything() == []


@pytest.mark.xfail(
    (3, 12) <= sys.version_info < (3, 12, 2),
    reason="these let no thread be started once the main thread has ended (gh-113964)",
)
def test_a_user_thread_finishes_its_work_before_the_end(script: ScriptMaker) -> None:
    # As Python does it: the end of the script comes after that of its threads.
    run = script(
        """
def work():
    process = Process("sleep 0.3").run()
    print(process.ok, process.killed, Local("echo more").run().processes[0].stdout.strip())

threading.Thread(target=work).start()
"""
    )
    assert run.finish(10) == (0, "True False more\n", "")
    assert run.everything() == []


def test_ctrl_c_ends_a_script_whose_thread_waits_for_ever(script: ScriptMaker) -> None:
    run = script(
        """
process = Process(meek).start()
threading.Thread(target=process.wait).start()
ready(process)
"""
    )
    run.wait_ready()
    threading.Event().wait(0.3)
    run.popen.send_signal(signal.SIGINT)
    run.finish(10)
    run.assert_gone()


@pytest.mark.parametrize("used", ["used before", "first use"])
def test_start_in_an_exit_callback_works_or_says_why_not(script: ScriptMaker, used: str) -> None:
    # HEAD imports execo first: this script registers its callback before that.
    run = script("")
    run.finish()
    path = script.folder / "late.py"
    path.write_text(
        "import atexit, sys\n"
        "def late():\n"
        "    try:\n"
        "        process = execo.Process('echo late').run(5)\n"
        "        print(process.stdout.strip() if process.ok else process)\n"
        "    except RuntimeError as exc:\n"
        "        print('late' if 'exiting' in str(exc) else exc)\n"
        "atexit.register(late)\n"
        "import execo\n" + ("execo.Process('true').run()\n" if used == "used before" else "")
    )
    result = subprocess.run(
        [sys.executable, str(path)],
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
        env={**os.environ, "PYTHONPATH": str(ROOT), "EXECO_TEST_MARK": run.mark},
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "late\n", "")
    run.assert_gone()


def test_an_exit_callback_registered_later_may_use_execo(script: ScriptMaker) -> None:
    run = script(
        """
import atexit
Process("true").run()
atexit.register(lambda: print(Process("echo bye").run(5).stdout.strip()))
"""
    )
    assert run.finish(10) == (0, "bye\n", "")
    assert run.everything() == []


def test_nothing_is_said_when_output_handlers_and_files_are_busy(script: ScriptMaker) -> None:
    run = script(
        """
class Busy(ProcessOutputHandler):
    def read_line(self, process, stream, string):
        time.sleep(0.001)

noisy = ["sh", "-c", "echo ready; yes $0; :", mark]
os.chdir(os.path.dirname(os.path.abspath(__file__)))
ready(*[Process(noisy, stdout_handlers=[Busy(), "busy.out"], max_output=1000).start()
        for _ in range(3)])
"""
    )
    assert run.finish(15) == (0, "ready\n", "")
    assert run.everything() == []


def test_an_end_without_use_is_quick_and_leaves_nothing(script: ScriptMaker) -> None:
    run = script("print('done')")
    assert run.finish(10) == (0, "done\n", "")
    assert run.everything() == []
