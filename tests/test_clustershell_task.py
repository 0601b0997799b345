"""``execo.clustershell``: runs of a task, what ends them, what is left of them."""

from __future__ import annotations

import builtins
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from execo.clustershell import (
    Defaults,
    EngineIllegalOperationError,
    EventHandler,
    Task,
    TaskMsgTreeError,
    TimeoutError,  # noqa: A004 - its name there
    task_cleanup,
    task_self,
)
from execo.errors import ConfigError


@pytest.fixture
def task() -> Iterator[Task]:
    task = task_self()
    yield task
    task_cleanup()


class Lines(EventHandler):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.closes: list[bool] = []

    def ev_read(self, worker: Any, node: Any, sname: str, msg: bytes) -> None:
        self.lines.append(msg)

    def ev_close(self, worker: Any, timedout: bool) -> None:
        self.closes.append(timedout)


def gone(pid: int) -> bool:
    """Whether a process has ended, soon."""
    end = time.monotonic() + 20
    nap = threading.Event()
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        nap.wait(0.02)
    return False


def test_a_program_reads_as_for_clustershell(task: Task) -> None:
    task.shell("echo out; exit 3", nodes="n[1-3]", remote=False)
    task.shell("echo other", key="here")
    task.resume()
    found = {bytes(text): sorted(keys) for text, keys in task.iter_buffers()}
    assert found == {b"out": ["n1", "n2", "n3"], b"other": ["here"]}
    assert task.max_retcode() == 3
    assert task.key_retcode("here") == 0


def test_ctrl_c_leaves_resume_at_once_and_kills(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from execo.clustershell import *\n"
        "class H(EventHandler):\n"
        "    def ev_read(self, worker, node, sname, msg): print(msg.decode(), flush=True)\n"
        "    def ev_close(self, worker, timedout): print('close', flush=True)\n"
        "try:\n"
        "    task_self().run('echo $$; sleep 100 & wait', handler=H())\n"
        "except KeyboardInterrupt:\n"
        "    print('interrupted', flush=True)\n"
        "print(task_self().run('echo next').read().decode())\n"
    )
    with subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True
    ) as script_process:
        assert script_process.stdout is not None
        pid = int(script_process.stdout.readline())
        script_process.send_signal(signal.SIGINT)
        assert script_process.stdout.read().split() == ["close", "interrupted", "next"]
    assert script_process.returncode == 0
    assert gone(pid)


def test_a_slow_handler_holds_commands_up_and_fills_no_memory(task: Task) -> None:
    class Slow(EventHandler):
        bytes_seen = 0
        most_waiting = 0

        def ev_read(self, worker: Any, node: Any, sname: str, msg: bytes) -> None:
            flow = task._engine.flow
            Slow.most_waiting = max(Slow.most_waiting, flow._arrived - flow._taken)
            Slow.bytes_seen += len(msg)

    task.set_default("stdout_msgtree", False)
    command = "yes " + "x" * 9999 + " | head -c 20000000"
    task.run(command, nodes="n[1-4]", remote=False, handler=Slow())
    assert Slow.bytes_seen == 4 * 2000 * 9999
    # What has been read when it is held up comes on top: one read of each.
    assert Slow.most_waiting < 12_000_000


def test_what_an_aborted_run_has_left_is_not_in_the_next(task: Task) -> None:
    class Abort(EventHandler):
        def ev_read(self, worker: Any, node: Any, sname: str, msg: bytes) -> None:
            task.abort()

    task.shell("yes", handler=Abort())
    task.shell("yes", key="other")
    task.resume()
    assert list(task.iter_buffers()) == []
    handler = Lines()
    task.run("echo next", key="k", handler=handler)
    assert handler.lines == [b"next"]
    assert [bytes(text) for text, _ in task.iter_buffers()] == [b"next"]


def test_a_limit_of_the_run_keeps_what_has_come(task: Task) -> None:
    handler = Lines()
    worker = task.shell("echo one; printf half; sleep 100", key="k", handler=handler)
    with pytest.raises(TimeoutError, match="2 s"):
        task.resume(2)
    assert task.key_buffer("k") == b"one\nhalf"
    assert handler.closes == [True]
    assert worker.did_timeout()
    assert list(task.iter_keys_timeout()) == ["k"]


def test_nodes_that_wait_for_their_start_are_told_of_by_the_close(task: Task) -> None:
    task.set_info("fanout", 1)
    handler = Lines()
    task.shell("sleep 100", nodes="n[1-3]", remote=False, handler=handler)
    with pytest.raises(TimeoutError):
        task.resume(0.5)
    assert handler.closes == [True]  # ClusterShell tells of none
    assert task.num_timeout() == 1


def test_both_streams_come_in_the_order_in_which_they_were_written(task: Task) -> None:
    command = "for i in 1 2 3 4 5; do echo out $i; echo err $i >&2; done"
    task.run(command, key="k")
    expected = [b"%s %d" % (word, i) for i in range(1, 6) for word in (b"out", b"err")]
    assert task.key_buffer("k").splitlines() == expected
    assert task.key_error("k") == b""


def test_a_long_line_in_many_pieces(task: Task) -> None:
    handler = Lines()
    task.run("head -c 20000000 /dev/zero; echo; printf 'a\\r\\nb\\rc\\n'", key="k", handler=handler)
    assert [len(handler.lines[0]), *handler.lines[1:]] == [20_000_000, b"a", b"b\rc"]


def test_a_port_without_a_handler_is_asked(task: Task) -> None:
    port = task.port(autoclose=True)
    other = threading.Thread(target=port.msg, args=("text",))
    other.start()
    assert port.msg_recv(20) == "text"
    other.join()
    with pytest.raises(builtins.TimeoutError, match="no message"):
        port.msg_recv(0.01)
    task.remove_port(port)
    assert port.msg_send("more") is False
    with pytest.raises(EngineIllegalOperationError, match="closed"):
        port.msg_recv()


def test_a_port_does_not_wait_for_its_own_task(task: Task) -> None:
    port = task.port(handler=Lines(), autoclose=True)
    with pytest.raises(EngineIllegalOperationError, match="msg_send"):
        port.msg("text")
    task.remove_port(port)


def test_a_task_in_a_thread_stands_still_and_goes_on() -> None:
    task = Task()
    handler = Lines()
    task.shell("for i in 1 2 3 4 5 6; do echo $i; sleep 0.1; done", handler=handler)
    task.resume()
    while not handler.lines:
        pass
    assert task.suspend()
    seen = len(handler.lines)
    threading.Event().wait(0.5)
    assert len(handler.lines) == seen
    task.resume()
    task.join()
    assert len(handler.lines) == 6
    assert not task.suspend()
    task_cleanup()
    assert not task.thread.is_alive()


def test_what_a_thread_of_its_own_raises_is_hooked() -> None:
    class Fail(EventHandler):
        def ev_read(self, worker: Any, node: Any, sname: str, msg: bytes) -> None:
            raise LookupError("mine")

    told: list[Any] = []
    task = Task()
    task.excepthook = lambda kind, value, tb: told.append((kind, str(value)))
    task.shell("echo", handler=Fail())
    task.resume()
    task.join()
    task.thread.join(20)
    assert told == [(LookupError, "mine")]
    assert not task.thread.is_alive()


def test_a_forked_child_has_a_task_of_its_own(task: Task) -> None:
    task.run("echo parent", key="k")
    script = (
        "import os, warnings; warnings.simplefilter('ignore')\n"
        "from execo.clustershell import task_self\n"
        "task = task_self(); task.run('echo parent', key='k')\n"
        "pid = os.fork()\n"
        "if not pid:\n"
        "    task.run('echo child', key='c')\n"
        "    os._exit(0 if task.key_buffer('c') == b'child' else 1)\n"
        "status = os.waitpid(pid, 0)[1]\n"
        "task.run('echo again', key='k')\n"
        "assert task.key_buffer('k') == b'again' and status == 0, status\n"
    )
    code = subprocess.run([sys.executable, "-c", script], check=False, timeout=60).returncode
    assert code == 0


# -- defaults.conf ----------------------------------------------------------------------------


def test_defaults_are_read_from_files(tmp_path: Path) -> None:
    one, two = tmp_path / "one.conf", tmp_path / "two.conf"
    one.write_text("[task.default]\nstderr: yes\n[task.info]\nfanout: 7\nconnect_timeout: 3.5\n")
    two.write_text("[task.info]\nfanout: 8\n[engine]\nport_qlimit: 5\n")
    found = Defaults([str(one), str(two), str(tmp_path / "missing")])
    assert (found.stderr, found.fanout, found.connect_timeout, found.port_qlimit) == (
        True, 8, 3.5, 5,
    )  # fmt: skip
    task = Task(defaults=found)
    assert (task.info("fanout"), task.default("stderr"), task.info("nothing", 1)) == (8, True, 1)
    task_cleanup()


def test_a_wrong_default_names_file_and_key(tmp_path: Path) -> None:
    wrong = tmp_path / "defaults.conf"
    wrong.write_text("[task.info]\nfanout: many\n")
    with pytest.raises(ConfigError, match=r"defaults.conf: \[task.info\] fanout: .*many"):
        Defaults([str(wrong)])
    wrong.write_text("fanout: 1\n")
    with pytest.raises(ConfigError, match=r"defaults\.conf"):
        Defaults([str(wrong)])


def test_defaults_are_read_at_the_first_task_and_not_at_import(tmp_path: Path) -> None:
    (tmp_path / "defaults.conf").write_text("[task.info]\nfanout: 9\n")
    script = (
        "import os; import execo.clustershell as c\n"
        f"os.environ['CLUSTERSHELL_CFGDIR'] = {str(tmp_path)!r}\n"
        "print(c.task_self().info('fanout'))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert done.stdout.split() == [b"9"]


def test_output_that_is_not_gathered(task: Task) -> None:
    task.set_default("stdout_msgtree", False)
    worker = task.run("echo text", key="k")
    with pytest.raises(TaskMsgTreeError, match="stdout_msgtree"):
        task.iter_buffers()
    with pytest.raises(TaskMsgTreeError):
        worker.read()


def test_what_is_held_by_this_process_after_many_runs(task: Task) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(30):
        task.run("echo", nodes="n[1-3]", remote=False, timeout=30)
    assert len(os.listdir("/proc/self/fd")) <= before + 8
    assert not task._engine._due
    assert not task._engine._clients
