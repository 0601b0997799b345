"""Chaos in handlers and in the script's own threads: whatever they do, everybody is told once, all
output arrives, and nobody waits for ever."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import execo.feed
from chaos import addresses, script
from execo import (
    Action,
    Host,
    Local,
    ParallelActions,
    Process,
    ProcessLifecycleHandler,
    ProcessOutputHandler,
    Remote,
    SequentialActions,
)
from execo.config import configuration
from execo.process import ProcessBase
from execo.testing import Cluster
from invariants import PATIENCE, Watch, wait_until
from rounds import ROUNDS

SEEDS = range(7000, 7000 + ROUNDS)


@pytest.fixture(autouse=True)
def temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One's own: the watch looks at all temporary files, those of others, too."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(4) as one:
        yield one


TRANSPORTS = pytest.mark.parametrize("transport", ["local", "paramiko", "openssh"])


def make(
    transport: str, hosts: list[Host], command: str, watch: Watch, *handlers: Any, **args: Any
) -> Action:
    """Four processes of a command for a shell, with handlers."""
    lifecycle = [h for h in handlers if not isinstance(h, ProcessOutputHandler)]
    args = {
        "lifecycle_handlers": [*lifecycle, watch.ends],
        "stdout_handlers": [h for h in handlers if isinstance(h, ProcessOutputHandler)],
        "nolog_exit_code": True,
        **args,
    }
    if transport == "local":
        return ParallelActions([Local(command, {**args, "shell": True}) for _ in range(4)])
    return Remote(command, hosts, {"transport": transport}, process_args=args)


class Does(ProcessLifecycleHandler):
    """Calls a function at start and end."""

    def __init__(self, function: Callable[[Any], object]) -> None:
        self.function = function

    def start(self, process: Any) -> None:
        self.function(process)

    def end(self, process: Any) -> None:
        self.function(process)


class DoesAtOutput(ProcessOutputHandler):
    """Calls a function at each piece of output, and counts what comes."""

    def __init__(self, function: Callable[[Any], object]) -> None:
        self.function = function
        self.size: dict[Any, int] = {}

    def read(self, process: Any, stream: int, string: str, eof: bool, error: bool) -> None:
        self.size[process] = self.size.get(process, 0) + len(string)
        self.function(process)


def fail(_: Any) -> None:
    """In each process by turns in another way."""
    match next(turns) % 4:
        case 0:
            raise RuntimeError("on purpose")
        case 1:
            sys.exit("on purpose")
        case 2:
            raise KeyboardInterrupt
        case 3:
            file = io.StringIO()
            file.close()
            print("x", file=file)


turns = itertools.count()


def block(_: Any) -> None:
    threading.Event().wait(0.3)


def compute(_: Any) -> None:
    deadline = time.monotonic() + 0.3
    while time.monotonic() < deadline:
        pass


def run_another(_: Any) -> None:
    assert Process("echo other").run(PATIENCE).stdout == "other\n"
    group = SequentialActions([Local("true"), Local("true")])
    assert group.run(PATIENCE).ok


DEEDS = {deed.__name__: deed for deed in (fail, block, compute, run_another)}


# -- what handlers do ---------------------------------------------------------------------------


# What handlers do is the same for all transports; how these are held up meanwhile is not.
@pytest.mark.parametrize(
    ("transport", "deed"),
    [("local", deed) for deed in DEEDS]
    + [(name, deed) for name in ("paramiko", "openssh") for deed in ("fail", "block")],
)
def test_whatever_a_handler_does_the_outcome_is_the_same(
    cluster: Cluster, transport: str, deed: str
) -> None:
    with Watch() as watch:
        at_output = DoesAtOutput(DEEDS[deed])
        action = make(
            transport, cluster.hosts, "seq 2000; exit 3", watch, Does(DEEDS[deed]), at_output
        )
        action.lifecycle_handlers.append(Does(DEEDS[deed]))
        bystander = Process("seq 100000", lifecycle_handlers=[watch.ends])
        action.start()
        bystander.run(PATIENCE)
        action.wait(PATIENCE)
        wanted = "".join(f"{n}\n" for n in range(1, 2001))
        assert {(p.exit_code, p.stdout) for p in action.processes} == {(3, wanted)}
        assert bystander.stdout == "".join(f"{n}\n" for n in range(1, 100_001))
        assert set(at_output.size.values()) == {len(wanted)}
        watch.check(action, bystander)


@TRANSPORTS
def test_handlers_that_wait_for_their_own_action_kill_it_and_reset_its_processes(
    cluster: Cluster, transport: str
) -> None:
    with Watch() as watch:
        waited: list[Any] = []

        def wait(process: ProcessBase) -> None:
            waited.append(action.wait(PATIENCE).ended)

        # Much more output than may wait for a handler, behind one that waits for its end.
        action = make(
            transport,
            cluster.hosts,
            "head -c 3000000 /dev/zero; echo end",
            watch,
            DoesAtOutput(wait),
            default_stdout_handler=True,
        )
        configuration["handler_queue_size"], before = 1000, configuration["handler_queue_size"]
        try:
            action.run(PATIENCE)
        finally:
            configuration["handler_queue_size"] = before
        assert waited
        assert all(waited)
        assert all(len(p.stdout) == 3_000_004 for p in action.processes)
        watch.check(action)

    with Watch() as watch:
        killed: Action = make(
            transport,
            cluster.hosts,
            f"echo x; exec sleep {watch.word}",
            watch,
            DoesAtOutput(lambda process: killed.kill()),
            ProcessLifecycleHandler(),
        )
        killed.run(PATIENCE)
        # Those that had not started yet were given up.
        assert all(p.killed or p.cancelled for p in killed.processes)
        watch.check(killed)

    with Watch() as watch:
        action = make(transport, cluster.hosts, "echo x", watch, Does(lambda p: p.reset()))
        processes = list(action.processes)
        action.start()
        assert wait_until(lambda: all(watch.ends.ended[p] for p in processes))
        action.wait(PATIENCE)
        assert action.ended
        watch.check_nothing_left()


def test_an_action_that_is_changed_by_its_handlers_while_it_runs() -> None:
    with Watch() as watch:
        hosts_of: list[Any] = []

        def change(process: ProcessBase) -> None:
            process.lifecycle_handlers.append(Does(hosts_of.append))
            process.lifecycle_handlers.remove(first)
            action.lifecycle_handlers.clear()
            if len(action.actions) > 2:
                action.actions.pop()

        first = Does(change)
        children = [
            Local("sleep 0.1", {"lifecycle_handlers": [first, watch.ends]}) for _ in range(6)
        ]
        action = SequentialActions(children)
        processes = action.processes
        action.run(PATIENCE)
        assert all(p.ok for p in processes)
        watch.check(action, *processes)


def test_a_handler_that_computes_does_not_hold_up_the_output_of_others() -> None:
    with Watch() as watch:
        busy = threading.Event()
        stop = threading.Event()

        def compute_for_long(_: Any) -> None:
            busy.set()
            while not stop.is_set():
                pass

        computing = [
            Process("true", lifecycle_handlers=[Does(compute_for_long), watch.ends])
            for _ in range(3)
        ]
        for process in computing:
            process.start()
        assert busy.wait(PATIENCE)
        others = [Process("seq 300000", lifecycle_handlers=[watch.ends]) for _ in range(4)]
        for process in others:
            process.start()
        for process in others:
            process.wait(PATIENCE)
        stop.set()
        for process in computing:
            process.wait(PATIENCE)
        wanted = "".join(f"{n}\n" for n in range(1, 300_001))
        assert all(p.stdout == wanted for p in others)
        watch.check(*computing, *others)


def test_handlers_that_block_at_once_until_the_last_one_has_come() -> None:
    count = 60  # of more there are made one every twentieth of a second
    with Watch() as watch:
        all_here = threading.Barrier(count)

        class Meets(ProcessLifecycleHandler):
            def end(self, process: Any) -> None:
                all_here.wait(PATIENCE)

        processes = [
            Process("true", lifecycle_handlers=[Meets(), watch.ends]) for _ in range(count)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.wait(PATIENCE)
        assert not all_here.broken
        watch.check(*processes)


@pytest.mark.parametrize("transport", ["local", "paramiko", "openssh"])
def test_handlers_at_the_exit_of_the_interpreter(cluster: Cluster, transport: str) -> None:
    errors = script(
        """
        import atexit
        transport, hosts = sys.argv[1], [Host(*words) for words in json.loads(sys.argv[2])]
        class Late(ProcessLifecycleHandler, ProcessOutputHandler):
            def start(self, process):
                threading.Event().wait(0.05)
            def read_line(self, process, stream, string):
                Process("true").run()
            def end(self, process):
                Process("sleep 1000").start().wait()
        late = Late()
        command = "while :; do echo x; sleep 0.01; done"
        args = {"lifecycle_handlers": [late], "stdout_handlers": [late]}
        if transport == "local":
            action = ParallelActions([Local(command, {"shell": True, **args}) for _ in range(4)])
        else:
            action = Remote(command, hosts, {"transport": transport}, process_args=args)
        action.start()
        assert wait_until(lambda: all(p.stdout for p in action.processes))
        atexit.register(lambda: threading.Event().wait(0.1))
        """,
        transport,
        json.dumps(addresses(cluster.hosts)),
    )
    assert errors == ""


# -- the script's threads -----------------------------------------------------------------------


def disturb(ones: list[Any], dice: random.Random) -> None:
    """Do this and that to one after the other."""
    for _ in range(6):
        one = dice.choice(ones)
        match dice.randrange(5):
            case 0 | 1:
                one.start()
            case 2:
                one.kill()
            case 3:
                with contextlib.suppress(ValueError):  # it was not started, or reset since
                    one.wait(dice.random() / 10)
            case 4:
                one.reset()


@pytest.mark.parametrize("seed", SEEDS)
@TRANSPORTS
def test_50_threads_start_kill_wait_and_reset_the_same_ones(
    cluster: Cluster, transport: str, seed: int
) -> None:
    with Watch() as watch:
        parts = [
            make(transport, cluster.hosts, f"echo x; sleep {watch.word}", watch, nolog_error=True)
            for _ in range(2)
        ]
        group = ParallelActions(parts)
        processes = group.processes
        failures: list[BaseException] = []

        def work(number: int) -> None:
            try:
                disturb([group, *parts, *processes], random.Random(seed * 1000 + number))
            except BaseException as exc:  # noqa: BLE001 - told below
                failures.append(exc)

        threads = [threading.Thread(target=work, args=(n,), daemon=True) for n in range(50)]
        for thread in threads:
            thread.start()
        deadline = time.monotonic() + PATIENCE
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        assert not any(thread.is_alive() for thread in threads), f"seed {seed}"
        assert not failures, failures[0]

        group.kill()
        for process in processes:
            process.kill()
        everything: list[Any] = [group, *parts, *processes]
        for one in everything:
            if one.started:
                assert one.wait(PATIENCE).ended, f"seed {seed}: {one!r}"
        for one in everything:
            one.reset()
        # Whatever was cut short, a run that nobody disturbs is told once.
        assert wait_until(lambda: watch.ends.started == watch.ends.ended), f"seed {seed}"
        watch.ends.started.clear()
        watch.ends.ended.clear()
        group.start().kill().wait(PATIENCE)
        watch.check(group)


# -- input and output ---------------------------------------------------------------------------


@pytest.mark.parametrize("transport", ["local", "paramiko", "openssh"])
def test_a_process_that_reads_nothing_of_100_mb_and_is_killed_meanwhile(
    cluster: Cluster, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(execo.feed, "PATIENCE", 0.5)
    with Watch() as watch:
        action = make(transport, cluster.hosts[:1], f"echo x; exec sleep {watch.word}", watch)
        process = action.start().processes[0]
        assert wait_until(lambda: bool(process.stdout))
        piece = b"x" * 1_000_000
        killer = threading.Timer(1.0, action.kill)
        killer.start()
        for _ in range(100):
            process.write(piece)
        killer.join()
        action.wait(PATIENCE)
        assert process.killed
        assert process.ended
        del piece
        watch.check(action)


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(("transport", "count"), [("local", 20), ("paramiko", 4), ("openssh", 4)])
def test_bursts_of_output_with_a_slow_handler_take_bounded_memory(
    cluster: Cluster, transport: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(configuration, "handler_queue_size", 500_000)
    size = 100_000_000 if transport == "local" else 20_000_000
    with Watch() as watch:
        go_on = threading.Event()
        sink = DoesAtOutput(lambda process: go_on.wait(PATIENCE))
        command = f"head -c {size} /dev/zero"
        args: dict[str, Any] = {"default_stdout_handler": False}
        if transport == "local":
            processes: list[ProcessBase] = [
                Process(command, lifecycle_handlers=[watch.ends], stdout_handlers=[sink], **args)
                for _ in range(count)
            ]
        else:
            action = make(transport, cluster.hosts[:count], command, watch, sink, **args)
            processes = [*action.processes]
        before = resident()
        for process in processes:
            process.start()
        assert wait_until(lambda: len(sink.size) == count)
        threading.Event().wait(0.5)
        # What waits for the handler, and what is between it and the pipe.
        grown = resident() - before
        assert grown < count * 8_000_000, grown
        go_on.set()
        for process in processes:
            process.wait(PATIENCE)
        assert [sink.size[p] for p in processes] == [size] * count
        watch.check(*processes)
