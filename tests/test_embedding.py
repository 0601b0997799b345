"""execo inside other programs: threads, asyncio, strict warnings, signals and children of others.

Each test runs a program in an interpreter of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

HEAD = """
import asyncio, os, signal, subprocess, sys, threading, time
from execo import *

def busy():
    '''A bit of everything.'''
    class Lines(ProcessOutputHandler):
        def read_line(self, process, stream, string):
            lines.append(string)

    lines = []
    group = ParallelActions(
        [
            Local("echo line", {"stdout_handlers": [Lines()]}),
            Local("sleep 1000", {"timeout": 0.1, "ignore_timeout": True, "nolog_timeout": True}),
            Local("tty", {"pty": True}),
            Local("false", {"nolog_exit_code": True}),
            Local("/no/such/program", {"nolog_error": True}),
            SequentialActions([Local("cat"), Local("true")]),
        ]
    ).start()
    group.actions[5].actions[0].process.close_stdin()
    group.wait(15)
    assert group.ended, group
    assert lines == ["line"]
    assert [p.ok for p in group.processes] == [True, True, True, False, False, True, True], group

"""


def run(
    tmp_path: Path, source: str, *options: str, code: int = 0, **environment: str
) -> tuple[str, str]:
    """The (stdout, stderr) of a program, which must end by itself with this exit code."""
    script = tmp_path / "script.py"
    script.write_text(HEAD + source)
    result = subprocess.run(
        [sys.executable, *options, str(script)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )
    assert result.returncode == code, result.stdout + result.stderr
    return result.stdout, result.stderr


WITHOUT_PIDFD = "import execo._core.child; execo._core.child.USE_PIDFD = False\n"

PATHS = pytest.mark.parametrize("pidfd", ["", WITHOUT_PIDFD], ids=["pidfd", "no pidfd"])


# -- threads and loops ------------------------------------------------------------------------


@PATHS
def test_the_main_thread(tmp_path: Path, pidfd: str) -> None:
    assert run(tmp_path, pidfd + "busy()\nbusy()\nprint('well')") == ("well\n", "")


@pytest.mark.parametrize("daemon", [True, False])
def test_first_use_from_another_thread(tmp_path: Path, daemon: bool) -> None:
    source = f"""
thread = threading.Thread(target=busy, daemon={daemon})
thread.start()
thread.join()
busy()
print("well")
"""
    assert run(tmp_path, source) == ("well\n", "")


def test_import_in_another_thread(tmp_path: Path) -> None:
    source = """
import threading

def work():
    import execo
    print(execo.Local("echo x").run(10).finished_ok)

thread = threading.Thread(target=work)
thread.start()
thread.join()
"""
    (tmp_path / "other.py").write_text(source)
    result = subprocess.run(
        [sys.executable, str(tmp_path / "other.py")],
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "True\n", "")


def test_many_threads_at_the_first_use(tmp_path: Path) -> None:
    source = """
barrier = threading.Barrier(8)
results = []

def work():
    barrier.wait()
    results.append(Local("echo x").run(10).processes[0].stdout)

threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
names = [t.name for t in threading.enumerate()]
print(results == ["x\\n"] * 8, names.count("execo-io"))
"""
    assert run(tmp_path, source) == ("True 1\n", "")


def test_many_threads_start_and_wait_for_one_action(tmp_path: Path) -> None:
    source = """
log = []

class Log(ActionLifecycleHandler):
    def start(self, action):
        log.append("start")
    def end(self, action):
        log.append("end")

sys.setswitchinterval(1e-6)
for _ in range(50):
    barrier = threading.Barrier(4)
    action = ParallelActions([Local("true"), Local("true")], lifecycle_handlers=[Log()])

    def work():
        barrier.wait()
        action.start().wait(10)
        assert action.finished_ok

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
print(log == ["start", "end"] * 50 or len(log))
"""
    assert run(tmp_path, source) == ("True\n", "")


def test_an_asyncio_program(tmp_path: Path) -> None:
    source = """
async def one(n):
    process = Process(f"sh -c 'sleep 0.1; echo {n}'").start()
    await process
    return process.stdout

async def main():
    results = await asyncio.gather(*(one(n) for n in range(20)))
    action = SequentialActions([Local("echo a"), Local("echo b")]).start()
    await asyncio.wait_for(asyncio.ensure_future(to_coroutine(action)), 10)
    child = await asyncio.create_subprocess_exec("echo", "theirs", stdout=subprocess.PIPE)
    out, _ = await child.communicate()
    return results == [f"{n}\\n" for n in range(20)], action.finished_ok, out, child.returncode

async def to_coroutine(awaitable):
    return await awaitable

print(asyncio.run(main()))
print(asyncio.run(main()))
busy()
"""
    out, err = run(tmp_path, source, "-X", "dev")
    assert out == "(True, True, b'theirs\\n', 0)\n" * 2
    assert err == ""


def test_an_asyncio_loop_in_another_thread(tmp_path: Path) -> None:
    source = """
async def main():
    action = Local("echo x").start()
    await action
    print(action.finished_ok)

thread = threading.Thread(target=asyncio.run, args=(main(),))
thread.start()
thread.join()
busy()
"""
    assert run(tmp_path, source) == ("True\n", "")


# -- warnings ---------------------------------------------------------------------------------


@PATHS
@pytest.mark.parametrize("left", ["", "left = Process('sleep 1000').start()\n"])
def test_no_warning_in_the_strictest_interpreter(tmp_path: Path, left: str, pidfd: str) -> None:
    source = pidfd + "busy()\n" + left + "import gc; gc.collect()\nprint('well')\n"
    out, err = run(tmp_path, source, "-W", "error", PYTHONDEVMODE="1")
    assert out == "well\n"
    assert "Warning" not in err
    assert "Exception ignored" not in err


def test_no_warning_about_children_that_are_left_alone(tmp_path: Path) -> None:
    source = """
configuration["kill_childs_at_end"] = False
process = Process("sh -c 'sleep 0.3; :'").start()
process = None
"""
    assert run(tmp_path, source, "-W", "error", PYTHONDEVMODE="1") == ("", "")


def test_no_warning_after_a_fork(tmp_path: Path) -> None:
    source = """
import warnings
busy()
running = Process("cat").start()
with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # of Python 3.12: a fork with threads
    pid = os.fork()
busy()
import gc; gc.collect()
if pid == 0:
    sys.exit()
assert os.waitpid(pid, 0)[1] == 0
running.close_stdin().wait(10)
"""
    assert run(tmp_path, source, "-W", "error", PYTHONDEVMODE="1") == ("", "")


# -- settings and signals ---------------------------------------------------------------------


def test_the_switch_interval_is_left_alone(tmp_path: Path) -> None:
    source = "before = sys.getswitchinterval()\nbusy()\nprint(sys.getswitchinterval() == before)"
    assert run(tmp_path, source) == ("True\n", "")


def test_the_switch_interval_is_set_at_the_first_use(tmp_path: Path) -> None:
    source = """
configuration["switch_interval"] = 0.0005
before = sys.getswitchinterval()
busy()
print(before, sys.getswitchinterval())
"""
    assert run(tmp_path, source) == ("0.005 0.0005\n", "")


@PATHS
def test_signal_handlers_and_masks_are_untouched(tmp_path: Path, pidfd: str) -> None:
    source = (
        pidfd
        + """
def mine(number, frame):
    got.append(number)

got = []
changeable = set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP}
for number in (signal.SIGTERM, signal.SIGCHLD, signal.SIGUSR1, signal.SIGPIPE):
    signal.signal(number, mine)
read, write = os.pipe()
os.set_blocking(write, False)
signal.set_wakeup_fd(write, warn_on_full_buffer=False)
before = [signal.getsignal(n) for n in changeable], signal.pthread_sigmask(signal.SIG_BLOCK, [])
busy()
after = [signal.getsignal(n) for n in changeable], signal.pthread_sigmask(signal.SIG_BLOCK, [])
print(before == after, signal.set_wakeup_fd(-1) == write)
print(signal.SIGCHLD in got, signal.SIGTERM in got)
os.kill(os.getpid(), signal.SIGUSR1)
print(signal.SIGUSR1 in got)
"""
    )
    assert run(tmp_path, source) == ("True True\nTrue False\nTrue\n", "")


def test_commands_start_with_the_usual_signals(tmp_path: Path) -> None:
    source = """
signal.signal(signal.SIGUSR1, lambda *args: None)
text = Process("cat /proc/self/status").run(10).stdout
status = dict(line.split(":\\t") for line in text.splitlines())
# Without 32 and 33, which belong to the C library and may come from what started the tests.
masks = [int(status[mask], 16) for mask in ("SigBlk", "SigIgn", "SigCgt")]
print({mask & ~(3 << 31) for mask in masks})
"""
    assert run(tmp_path, source) == ("{0}\n", "")


def test_a_user_who_ignores_sigchld(tmp_path: Path) -> None:
    # Then the system reaps our children: their status is lost, and we say so; nothing hangs.
    source = """
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
process = Process("true", nolog_error=True).run(10)
print(process.ended, process.error, process.message)
"""
    out, err = run(tmp_path, source)
    assert out.startswith("True True ")
    assert "exit status is lost" in out
    assert err == ""


# -- children of others -----------------------------------------------------------------------


@PATHS
def test_children_of_the_user_are_theirs(tmp_path: Path, pidfd: str) -> None:
    source = (
        pidfd
        + """
theirs = [subprocess.Popen(["sh", "-c", f"sleep 0.1; exit {n}"]) for n in range(10)]
pid = os.posix_spawn("/bin/sh", ["sh", "-c", "exit 42"], os.environ)
busy()
print([child.wait() for child in theirs])
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    )
    assert run(tmp_path, source) == (f"{list(range(10))}\n42\n", "")


def test_os_wait_after_our_processes_have_ended(tmp_path: Path) -> None:
    # The way in which programs wait for all their children: it must come to its end. (The zombie of
    # one that was killed may be among them: it is kept until nobody of its session is left.)
    source = """
busy()
pids = {os.posix_spawn("/bin/true", ["true"], os.environ) for _ in range(3)}
threading.Timer(30, os._exit, [9]).start()
seen = set()
while True:
    try:
        seen.add(os.wait()[0])
    except ChildProcessError:
        break
print(seen >= pids, flush=True)
os._exit(0)
"""
    assert run(tmp_path, source) == ("True\n", "")


@PATHS
def test_a_program_that_reaps_everything(tmp_path: Path, pidfd: str) -> None:
    source = (
        pidfd
        + """
def reap():
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            pass

first = Process("true").run(10)
threading.Thread(target=reap, daemon=True).start()
processes = [Process("sh -c 'echo out; sleep 0.05; exit 3'", nolog_error=True, nolog_exit_code=True)
             for _ in range(30)]
for process in processes:
    process.start()
for process in processes:
    process.wait(10)
print(all(p.ended for p in processes))
lost = [p for p in processes if p.error]
print(len(lost) > 0, {p.ok for p in lost}, {p.exit_code for p in lost}, {p.message for p in lost})
print({p.exit_code for p in processes if not p.error} <= {3}, {p.stdout for p in processes})
killed = Process("sleep 1000", nolog_error=True).start()
print(killed.kill().wait(10).ended)
"""
    )
    out, err = run(tmp_path, source)
    lines = out.splitlines()
    assert lines[0] == "True"
    assert lines[1].startswith("True {False} {None} {'its exit status is lost")
    assert lines[2:] == ["True {'out\\n'}", "True"]
    assert err == ""


def test_a_user_who_waits_for_our_popen(tmp_path: Path) -> None:
    source = """
codes = []
for _ in range(20):
    process = Process("sh -c 'exit 3'", nolog_exit_code=True).start()
    popen = process.process
    if popen is not None:
        popen.wait()
    codes.append(process.wait(10).exit_code)
print(set(codes))
"""
    assert run(tmp_path, source) == ("{3}\n", "")


def test_standard_descriptors_that_are_closed(tmp_path: Path) -> None:
    # A daemon: our pipes then get the numbers 0 to 2.
    source = """
for fd in (0, 1, 2):
    os.close(fd)
p = Process("cat").start()
p.write("through")
p.close_stdin().wait(10)
busy()
with open("result", "w") as file:
    print(p.stdout, p.finished_ok, file=file)
os._exit(0)
"""
    run(tmp_path, source)
    assert (tmp_path / "result").read_text() == "through True\n"


def test_a_deleted_current_folder(tmp_path: Path) -> None:
    source = """
import tempfile
with tempfile.TemporaryDirectory() as folder:
    os.chdir(folder)
print(Process("echo x").run(10).stdout, end="")
"""
    assert run(tmp_path, source) == ("x\n", "")


def test_changes_of_the_environment_reach_commands(tmp_path: Path) -> None:
    source = """
Process("true").run()
os.environ["NEW_ONE"] = "yes"
print(Process("printenv NEW_ONE").run(10).stdout, end="")
"""
    assert run(tmp_path, source) == ("yes\n", "")


def test_no_thread_a_process(tmp_path: Path) -> None:
    source = """
ParallelActions([Local("sleep 0.2") for _ in range(50)]).run(10)
names = [t.name for t in threading.enumerate()]
print(len(names) < 6 and not any("handler" in name for name in names) or names)
"""
    assert run(tmp_path, source) == ("True\n", "")


def test_it_can_be_used_in_a_worker_of_a_test_runner(tmp_path: Path) -> None:
    # pytest-xdist runs tests in a thread of a worker whose stdin and stdout are not its own.
    source = """
import io
sys.stdin = sys.stdout = sys.stderr = None
thread = threading.Thread(target=busy)
thread.start()
thread.join()
os._exit(0 if Local("true").run(10).finished_ok else 1)
"""
    assert run(tmp_path, source) == ("", "")
