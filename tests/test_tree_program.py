"""The program of a gateway, with an ssh that does what the tests say, and not what it should."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from execo.transports.tree_frames import frame
from gateways import Gateways, Program
from remote_commands import until
from sshd import RealSshd

pytest_plugins = ["gateways", "remote_commands", "sshd"]

SSH = """\
import array, os, signal, socket, struct, sys, time

path, what = sys.argv[4], sys.argv[-1]
server = socket.socket(socket.AF_UNIX)
server.bind(path)
server.listen(1)
print("ready", flush=True)
kept = []
while what != "frozen":
    peer = server.accept()[0]
    kept.append(peer)

    def packet():
        size = struct.unpack(">I", peer.recv(4, socket.MSG_WAITALL))[0]
        return struct.unpack(">I", peer.recv(size, socket.MSG_WAITALL)[:4])[0]

    def say(kind, text=b""):
        body = struct.pack(">II", kind, 1) + struct.pack(">I", len(text)) + text
        peer.sendall(struct.pack(">I", len(body)) + body)

    packet()
    packet()
    pipes = []
    for _ in range(3):
        rights = peer.recvmsg(1, socket.CMSG_SPACE(4))[1][0][2]
        pipes.append(array.array("i", rights)[0])
    if what == "refuses":
        for pipe in pipes:
            os.close(pipe)
        time.sleep(0.3)
        say(0x80000003, b"no more of them")
    else:
        kept.append(pipes)
        say(0x80000006)
time.sleep(1000)
"""


@pytest.fixture
def ssh(tmp_path: Path) -> Callable[[str], tuple[str, str]]:
    """The words of an ssh of ours."""
    program = tmp_path / "program.py"
    program.write_text(SSH)
    path = tmp_path / "ssh"
    # By a shell: a first line of #! takes no path with a blank.
    path.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {program} "$0" "$@"\n')
    path.chmod(0o755)
    return lambda what: (str(path), what)


@pytest.fixture
def one() -> Iterator[Program]:
    made = Program(sys.executable)
    made.until(lambda frames: frames)  # it has begun
    yield made
    if made.process.poll() is None:
        made.end()


def share(one: Program, words: tuple[str, str]) -> None:
    """A connection, number 1, that others may share."""
    one.run(1, *words, shared=True)
    one.until(lambda frames: one.out(1) == b"ready\n")


def descriptors(one: Program) -> int:
    return len(os.listdir(f"/proc/{one.process.pid}/fd"))


def children(one: Program) -> list[int]:
    pid = one.process.pid
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_a_refused_command_has_no_end_of_output(
    one: Program, ssh: Callable[[str], tuple[str, str]]
) -> None:
    # It is tried again, and what it says then would be taken for more after the end.
    share(one, ssh("refuses"))
    one.send(frame("open", b"true", id=2, on=1, room=1000))
    one.until(lambda frames: "no" in one.ops(2))
    one.send(frame("ping"))
    one.until(lambda frames: frames[-1].op == "pong")
    assert "end" not in one.ops(2)


def test_a_frozen_ssh_holds_up_nobody_else(
    one: Program, ssh: Callable[[str], tuple[str, str]]
) -> None:
    share(one, ssh("frozen"))
    for number in range(2, 12):
        one.send(frame("open", b"true", id=number, on=1, room=1000))
    one.send(frame("ping"))
    one.until(lambda frames: "pong" in [said.op for said in frames])
    assert "no" not in [said.op for said in one.frames]
    # Nor is anything kept of what is not wanted any more.
    before = descriptors(one)
    for number in range(2, 12):
        one.send(frame("drop", id=number))
    one.until(lambda frames: all(one.ops(n).count("end") == 2 for n in range(2, 12)))
    assert descriptors(one) < before - 50


def test_what_an_ssh_leaves_is_given_back(
    one: Program, ssh: Callable[[str], tuple[str, str]]
) -> None:
    before = descriptors(one)
    share(one, ssh("dies"))
    for number in range(2, 12):
        one.send(frame("open", b"true", id=number, on=1, room=1000))
    one.until(lambda frames: all("up" in one.ops(n) for n in range(2, 12)))
    assert descriptors(one) >= before + 40
    (child,) = children(one)
    os.kill(child, signal.SIGKILL)
    one.until_exit(1)
    until(lambda: descriptors(one) == before, 10)


def test_orders_are_heard_while_the_way_back_is_slow(one: Program, tmp_path: Path) -> None:
    for number in range(1, 3):
        one.run(number, "head", "-c", "30000000", "/dev/zero", room=1 << 30)
        one.send(frame("ping"))
    # Nobody reads what they print.
    mark = tmp_path / "mark"
    for number in range(3, 30):
        one.run(number, "touch", f"{mark}-{number}")
        until(lambda: len(list(tmp_path.glob("mark-*"))) == number - 2)  # noqa: B023
    for number in (1, 2):
        one.until(lambda frames: all(one.ops(n).count("end") == 2 for n in (1, 2)))
        assert sum(len(said.payload) for said in one.frames if said.id == number) == 30_000_000


def test_one_that_waits_may_be_dropped(one: Program) -> None:
    for number in (1, 2, 3):
        one.run(number, "sleep", "1000")
    one.send(frame("drop", id=3))
    one.until(lambda frames: len(one.ops(3)) == 3)
    assert one.ops(3) == ["exit", "end", "end"]


def test_silent_commands_do_not_keep_others_from_beginning(one: Program) -> None:
    for number in (1, 2, 3, 4, 5):
        one.run(number, "sleep", "1000")
    one.until(lambda frames: [said.op for said in frames].count("up") == 5)


def test_it_waits_for_the_end_of_what_does_not_end_at_rest(one: Program) -> None:
    text = "import signal, time; signal.signal(15, signal.SIG_IGN); print(1, flush=True)"
    one.run(1, sys.executable, "-c", f"{text}; time.sleep(1000)")
    one.until(lambda frames: one.out(1) == b"1\n")
    assert one.process.stdin is not None
    one.process.stdin.close()
    _, status, used = os.wait4(one.process.pid, 0)
    one.process.returncode = os.waitstatus_to_exitcode(status)
    assert one.process.stdout is not None
    one.process.stdout.close()
    # Seconds of computing, of the four that it waits.
    assert used.ru_utime + used.ru_stime < 1.5


def test_what_a_host_refuses_at_first_loses_no_output(stock_sshd: RealSshd) -> None:
    from execo import TreeRemote

    gateways = Gateways(stock_sshd)
    action = TreeRemote(
        "cat; echo out; echo err >&2", gateways.hosts(1) * 25, gateways.params(hosts=1)
    ).start()
    until(lambda: sum(process.running for process in action.processes) == 25)
    action.write("in\n")
    action.close_stdin()
    assert action.wait(60).ok
    assert {(one.stdout, one.stderr) for one in action.processes} == {("in\nout\n", "err\n")}
