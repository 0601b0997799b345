"""execo on hosts inside other programs: notebooks, other event loops, pools, children, daemons.

Each test runs a program in an interpreter of its own, against a real sshd.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.manager import KernelManager
from jupyter_core.utils import ensure_event_loop

from execo import Host
from remote_commands import running, until
from sshd import RealSshd

pytest_plugins = ["sshd"]

ROOT = Path(__file__).parent.parent
PATIENCE = 100.0

HEAD = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
import asyncio, json, os, signal, subprocess, threading, time
import execo
from execo import *

with open(HOSTS) as file:
    hosts = [Host(*each) for each in json.load(file)]

def check(held, *said):
    if not held:  # not an assert: one of these interpreters leaves them out
        sys.exit(f"not so: {{said}}")

def ways():
    '''A command over every way to a host, and files both ways.'''
    for transport in TRANSPORTS:
        params = {{"transport": transport}}
        remote = Remote("echo {{{{{{host}}}}}}; echo e >&2", hosts, params).run(60)
        check(remote.ok, remote.processes[0].message)
        check([p.stdout for p in remote.processes] == [f"{{h.address}}\\n" for h in hosts])
        with_input = SshProcess("cat", hosts[0], params).start()
        with_input.write("x")
        with_input.close_stdin().wait(60)
        check(with_input.stdout == "x", with_input.message)
        killed = SshProcess("sleep 1000", hosts[0], params,
                            nolog_exit_code=True, nolog_error=True).start()
        killed.kill().wait(60)
        check(killed.ended)
    check(Local("echo here").run(60).ok)
    if "paramiko" in TRANSPORTS:
        os.makedirs("files", exist_ok=True)
        with open("files/one", "w") as file:
            file.write("content")
        name = f"embedded-{{os.getpid()}}"
        check(Put(hosts[:1], ["files/one"], name).run(60).ok)
        check(Get(hosts[:1], [f"{{name}}"], "files/back").run(60).ok)
        with open("files/back") as file:
            check(file.read() == "content")
        with PortForwarder(hosts[0], "127.0.0.1", hosts[0].port) as tunnel:
            tunnel.forwarding.wait()
        check(TaktukRemote("true", hosts).run(60).ok)

"""
ALL = "('paramiko', 'openssh')"


@pytest.fixture(scope="module")
def hosts(sshd: RealSshd) -> list[Host]:
    return sshd.hosts(2)


@pytest.fixture
def head(hosts: list[Host], tmp_path: Path) -> str:
    """How each program begins."""
    path = tmp_path / "hosts.json"
    path.write_text(json.dumps([(h.address, h.user, h.keyfile, h.port) for h in hosts]))
    return f"HOSTS = {str(path)!r}\nTRANSPORTS = {ALL}\n{HEAD}"


def start(path: Path, *options: str, **settings: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*settings.pop("prefix", []), sys.executable, *options, str(path)],
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        cwd=path.parent,
        env={**os.environ, **settings.pop("env", {})},
        **settings,
    )


def run(path: Path, source: str, *options: str, **settings: Any) -> str:
    """What a program prints, which must end well and say nothing else."""
    path.write_text(source)
    done = start(path, *options, **settings)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return done.stdout


# -- interpreters ---------------------------------------------------------------------------------

WELL = "ways()\nprint('well', flush=True)\n"


@pytest.mark.parametrize(
    ("options", "env"),
    [
        (["-X", "dev", "-W", "error"], {}),
        (["-OO", "-I"], {}),
    ],
    ids=["dev", "optimized, isolated"],
)
def test_strict_and_bare_interpreters(
    head: str, tmp_path: Path, options: list[str], env: dict[str, str]
) -> None:
    source = head + WELL + "import gc; gc.collect()\n"
    if "-OO" in options:
        source = "assert False\n" + source
    assert run(tmp_path / "script.py", source, *options, env=env) == "well\n"


def test_a_daemon_without_descriptors(head: str, tmp_path: Path) -> None:
    source = f"{head}for fd in (0, 1, 2): os.close(fd)\nways()\nopen('well', 'w').close()\n"
    (tmp_path / "script.py").write_text(source)
    done = start(tmp_path / "script.py")
    assert (tmp_path / "well").exists(), done
    assert done.returncode in (0, 120)  # the interpreter cannot flush what is closed


def test_without_stdout_under_nohup(head: str, tmp_path: Path) -> None:
    source = f"{head}sys.stdout.close()\nsys.stdin.close()\nways()\nopen('well', 'w').close()\n"
    assert run(tmp_path / "script.py", source, prefix=["nohup"]) == ""
    assert (tmp_path / "well").exists()


def test_a_program_that_ignores_sigchld(head: str, tmp_path: Path) -> None:
    # The system reaps the children then: what needs none is as ever, and the rest says so.
    source = (
        head
        + """
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
remote = Remote("echo x; exit 3", hosts, {"transport": "paramiko"},
                process_args={"nolog_exit_code": True}).run(60)
print([(p.stdout, p.exit_code) for p in remote.processes])
remote = Remote("echo x", hosts, {"transport": "openssh"},
                process_args={"nolog_error": True, "nolog_exit_code": True}).run(60)
print([(p.ended, p.stdout, p.ok) for p in remote.processes])
print(["exit status is lost" in p.message for p in remote.processes])
"""
    )
    out = run(tmp_path / "script.py", source).splitlines()
    assert out[0] == str([("x\n", 3)] * 2)
    assert out[1] == str([(True, "x\n", False)] * 2)
    assert out[2] == str([True] * 2)


def test_a_subinterpreter(head: str, tmp_path: Path) -> None:
    """It works there, or the import says why not; the main interpreter goes on."""
    inner = head + "\nprint(Local('echo inner').run(30).processes[0].stdout, end='', flush=True)\n"
    (tmp_path / "inner.py").write_text(inner)
    source = (
        head
        + f"""
try:
    import _interpreters as interpreters
except ImportError:
    import _xxsubinterpreters as interpreters
assert Local("true").run(30).ok
one = interpreters.create()
try:
    failed = interpreters.run_string(one, "exec(open({str(tmp_path / "inner.py")!r}).read())")
except Exception as exc:
    failed = exc
print("refused" if failed is not None else "works", "subinterpreter" in str(failed))
interpreters.destroy(one)
ways()
print("well")
"""
    )
    (tmp_path / "script.py").write_text(source)
    done = start(tmp_path / "script.py")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout in ("inner\nworks False\nwell\n", "refused True\nwell\n"), done


# -- event loops ----------------------------------------------------------------------------------

LOOPS = """
async def use():
    actions = [Remote("echo {{{host}}}", hosts).start() for _ in range(20)]
    for action in actions:
        await action
        assert action.ok
    processes = [SshProcess("echo x", hosts[0]).start() for _ in range(20)]

    async def one(process):
        await process
        return process.stdout

    assert await asyncio.gather(*map(one, processes)) == ["x\\n"] * 20
    # A wait that is cancelled: the process goes on, and can be waited for again.
    long = SshProcess("cat", hosts[0]).start()
    task = asyncio.ensure_future(one(long))
    await asyncio.sleep(0)
    task.cancel()
    try:
        await task
        raise SystemExit("not cancelled")
    except asyncio.CancelledError:
        pass
    try:
        await asyncio.wait_for(one(long), 0.05)
        raise SystemExit("no timeout")
    except asyncio.TimeoutError:
        pass
    assert not long.ended
    long.close_stdin()
    assert await one(long) == ""
    return type(asyncio.get_running_loop()).__module__.partition(".")[0]

async def leave():
    '''The loop is closed while somebody still waits.'''
    left.append(SshProcess("cat", hosts[0]).start())
    task = asyncio.ensure_future(wait_for(left[0]))
    await asyncio.sleep(0.05)

async def wait_for(process):
    await process

left = []
for run in runners:
    print(run(use()))
    left.clear()
    run(leave())
    left[0].close_stdin().wait(60)
    assert left[0].ok
loop = asyncio.new_event_loop()
process = SshProcess("cat", hosts[0]).start()

async def begin():
    loop.create_task(wait_for(process))
    await asyncio.sleep(0.05)

loop.run_until_complete(begin())
for task in asyncio.all_tasks(loop):
    task._log_destroy_pending = False
del task
loop.close()  # without a word, as some do
process.close_stdin().wait(60)
assert process.ok
ways()
print("well")
"""


def test_asyncio_and_uvloop(head: str, tmp_path: Path) -> None:
    # In this mode asyncio tells of all that takes a tenth of a second.
    runners = "import logging, uvloop\nlogging.getLogger('asyncio').setLevel(logging.ERROR)\n"
    runners += "runners = [asyncio.run, uvloop.run]\n"
    out = run(tmp_path / "script.py", head + runners + LOOPS, "-X", "dev")
    assert out == "asyncio\nuvloop\nwell\n"


# -- pools and children ---------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_children_of_multiprocessing(head: str, tmp_path: Path, method: str) -> None:
    source = (
        head
        + f"""
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

def work(number):
    remote = Remote(f"echo {{number}}; echo $SSH_CONNECTION", hosts).run(60)
    assert remote.ok, remote.processes[0].message
    return [p.stdout.split("\\n", 1) for p in remote.processes]

if __name__ == "__main__":
    before = [p.stdout for p in Remote("echo $SSH_CONNECTION", hosts).run(60).processes]
    server = SshProcess("cat", hosts[0]).start()
    context = multiprocessing.get_context({method!r})
    child = context.Process(target=work, args=(7,))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        for number, found in enumerate(pool.map(work, range(4))):
            assert [words[0] for words in found] == [str(number)] * 2, found
            # A connection belongs to one process.
            assert not {{words[1] for words in found}} & set(before), (found, before)
    after = [p.stdout for p in Remote("echo $SSH_CONNECTION", hosts).run(60).processes]
    assert after == before, "the parent has lost its connections"
    server.write("parent")
    assert server.close_stdin().wait(60).stdout == "parent"
    ways()
    print("well")
"""
    )
    assert run(tmp_path / "script.py", source) == "well\n"


def test_pools_of_threads(head: str, tmp_path: Path) -> None:
    source = (
        head
        + """
from concurrent.futures import ThreadPoolExecutor

def work(number):
    return [p.stdout for p in Remote(f"echo {number}", hosts).run(60).processes]

with ThreadPoolExecutor(8) as pool:
    assert list(pool.map(work, range(40))) == [[f"{n}\\n"] * 2 for n in range(40)]
    pool.submit(ways).result()
names = sorted(t.name for t in threading.enumerate() if not t.name.startswith("execo-"))
print(names)
"""
    )
    assert run(tmp_path / "script.py", source) == "['MainThread']\n"


def test_workers_of_pytest_xdist(head: str, tmp_path: Path) -> None:
    tests = head.replace("os.makedirs", "os.chdir(tmp); os.makedirs").replace(
        "def ways():", "def ways(tmp):"
    )
    tests += """
import pytest

def test_ways(tmp_path):
    ways(str(tmp_path))

@pytest.mark.parametrize("turn", range(2))
def test_in_a_thread(turn):
    ran = []
    thread = threading.Thread(target=lambda: ran.append(Remote("true", hosts).run(60).ok))
    thread.start()
    thread.join(60)
    assert ran == [True]

def test_left_running():
    Remote(f"sleep {LEFT}", hosts).start()
"""
    word = f"1000.{uuid.uuid4().int % 10**20}"
    (tmp_path / "test_it.py").write_text(f"LEFT = {word!r}\n{tests}")
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n2", "-p", "no:cacheprovider", str(tmp_path)],
        check=False,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout
    assert "Warning" not in done.stdout + done.stderr
    until(lambda: not running(word))


# -- a notebook -----------------------------------------------------------------------------------


class Notebook:
    """A real kernel of Jupyter."""

    def __init__(self, folder: Path) -> None:
        self.manager = KernelManager(kernel_name="python3", connection_file=str(
            folder / "kernel.json"))  # fmt: skip
        self.manager.start_kernel(cwd=str(folder))
        self.client: Any = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=PATIENCE)

    def send(self, cell: str) -> str:
        return str(self.client.execute(textwrap.dedent(cell)))

    def said(self, request: str) -> str:
        """What a cell prints until it has ended; its exception, if there is one."""
        out = ""
        while True:
            message = self.client.get_iopub_msg(timeout=PATIENCE)
            if message["parent_header"].get("msg_id") != request:
                continue
            content = message["content"]
            if message["msg_type"] == "stream":
                out += content["text"]
            elif message["msg_type"] == "error":
                out += f"{content['ename']}\n"
            elif message["msg_type"] == "status" and content["execution_state"] == "idle":
                return out

    def run(self, cell: str) -> str:
        return self.said(self.send(cell))

    def close(self) -> None:
        with contextlib.suppress(RuntimeError):
            self.client.stop_channels()
        self.manager.shutdown_kernel()
        self.manager.cleanup_resources()
        self.client.context.destroy(linger=0)
        ensure_event_loop().close()  # of the client, in this process


@pytest.fixture
def notebook(tmp_path: Path) -> Iterator[Notebook]:
    one = Notebook(tmp_path)
    yield one
    one.close()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_notebook(head: str, notebook: Notebook) -> None:
    word = f"1000.{uuid.uuid4().int % 10**20}"
    assert notebook.run(head) == ""
    # The kernel's own loop runs in the thread of the cells.
    assert notebook.run("ways(); print('well')") == "well\n"
    cell = (
        "remote = Remote('echo x', hosts).start()\nawait remote\nprint(remote.processes[0].stdout)"
    )
    assert notebook.run(cell) == "x\n\n"
    waiting = notebook.send(
        f"left = Remote('sleep {word}', hosts).start()\nprint('waits', flush=True)\nleft.wait()"
    )
    until(lambda: len(running(word)) >= 2)
    notebook.manager.interrupt_kernel()
    assert notebook.said(waiting).endswith("KeyboardInterrupt\n")
    assert notebook.run("print(left.ended, left.kill().wait(60).ended)") == "False True\n"
    until(lambda: not running(word))
    assert notebook.run("ways(); print('well')") == "well\n"
    # A restart asks the kernel to end, and starts another one: nothing goes on.
    notebook.run(
        f"left = Remote('sleep {word}', hosts).start(); here = Process('sleep {word}').start()"
    )
    until(lambda: len(running(word)) >= 3)
    notebook.manager.restart_kernel(now=False)
    notebook.client.wait_for_ready(timeout=PATIENCE)
    until(lambda: not running(word))
    assert notebook.run(head + WELL) == "well\n"
    # One that is killed in the middle leaves nothing, either.
    notebook.send(f"Remote('sleep {word}', hosts).run()")
    until(lambda: len(running(word)) >= 2)
    notebook.manager.signal_kernel(signal.SIGKILL)
    until(lambda: not running(word))
