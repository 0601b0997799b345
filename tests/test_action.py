"""Actions: trees of processes started, waited for, killed and counted as one."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from execo import (
    Action,
    ActionLifecycleHandler,
    Host,
    Local,
    ParallelActions,
    Process,
    ProcessesFailed,
    ProcessLifecycleHandler,
    Report,
    SequentialActions,
    configuration,
    filter_bad_hosts,
    wait_all_actions,
    wait_any_actions,
    wait_multiple_actions,
)
from execo._core.runtime import get_runtime
from execo.errors import Reason
from execo.process import ProcessBase
from execo.transports.local import LocalTransport

LONG = 30.0
"""Seconds that nothing here takes: a hang."""


class Many(Action):
    """An action of many processes, as Remote is one."""

    def __init__(self, processes: Iterable[ProcessBase], **options: Any) -> None:
        super().__init__(**options)
        self._processes = list(processes)
        for process in self._processes:
            process._action = self

    @property
    def processes(self) -> list[ProcessBase]:
        return self._processes


def shell(cmd: str, **process_args: Any) -> Local:
    return Local(cmd, {"shell": True, **process_args})


def sleeper() -> Local:
    return Local("sleep 1000")


def quiet(cmd: str) -> Local:
    return Local(cmd, {"nolog_exit_code": True, "nolog_error": True})


def ended(action: Action) -> Action:
    """``action`` once it has ended; a test that would hang fails here."""
    action.wait(LONG)
    assert action.ended, f"still running: {[p for p in action.processes if not p.ended]}"
    return action


@pytest.fixture
def seconds() -> Iterator[str]:
    """A number of seconds for sleep that nobody else has; what still sleeps then is ended."""
    number = f"1000.{uuid.uuid4().int % 10**12:012}"
    yield number
    for pid in sleeping(number):
        os.kill(pid, signal.SIGKILL)


def sleeping(seconds: str) -> list[int]:
    """The processes of this machine that run ``sleep seconds``."""
    found = []
    for proc in Path("/proc").glob("[0-9]*"):
        try:
            words = (proc / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if words[:2] == [b"sleep", seconds.encode()]:
            found.append(int(proc.name))
    return found


def run_script(tmp_path: Path, source: str, *args: str) -> subprocess.CompletedProcess[str]:
    script = tmp_path / "script.py"
    script.write_text(source)
    return subprocess.run(
        [sys.executable, str(script), *args],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
    )


# -- Local ------------------------------------------------------------------------------------


def test_local_runs_a_command() -> None:
    action = Local("echo hello").run()
    assert action.finished_ok
    assert [p.stdout for p in action.processes] == ["hello\n"]


def test_local_passes_process_args() -> None:
    action = Local("echo $X; exit 3", {"shell": True, "env": {"X": "y"}, "nolog_exit_code": True})
    action.run()
    assert action.processes[0].stdout == "y\n"
    assert not action.ok
    assert not action.finished_ok
    assert action.failed == action.processes


def test_local_takes_input() -> None:
    action = Local("cat").start()
    print("one", file=action)
    action.process.close_stdin()
    assert ended(action).processes[0].stdout == "one\n"


def test_local_is_named_after_its_command_unless_told() -> None:
    assert Local("echo a").name == "echo a"
    assert Local("echo a", name="greet").name == "greet"


def test_before_the_start_nothing_has_happened() -> None:
    action = Local("true")
    assert (action.started, action.running, action.ended) == (False, False, False)
    assert action.ok
    assert not action.finished_ok
    with pytest.raises(ValueError, match="not started"):
        action.wait()
    assert action.kill() is action
    assert not action.started


def test_a_second_start_does_nothing(tmp_path: Path) -> None:
    action = shell(f"echo once >> {tmp_path}/log")
    assert action.start() is action.start()
    ended(action).start()
    assert (tmp_path / "log").read_text() == "once\n"


def test_wait_with_a_timeout_comes_back_while_it_runs() -> None:
    action = sleeper().start()
    assert action.wait(timeout=0.05) is action
    assert action.running
    assert action.wait(timeout="0:00:00.05").running
    ended(action.kill())


def test_what_cannot_be_started_is_an_outcome_not_an_exception() -> None:
    action = ParallelActions([quiet("/no/such/program"), quiet("'unbalanced"), quiet("true")]).run()
    assert action.ended
    assert [p.reason for p in action.processes] == [Reason.SPAWN, Reason.SPAWN, None]
    assert len(action.failed) == 2


# -- groups -----------------------------------------------------------------------------------


def test_parallel_actions_run_at_once(tmp_path: Path) -> None:
    # Each one waits for the other: one after the other they would never end.
    for name in ("a", "b"):
        os.mkfifo(tmp_path / name)
    first = shell(f"echo x > {tmp_path}/a; cat {tmp_path}/b")
    second = shell(f"cat {tmp_path}/a; echo y > {tmp_path}/b")
    group = ended(ParallelActions([first, second]).start())
    assert group.finished_ok
    assert [p.stdout for p in group.processes] == ["y\n", "x\n"]
    assert group.processes == [first.process, second.process]


def test_sequential_actions_run_in_order_also_after_one_that_failed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    steps: list[Action] = [
        shell(f"sleep 0.05; echo {n} >> {log}; exit {n % 2}", nolog_exit_code=True)
        for n in range(5)
    ]
    group = SequentialActions(steps).run()
    assert log.read_text().split() == ["0", "1", "2", "3", "4"]
    assert group.ended
    assert not group.ok
    assert [p.exit_code for p in group.failed] == [1, 1]


def test_a_step_starts_when_the_one_before_has_ended() -> None:
    steps = [Local("true") for _ in range(4)]
    SequentialActions(steps).run()
    for before, after in itertools.pairwise(steps):
        assert before.process.end_date is not None
        assert after.process.start_date is not None
        assert before.process.end_date <= after.process.start_date


@pytest.mark.parametrize("kind", [ParallelActions, SequentialActions])
def test_an_empty_group_ends_at_once_and_is_ok(kind: type[ParallelActions]) -> None:
    action = ended(kind([]).start())
    assert action.finished_ok
    assert action.processes == []
    stats = action.stats()
    assert stats.num_processes == 0
    assert stats.start_date is not None
    assert stats.end_date is not None


def test_empty_groups_inside_groups_end() -> None:
    empty = ParallelActions([])
    tree = SequentialActions([empty, ParallelActions([SequentialActions([]), Many([])])])
    assert ended(tree.start()).finished_ok
    assert empty.finished_ok


def test_an_action_without_processes_ends_at_once() -> None:
    assert ended(Many([]).start()).finished_ok


def test_a_group_is_made_of_actions() -> None:
    with pytest.raises(TypeError, match="made of actions"):
        ParallelActions([Process("true")])  # type: ignore[list-item]


def test_a_group_takes_any_iterable() -> None:
    group = ParallelActions(Local(f"echo {n}") for n in range(3)).run()
    assert [p.stdout for p in group.processes] == ["0\n", "1\n", "2\n"]


def test_an_action_in_two_groups_runs_once(tmp_path: Path) -> None:
    shared = shell(f"echo ran >> {tmp_path}/log; sleep 0.2")
    one = ParallelActions([shared, Local("true")]).start()
    two = SequentialActions([shared, Local("true")]).start()
    assert ended(one).ok
    assert ended(two).ok
    assert (tmp_path / "log").read_text() == "ran\n"
    three = ended(ParallelActions([shared]).start())  # it has ended long before
    assert three.finished_ok


def test_the_same_action_twice_in_a_group() -> None:
    one = Local("true")
    assert ended(SequentialActions([one, one]).start()).finished_ok


def test_a_child_that_was_started_before_its_group() -> None:
    child = sleeper().start()
    group = SequentialActions([Local("true"), child, Local("true")]).start()
    group.wait(0.2)
    assert group.running
    child.kill()
    assert ended(group).ended


tree_shapes = st.recursive(
    st.sampled_from(["true", "false", "/no/such/program"]),
    lambda inner: st.tuples(
        st.sampled_from(["parallel", "sequential"]),
        st.lists(inner, max_size=3),
        st.sampled_from([None, 1, 2]),
    ),
    max_leaves=8,
)


def grow(shape: Any) -> Action:
    if isinstance(shape, str):
        return quiet(shape)
    kind, parts, fanout = shape
    actions = [grow(part) for part in parts]
    if kind == "parallel":
        return ParallelActions(actions, fanout=fanout)
    return SequentialActions(actions)


def nodes(action: Action) -> list[Action]:
    return [action, *(n for child in getattr(action, "actions", []) for n in nodes(child))]


@settings(max_examples=30)
@given(tree_shapes)
def test_any_tree_ends_and_its_outcome_is_that_of_its_processes(shape: Any) -> None:
    tree = ended(grow(shape).start())
    for node in nodes(tree):
        assert node.ended
        assert all(p.ended for p in node.processes)
        expected = [p.cmd == "true" for p in node.processes]
        assert node.ok == all(expected)
        stats = node.stats()
        assert stats.num_processes == stats.num_ended == len(expected)
        assert stats.num_finished_ok == sum(expected)
        if isinstance(node, SequentialActions):
            ends = [
                (
                    min(p.end_date or 0 for p in a.processes),
                    max(p.end_date or 0 for p in a.processes),
                )
                for a in node.actions
                if a.processes
            ]
            assert all(a[1] <= b[0] for a, b in itertools.pairwise(ends))


@settings(max_examples=30)
@given(tree_shapes, st.floats(0, 0.02))
def test_any_tree_that_is_killed_at_any_time_ends(shape: Any, delay: float) -> None:
    tree = grow(shape)
    for process in tree.processes:
        if process.cmd == "true":
            process.cmd = "sleep 1000"
    tree.start().wait(delay)
    assert ended(tree.kill()).ended
    assert all(p.ended for p in tree.processes)


# -- kill -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [ParallelActions, SequentialActions])
def test_kill_right_after_start_kills(kind: type[ParallelActions]) -> None:
    for _ in range(5):
        group = kind([sleeper() for _ in range(5)])
        assert ended(group.start().kill()).ended


def test_killing_a_local_leaves_it_ok() -> None:
    action = ended(sleeper().start().kill())
    assert action.ok
    assert action.processes[0].killed
    assert action.processes[0].exit_code == -signal.SIGTERM


def test_a_killed_sequence_starts_nothing_more(tmp_path: Path) -> None:
    steps = [sleeper(), *(shell(f"echo {n} >> {tmp_path}/log") for n in range(3))]
    group = SequentialActions(steps).start()
    ended(group.kill())
    assert not (tmp_path / "log").exists()
    assert [p.cancelled for p in group.processes] == [False, True, True, True]
    assert not any(p.started for p in group.processes[1:])
    assert not group.ok  # what was given up has not done its work
    assert [p.reason for p in group.processes[1:]] == [Reason.CANCELLED] * 3


def test_killing_the_running_step_alone_goes_on_with_the_next() -> None:
    first, second = sleeper(), Local("echo next")
    group = SequentialActions([first, second]).start()
    first.kill()
    assert ended(group).ok
    assert second.process.stdout == "next\n"


def test_kill_in_a_nested_tree_reaches_all_and_starts_nothing(tmp_path: Path) -> None:
    def branch() -> Action:
        return SequentialActions([sleeper(), shell(f"echo late >> {tmp_path}/log")])

    tree = SequentialActions(
        [
            ParallelActions([branch(), branch(), ParallelActions([branch()])]),
            shell(f"echo later >> {tmp_path}/log"),
        ]
    ).start()
    tree.wait(0.2)
    ended(tree.kill())
    assert not (tmp_path / "log").exists()
    assert tree.stats().num_cancelled == 4
    for node in nodes(tree):
        assert node.ended, node


def test_a_signal_that_ends_nothing_gives_nothing_up() -> None:
    ready = "trap 'echo usr1; exit 0' USR1; echo ready; while :; do sleep 0.05; done"
    first, second = shell(ready), Local("echo second")
    group = SequentialActions([first, second]).start()
    while "ready" not in first.process.stdout:
        group.wait(0.02)
    group.kill(signal.SIGUSR1)
    assert ended(group).ok
    assert [p.stdout for p in group.processes] == ["ready\nusr1\n", "second\n"]


def test_kill_escalates_for_those_that_ignore_it() -> None:
    stubborn = shell("trap '' TERM; echo ready; while :; do sleep 0.05; done")
    group = ParallelActions([stubborn, sleeper()]).start()
    while not stubborn.process.stdout:
        group.wait(0.02)
    ended(group.kill(auto_force_kill_timeout=0.2))
    assert stubborn.process.forced_kill
    assert stubborn.process.exit_code == -signal.SIGKILL


def test_kill_after_the_end_does_nothing() -> None:
    action = Local("true").run()
    assert action.kill().finished_ok
    assert not action.processes[0].killed


def test_a_short_with_block_kills_what_it_started() -> None:
    for kind in (ParallelActions, SequentialActions):
        with kind([sleeper(), sleeper()]).start() as group:
            pass
        assert ended(group).ended


def test_servers_run_as_long_as_the_block() -> None:
    servers = ParallelActions([sleeper(), sleeper()])
    with servers.start():
        clients = ParallelActions([Local("echo a"), Local("echo b")]).run()
        assert servers.running
    servers.wait(LONG)
    assert clients.finished_ok
    assert servers.ended
    assert servers.ok


def test_a_with_block_lets_exceptions_through() -> None:
    group = ParallelActions([sleeper()])
    with pytest.raises(ZeroDivisionError), group.start():
        raise ZeroDivisionError
    assert ended(group).ended


def test_kill_from_another_thread_while_it_starts() -> None:
    for _ in range(5):
        group = Many([Process("sleep 1000") for _ in range(30)])
        thread = threading.Thread(target=group.start)
        thread.start()
        while not group.started:
            pass
        group.kill()
        thread.join(LONG)
        assert ended(group).ended


# -- fanout -----------------------------------------------------------------------------------


def most_at_once(log: Path) -> int:
    """From lines ``+`` and ``-``, appended by each command at its start and at its end."""
    running = most = 0
    for line in log.read_text().split():
        running += 1 if line == "+" else -1
        most = max(most, running)
    assert running == 0
    return most


def logging_command(log: Path) -> str:
    return f"echo + >> {log}; sleep 0.02; echo - >> {log}"


@pytest.mark.parametrize("fanout", [1, 3])
def test_fanout_limits_what_runs_at_once(tmp_path: Path, fanout: int) -> None:
    log = tmp_path / "log"
    processes = [Process(logging_command(log), shell=True) for _ in range(20)]
    action = ended(Many(processes, fanout=fanout).start())
    assert action.finished_ok
    assert len(log.read_text().split()) == 40
    assert most_at_once(log) <= fanout


def test_fanout_above_the_number_of_children() -> None:
    assert ended(Many([Process("true")], fanout=100).start()).finished_ok


def test_fanout_counts_the_actions_of_a_group(tmp_path: Path) -> None:
    log = tmp_path / "log"
    pairs = [
        ParallelActions([shell(logging_command(log)), shell(logging_command(log))])
        for _ in range(8)
    ]
    group = ended(ParallelActions(pairs, fanout=2).start())
    assert group.finished_ok
    assert most_at_once(log) <= 4


def test_fanout_goes_on_after_failures() -> None:
    processes = [Process("/no/such/program", nolog_error=True) for _ in range(50)]
    action = ended(Many(processes, fanout=2).start())
    assert len(action.failed) == 50
    assert all(p.reason is Reason.SPAWN for p in action.processes)


def test_kill_cancels_what_waits_for_its_turn() -> None:
    action = Many([Process("sleep 1000") for _ in range(10)], fanout=3).start()
    assert sum(p.started for p in action.processes) == 3
    ended(action.kill())
    assert [p.cancelled for p in action.processes] == [False] * 3 + [True] * 7
    assert action.stats().num_cancelled == 7
    assert action.stats().num_started == 3


def test_kill_cancels_nested_groups_that_wait() -> None:
    inner = [SequentialActions([sleeper(), sleeper()]) for _ in range(4)]
    group = ParallelActions(inner, fanout=2).start()
    ended(group.kill())
    assert [p.started for p in group.processes] == [True, False, True, False] + [False] * 4
    assert all(a.ended for a in inner)
    assert [a.started for a in inner] == [True, True, False, False]


@pytest.mark.parametrize("fanout", [0, -1, "2", 1.5])
def test_a_fanout_that_is_none(fanout: Any) -> None:
    with pytest.raises(ValueError, match="fanout"):
        ParallelActions([], fanout=fanout)


# -- waiting for several ----------------------------------------------------------------------


def test_wait_any_gives_those_that_have_ended_in_the_order_given() -> None:
    slow, quick, other = sleeper().start(), Local("true").start(), Local("true").run()
    assert other in wait_any_actions([slow, quick, other], timeout=LONG)
    ended(quick)
    assert wait_any_actions([slow, quick, other]) == [quick, other]
    assert wait_any_actions([other, slow, quick]) == [other, quick]
    ended(slow.kill())
    assert wait_all_actions([slow, quick, other]) == [slow, quick, other]


def test_wait_any_comes_back_as_soon_as_one_has_ended() -> None:
    slow, quick = sleeper().start(), Local("sleep 0.1").start()
    assert wait_any_actions([slow, quick], timeout=LONG) == [quick]
    assert slow.running
    ended(slow.kill())


def test_a_timeout_gives_the_subset() -> None:
    slow, done = sleeper().start(), Local("true").run()
    assert wait_all_actions([done, slow], timeout=0.1) == [done]
    assert wait_any_actions([slow], timeout=0.1) == []
    assert wait_any_actions([slow], timeout=0) == []
    ended(slow.kill())


def test_waiting_for_no_action_comes_back_at_once() -> None:
    assert wait_any_actions([]) == []
    assert wait_all_actions([]) == []


def test_wait_takes_any_iterable() -> None:
    actions = [Local("true").start() for _ in range(3)]
    assert wait_all_actions(iter(actions), timeout=LONG) == actions


def test_waiting_for_what_was_not_started_is_an_error() -> None:
    with pytest.raises(ValueError, match="not started"):
        wait_any_actions([Local("true").run(), Local("true")])


def test_the_reference_document_has_another_name_for_wait_any() -> None:
    assert wait_multiple_actions is wait_any_actions


def test_wait_any_one_after_the_other_sees_each_once() -> None:
    pending: list[Action] = [Local(f"sleep 0.0{n}").start() for n in range(1, 9)]
    seen: list[Action] = []
    while pending:
        done = wait_any_actions(pending, timeout=LONG)
        assert done, "nothing ended"
        seen += done
        pending = [a for a in pending if a not in done]
    assert len(seen) == 8


# -- bad hosts --------------------------------------------------------------------------------


class OnHost(Process):
    """A process of a host, as SshProcess is one."""

    def __init__(self, cmd: str, host: Host | str, **options: Any) -> None:
        super().__init__(cmd, **options)
        self.host = Host(host)


def test_filter_bad_hosts_keeps_the_good_ones_as_they_are() -> None:
    hosts = [Host("a"), Host("b", user="root"), Host("c")]
    commands = ["true", "true", "false"]
    pairs = zip(hosts, commands, strict=True)
    action = Many([OnHost(cmd, host, nolog_exit_code=True) for host, cmd in pairs]).run()
    good = filter_bad_hosts(action, hosts)
    assert good == hosts[:2]
    assert good[1] is hosts[1]
    assert filter_bad_hosts(action, ["c", "a", "unknown"]) == ["a", "unknown"]
    assert filter_bad_hosts(action, []) == []


def test_filter_bad_hosts_drops_a_host_with_one_bad_process_of_two() -> None:
    processes = [OnHost("true", "a"), OnHost("false", "a", nolog_exit_code=True)]
    assert filter_bad_hosts(Many(processes).run(), ["a", "b"]) == ["b"]


def test_filter_bad_hosts_ignores_processes_without_a_host() -> None:
    assert filter_bad_hosts(quiet("false").run(), ["a"]) == ["a"]


def test_filter_bad_hosts_keeps_what_is_ignored() -> None:
    action = Many([OnHost("false", "a", ignore_exit_code=True, nolog_exit_code=True)]).run()
    assert filter_bad_hosts(action, ["a"]) == ["a"]


def test_filter_bad_hosts_tells_two_ports_of_one_address_apart() -> None:
    hosts = [Host("127.0.0.1", port=2201), Host("127.0.0.1", port=2202)]
    processes = [OnHost("true", hosts[0]), OnHost("false", hosts[1], nolog_exit_code=True)]
    assert filter_bad_hosts(Many(processes).run(), hosts) == [hosts[0]]


# -- again ------------------------------------------------------------------------------------


def test_reset_and_run_again(tmp_path: Path) -> None:
    action = shell(f"test -e {tmp_path}/there && echo yes", nolog_exit_code=True)
    assert not action.run().ok
    (tmp_path / "there").touch()
    assert action.reset() is action
    assert (action.started, action.ended, action.ok) == (False, False, True)
    assert action.processes[0].stdout == ""
    assert action.run().finished_ok
    assert action.processes[0].stdout == "yes\n"


def test_reset_of_a_tree_resets_all_of_it() -> None:
    tree = SequentialActions([ParallelActions([Local("echo a"), quiet("false")]), Local("echo b")])
    for _ in range(3):
        assert [p.exit_code for p in ended(tree.start()).processes] == [0, 1, 0]
        tree.reset()
        assert not any(node.started for node in nodes(tree))
        assert not any(p.started for p in tree.processes)


def test_reset_ends_what_runs() -> None:
    group = SequentialActions([sleeper(), Local("echo x")]).start()
    process = group.processes[0]
    group.reset()
    assert not group.started
    assert not process.started
    process.cmd = "true"
    assert ended(group.start()).finished_ok


def test_a_process_of_an_action_is_run_again_on_its_own(tmp_path: Path) -> None:
    action = shell(f"test -e {tmp_path}/there", nolog_exit_code=True).run()
    assert action.failed == action.processes
    (tmp_path / "there").touch()
    action.processes[0].reset().run()
    assert action.ended
    assert action.finished_ok
    assert action.failed == []


# -- checks -----------------------------------------------------------------------------------


def test_check_raises_with_the_failed_processes() -> None:
    group = ParallelActions([Local("true"), quiet("false")])
    with pytest.raises(ProcessesFailed, match="exited 1") as caught:
        group.run(check=True)
    assert caught.value.processes == group.failed
    with pytest.raises(ProcessesFailed):
        group.raise_if_failed()
    with pytest.raises(ProcessesFailed):
        group.wait(check=True)


def test_check_is_silent_when_all_is_well_or_ignored() -> None:
    group = ParallelActions([Local("true"), Local("false", {"ignore_exit_code": True})])
    assert group.run(check=True) is group
    assert group.raise_if_failed() is group


def test_check_counts_what_was_cancelled_as_failed() -> None:
    group = SequentialActions([sleeper(), Local("true")]).start()
    group.kill()
    with pytest.raises(ProcessesFailed, match="given up"):
        group.wait(LONG, check=True)


def test_many_failures_are_named_and_counted_in_the_message() -> None:
    group = ParallelActions([quiet("false") for _ in range(15)])
    with pytest.raises(ProcessesFailed, match=r"15 process.*\n(.*\n)*.*and 5 more"):
        group.run(check=True)


# -- coroutines -------------------------------------------------------------------------------


def test_await_an_action() -> None:
    async def main() -> list[Action]:
        first = SequentialActions([Local("echo a"), Local("echo b")]).start()
        second = Local("true").start()
        return [await first, await second, await first]

    assert all(action.finished_ok for action in asyncio.run(main()))


def test_await_does_not_block_other_coroutines() -> None:
    async def main() -> int:
        action = sleeper().start()
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            for _ in range(3):
                await asyncio.sleep(0.01)
                ticks += 1
            action.kill()

        ticker = asyncio.create_task(tick())
        await action
        await ticker
        return ticks

    assert asyncio.run(asyncio.wait_for(main(), LONG)) == 3


def test_an_await_may_be_given_up() -> None:
    async def main() -> Action:
        action = sleeper().start()

        async def wait() -> None:
            await action

        with pytest.raises(TimeoutError):
            await asyncio.wait_for(wait(), 0.05)
        assert action.running
        action.kill()
        return await action

    assert asyncio.run(main()).ended


def test_await_of_what_was_not_started() -> None:
    async def main() -> None:
        await Local("true")

    with pytest.raises(ValueError, match="not started"):
        asyncio.run(main())


# -- statistics -------------------------------------------------------------------------------


def test_stats_nest_as_the_actions_do() -> None:
    tree = SequentialActions(
        [ParallelActions([Local("true"), quiet("false")], name="inner"), Local("true")], name="tree"
    ).run()
    stats = tree.stats()
    assert (stats.name, stats.num_processes, stats.num_ok) == ("tree", 3, 2)
    assert [part.name for part in stats.sub_stats] == ["inner", "true"]
    assert [part.name for part in stats.sub_stats[0].sub_stats] == ["true", "false"]
    assert stats.sub_stats[0].num_non_zero_exit_codes == 1
    assert stats.reasons == {"exit code": 1}


def test_hide_subactions_keeps_the_sum_only() -> None:
    inner = ParallelActions([Local("true"), Local("true")], hide_subactions=True)
    tree = ParallelActions([inner]).run()
    assert tree.stats().sub_stats[0].sub_stats == ()
    assert tree.stats().num_ok == 2
    tree.hide_subactions = True
    assert tree.stats().sub_stats == ()


def test_stats_while_it_runs() -> None:
    group = SequentialActions([sleeper(), Local("true")])
    stats = group.stats()
    assert (stats.num_processes, stats.num_started, stats.start_date) == (2, 0, None)
    group.start()
    stats = group.stats()
    assert (stats.num_started, stats.num_ended) == (1, 0)
    assert stats.start_date is not None
    assert stats.end_date is None
    ended(group.kill())
    assert stats.num_ended == 0  # frozen
    assert group.stats().end_date is not None


def test_the_report_of_a_tree() -> None:
    servers = ParallelActions([sleeper(), sleeper()], name="servers")
    with servers.start():
        clients = SequentialActions([Local("true", name="one"), quiet("false")], name="clients")
        clients.run()
    servers.wait(LONG)
    text = Report([servers, clients], name="experiment").to_string()
    for name in ("experiment", "servers", "clients", "one", "false"):
        assert name in text
    assert "exit code 1" in text
    brief = Report([servers, clients]).to_string(brief=True)
    assert "clients" not in brief
    stats = Report([servers, clients]).stats()
    assert (stats.num_processes, stats.num_ended, stats.num_finished_ok) == (4, 4, 3)


# -- looks ------------------------------------------------------------------------------------


def test_the_repr_is_one_line_that_tells_the_state() -> None:
    group = ParallelActions([sleeper(), quiet("false")], name="pair")
    assert repr(group) == "<ParallelActions 'pair': not started, 2 processes>"
    group.start().actions[1].wait(LONG)
    assert repr(group) == "<ParallelActions 'pair': running, 1 of 2 processes ended, 1 failed>"
    ended(group.kill())
    assert repr(group) == "<ParallelActions 'pair': ended, 2 processes, 1 failed>"


def test_the_default_name_tells_the_class() -> None:
    assert ParallelActions([]).name.startswith("ParallelActions 0x")


# -- lifecycle handlers -----------------------------------------------------------------------


class Recorder(ActionLifecycleHandler):
    def __init__(self, log: list[Any], name: str = "") -> None:
        self.log = log
        self.name = name

    def start(self, action: Action) -> None:
        self.log.append((f"{self.name}start", action.started))

    def end(self, action: Action) -> None:
        self.log.append((f"{self.name}end", action.finished_ok))

    def reset(self, action: Action) -> None:
        self.log.append((f"{self.name}reset", action.started))


def test_handlers_are_told_of_start_end_and_reset_in_order() -> None:
    log: list[Any] = []
    action = Local("true", lifecycle_handlers=[Recorder(log, "a "), Recorder(log, "b ")])
    action.run()
    assert log == [("a start", True), ("b start", True), ("a end", True), ("b end", True)]
    log.clear()
    action.reset()
    assert [name for name, _ in log] == ["a reset", "b reset"]
    log.clear()
    action.run()
    assert len(log) == 4


def test_in_the_end_handler_the_action_has_ended() -> None:
    # Often, and with threads that change places often: the handler may run as soon as it is asked.
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        log: list[Any] = []
        for _ in range(150):
            Local("true", lifecycle_handlers=[Recorder(log)]).run(LONG)
            ParallelActions([], lifecycle_handlers=[Recorder(log)]).run(LONG)
    finally:
        sys.setswitchinterval(before)
    assert log == [("start", True), ("end", True)] * 300


def test_an_empty_group_has_its_handlers_called_too() -> None:
    log: list[Any] = []
    SequentialActions([], lifecycle_handlers=[Recorder(log)]).run()
    assert log == [("start", True), ("end", True)]


def test_wait_returns_after_the_end_handlers_of_all() -> None:
    log: list[str] = []

    class SlowProcess(ProcessLifecycleHandler):
        def end(self, process: ProcessBase) -> None:
            time.sleep(0.1)
            log.append("process")

    class SlowAction(ActionLifecycleHandler):
        def end(self, action: Action) -> None:
            time.sleep(0.2)
            log.append(action.name)

    inner = Local("true", {"lifecycle_handlers": [SlowProcess()]}, [SlowAction()], "inner")
    group = ParallelActions([inner], lifecycle_handlers=[SlowAction()], name="outer").run()
    assert sorted(log) == ["inner", "outer", "process"]
    assert group.finished_ok


def test_a_handler_may_wait_for_its_own_action() -> None:
    log: list[str] = []

    class Waiter(ActionLifecycleHandler):
        def start(self, action: Action) -> None:
            action.wait(LONG)
            log.append(f"start {action.ended}")

        def end(self, action: Action) -> None:
            action.wait(LONG)
            wait_all_actions([action], LONG)
            wait_any_actions([action], LONG)
            log.append(f"end {action.ended}")

    group = SequentialActions(
        [Local("true", lifecycle_handlers=[Waiter()]), Local("true")],
        lifecycle_handlers=[Waiter()],
    )
    assert ended(group.start()).ok
    assert sorted(log) == ["end True"] * 2 + ["start True"] * 2


def test_a_process_handler_may_wait_for_the_action_and_for_another() -> None:
    log: list[bool] = []
    other = Local("sleep 0.1")

    class Waiter(ProcessLifecycleHandler):
        def end(self, process: ProcessBase) -> None:
            action.wait(LONG)
            log.append(other.run(LONG).ok)

    action = Local("true", {"lifecycle_handlers": [Waiter()]})
    action.run(LONG)
    assert log == [True]


def test_more_waiting_handlers_than_threads() -> None:
    log: list[bool] = []

    class RunsAnother(ProcessLifecycleHandler):
        def end(self, process: ProcessBase) -> None:
            log.append(Local("true", lifecycle_handlers=[Recorder([])]).run(LONG).ok)

    group = Many([Process("true", lifecycle_handlers=[RunsAnother()]) for _ in range(20)])
    assert ended(group.start()).ok
    assert log == [True] * 20


def test_a_slow_handler_freezes_no_other_action() -> None:
    entered, go_on = threading.Event(), threading.Event()

    class Slow(ActionLifecycleHandler):
        def end(self, action: Action) -> None:
            entered.set()
            go_on.wait(LONG)

    slow = [Local("true", lifecycle_handlers=[Slow()]).start() for _ in range(6)]
    try:
        assert entered.wait(LONG)
        log: list[Any] = []
        other = Local("true", lifecycle_handlers=[Recorder(log)])
        assert other.run(LONG).finished_ok
        assert len(log) == 2
        assert not go_on.is_set()
        slow[0].wait(0.05)
        assert slow[0].ended  # the action has, its handlers have not
    finally:
        go_on.set()
    assert wait_all_actions(slow, LONG) == slow


def test_a_handler_that_raises_is_logged_and_changes_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log: list[Any] = []

    class Broken(ActionLifecycleHandler):
        def start(self, action: Action) -> None:
            raise ZeroDivisionError

        def end(self, action: Action) -> None:
            sys.exit(1)

    action = Local("true", lifecycle_handlers=[Broken(), Recorder(log)])
    assert action.run(LONG).finished_ok
    assert log == [("start", True), ("end", True)]
    assert len([r for r in caplog.records if "Broken" in r.getMessage()]) == 2


def test_what_is_given_up_has_no_handlers_called() -> None:
    log: list[Any] = []
    group = SequentialActions([sleeper(), Local("true", lifecycle_handlers=[Recorder(log)])])
    ended(group.start().kill())
    assert log == []


def test_an_end_handler_may_start_the_next_action() -> None:
    after = Local("echo after")

    class Next(ActionLifecycleHandler):
        def end(self, action: Action) -> None:
            after.start()

    Local("true", lifecycle_handlers=[Next()]).run(LONG)
    assert ended(after).finished_ok


def test_an_end_handler_may_kill_the_rest() -> None:
    rest = ParallelActions([sleeper(), sleeper()]).start()

    class Stop(ActionLifecycleHandler):
        def end(self, action: Action) -> None:
            rest.kill().wait(LONG)

    Local("true", lifecycle_handlers=[Stop()]).run(LONG)
    assert rest.ended


def test_a_handler_may_reset_and_run_its_action_again() -> None:
    runs: list[int] = []
    done = threading.Event()

    class Retry(ActionLifecycleHandler):
        def end(self, action: Action) -> None:
            runs.append(1)
            if len(runs) < 3:
                action.reset().start()
            else:
                done.set()

    action = quiet("false")
    action.lifecycle_handlers.append(Retry())
    action.start()
    assert done.wait(LONG)
    assert ended(action).failed
    assert len(runs) == 3


def test_a_handler_may_reset_its_process_while_others_are_being_started() -> None:
    was_reset, watched = threading.Event(), threading.Event()

    class Again(ProcessLifecycleHandler):
        def end(self, process: ProcessBase) -> None:
            if not was_reset.is_set():
                process.reset()
                was_reset.set()
                assert watched.wait(LONG)
                process.start()

    class Late(Process):
        transport = "late"

    class LateTransport(LocalTransport):
        def open_all(self, pairs: Any) -> list[Any]:
            assert was_reset.wait(LONG)
            return super().open_all(pairs)

    runtime = get_runtime()
    runtime.transports["late"] = LateTransport(runtime)
    first = Process("true", lifecycle_handlers=[Again()])
    action = Many([first, Late("true")]).start()
    runtime.loop.run_sync(int)  # the action has heard of what was started
    watched.set()
    assert action.wait(LONG).ended
    assert first.wait(LONG).exit_code == 0
    runtime.transports.pop("late").close()


# -- logging ----------------------------------------------------------------------------------


def test_failures_beyond_the_limit_are_one_summary(caplog: pytest.LogCaptureFixture) -> None:
    limit = configuration["max_failure_logs"]
    failing = [Local("false") for _ in range(15)] + [Local("/no/such/program") for _ in range(5)]
    group = ParallelActions([ParallelActions(failing), Local("true")], name="whole")
    with caplog.at_level(logging.WARNING, "execo"):
        group.run(LONG)
    messages = [r.getMessage() for r in caplog.records]
    summaries = [m for m in messages if "20 of 21 processes" in m]
    assert len(summaries) == 1
    assert "15 exit code" in summaries[0]
    assert "5 spawn" in summaries[0]
    assert "'whole'" in summaries[0]
    assert len(messages) == limit + 1


def test_failures_within_the_limit_are_logged_one_by_one(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "execo"):
        ParallelActions([shell(f"echo out{n}; exit {n}") for n in (1, 2, 3)]).run(LONG)
    messages = [r.getMessage() for r in caplog.records]
    assert len(messages) == 3
    assert all(any(f"out{n}" in m for m in messages) for n in (1, 2, 3))


def test_success_kill_and_cancel_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "execo"):
        Local("true").run()
        ended(SequentialActions([sleeper(), Local("true")]).start().kill())
    assert caplog.records == []


def test_a_process_run_again_on_its_own_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    action = ParallelActions([Local("false") for _ in range(12)]).run(LONG)
    caplog.clear()
    with caplog.at_level(logging.WARNING, "execo"):
        action.processes[0].reset().run()
    assert len(caplog.records) == 1


# -- many, and interrupted --------------------------------------------------------------------

INTERRUPTED_START = """
import _thread, os, signal, sys, threading
from execo import Action, Local, ParallelActions, Process, ProcessLifecycleHandler, configuration

how, shape, seconds = sys.argv[1:]
configuration["kill_timeout"] = 5

class Interrupt(ProcessLifecycleHandler):
    def start(self, process):
        if how == "thread":
            _thread.interrupt_main()
        else:
            os.kill(os.getpid(), signal.SIGINT)

class Many(Action):
    processes = None

processes = [Process(f"sleep {seconds}", lifecycle_handlers=[Interrupt()] if n == 40 else None)
             for n in range(300)]
if shape == "flat":
    action = Many()
    action.processes = processes
else:
    locals_ = [Local("sleep 1000") for _ in processes]
    for one, process in zip(locals_, processes):
        one.process = process
    action = ParallelActions(locals_)
try:
    action.start()
    threading.Event().wait(5)
except KeyboardInterrupt:
    print("interrupted")
action.kill().wait(10)
print("ended" if action.ended else sum(not p.ended for p in processes))
print(Process("echo healthy").run(10).stdout, end="")
"""


@pytest.mark.parametrize("how", ["thread", "signal"])
@pytest.mark.parametrize("shape", ["flat", "nested"])
def test_ctrl_c_while_300_processes_start(
    tmp_path: Path, seconds: str, how: str, shape: str
) -> None:
    result = run_script(tmp_path, INTERRUPTED_START, how, shape, seconds)
    assert result.stdout.splitlines()[:3] == ["interrupted", "ended", "healthy"], result
    assert "Traceback" not in result.stderr
    # The process whose start was interrupted must not run on, known to nobody.
    assert sleeping(seconds) == []


FEW_DESCRIPTORS = """
import resource, sys
hard = sys.argv[1] == "hard"
limits = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256 if hard else limits[1]))
from execo import Local, ParallelActions, Process

group = ParallelActions([Local("sleep 0.35" if hard else "sh -c 'sleep 0.2; ulimit -n'")
                         for _ in range(1000)])
group.start().wait(50)
print(group.ended, group.ok, {p.message for p in group.processes})
print({p.stdout for p in group.processes}, group.stats().num_waited > 0)
"""


@pytest.mark.slow
def test_1000_processes_with_256_descriptors(tmp_path: Path) -> None:
    result = run_script(tmp_path, FEW_DESCRIPTORS, "hard")
    assert result.stdout == "True True {''}\n{''} True\n", result
    assert result.stderr.count("processes wait for free descriptors") == 1
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.slow
def test_1000_processes_with_a_soft_limit_of_256_descriptors(tmp_path: Path) -> None:
    result = run_script(tmp_path, FEW_DESCRIPTORS, "soft")
    assert result.stdout == "True True {''}\n{'256\\n'} False\n", result
    assert result.stderr == ""


def test_a_wrong_number_of_failure_logs_is_an_error_of_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(configuration, "max_failure_logs", "nonsense")
    action = ParallelActions([Local("false"), Local("false")])
    with pytest.raises(ValueError, match="nonsense"):
        action.start()
    assert not action.started
    monkeypatch.undo()
    assert action.run(LONG).ended


def test_a_number_of_failure_logs_that_is_set_while_it_runs_is_for_the_next_run(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    action = ParallelActions([shell("sleep 0.2; exit 1") for _ in range(3)]).start()
    monkeypatch.setitem(configuration, "max_failure_logs", "nonsense")
    assert action.wait(LONG).ended
    assert len(caplog.records) == 3
