"""Forked children of a script: they have a runtime of their own and leave their parent's alone.

Each test runs a script in an interpreter of its own: the interpreter of the tests is not forked.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

HEAD = """
import os, signal, sys, threading, time
from execo import *

def in_child(work):
    '''Run work in a forked child which leaves through os._exit; a pid.'''
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            work()
            code = 0
        except BaseException:
            import traceback
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    return pid

def join(pid, seconds=15):
    '''The exit code of a child; one that hangs is killed.'''
    timer = threading.Timer(seconds, os.kill, (pid, signal.SIGKILL))
    timer.start()
    try:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    finally:
        timer.cancel()

def healthy():
    group = ParallelActions([Local("cat") for _ in range(50)]).start()
    for n, p in enumerate(group.processes):
        p.write(str(n))
        p.close_stdin()
    group.wait(20)
    assert group.finished_ok, [p for p in group.processes if not p.finished_ok]
    assert [p.stdout for p in group.processes] == [str(n) for n in range(50)]

"""


def run(tmp_path: Path, source: str, *options: str) -> str:
    """The output of a script; it must succeed and say nothing on stderr."""
    script = tmp_path / "script.py"
    script.write_text(HEAD + source)
    result = subprocess.run(
        [sys.executable, *options, str(script)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
        # Python 3.12 and later warn of every fork of a program with threads: these mean it.
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PYTHONWARNINGS": "ignore:This process:DeprecationWarning",
        },
    )
    assert (result.returncode, result.stderr) == (0, ""), result.stdout + result.stderr
    return result.stdout


PATHS = pytest.mark.parametrize(
    "pidfd",
    ["", "import execo._core.child; execo._core.child.USE_PIDFD = False\n"],
    ids=["pidfd", "no pidfd"],
)


@PATHS
def test_a_forked_child_runs_its_own_processes(tmp_path: Path, pidfd: str) -> None:
    out = run(
        tmp_path,
        pidfd
        + """
running = Process("cat").start()

def work():
    healthy()
    print("child", Process("echo own", timeout=10).run(10).stdout.strip())

assert join(in_child(work)) == 0
healthy()
running.write("parent's")
print(running.close_stdin().wait(10).stdout)
""",
    )
    assert out == "child own\nparent's\n"


def test_a_child_forked_before_the_first_use(tmp_path: Path) -> None:
    out = run(tmp_path, "assert join(in_child(healthy)) == 0\nhealthy()\nprint('well')")
    assert out == "well\n"


def test_a_fork_during_the_first_use_in_another_thread(tmp_path: Path) -> None:
    out = run(
        tmp_path,
        """
started = threading.Event()

def use():
    started.set()
    Local("true").run(10)

thread = threading.Thread(target=use)
thread.start()
started.wait()
codes = []
for _ in range(8):
    codes.append(in_child(lambda: Local("true").run(10)))
    threading.Event().wait(0.003)
thread.join()
print([join(pid, 1.5) for pid in codes])
""",
    )
    assert out == f"{[0] * 8}\n"


def test_a_grandchild(tmp_path: Path) -> None:
    out = run(
        tmp_path,
        """
def work():
    healthy()
    assert join(in_child(healthy)) == 0
    healthy()

healthy()
assert join(in_child(work)) == 0
healthy()
print("well")
""",
    )
    assert out == "well\n"


def test_parent_and_child_work_at_the_same_time(tmp_path: Path) -> None:
    out = run(
        tmp_path,
        """
def work():
    for _ in range(3):
        healthy()

healthy()
pids = [in_child(work) for _ in range(3)]
work()
assert [join(pid) for pid in pids] == [0, 0, 0]
print("well")
""",
    )
    assert out == "well\n"


@pytest.mark.parametrize("leave", ["sys.exit(0)", "os._exit(0)", "pass"])
def test_the_end_of_a_child_ends_none_of_the_parents_processes(tmp_path: Path, leave: str) -> None:
    out = run(
        tmp_path,
        f"""
server = Process("sh -c 'trap \\"echo told; exit 1\\" TERM HUP INT; cat'").start()
own = Process("sleep 1000")
pid = os.fork()
if pid == 0:
    own.start()
    print("child", own.running, flush=True)
    {leave}
else:
    assert join(pid) == 0
    healthy()
    assert server.running
    server.write("still there")
    print(server.close_stdin().wait(10).stdout, server.exit_code)
""",
    )
    assert out == "child True\nstill there 0\n"


def test_what_a_child_has_started_ends_with_it(tmp_path: Path) -> None:
    out = run(
        tmp_path,
        """
read, write = os.pipe()

def work():
    own = [Process("sleep 1000").start() for _ in range(2)]
    os.write(write, b"%d %d" % (own[0].pid, own[1].pid))

Process("true").run()
assert join(in_child(work)) == 0  # through os._exit: its watchdog has to act
pids = os.read(read, 100).split()
for _ in range(100):
    left = [pid for pid in pids if os.path.exists(b"/proc/" + pid)]
    if not left:
        break
    threading.Event().wait(0.05)
print(left)
""",
    )
    assert out == "[]\n"


def test_in_the_child_a_process_of_the_parent_has_ended_with_an_error(tmp_path: Path) -> None:
    out = run(
        tmp_path,
        """
import asyncio
server = Process("cat").start()
group = SequentialActions([Local("cat"), Local("cat")]).start()
done = Process("echo done").run()

async def waits():
    await asyncio.wait_for(asyncio.ensure_future(wrap()), 10)

async def wrap():
    await late
    await later

late, later = Process("cat").start(), ParallelActions([Local("cat")]).start()

def work():
    print(server.wait(10).ended, server.error, server.ok, "parent" in server.message)
    print(group.wait(10).ended, group.ok, wait_all_actions([group], 10) == [group])
    print(done.wait(10).finished_ok, done.stdout.strip())
    asyncio.run(waits())
    print(late.ended, later.ended)
    server.kill()
    group.kill()
    group.reset()
    print(server.reset().start().close_stdin().wait(10).finished_ok)

assert join(in_child(work)) == 0
print("parent", server.running, group.running)
for process in [server, late, *later.processes]:
    process.close_stdin().wait(10)
for process in group.processes:
    while not process.started:
        group.wait(0.01)
    process.close_stdin().wait(10)
print(server.finished_ok, group.wait(10).finished_ok)
""",
    )
    assert out.splitlines() == [
        "True True False True",
        "True False True",
        "True done",
        "True True",
        "True",
        "parent True True",
        "True True",
    ]


def test_reset_in_the_child_of_what_the_parent_runs(tmp_path: Path) -> None:
    out = run(
        tmp_path,
        """
server = Process("cat").start()

def work():
    process = server.reset().start()
    process.write("child's")
    print(process.close_stdin().wait(10).stdout)

assert join(in_child(work)) == 0
server.write("parent's")
print(server.close_stdin().wait(10).stdout)
""",
    )
    assert out == "child's\nparent's\n"


def test_a_living_child_holds_none_of_the_parents_pipes(tmp_path: Path) -> None:
    out = run(
        tmp_path,
        """
cats = [Process("cat").start() for _ in range(5)]
pid = in_child(signal.pause)
for cat in cats:
    cat.close_stdin().wait(10)
print([cat.ended for cat in cats])
os.kill(pid, signal.SIGKILL)
join(pid)
""",
    )
    assert out == "[True, True, True, True, True]\n"


def test_fork_from_threads_while_others_spawn(tmp_path: Path) -> None:
    out = run(
        tmp_path,
        """
sys.setswitchinterval(1e-5)
stop = False
cats, pids, failed = [], [], []

def spawn():
    while not stop:
        cats.append(Process("cat").start())

def fork():
    for _ in range(15):
        pids.append(in_child(signal.pause))

threads = [threading.Thread(target=spawn) for _ in range(3)]
forkers = [threading.Thread(target=fork) for _ in range(2)]
for thread in threads + forkers:
    thread.start()
for thread in forkers:
    thread.join(30)
stop = True
for thread in threads:
    thread.join(30)
sys.setswitchinterval(0.005)
for cat in cats:
    cat.close_stdin()
for cat in cats:
    cat.wait(5 if not failed else 0)
    if not cat.ended:
        failed.append(cat)
print(len(pids), len(failed))
for pid in pids:
    os.kill(pid, signal.SIGKILL)
    join(pid)
""",
    )
    assert out == "30 0\n"


@PATHS
def test_children_forked_while_others_spawn_are_healthy(tmp_path: Path, pidfd: str) -> None:
    out = run(
        tmp_path,
        pidfd
        + """
sys.setswitchinterval(1e-5)
stop = False

def spawn():
    while not stop:
        ParallelActions([Local("true", {"stdout_handlers": ["out"]}) for _ in range(5)]).run()

def work():
    assert Local("echo x", {"stdout_handlers": ["out"]}).run(10).finished_ok

healthy()
threads = [threading.Thread(target=spawn) for _ in range(3)]
for thread in threads:
    thread.start()
codes = []
for _ in range(30):
    codes.append(join(in_child(work), 5))
    if codes[-1]:
        break  # the rest would only take long
stop = True
for thread in threads:
    thread.join(30)
healthy()
print(codes == [0] * 30 or codes)
""",
    )
    assert out == "True\n"


def test_the_parent_hears_after_a_child_has_closed_everything(tmp_path: Path) -> None:
    out = run(
        tmp_path,
        """
server = Process("cat").start()

def work():
    os.closerange(3, 1000)

def collect():
    import gc
    for _ in range(3):
        gc.collect()

for what in (work, collect):
    assert join(in_child(what)) == 0
    healthy()
server.write("x")
print(server.close_stdin().wait(10).stdout)
""",
    )
    assert out == "x\n"


def test_a_file_that_the_parent_writes_to_is_open_to_the_child(tmp_path: Path) -> None:
    run(
        tmp_path,
        """
parent = Process("sh -c 'echo before; cat; echo after'", stdout_handlers=["log"]).start()
while not os.path.exists("log") or not os.path.getsize("log"):
    parent.wait(0.01)

def work():
    assert Process("echo child", stdout_handlers=["log"]).run(10).finished_ok

assert join(in_child(work)) == 0
assert parent.close_stdin().wait(10).finished_ok
""",
    )
    assert (tmp_path / "log").read_text() == "before\nchild\nafter\n"


def test_handlers_run_in_the_child(tmp_path: Path) -> None:
    out = run(
        tmp_path,
        """
log = []

class Log(ProcessLifecycleHandler):
    def start(self, process):
        log.append("start")
    def end(self, process):
        log.append("end")

def work():
    log.clear()
    Process("true", lifecycle_handlers=[Log()]).run(10)
    print(log, flush=True)

Process("true", lifecycle_handlers=[Log()]).run(10)
assert join(in_child(work)) == 0
print(log)
""",
    )
    assert out == "['start', 'end']\n" * 2


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(tmp_path: Path, method: str) -> None:
    out = run(
        tmp_path,
        f"""
import multiprocessing

def work(n):
    group = ParallelActions([Local(f"echo {{n}}"), Local("true")]).run(15)
    return group.finished_ok, group.processes[0].stdout

if __name__ == "__main__":
    server = Process("cat").start()
    with multiprocessing.get_context("{method}").Pool(2) as pool:
        print(pool.map(work, range(6)) == [(True, f"{{n}}\\n") for n in range(6)])
        healthy()
    server.write("parent")
    print(server.close_stdin().wait(10).stdout)
""",
    )
    assert out == "True\nparent\n"


def test_a_child_of_multiprocessing_that_exits_ends_nobody(tmp_path: Path) -> None:
    out = run(
        tmp_path,
        """
import multiprocessing

def work():
    Process("sleep 1000").start()
    sys.exit(4)

server = Process("cat").start()
child = multiprocessing.get_context("fork").Process(target=work)
child.start()
child.join(15)
print(child.exitcode, server.running)
healthy()
print(server.close_stdin().wait(10).finished_ok)
""",
    )
    assert out == "4 True\nTrue\n"


def test_a_fork_in_a_handler(tmp_path: Path) -> None:
    out = run(
        tmp_path,
        """
codes = []

class Fork(ProcessLifecycleHandler):
    def end(self, process):
        codes.append(join(in_child(healthy)))

Process("true", lifecycle_handlers=[Fork()]).run(30)
healthy()
print(codes)
""",
    )
    assert out == "[0]\n"


def test_a_child_forked_while_files_of_ssh_are_read(tmp_path: Path) -> None:
    known = tmp_path / "known_hosts"
    known.write_text("@cert-authority *.example.org ssh-ed25519 AAAA\n")
    source = f"""
from execo.config import make_connection_params
from execo.connection import connection_to
from execo.transports import known_hosts, ssh_config_files

params = make_connection_params({{"ssh_config": "none"}})

def look():
    connection_to(Host("web1"), params)
    known_hosts.has_authority(({str(known)!r},), "web1")

# As a thread has them that is reading at this moment.
with ssh_config_files._lock, known_hosts._authorities_lock:
    pid = in_child(look)
print(join(pid))
"""
    assert run(tmp_path, source) == "0\n"
