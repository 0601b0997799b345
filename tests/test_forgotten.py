"""What nobody has any more is gone at once: not when the garbage collector comes by, thousands of
processes and their outputs later."""

from __future__ import annotations

import gc
import signal
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from execo import (
    Action,
    Get,
    Local,
    ParallelActions,
    Process,
    ProcessLifecycleHandler,
    ProcessOutputHandler,
    Put,
    Remote,
    Retry,
    SequentialActions,
)
from execo.engine import Engine
from execo.testing import Cluster

TIMEOUT = 60.0


class Lines(ProcessOutputHandler):
    def read_line(self, process: Any, stream: int, string: str) -> None:
        assert string.strip() in ("x", "")


class Ends(ProcessLifecycleHandler):
    def end(self, process: Any) -> None:
        assert process.ended


@pytest.fixture(autouse=True)
def without_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(2) as one:
        yield one


QUIET = {"nolog_exit_code": True, "nolog_timeout": True, "nolog_error": True}
OF_HOSTS: dict[str, dict[str, Any]] = {
    "plain": {"cmd": "echo x"},
    "fails": {"cmd": "exit 3"},
    "handled": {"cmd": "echo x", "stdout_handlers": [Lines()], "lifecycle_handlers": [Ends()]},
    "out of time": {"cmd": "sleep 100", "timeout": 0.2},
    "killed": {"cmd": "sleep 100"},
    "written to": {"cmd": "cat"},
}


def is_gone(make: Callable[[], Action], between: Callable[[Action], object] = bool) -> None:
    """Runs it, and looks whether anything is left of it once it is dropped."""
    gone = weakref.WeakSet[object]()

    def run() -> None:
        one = make().start()
        between(one)
        one.wait(TIMEOUT)
        assert one.ended
        gone.update([one, *one.processes])

    run()
    # What runs behind the script lets go a moment after wait() has returned.
    for _ in range(2):
        Process("true").run(TIMEOUT)
    deadline = Process("sleep 10").start()
    while gone and not deadline.ended:
        deadline.wait(0.05)
    deadline.kill().wait(TIMEOUT)
    assert list(gone) == []


@pytest.mark.parametrize("transport", ["paramiko", "openssh", "taktuk"])
@pytest.mark.parametrize("kind", OF_HOSTS)
def test_commands_on_hosts(cluster: Cluster, transport: str, kind: str) -> None:
    args = {**QUIET, **OF_HOSTS[kind]}
    cmd = args.pop("cmd")
    params = {**cluster.params, "transport": transport}

    def between(action: Action) -> None:
        if kind == "killed":
            action.kill()
        for process in action.processes if kind == "written to" else ():
            process.write("x\n")
            process.close_stdin()

    is_gone(lambda: Remote(cmd, cluster.hosts, params, process_args=args), between)


@pytest.mark.parametrize("kind", OF_HOSTS)
def test_commands_here(kind: str) -> None:
    args = {**QUIET, "shell": True, **OF_HOSTS[kind]}
    cmd = args.pop("cmd")

    def between(action: Action) -> None:
        if kind == "killed":
            action.kill(signal.SIGKILL)
        for process in action.processes if kind == "written to" else ():
            process.write("x\n")
            process.close_stdin()

    is_gone(lambda: Local(cmd, process_args=args), between)


def test_actions_that_are_made_of_actions(cluster: Cluster) -> None:
    hosts, params = cluster.hosts, cluster.params

    def parts() -> list[Action]:
        return [Local("true"), Remote("true", hosts, params, retry=Retry(2))]

    is_gone(lambda: ParallelActions([SequentialActions(parts()), *parts()], max_failures=0))


def test_transfers(cluster: Cluster, tmp_path: Path) -> None:
    file, back = tmp_path / "file", tmp_path / "back"
    file.write_text("x" * 100_000)
    back.mkdir()
    one, params = cluster.hosts[:1], cluster.params
    is_gone(lambda: Put(one, [str(file)], connection_params=params))
    is_gone(lambda: Get(one, ["file"], str(back), connection_params=params))
    assert (back / "file").stat().st_size == 100_000


def test_while_a_record_is_written(tmp_path: Path) -> None:
    class Recorded(Engine):
        def run(self) -> None:
            is_gone(lambda: Local("echo x; exit 3", process_args={**QUIET, "shell": True}))

    Recorded().start(["-c", str(tmp_path / "run")])
