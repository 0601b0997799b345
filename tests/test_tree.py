"""Commands through gateways: real servers on loopback, whose addresses are gateways and hosts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from contract import Place
from execo import Get, Host, Put, Reason, Remote, SshProcess, TreeRemote, transports
from execo._core.runtime import get_runtime
from execo.config import make_connection_params
from execo.connection import connection_to
from execo.transports import tree_link
from execo.transports.base import Exec, Target
from execo.transports.tree import TreeTransport
from execo.transports.tree_channel import TreeChannel
from execo.transports.tree_frames import VERSION
from execo.transports.tree_link import TreeLink
from gateways import Gateways, Program
from remote_commands import QUIET, running, until
from sshd import RealSshd

pytest_plugins = ["gateways", "remote_commands", "sshd"]

LONG = 60.0
"""Seconds that nothing here takes: a hang."""


def tree() -> TreeTransport:
    found = transports.get(get_runtime(), "tree")
    assert isinstance(found, TreeTransport)
    return found


def programs(gateways: Gateways, address: str) -> list[int]:
    """The programs on a gateway. Other servers have the same addresses, for other tests."""
    at = f" {address} {gateways.access()['port']}\0"
    found = []
    for proc in Path("/proc").glob("[0-9]*"):
        try:
            words = (proc / "cmdline").read_bytes()
            environment = (proc / "environ").read_bytes()
        except OSError:
            continue
        if words.startswith(b"python3\0-I") and at.encode() in environment + b"\0":
            found.append(int(proc.name))
    return found


# -- what a script sees -------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [1, 3])
def test_commands_on_hosts_behind_gateways(gateways: Gateways, levels: int) -> None:
    hosts = gateways.hosts(6)
    topology = gateways.topology(hosts[:5], levels, width=2)
    action = TreeRemote(
        "echo {{{host}}}; cat; echo e >&2; exit 3",
        [*hosts, Host(gateways.names(1)[0])],  # the last two are reached directly
        gateways.access(),
        process_args=QUIET,
        topology=topology,
    ).start()
    action.write("in\n")
    action.close_stdin()
    action.wait(LONG)
    assert [p.stdout for p in action.processes] == [f"{h.address}\nin\n" for h in action.hosts]
    assert {(p.stderr, p.exit_code) for p in action.processes} == {("e\n", 3)}
    numbers = tree().statistics()
    assert numbers["gateways"] == 2 * levels
    # The work is shared; what is there is used again.
    before = numbers["connections"]
    links = [one for one in tree()._links.values() if one.name in gateways.names(2, level=levels)]
    assert sorted(len(one.leaves) for one in links) == [2, 3]
    assert TreeRemote("true", hosts, gateways.access(), topology=topology).run(LONG).ok
    assert tree().statistics()["connections"] == before


def test_remote_and_ssh_process_take_a_file(gateways: Gateways, tmp_path: Path) -> None:
    (gateway,) = gateways.names(1)
    import socket

    here = socket.gethostname().partition(".")[0]
    path = tmp_path / "topology.conf"
    path.write_text(f"[routes]\n{here}: {gateway}\n{gateway}: 127.0.1.[1-9]\n")
    params = {**gateways.access(), "transport": "tree", "topology": str(path)}
    assert Remote("true", gateways.hosts(2), params).run(LONG).ok
    process = SshProcess("echo hi", gateways.hosts(1)[0], params).run(LONG)
    assert (process.stdout, process.transport) == ("hi\n", "tree")
    path.write_text(f"[routes]\n{here}: a\na: b\nb: c\nc: a\n")
    with pytest.raises(Exception, match=r"two parents|a loop"):
        TreeRemote("true", gateways.hosts(1), gateways.access(), topology=path)


def test_without_a_topology_it_is_an_error() -> None:
    with pytest.raises(ValueError, match="needs a topology"):
        TreeRemote("true", ["a"])
    process = SshProcess("true", "a", {"transport": "tree"}, **QUIET).run(LONG)
    assert process.reason is Reason.SPAWN
    assert "needs a topology" in (process.message or "")
    with pytest.raises(ValueError, match="'topology'"):
        SshProcess("true", "a", {"topology": 7})
    params = {"transport": "tree", "password": "x", "topology": NOWHERE}
    process = SshProcess("true", "leaf", params, **QUIET).run(LONG)
    assert "cannot use 'password'" in (process.message or "")


class Nowhere:
    def parents(self, host: str) -> list[str]:
        return ["gw"]


NOWHERE = Nowhere()


def test_files_there_and_back(gateways: Gateways, tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    (tmp_path / "data").write_bytes(data)
    hosts, params = gateways.hosts(3), gateways.params(2)
    put = Put(hosts, [str(tmp_path / "data")], "tree-{{{host}}}", connection_params=params)
    assert put.run(LONG).ok, put
    back = tmp_path / "back"
    get = Get(hosts, ["tree-{{{host}}}"], str(back) + "/{{{host}}}", connection_params=params)
    back.mkdir()
    assert get.run(LONG).ok, get
    assert {(back / host.address).read_bytes() for host in hosts} == {data}


def test_many_commands_on_a_host_that_takes_ten_at_a_time(stock_sshd: RealSshd) -> None:
    gateways = Gateways(stock_sshd)
    hosts = gateways.hosts(1) * 25
    action = TreeRemote("cat", hosts, gateways.params(hosts=1), process_args=QUIET).start()
    until(lambda: sum(process.running for process in action.processes) == 25)
    action.close_stdin()
    assert action.wait(LONG).ok, [p.message for p in action.failed]


def test_a_host_without_a_guard(gateways: Gateways) -> None:
    params = gateways.params(guard=False)
    process = SshProcess("echo hi; exit 4", gateways.hosts(1)[0], params, **QUIET).run(LONG)
    assert (process.stdout, process.exit_code) == ("hi\n", 4)
    sleeping = SshProcess("sleep 1000", gateways.hosts(1)[0], params, **QUIET).start()
    until(lambda: sleeping.pid is None and sleeping.start_date)
    sleeping.kill()
    assert sleeping.wait(LONG).exit_code == -signal.SIGTERM


# -- what cannot be reached ---------------------------------------------------------------------


def test_a_host_that_its_gateway_cannot_reach(gateways: Gateways) -> None:
    params = gateways.params(1, connect_timeout=5)
    (gateway,) = gateways.names(1)
    name = "no-such-host.invalid"
    params["topology"] = gateways.topology([name])
    process = SshProcess("true", name, params, **QUIET).run(LONG)
    assert process.reason is Reason.CONNECT
    assert f"tried from {gateway}" in (process.message or "")


def bad_gateway(words: tuple[str, ...]) -> Callable[[TreeLink, Target], Exec]:
    request = TreeLink.request

    def made(link: TreeLink, target: Target) -> Exec:
        good = request(link, target)
        return Exec(words, target=target) if link.name in BAD else good

    return made


BAD: set[str] = set()
WRONG = {
    "no python3": (("execo-no-python3",), "no python3 there"),
    "an old one": (("sh", "-c", "echo 'has to be 3.6 or later' >&2; exit 1"), "3.6 or later"),
    "a broken pipe": (("true",), "does not run"),
    "garbage": (("head", "-c", "2000000", "/dev/zero"), "not understood"),
    "garbage later": (
        ("sh", "-c", """echo '{"op": "hello", "version": 1}'; echo '{"op": 7}'; cat"""),
        "not understood",
    ),
    "another version": (
        ("sh", "-c", """echo '{"op": "hello", "version": 99}'; sleep 1000"""),
        "version 99",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_gateway_that_cannot_be_one(
    gateways: Gateways, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    words, message = WRONG[case]
    monkeypatch.setattr(TreeLink, "request", bad_gateway(words))
    first, second = gateways.names(2)
    BAD.clear()
    BAD.add(first)
    hosts = gateways.hosts(4)
    action = TreeRemote("echo x", hosts, gateways.params(), process_args=QUIET).run(LONG)
    assert {process.reason for process in action.processes} == {Reason.CONNECT}
    for process in action.processes:
        assert f"gateway {first}" in (process.message or "")
        assert message in (process.message or "")
    # With another one, nobody sees anything of it.
    params = gateways.params(width=2)
    action = TreeRemote("echo x", hosts, params, process_args=QUIET).run(LONG)
    assert [process.stdout for process in action.processes] == ["x\n"] * 4
    BAD.add(second)
    tree().close_idle()
    action = TreeRemote("echo x", hosts, params, process_args=QUIET).run(LONG)
    assert {process.reason for process in action.processes} == {Reason.CONNECT}


# -- what is lost while it runs -----------------------------------------------------------------


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Another user has no way into pytest's own."""
    with tempfile.TemporaryDirectory(prefix="execo-test-", dir="/tmp") as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


@pytest.mark.parametrize("how", ["killed", "frozen", "cut off"])
def test_a_gateway_that_is_lost(
    gateways: Gateways,
    open_folder: Path,
    word: str,
    how: str,
) -> None:
    log = open_folder / "log"
    log.touch(mode=0o666)
    log.chmod(0o666)
    tree()._bad.clear()  # they are the gateways of another test
    text = f"echo {{{{{{host}}}}}} >> {log}; sleep {word}; true"
    params = gateways.params(width=2, keepalive=0.5)
    action = TreeRemote(text, gateways.hosts(6), params, process_args=QUIET).start()
    until(lambda: len(log.read_text().split()) == 6)
    first, _ = gateways.names(2)
    (program,) = programs(gateways, first)
    if how == "cut off":
        # Its sshd.
        program = int(Path(f"/proc/{program}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(program, signal.SIGSTOP if how == "frozen" else signal.SIGKILL)
    until(lambda: sum(process.ended for process in action.processes) == 3)
    lost = [process for process in action.processes if process.ended]
    for process in lost:
        assert process.reason is Reason.CONNECT
        assert f"gateway {first}" in (process.message or "")
        assert process.started
    # What ran there ends; what runs through the other gateway goes on. Nothing runs twice.
    until(lambda: len(running(word)) == 3)
    # The next command takes the way that is left.
    hosts = [process.host for process in lost]
    assert TreeRemote("true", hosts, params).run(LONG).ok
    assert sorted(log.read_text().split()) == sorted(host.address for host in action.hosts)
    action.kill().wait(LONG)
    until(lambda: not running(word))


def test_a_script_that_is_killed_leaves_nothing(gateways: Gateways, word: str) -> None:
    text = f"""
import sys
import tempfile
from execo import Topology, TreeRemote
access, names, hosts = {gateways.access()!r}, {gateways.names(1)!r}, ["127.0.1.1", "127.0.1.2"]
second = {gateways.names(1, level=2)!r}
topology = Topology([("here", names), (names, second), (second, hosts)], root="here")
action = TreeRemote("(sleep {word} &) ; sleep {word}", hosts, access, topology=topology).start()
action.wait()
"""
    here = str(Path(__file__).resolve().parent.parent)
    script = subprocess.Popen([sys.executable, "-c", text], env={**os.environ, "PYTHONPATH": here})
    try:
        until(lambda: len(running(word)) == 4)
    finally:
        script.kill()
        script.wait()
    until(lambda: not running(word))
    names = [*gateways.names(1), *gateways.names(1, level=2)]
    until(lambda: not any(programs(gateways, name) for name in names))


def test_what_is_detached_stays(gateways: Gateways, word: str) -> None:
    (host,) = gateways.hosts(1)
    process = SshProcess(f"sleep {word}", host, gateways.params(), detach=True, **QUIET).start()
    until(lambda: process.start_date is not None and running(word))
    tree().close()
    tree().closed = False
    assert len(running(word)) == 1
    for pid in running(word):
        os.kill(pid, signal.SIGKILL)


# -- no more than there is room for -------------------------------------------------------------


def test_a_slow_reader_holds_up_itself_alone(
    gateways: Gateways, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tree_link, "MOST_WINDOW", 1 << 16)
    transport = TreeTransport(get_runtime())
    _, target = connection_to(gateways.hosts(1)[0], make_connection_params(gateways.params()))
    place = Place(transport, get_runtime().loop, target)
    try:
        slow, quick = place.open_all(
            Exec("head -c 20000000 /dev/zero"), Exec("head -c 3000000 /dev/zero")
        )

        def pause(call: str) -> None:
            if call == "start" and slow.channel is not None:
                slow.channel.pause()

        slow.react = pause
        quick.wait_over()
        assert len(quick.out) == 3_000_000
        # Of the other one, as much has come as was granted, and it waits here.
        assert isinstance(slow.channel, TreeChannel)
        held = sum(len(data or b"") for _, data in slow.channel._held)
        assert 0 < held <= 1 << 16
        assert slow.out == b""
        place.do(slow, "resume")
        slow.wait_over()
        assert len(slow.out) == 20_000_000
        # Nor is a gateway flooded with what a command does not read.
        deaf = place.open("exec sleep 1000")
        place.do(deaf, "write", bytes(30_000_000))
        deaf.wait(lambda sink: sink.written)
        assert isinstance(deaf.channel, TreeChannel)
        assert deaf.channel._on_way <= (1 << 16) + 65536
        place.do(deaf, "send_signal", signal.SIGKILL)
        deaf.wait_over()
    finally:
        transport.close()


# -- the program of a gateway -------------------------------------------------------------------


def pythons() -> list[str]:
    """The oldest Python of this machine that a gateway may have, and the one that runs this."""
    found = {sys.version_info[:2]: sys.executable}
    folders = os.environ["PATH"].split(os.pathsep)
    folders += [str(one) for one in Path("~/.pyenv/versions").expanduser().glob("3.*/bin")]
    for minor in range(6, sys.version_info[1]):
        for folder in folders:
            path = Path(folder) / f"python3.{minor}"
            if path.exists() and ".pyenv/shims" not in folder:
                found[3, minor] = str(path)
    return [found[one] for one in sorted({min(found), max(found)})]


@pytest.mark.parametrize("python", pythons())
def test_the_program_runs_with_old_pythons(python: str, word: str) -> None:
    from execo.transports.tree_frames import frame, input_frame

    one = Program(python)
    try:
        one.run(1, "sh", "-c", "echo ready; cat; exit 3")
        one.until(lambda frames: b"ready\n" in one.out(1))
        one.run(2, "sh", "-c", "echo ready; cat")
        one.send(input_frame([1, 2, 77], b"both"))
        for number in (1, 2):
            one.send(frame("eof", id=number))
            one.until_over(number)
            assert one.out(number) == b"ready\nboth"
            assert "took" in one.ops(number)
        assert [f.code for f in one.frames if f.op == "exit"] == [3 << 8, 0]
        # Output as far as there is room for it.
        one.run(3, "head", "-c", "1000000", "/dev/zero", room=1000)
        one.until(lambda frames: len(one.out(3)) == 1000)
        one.send(frame("ping"))
        one.until(lambda frames: "pong" in [f.op for f in frames])
        assert len(one.out(3)) == 1000
        one.send(frame("room", id=3, by=10**7))
        one.until_over(3)
        assert len(one.out(3)) == 1_000_000
        # No program, no connection; as many at a time as it was told.
        one.run(4, "/nowhere/ssh")
        one.send(frame("open", b"true", id=5, on=99, room=1))
        one.until(lambda frames: one.ops(4) == ["no"] and one.ops(5) == ["no"])
        for number in (6, 7, 8):
            one.run(number, "sleep", word)
        one.send(frame("ping"))
        one.until(lambda frames: [f.op for f in frames].count("pong") == 2)
        assert [one.ops(number) for number in (6, 7, 8)] == [["up"], ["up"], []]
        one.send(frame("drop", id=6))
        one.until(lambda frames: "exit" in one.ops(6) and "up" in one.ops(8))
        assert running(word)
    finally:
        one.end()
    # The script is lost: so is all that it ran.
    until(lambda: not running(word))
    assert not list(Path("/tmp").glob(f"execo-tree-{one.process.pid}-*"))


def algorithms(one: Program, number: int, *options: str) -> list[str]:
    """Those by which an ssh of a gateway would agree on keys, as it says itself."""
    one.run(number, "ssh", *options, "-G", "--", "some.host")
    one.until_over(number)
    lines = one.out(number).decode().splitlines()
    (found,) = [line.split()[1] for line in lines if line.startswith("kexalgorithms ")]
    return found.split(",")


def test_agreeing_on_keys_is_quick_unless_it_is_configured() -> None:
    said = subprocess.run(["ssh", "-V"], capture_output=True, text=True, check=True).stderr
    slow = said.startswith("OpenSSH_9.")
    one = Program(sys.executable)
    try:
        plain = algorithms(one, 1, "-Fnone")
        ours = algorithms(one, 2)
        assert sorted(plain) == sorted(ours)  # none is left out
        assert ours[0] == ("curve25519-sha256" if slow else plain[0])
        chosen = ["ecdh-sha2-nistp256", plain[0]]
        assert algorithms(one, 3, f"-oKexAlgorithms={','.join(chosen)}") == chosen
    finally:
        one.end()


VERMIN = "import sys, vermin; sys.exit(vermin.main())"


def test_the_program_is_for_python_3_6() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            VERMIN,
            "--no-tips",
            "-t=3.6-",
            "--violations",
            "--eval-annotations",
            str(Path(tree_link.__file__).with_name("node.py")),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_program_imports_nothing_of_ours() -> None:
    path = Path(tree_link.__file__).with_name("node.py")
    code = f"import sys; sys.argv=['x']; exec(open({str(path)!r}).read()); print(VERSION)"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == VERSION


# -- what is nobody's command -------------------------------------------------------------------


@pytest.mark.parametrize("levels", [1, 2])
def test_words_arrive_behind_gateways_as_given(gateways: Gateways, levels: int) -> None:
    words = (
        "a b",
        "$(id)",
        "`id`",
        "'",
        '"',
        "\\",
        "!x",
        "-n",
        "é\udc80",
        "",
        "\n",
        "x\ty",
        "%h %%",
    )
    command = ("printf", "<%s>", *words)
    process = SshProcess(
        command, gateways.hosts(1)[0], gateways.params(levels), env={"A": "$(id) 'x'\n"}
    ).run(LONG)
    wanted = "".join(f"<{word}>" for word in words)
    assert process.stdout_bytes == wanted.encode("utf-8", "surrogateescape")
    shown = SshProcess(
        'printf %s "$A"', gateways.hosts(1)[0], gateways.params(levels), env={"A": "$(id) 'x'\n"}
    ).run(LONG)
    assert shown.stdout == "$(id) 'x'\n"


def test_a_host_that_looks_like_an_option_is_refused(gateways: Gateways) -> None:
    (host,) = gateways.hosts(1)
    for address in ("-oProxyCommand=id", "a;id", "$(id)"):
        params = gateways.params()
        params["host_rewrite_func"] = lambda given, to=address: (
            to if given == host.address else given
        )
        process = SshProcess("true", host, params, **QUIET).run(LONG)
        assert process.reason is Reason.SPAWN
        assert process.exit_code is None
    _, target = connection_to(host, make_connection_params(gateways.params()))
    transport = TreeTransport(get_runtime())
    place = Place(transport, get_runtime().loop, replace(target, address="-oProxyCommand=id"))
    try:
        assert "looks like an option" in str(place.run("true").error)
        place = Place(transport, get_runtime().loop, target)
        assert "NUL" in str(place.run("a\0b").error)
        assert "no terminal" in str(place.run("true", pty=True).error)
    finally:
        transport.close()


def test_another_user_is_not_to_be_become_there(gateways: Gateways) -> None:
    process = SshProcess(
        "id", gateways.hosts(1)[0], gateways.params(), become="nobody", **QUIET
    ).run(LONG)
    assert process.reason is Reason.SPAWN
    assert "'tree'" in (process.message or "")
