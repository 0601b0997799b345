"""What survives a script, and what ends with it: the rounds of the test and of the long run.

A *round* is one command and what becomes of it. Each script of a kind runs a number of them at
once, in an interpreter of its own, and is ended in one of the WAYS:

- ``left``: ``nohup sleep`` in the background of a command that has ended: a server. It lives on.
- ``detached``: a command with ``detach=True``, which prints after the end of the script. It lives.
- ``running``: all else. It ends.

*Who*: ``root``; ``user``, where script and commands belong to an ordinary user; ``sudo``, where the
user starts the script by ``sudo``, and what it runs is ``sudo sleep``.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from execo import Host
from sshd import RealSshd

__all__ = [
    "KINDS",
    "TRANSPORTS",
    "WAYS",
    "WHO",
    "Outcome",
    "World",
    "rounds",
    "session_processes",
    "ways_of",
    "world",
]

KINDS = ("left", "detached", "running")
TRANSPORTS = ("local", "paramiko", "openssh")
WHO = ("root", "user", "sudo")
WAYS = ("normal exit", "Ctrl-C", "kill -9", "connection killed", "idle retirement")
"""``idle retirement`` closes the connections that nobody uses, and leaves the script running."""

PATIENCE = 60.0
"""Seconds: a hang, not a speed."""

HARM = 1.5
"""Seconds that whoever ends processes has to end those that it should not."""

ROOT = Path(__file__).resolve().parent.parent

# Hosts of commands that are left run nothing else: their command is the first of its connection,
# the one without a mark, and has just ended when the script is killed.
SCRIPT = r"""
import os, signal, sys, time
transport, way, base, count, sudo, gate, user, keyfile, port = sys.argv[1:]
count = int(count)
import execo
from execo import Host, Process, SshProcess

def make(kind, command, **options):
    made = []
    for index in range(count):
        text = command.format(sudo=sudo, gate=gate, word=f"{base}{kind}{index:04d}")
        options["nolog_error"] = way == "connection killed"
        if transport == "local":
            made.append(Process(text, shell=True, **options))
        else:
            # Many of openssh's commands share a host, since each host costs it another ssh.
            # The second command of a connection bears a mark, the first does not.
            place = index // 5 if transport == "openssh" else index // 2
            host = Host(f"127.0.{kind}.{1 + place}", user, keyfile, int(port))
            made.append(SshProcess(text, host, {"transport": transport}, **options))
    return [process.start() for process in made]

def wait_ready(processes):
    for process in processes:
        if process.expect("ready", timeout=60)[0] is None:
            sys.exit(f"not ready: {process.dump()}")

running = make(3, "echo ready; {sudo}sleep {word}; :")
detached = make(
    2,
    "echo ready; : <{gate}; echo x; echo x >&2; sleep 0.2; echo x; exec {sudo}sleep {word}",
    detach=True,
)
wait_ready(running + detached)
left = make(1, "nohup {sudo}sleep {word} >/dev/null 2>&1 &")
for process in left:
    if not process.wait(60).finished_ok:
        sys.exit(f"cannot leave anything: {process.dump()}")
if way == "idle retirement":
    execo.transports.close_idle()
if way == "kill -9":
    os.kill(os.getpid(), signal.SIGKILL)
if way != "normal exit":
    print("ready", os.getpid(), flush=True)
    while True:
        time.sleep(100)
"""


@dataclass
class Outcome:
    """How many rounds of each kind went as they should, and what the script wrote to stderr."""

    good: dict[str, int]
    errors: str


@dataclass
class World:
    """A server, its users, and how scripts are run as one of them."""

    sshd: RealSshd
    folder: Path
    ordinary: str
    privileged: str

    def host(self, who: str) -> Host:
        return self.sshd.hosts(1, user=self.ordinary if who == "user" else self.privileged)[0]

    def start(self, who: str, arguments: Iterable[str]) -> subprocess.Popen[str]:
        environment = {"PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"], "HOME": "/"}
        set_here = [f"{name}={value}" for name, value in environment.items()]
        argv = ["env", *set_here, sys.executable, "-c", SCRIPT, *arguments]
        if who == "sudo":
            argv = ["sudo", "-n", *argv]
        if who != "root":
            # An ordinary user, who may read the files of others: Python itself, and this package,
            # may be where only root comes by. That gives no right over processes.
            user = pwd.getpwnam(self.ordinary)
            identity = [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
            rights = ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
            argv = ["setpriv", *identity, *rights, *argv]
        return subprocess.Popen(
            argv,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


@contextlib.contextmanager
def world(sshd: RealSshd) -> Iterator[World]:
    """What the rounds need beside ``sshd``. As root only."""
    ordinary, privileged = sshd.user(), sshd.user(root=True)
    with may_sudo(ordinary):
        yield World(sshd, sshd.folder, ordinary, privileged)


@contextlib.contextmanager
def may_sudo(user: str) -> Iterator[None]:
    """``user`` may run all by sudo, without a password, for that long."""
    rule = Path("/etc/sudoers.d") / user
    # What has to be gone at the end is removed by somebody else, if this process is killed.
    keeper = subprocess.Popen(
        ["/bin/sh", "-c", 'read -r word; rm -f "$1"', "sh", str(rule)],
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        descriptor = os.open(rule, os.O_WRONLY | os.O_CREAT, 0o440)
        with open(descriptor, "w") as file:
            file.write(f"{user} ALL=(ALL:ALL) NOPASSWD: ALL\n")
        yield
    finally:
        keeper.communicate()


def ways_of(transport: str) -> tuple[str, ...]:
    """The ways that mean something for a transport."""
    return WAYS[:3] if transport == "local" else WAYS


def rounds(world: World, who: str, transport: str, way: str, count: int) -> Outcome:
    """``count`` rounds of each kind, by one script."""
    base = f"1000.{time.monotonic_ns()}"
    words = {
        kind: {f"{base}{1 + at}{i:04d}" for i in range(count)} for at, kind in enumerate(KINDS)
    }
    gate = world.folder / f"gate-{base}"
    os.mkfifo(gate)
    gate.chmod(0o644)
    host = world.host(who)
    sudo = "sudo -n " if who == "sudo" else ""
    where = [str(one) for one in (gate, host.user, host.keyfile, host.port)]
    script = world.start(who, [transport, way, base, str(count), sudo, *where])
    opened: list[int] = []
    try:
        errors = _end(world, script, way)
        if way == "idle retirement":
            # Nobody is left but those who are in use.
            good = _stay({"left": words["left"]}, count)
        else:
            opened.append(os.open(gate, os.O_RDWR))
            running = words.pop("running")
            ended = count - len(_wait(lambda: _alive(running), 0))
            good = {**_stay(words, count), "running": ended}
        return Outcome(good, errors)
    finally:
        _clean_up(script, base)
        for descriptor in opened:
            os.close(descriptor)
        gate.unlink()


def _end(world: World, script: subprocess.Popen[str], way: str) -> str:
    """Have the script end in this way; gives what it wrote to stderr."""
    assert script.stdout is not None
    if way in ("Ctrl-C", "connection killed", "idle retirement"):
        line = script.stdout.readline().split()
        if line[:1] != ["ready"]:
            raise AssertionError(script.communicate(timeout=PATIENCE)[1])
        if way == "idle retirement":
            return ""
        if way == "connection killed":
            _kill(session_processes(world.sshd.pid))
            return ""
        os.kill(int(line[1]), signal.SIGINT)
    _, errors = script.communicate(timeout=PATIENCE)
    wanted = {"normal exit": (0,), "Ctrl-C": (-2, 130), "kill -9": (-9, 137)}[way]
    if script.returncode not in wanted:
        raise AssertionError(f"exited {script.returncode}: {errors}")
    return errors


def _stay(words: dict[str, set[str]], count: int) -> dict[str, int]:
    """How many of each kind live, and go on living."""
    for some in words.values():
        _wait(lambda some=some: _alive(some), count)  # type: ignore[misc]
    threading.Event().wait(HARM)
    return {kind: len(_alive(some)) for kind, some in words.items()}


def _wait(look: Callable[[], set[str]], wanted: int) -> set[str]:
    """What ``look`` finds as soon as it is so many, or in the end."""
    deadline = time.monotonic() + PATIENCE / 3
    nap = threading.Event()
    found = look()
    while len(found) != wanted and time.monotonic() < deadline:
        nap.wait(0.05)
        found = look()
    return found


def _processes() -> Iterator[tuple[int, list[str]]]:
    for proc in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            line = (proc / "cmdline").read_bytes().decode("utf-8", "replace")
            yield int(proc.name), line.split("\0")[:-1]


def _alive(words: set[str]) -> set[str]:
    """Those that run: ``sleep`` has its word."""
    return {argv[1] for _, argv in _processes() if len(argv) == 2 and argv[1] in words}


def session_processes(sshd: int) -> list[int]:
    """The processes of the server that serve connections."""
    children: dict[int, list[int]] = {}
    for proc in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            stat = (proc / "stat").read_text(errors="replace")
            if "(sshd" in stat:
                parent = int(stat.rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(proc.name))
    found = [sshd]
    for one in found:
        found.extend(children.get(one, ()))
    return found[1:]


def _kill(pids: Iterable[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _clean_up(script: subprocess.Popen[str], base: str) -> None:
    # By sudo, the script is a child of what was started.
    _kill(pid for pid, argv in _processes() if pid != os.getpid() and base in " ".join(argv))
    script.kill()
    script.communicate()
    _wait(lambda: {str(pid) for pid, argv in _processes() if base in " ".join(argv)}, 0)
