"""The end of commands that run as root on a host: kill(), timeouts, and all ways that a script can
end."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import execo
import rounds
from become_users import PASSWORD, People
from execo import SshProcess, transports
from execo.errors import Reason
from sshd import RealSshd

pytest_plugins = ["become_users", "sshd"]

PATIENCE = 60.0

ROUNDS = rounds.ROUNDS * 3
"""How often a script is ended in each way, and a command killed."""


@pytest.fixture(autouse=True)
def nothing_is_kept() -> Iterator[None]:
    yield
    transports.close_idle()


@pytest.fixture(params=["paramiko", "openssh"])
def transport(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def is_there(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"


def wait_until(condition: Callable[[], object]) -> None:
    nap = threading.Event()
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        nap.wait(0.02)


def wait_until_gone(pids: list[int]) -> None:
    wait_until(lambda: not any(map(is_there, pids)))


def pids_of(process: SshProcess, count: int) -> list[int]:
    wait_until(lambda: process.stdout.count("\n") >= count or process.ended)
    return [int(word) for word in process.stdout.split() if word.isdigit()]


# Itself, a child, and one in a session of its own.
FAMILY = "sleep 1000 & echo $!; setsid sh -c 'echo $$; exec sleep 1000' & echo $$; wait"


@pytest.mark.parametrize(
    ("who", "method", "pty"),
    [
        ("free", "sudo", False),
        ("asks", "sudo", True),
        ("none", "su", False),
        ("free", "doas", False),
        ("asks", "doas", True),
    ],
)
def test_a_kill_ends_all_of_it(
    sshd: RealSshd, people: People, transport: str, who: str, method: str, pty: bool
) -> None:
    params = {
        "transport": transport,
        "become_password": PASSWORD,
        "become_method": method,
        "host_key_policy": "off",
    }
    user = people.other if method == "su" else "root"
    process = SshProcess(FAMILY, people.host(sshd, who), params, become=user, pty=pty).start()
    pids = pids_of(process, 3)
    assert all(map(is_there, pids))
    process.kill()
    process.wait(PATIENCE)
    assert process.killed
    assert process.ok
    # su and doas tell of a signal as a shell does.
    assert process.exit_code in (-signal.SIGTERM, 128 + signal.SIGTERM)
    wait_until_gone(pids)


def test_a_timeout_ends_it_and_what_ignores_the_first_signal(
    sshd: RealSshd, people: People, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(execo.configuration, "kill_timeout", 0.5)
    process = SshProcess(
        "trap '' TERM; echo $$; while :; do sleep 1; done",
        people.host(sshd, "free"),
        {"transport": transport},
        become="root",
        timeout=1,
        nolog_timeout=True,
    ).run(PATIENCE)
    assert process.timeouted
    assert process.forced_kill
    assert process.reason is Reason.TIMEOUT
    pid = int(process.stdout.split()[0])
    wait_until_gone([pid])


def test_what_survives_an_ended_command_is_killed_later(
    sshd: RealSshd, people: People, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(execo.configuration, "kill_timeout", 0.5)
    command = "sh -c 'trap \"\" TERM; echo $$; while :; do sleep 1; done' & wait"
    process = SshProcess(command, people.host(sshd, "free"), become="root").start()
    (pid,) = pids_of(process, 1)
    process.kill().wait(PATIENCE)
    wait_until_gone([pid])


def test_signals_that_are_no_end_arrive(sshd: RealSshd, people: People, transport: str) -> None:
    command = "trap 'echo heard' USR1; echo $$; while :; do sleep 0.1; done"
    host = people.host(sshd, "free")
    process = SshProcess(command, host, {"transport": transport}, become="root").start()
    pids_of(process, 1)
    process.kill(signal.SIGUSR1)
    wait_until(lambda: "heard" in process.stdout)
    process.kill(signal.SIGKILL).wait(PATIENCE)
    assert process.exit_code in (-signal.SIGKILL, 128 + signal.SIGKILL)


def test_a_signal_for_the_command_alone(sshd: RealSshd, people: People) -> None:
    process = SshProcess(
        "sleep 1000 & echo $!; echo $$; trap 'exit 5' TERM; wait",
        people.host(sshd, "free"),
        become="root",
        kill_subprocesses=False,
        nolog_exit_code=True,
    ).start()
    child, _ = pids_of(process, 2)
    process.kill().wait(PATIENCE)
    assert process.exit_code == 5
    assert is_there(child)
    os.kill(child, signal.SIGKILL)


def test_a_kill_right_after_the_start(sshd: RealSshd, people: People, transport: str) -> None:
    host = people.host(sshd, "free")
    for _ in range(ROUNDS):
        process = SshProcess(
            "echo $$; exec sleep 1000", host, {"transport": transport}, become="root"
        ).start()
        process.kill()
        assert process.wait(PATIENCE).ended
        wait_until_gone([int(pid) for pid in process.stdout.split()])


def test_a_kill_at_once_when_it_has_started(sshd: RealSshd, people: People) -> None:
    """The shell is about to become the command: the signal finds it all the same."""
    host = people.host(sshd, "free")
    for _ in range(ROUNDS * 3):
        process = SshProcess("exec sleep 1000", host, become="root")
        process.start()
        process.started_event.wait(PATIENCE)
        began = time.monotonic()
        process.kill().wait(PATIENCE)
        assert process.exit_code == -signal.SIGTERM
        assert not process.forced_kill
        assert time.monotonic() - began < PATIENCE


def test_a_kill_finds_what_is_becoming_another_program(
    sshd: RealSshd, people: People, transport: str
) -> None:
    """In an exec, a process has no environment for a moment, and so no mark."""
    again = 'exec /bin/sh -c "$0" "$0"'
    host = people.host(sshd, "free")
    for _ in range(ROUNDS * 3):
        process = SshProcess(
            f"echo there; exec /bin/sh -c '{again}' '{again}'",
            host,
            {"transport": transport},
            become="root",
        ).start()
        process.expect("there\n")
        process.kill().wait(PATIENCE)
        assert process.exit_code in (-signal.SIGTERM, 128 + signal.SIGTERM)
        assert not process.forced_kill


def test_a_server_that_is_left_behind_is_left_alone(
    sshd: RealSshd, people: People, transport: str
) -> None:
    command = (
        "nohup sleep 1000 >/dev/null 2>&1 & echo $!; setsid sleep 1000 >/dev/null 2>&1 & echo $!"
    )
    host = people.host(sshd, "free")
    process = SshProcess(command, host, {"transport": transport}, become="root").run(PATIENCE)
    pids = [int(pid) for pid in process.stdout.split()]
    transports.close_idle()
    assert all(map(is_there, pids))
    for pid in pids:
        os.kill(pid, signal.SIGKILL)


def sessions_of(user: str) -> list[int]:
    """The processes of sshd that serve this user."""
    lines = subprocess.run(
        ["ps", "-eo", "pid=,args="], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    return [int(line.split()[0]) for line in lines if re.search(rf"sshd: {user}\b", line)]


def kill_sessions_of(user: str) -> None:
    for pid in sessions_of(user):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_a_lost_connection_ends_it(sshd: RealSshd, people: People) -> None:
    host = people.host(sshd, "free")
    process = SshProcess("echo $$; exec sleep 1000", host, become="root", nolog_error=True).start()
    (pid,) = pids_of(process, 1)
    kill_sessions_of(people.free)
    process.wait(PATIENCE)
    assert process.reason is Reason.CONNECT
    wait_until_gone([pid])


# -- the end of the script ----------------------------------------------------------------------

SCRIPT = """
import os, signal, sys, execo
from execo import Host, SshProcess
address, user, keyfile, port, transport, number, detach = sys.argv[1:]
execo.configuration["kill_childs_at_end"] = detach != "all"
command, options = "echo $$; exec sleep 1000", {"become": "root"}
if detach not in ("", "all"):
    command = "echo $$; while :; do sleep 0.1; echo out; echo err >&2; done"
    options = {"become": "root"} if detach == "become" else {"secret_env": {"TOKEN": "t"}}
    options["detach"] = True
host = Host(address, user, keyfile, int(port))
many = [
    SshProcess(command, host, {"transport": transport}, nolog_error=True, **options).start()
    for _ in range(int(number))
]
for process in many:
    process.expect("[0-9]+\\n")
    print(process.stdout.split()[0], flush=True)
print("there", flush=True)
how = sys.stdin.readline().strip()
if how == "end":
    sys.exit()
if how == "kill":
    os.kill(os.getpid(), signal.SIGKILL)
signal.pause()
"""


def run_script(host: Any, transport: str, how: str, count: int, detach: str = "") -> list[int]:
    """Run it, end it, and give back the pids of its commands on the host."""
    words = [host.address, host.user, str(host.keyfile), str(host.port), transport, str(count)]
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *words, detach],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=Path(execo.__file__).parent.parent,
    ) as script:
        assert script.stdin is not None
        assert script.stdout is not None
        pids = []
        for line in script.stdout:
            if line.strip() == "there":
                break
            pids.append(int(line))
        assert len(pids) == count
        assert all(map(is_there, pids))
        if how == "interrupt":
            script.send_signal(signal.SIGINT)
        else:
            script.stdin.write(how + "\n")
            script.stdin.flush()
        script.wait(PATIENCE)
    return pids


@pytest.mark.parametrize("how", ["end", "kill", "interrupt"])
def test_the_end_of_the_script_ends_it(
    sshd: RealSshd, people: People, transport: str, how: str
) -> None:
    host = people.host(sshd, "free")
    for _ in range(ROUNDS):
        pids = run_script(host, transport, how, count=2)
        wait_until_gone(pids)


def test_what_is_detached_outlives_the_script(
    sshd: RealSshd, people: People, transport: str
) -> None:
    host = people.host(sshd, "free")
    for how in ("end", "kill"):
        pids = run_script(host, transport, how, count=1, detach="all")
        stay(pids)


def stay(pids: list[int]) -> None:
    threading.Event().wait(2.0)  # the guard would take a second
    there = [is_there(pid) for pid in pids]
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert all(there)


@pytest.mark.parametrize("what", ["become", "secret_env"])
@pytest.mark.parametrize("how", ["end", "kill", "interrupt"])
def test_what_is_detached_and_prints_outlives_the_script(
    sshd: RealSshd, people: People, transport: str, what: str, how: str
) -> None:
    stay(run_script(people.host(sshd, "free"), transport, how, count=2, detach=what))


@pytest.mark.parametrize("what", [{"become": "root"}, {"secret_env": {"TOKEN": "t"}}])
def test_what_is_detached_is_a_process_like_others(
    sshd: RealSshd, people: People, transport: str, what: dict[str, Any]
) -> None:
    command = 'echo out; echo "in: $(cat)"; echo err >&2; exit 3'
    params, host = {"transport": transport}, people.host(sshd, "free")
    quiet: Any = {"nolog_exit_code": True, "detach": True, **what}
    process = SshProcess(command, host, params, **quiet).run(PATIENCE)
    assert (process.stdout, process.stderr) == ("out\nin: \n", "err\n")
    assert process.exit_code == 3
    endless = SshProcess("echo $$; sleep 1000; true", host, params, **quiet).start()
    pids = pids_of(endless, 1)
    endless.kill().wait(PATIENCE)
    assert endless.killed
    wait_until_gone(pids)


UNANSWERED = """
import sys, threading, execo
from execo import Host, SshProcess
address, user, keyfile, port, transport = sys.argv[1:]
asked = threading.Event()
params = {
    "transport": transport,
    "host_key_policy": "off",
    "become_password": lambda host, user: asked.set() or threading.Event().wait(),
}
host = Host(address, user, keyfile, int(port))
SshProcess("sleep 1000", host, params, become="root", detach=True, nolog_error=True).start()
asked.wait(60)
"""


def test_what_is_detached_and_has_not_begun_ends_with_the_script(
    sshd: RealSshd, people: People, transport: str
) -> None:
    host = people.host(sshd, "asks")
    words = [str(one) for one in (host.address, host.user, host.keyfile, host.port, transport)]
    subprocess.run(
        [sys.executable, "-c", UNANSWERED, *words],
        cwd=Path(execo.__file__).parent.parent,
        timeout=PATIENCE,
        check=True,
    )
    wait_until(lambda: not sessions_of(people.asks))


def test_a_lost_connection_leaves_what_is_detached(sshd: RealSshd, people: People) -> None:
    command = "echo $$; while :; do sleep 0.1; echo out; done"
    host = people.host(sshd, "free")
    process = SshProcess(command, host, become="root", detach=True, nolog_error=True).start()
    pids = pids_of(process, 1)[:1]
    kill_sessions_of(people.free)
    process.wait(PATIENCE)
    assert process.reason is Reason.CONNECT
    stay(pids)
