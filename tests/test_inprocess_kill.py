"""Killing commands over SSH connections of this process: all they started, and nothing else."""

from __future__ import annotations

import signal
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from execo import Host, ParallelActions, Remote, SequentialActions, configuration
from execo.errors import Reason
from remote_commands import QUIET, TIMEOUT, logins, on, run, running, until
from sshd import RealSshd

pytest_plugins = ["sshd", "remote_commands"]

FAMILIES = {
    "children": "sleep {} & sleep {}; true",
    "sessions": "setsid sleep {} & nohup setsid sleep {} >/dev/null 2>&1 & sleep {}; true",
    "pipeline": "sleep {} | sleep {} | cat; true",
    "timeout": "timeout 1000 sleep {} & timeout -k 5 1000 sh -c 'sleep {}; true'; true",
    "stopped": "sleep {} & sleep 0.3; kill -STOP $!; sleep {}; true",
    "other environment": "A=b nice env B=c sh -c 'sleep {}; true' & sleep {}; true",
}


@pytest.fixture(params=["first", "later"])
def fresh(request: pytest.FixtureRequest, host: Host) -> Host:
    """A host whose connection is to be made, and one that has run a command."""
    if request.param == "later":
        assert run(host, "true").ok
    return host


@pytest.mark.parametrize("kind", FAMILIES)
def test_kill_ends_all_that_was_started(fresh: Host, kind: str, word: str) -> None:
    process = on(fresh, FAMILIES[kind].replace("{}", word)).start()
    until(lambda: len(running(word)) >= FAMILIES[kind].count("{}"))
    process.kill().wait(TIMEOUT)
    assert (process.exit_code, process.killed, process.ok) == (-15, True, True)
    assert process.reason is Reason.SIGNAL
    until(lambda: not running(word))


def test_sigkill_does_too(fresh: Host, word: str) -> None:
    process = on(fresh, FAMILIES["sessions"].replace("{}", word)).start()
    until(lambda: len(running(word)) == 3)
    process.kill(signal.SIGKILL).wait(TIMEOUT)
    assert (process.exit_code, process.killed) == (-9, True)
    until(lambda: not running(word))


STUBBORN = "trap '' TERM; sleep {} & setsid sleep {} & echo ready; sleep {}; true"


def test_what_ignores_term_is_killed_hard(fresh: Host, word: str) -> None:
    process = on(fresh, STUBBORN.replace("{}", word)).start()
    until(lambda: process.stdout and len(running(word)) == 3)
    process.kill(auto_force_kill_timeout=None).wait(0.7)
    assert not process.ended
    assert len(running(word)) == 3
    process.kill(auto_force_kill_timeout=0.2).wait(TIMEOUT)
    assert (process.exit_code, process.killed, process.forced_kill) == (-9, True, True)
    until(lambda: not running(word))


def test_a_timeout_ends_all_that_was_started(fresh: Host, word: str) -> None:
    process = run(fresh, f"setsid sleep {word} & sleep {word}; true", timeout=0.5)
    assert (process.timeouted, process.killed, process.exit_code) == (True, True, -15)
    assert process.reason is Reason.TIMEOUT
    until(lambda: not running(word))


def test_a_timeout_ends_what_ignores_term(
    fresh: Host, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(configuration, "kill_timeout", 0.5)
    process = run(fresh, STUBBORN.replace("{}", word), timeout=0.5)
    assert (process.timeouted, process.forced_kill, process.exit_code) == (True, True, -9)
    until(lambda: not running(word))


def test_what_survives_its_leader_is_killed_after_the_kill_timeout(
    fresh: Host, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(configuration, "kill_timeout", 1)
    text = f"sh -c 'trap \"\" TERM; echo ready; sleep {word}; sleep {word}' & sleep 1000; true"
    process = on(fresh, text).start()
    until(lambda: process.stdout and running(word))
    process.kill().wait(TIMEOUT)
    assert (process.exit_code, process.killed) == (-15, True)
    until(lambda: not running(word))


def test_what_it_left_behind_before_the_kill_stays_when_it_had_ended(
    fresh: Host, word: str
) -> None:
    left = run(fresh, f"nohup sleep {word}1 >/dev/null 2>&1 & echo left")
    assert left.stdout == "left\n"
    left.kill()
    process = on(fresh, f"sleep {word} & sleep {word}; true").start()
    until(lambda: len(running(word)) == 2)
    process.kill().wait(TIMEOUT)
    until(lambda: not running(word))
    assert len(running(f"{word}1")) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGQUIT])
def test_any_signal_can_be_sent(host: Host, number: signal.Signals, word: str) -> None:
    process = on(host, f"ulimit -c 0; exec sleep {word}").start()
    until(lambda: running(word))
    process.kill(number).wait(TIMEOUT)
    assert (process.exit_code, process.killed) == (-number, True)


@pytest.mark.parametrize("number", [signal.SIGUSR1])
def test_a_signal_that_is_handled_is_the_commands_affair(
    fresh: Host, number: signal.Signals
) -> None:
    name = number.name.removeprefix("SIG")
    loop = "while :; do sleep 0.1; done"
    process = on(fresh, f"trap 'echo got; exit 7' {name}; echo ready; {loop}").start()
    until(lambda: process.stdout)
    process.kill(number).wait(TIMEOUT)
    assert (process.stdout, process.exit_code, process.killed) == ("ready\ngot\n", 7, False)


def test_stop_and_cont(plain: Host, word: str) -> None:
    process = on(
        plain, f"echo ready; while :; do sleep 0.05; echo $(( n = n + 1 )); done; : {word}"
    )
    process.start()
    until(lambda: process.stdout.count("\n") > 3)
    process.kill(signal.SIGSTOP)
    quiet = threading.Event()
    quiet.wait(1.0)
    before = process.stdout
    quiet.wait(0.7)
    assert process.stdout == before
    process.kill(signal.SIGCONT)
    until(lambda: len(process.stdout) > len(before))
    process.kill().wait(TIMEOUT)
    assert process.killed


def test_the_command_alone_can_be_meant(plain: Host, word: str) -> None:
    text = f"sleep {word}1 & exec sleep {word}"
    process = on(plain, text, kill_subprocesses=False).start()
    until(lambda: running(word) and running(f"{word}1"))
    process.kill().wait(TIMEOUT)
    assert process.killed
    until(lambda: not running(word))
    assert len(running(f"{word}1")) == 1


# -- the right one --------------------------------------------------------------------------------


@pytest.mark.parametrize("victim", [0, 2])
def test_others_on_the_connection_go_on(host: Host, sshd: RealSshd, victim: int, word: str) -> None:
    before = logins(sshd)
    processes = [on(host, f"setsid sleep {word}{n} & sleep {word}{n}; :").start() for n in "123"]
    until(lambda: all(len(running(f"{word}{n}")) == 2 for n in "123"))
    assert logins(sshd) == before + 1
    processes[victim].kill().wait(TIMEOUT)
    assert processes[victim].killed
    until(lambda: not running(f"{word}{victim + 1}"))
    for number, process in enumerate(processes):
        if number != victim:
            assert process.running
            assert len(running(f"{word}{number + 1}")) == 2
            process.kill().wait(TIMEOUT)
            assert process.killed
    until(lambda: not any(running(f"{word}{n}") for n in "123"))


def test_commands_on_another_connection_of_the_host_go_on(host: Host, word: str) -> None:
    params = {"connect_timeout": 17}
    processes = [on(host, f"sleep {word}1; :").start(), on(host, f"sleep {word}2; :", params)]
    processes[1].start()
    until(lambda: running(f"{word}1") and running(f"{word}2"))
    processes[0].kill().wait(TIMEOUT)
    until(lambda: not running(f"{word}1"))
    assert processes[1].running
    assert running(f"{word}2")
    processes[1].kill().wait(TIMEOUT)
    until(lambda: not running(f"{word}2"))


# -- before it runs -------------------------------------------------------------------------------


def test_kill_at_once_leaves_nothing(fresh: Host, word: str) -> None:
    for delay in (0.0, 0.01, 0.03, 0.1):
        process = on(fresh, f"setsid sleep {word} & sleep {word}; true").start()
        threading.Event().wait(delay)
        process.kill().wait(TIMEOUT)
        assert process.ended
        assert process.killed or process.reason is Reason.CANCELLED
    until(lambda: not running(word))
    assert run(fresh, "echo fine").stdout == "fine\n"


@pytest.fixture
def silent(plain: Host) -> Iterator[Host]:
    """A host that accepts connections and says nothing."""
    with socket.create_server((plain.address, 0)) as listening:
        yield Host(plain.address, plain.user, plain.keyfile, listening.getsockname()[1])


def test_kill_before_the_start_gives_it_up(silent: Host) -> None:
    process = on(silent, "echo never", {"connect_timeout": 5}).start()
    assert process.running
    process.kill().wait(TIMEOUT)
    assert process.ended
    assert process.reason is Reason.CANCELLED
    assert silent.address in repr(process)
    assert "given up" in process.message
    assert process.start_date is None
    assert process.stdout == ""


def test_kill_does_not_wait_for_a_silent_host(silent: Host) -> None:
    before = time.monotonic()
    remote = Remote("true", [silent] * 30, {"connect_timeout": 600}, QUIET).start()
    remote.kill().wait(TIMEOUT)
    assert time.monotonic() - before < TIMEOUT
    assert remote.ended
    assert {process.reason for process in remote.processes} == {Reason.CANCELLED}
    # The connections that nobody waits for any more are given up as well: the leak guard looks.


def test_a_timeout_counts_from_the_real_start(silent: Host) -> None:
    process = run(silent, "true", {"connect_timeout": 1}, timeout=0.1)
    assert (process.timeouted, process.reason) == (False, Reason.CONNECT)


def test_kill_of_an_action_gives_up_what_waits(sshd: RealSshd, silent: Host, word: str) -> None:
    hosts = sshd.hosts(2)
    action = SequentialActions(
        [
            ParallelActions(
                [
                    Remote(f"sleep {word}", hosts, process_args=QUIET),
                    Remote("true", [silent], {"connect_timeout": 5}, QUIET),
                ]
            ),
            Remote(f"sleep {word}", hosts),
        ]
    ).start()
    until(lambda: len(running(word)) == 2)
    action.kill().wait(TIMEOUT)
    assert action.ended
    until(lambda: not running(word))


# -- many -----------------------------------------------------------------------------------------


def test_kill_of_thirty_hosts(sshd: RealSshd, word: str) -> None:
    remote = Remote(f"setsid sleep {word} & sleep {word}; :", sshd.hosts(30), None, QUIET).start()
    until(lambda: len(running(word)) == 60)
    remote.kill().wait(TIMEOUT)
    assert remote.ended
    assert [process.exit_code for process in remote.processes] == [-15] * 30
    assert remote.ok
    until(lambda: not running(word))


def test_kill_of_thirty_commands_on_one_host(host: Host, word: str) -> None:
    remote = Remote(f"setsid sleep {word} & sleep {word}; :", [host] * 30, None, QUIET).start()
    until(lambda: len(running(word)) == 60)
    remote.kill().wait(TIMEOUT)
    assert [process.exit_code for process in remote.processes] == [-15] * 30
    until(lambda: not running(word))


@pytest.mark.parametrize("shell", ["/usr/bin/fish", "/bin/csh"])
def test_kill_under_any_login_shell(sshd: RealSshd, shell: str, word: str) -> None:
    host = sshd.hosts(1, user=sshd.user(shell))[0]
    processes = [on(host, f"sleep {word} & sleep {word}; true").start() for _ in range(3)]
    until(lambda: len(running(word)) == 6)
    for left, process in zip((4, 2, 0), processes, strict=True):
        process.kill().wait(TIMEOUT)
        assert process.killed
        until(lambda left=left: len(running(word)) == left)  # type: ignore[misc]
