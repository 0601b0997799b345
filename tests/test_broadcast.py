"""Files that hosts pass on to one another: real servers on loopback, with keys for one another and
without, and embedded ones."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from execo import ChainPut, Host, Put, Reason, TaktukPut
from execo.testing import Cluster
from execo.transfer import broadcast_stream
from gateways import Gateways, give_key
from remote_commands import until
from sshd import RealSshd

pytest_plugins = ["gateways", "sshd"]

LONG = 60.0
"""Seconds that nothing here takes: a hang."""

QUIET = {"nolog_exit_code": True, "nolog_error": True, "nolog_timeout": True}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def large(here: None) -> bytes:
    """What is in the file ``large``."""
    return write("large", 3 << 20)


def write(name: str, size: int) -> bytes:
    data = os.urandom(size)
    Path(name).write_bytes(data)
    return data


def home_of(hosts: Sequence[Host]) -> Path:
    return Path(pwd.getpwnam(hosts[0].user or "").pw_dir)


def sources(put: Put) -> list[str | None]:
    return [process.received_from for process in put.processes]  # type: ignore[attr-defined]


def leftovers(home: Path) -> list[Path]:
    return list(home.rglob(".execo-*"))


def programs(host: Host, word: bytes = b"execo_node") -> list[int]:
    """What runs on a host and has the word in its command. Other servers have the same addresses,
    for other tests."""
    at = f" {host.address} {host.port}\0".encode()
    found = []
    for proc in Path("/proc").glob("[0-9]*"):
        try:
            words = (proc / "cmdline").read_bytes()
            environment = (proc / "environ").read_bytes()
        except OSError:
            continue
        if word in words and at in environment + b"\0":
            found.append(int(proc.name))
    return found


def relays(host: Host) -> list[int]:
    """The programs that pass something on there, without the shells that have started them, and
    the ssh that start others."""
    return [pid for pid in programs(host) if "python" in Path(f"/proc/{pid}/exe").resolve().name]


# -- what a script sees -------------------------------------------------------------------------


def test_hosts_pass_it_on(gateways: Gateways, large: bytes) -> None:
    hosts = gateways.server.hosts(7)
    Path("large").chmod(0o751)
    os.utime("large", (1_500_000_000, 1_500_000_000))
    put = Put(hosts, "large", "new/{{{host}}}/it's", broadcast=True).run(LONG, check=True)
    a = [host.address for host in hosts]
    assert sources(put) == [None, a[0], a[0], a[1], a[1], a[2], a[2]]
    for host, process in zip(hosts, put.processes, strict=True):
        path = home_of(hosts) / "new" / host.address / "it's"
        assert path.read_bytes() == large
        assert path.stat().st_mode & 0o777 == 0o751
        assert path.stat().st_mtime == 1_500_000_000
        assert (process.exit_code, process.stderr, process.started) == (0, "", True)
    assert put.progress.transferred == 7 * len(large) == put.progress.total
    assert leftovers(home_of(hosts)) == []
    # Again, over what is there: one has it in the wrong place.
    (home_of(hosts) / "new" / a[4] / "it's").unlink()
    assert put.reset().run(LONG).ok
    assert (home_of(hosts) / "new" / a[4] / "it's").read_bytes() == large


@pytest.mark.parametrize("transport", ["paramiko", "openssh"])
def test_a_chain(gateways: Gateways, large: bytes, transport: str) -> None:
    hosts = gateways.server.hosts(4)
    params = {"transport": transport, "chainput_host_retry": 3, "nc": "/bin/nc"}
    put = ChainPut(hosts, ["large"], "chain-{{{host}}}", params).run(LONG, check=True)
    assert sources(put) == [None, *(host.address for host in hosts[:-1])]
    for host in hosts:
        assert (home_of(hosts) / f"chain-{host.address}").read_bytes() == large


@pytest.mark.parametrize("shell", ["/bin/csh", "/usr/bin/fish"])
def test_every_login_shell(sshd: RealSshd, large: bytes, shell: str) -> None:
    hosts = sshd.hosts(3, user=sshd.user(shell))
    give_key(sshd, hosts[0].user or "")
    name = "a 'b' \"c\" \\ $HOME !x {y} %s"
    os.rename("large", name)
    put = Put(hosts, name, f"{name}-{{{{{{host}}}}}}/", broadcast=True).run(LONG, check=True)
    assert sources(put) == [None, hosts[0].address, hosts[0].address]
    for host in hosts:
        assert (home_of(hosts) / f"{name}-{host.address}" / name).read_bytes() == large


def test_folders_and_many_files_are_as_with_put(gateways: Gateways, large: bytes) -> None:
    hosts = gateways.server.hosts(4)
    Path("d/e").mkdir(parents=True)
    for number in range(300):
        Path(f"d/e/{number}").write_text(str(number))
    Path("d/link").symlink_to("../large")
    Path("d/e").chmod(0o750)
    Path("empty").touch()
    names = ["d", "large", "empty"]
    Put(hosts, names, "plain/{{{host}}}").run(LONG, check=True)
    put = Put(hosts, names, "passed/{{{host}}}", broadcast=True).run(LONG, check=True)
    assert sources(put)[1:] == [hosts[0].address] * 2 + [hosts[1].address]
    for host in hosts:
        trees = [listing(home_of(hosts) / name / host.address) for name in ("plain", "passed")]
        assert trees[0] == trees[1]
        assert len(trees[0]) == 305


def listing(folder: Path) -> dict[str, tuple[int, float, bytes]]:
    return {
        str(path.relative_to(folder)): (
            path.stat().st_mode,
            int(path.stat().st_mtime),
            path.read_bytes() if path.is_file() else b"",
        )
        for path in folder.rglob("*")
    }


def test_no_host_one_host_and_little(gateways: Gateways, large: bytes) -> None:
    assert Put([], "large", broadcast=True).run(LONG).ok
    hosts = gateways.server.hosts(3)
    assert sources(Put(hosts[:1], "large", "one", broadcast=True).run(LONG, check=True)) == [None]
    Path("small").write_text("x")
    put = Put(hosts, "small", "small-{{{host}}}", broadcast=True).run(LONG, check=True)
    assert sources(put) == [None] * 3  # it is there sooner than hosts have connected
    # Of what differs from host to host there is nothing to pass on.
    write("{{{host}}}", 10)
    for host in hosts:
        write(host.address, 2 << 20)
    assert sources(Put(hosts, "{{{host}}}", "x/", broadcast=True).run(LONG, check=True)) == (
        [None] * 3
    )


def test_through_gateways(gateways: Gateways, large: bytes) -> None:
    hosts, (near, far) = gateways.hosts(4), (gateways.names(1), gateways.names(1, level=2))
    topology = gateways.topology(hosts[:3], 2)
    where = [*hosts, Host(near[0]), Host(far[0])]
    params = {**gateways.access(), "topology": topology}
    put = Put(where, "large", "tree/{{{host}}}", params, broadcast=True).run(LONG, check=True)
    assert sources(put) == [far[0]] * 3 + [None, None, near[0]]
    for host in where:
        home = Path(pwd.getpwnam(gateways.user).pw_dir)
        assert (home / "tree" / host.address).read_bytes() == large


def test_a_gateway_that_is_lost(gateways: Gateways) -> None:
    data = write("huge", 40 << 20)
    hosts, names = gateways.hosts(4), gateways.names(2)
    params = {**gateways.access(), "topology": gateways.topology(hosts, width=2)}
    put = Put(hosts, "huge", "gw-{{{host}}}", params, broadcast=True).start()
    fed = until_fed(put, names[0])
    for pid in relays(Host(names[0], port=gateways.access()["port"])):
        os.kill(pid, signal.SIGKILL)
    put.wait(LONG)
    assert put.ok, [p.message for p in put.failed]
    assert {sources(put)[index] for index in fed} == {None}
    home = Path(pwd.getpwnam(gateways.user).pw_dir)
    for host in hosts:
        assert (home / f"gw-{host.address}").read_bytes() == data
    until(lambda: leftovers(home) == [])


def until_fed(put: Put, name: str) -> list[int]:
    """Wait for it; which of its processes are fed by the host of this name."""
    until(lambda: name in sources(put) and None not in sources(put))
    return [index for index, one in enumerate(sources(put)) if one == name]


# -- the way from host to host is not there -----------------------------------------------------


def test_hosts_without_keys_for_one_another(
    sshd: RealSshd, large: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    hosts = sshd.hosts(5, user=sshd.user("/bin/bash"))
    put = Put(hosts, "large", "no-key-{{{host}}}", broadcast=True).run(LONG, check=True)
    assert sources(put) == [None] * 5
    assert "4 of 5 hosts were fed from here" in caplog.text
    assert f" did not get it from {hosts[0].address}: " in caplog.text
    assert "Permission denied" in caplog.text
    assert (home_of(hosts) / f"no-key-{hosts[4].address}").read_bytes() == large


@pytest.fixture
def poor(here: None) -> Iterator[tuple[RealSshd, Path]]:
    """A server whose hosts have few programs, and the folder where these are."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
        place = Path(folder)
        place.chmod(0o755)
        for name in ("cat", "mv", "rm", "mkdir", "wc", "touch", "chmod", "ls", "sh", "env", "id"):
            (place / name).symlink_to(shutil.which(name) or name)
        with RealSshd(environment={"PATH": folder}) as server:
            Gateways(server)
            yield server, place


def test_hosts_without_python(
    poor: tuple[RealSshd, Path], large: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    hosts = poor[0].hosts(3)
    put = Put(hosts, "large", "{{{host}}}", broadcast=True).run(LONG, check=True)
    assert sources(put) == [None] * 3
    assert "3 of 3 hosts were fed from here" in caplog.text
    assert "python3" in caplog.text


def test_what_a_host_says_that_passes_it_on_is_checked(
    poor: tuple[RealSshd, Path], large: bytes
) -> None:
    hosts, python = poor[0].hosts(3), poor[1] / "python3"
    for line in LIES:
        python.write_text(f"#!/bin/sh\necho 'execo-broadcast 1'\necho '{line}'\nexec cat\n")
        python.chmod(0o755)
        put = Put(hosts, "large", "lied/{{{host}}}", process_args=QUIET, broadcast=True)
        put.run(LONG, check=True)
        assert sources(put) == [None] * 3, line
        for host in hosts:
            path = home_of(hosts) / "lied" / host.address
            assert path.read_bytes() == large
            path.unlink()


LIES = [
    "[1]",
    "{}",
    "null",
    '{"end": 0, "code": 1e999, "said": ""}',
    '{"end": 0, "code": 70000, "said": ""}',
    '{"end": 0, "code": 0}',
    '{"up": "x"}',
    '{"at": {"0": [1]}}',
    '{"at": 5}',
    '{"lost": 0, "why": 5, "alone": 0}',
    "[" * 5000,
]


def test_embedded_hosts(large: bytes) -> None:
    with Cluster(4) as cluster:
        Path("out").mkdir()
        there = str(Path("out").resolve()) + "/{{{host}}}"
        put = Put(cluster.hosts, "large", there, broadcast=True).run(LONG, check=True)
        assert {path.read_bytes() for path in Path("out").iterdir()} == {large}
        assert len(list(Path("out").iterdir())) == 4
        assert sources(put)[0] is None


# -- hosts that fail ------------------------------------------------------------------------------


@pytest.mark.parametrize("dead", [0, 1, 4])
def test_a_host_that_cannot_be_reached(gateways: Gateways, large: bytes, dead: int) -> None:
    hosts = gateways.server.hosts(5)
    hosts[dead] = Host("127.0.9.9", hosts[0].user, hosts[0].keyfile, 9)
    name = f"dead{dead}-{{{{{{host}}}}}}"
    put = Put(hosts, "large", name, process_args=QUIET, broadcast=True).run(LONG)
    assert [p.ok for p in put.processes] == [index != dead for index in range(5)]
    failed = put.processes[dead]
    assert failed.reason is Reason.CONNECT
    assert "127.0.9.9" in (failed.message or "")
    for index, host in enumerate(hosts):
        if index != dead:
            path = home_of([hosts[2]]) / f"dead{dead}-{host.address}"
            assert path.read_bytes() == large


def test_a_host_that_cannot_store_it_feeds_others_all_the_same(
    gateways: Gateways, large: bytes
) -> None:
    hosts = gateways.server.hosts(7)
    where = "{{['r0', '/root/x', 'r2', 'r3', 'r4', 'r5', 'r6']}}"
    put = Put(hosts, "large", where, process_args=QUIET, broadcast=True).run(LONG)
    assert [p.exit_code == 0 for p in put.processes] == [i != 1 for i in range(7)]
    failed = put.processes[1]
    assert failed.reason is Reason.EXIT_CODE
    assert f"cannot put 'large' on {hosts[1].address}: exited 2: " in failed.message
    assert "ermission denied" in failed.message
    assert sources(put)[3:5] == [hosts[1].address] * 2
    plain = Put(hosts[1], "large", "/root/x", process_args=QUIET).run(LONG).processes[0]
    assert plain.exit_code == failed.exit_code
    assert without_names(plain.message) == without_names(failed.message)


def without_names(text: str) -> str:
    return re.sub(r"[.]execo-[0-9a-f]+", "", text)


def test_a_host_that_is_lost_on_the_way(gateways: Gateways) -> None:
    data = write("huge", 60 << 20)
    hosts = gateways.server.hosts(7)
    put = Put(hosts, "huge", "lost-{{{host}}}", broadcast=True).start()
    # Its children have some of it already.
    until(lambda: put.processes[3].transferred and put.processes[4].transferred)  # type: ignore[attr-defined]
    for pid in relays(hosts[1]):
        os.kill(pid, signal.SIGKILL)
    put.wait(LONG)
    assert put.ok, [p.message for p in put.failed]
    assert sources(put)[:2] == [None, None]
    for host in hosts:
        path = home_of(hosts) / f"lost-{host.address}"
        assert path.read_bytes() == data
        path.unlink()
    until(lambda: leftovers(home_of(hosts)) == [])


def test_a_host_that_takes_nothing_holds_up_nobody(
    gateways: Gateways, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broadcast_stream, "LATE", 0.5)
    data = write("huge", 60 << 20)
    hosts = gateways.server.hosts(4)
    put = Put(hosts, "huge", "slow-{{{host}}}", broadcast=True).start()
    until(lambda: programs(hosts[2], b"cat\0"))
    stopped = programs(hosts[2], b"cat\0")
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        put.wait(LONG)
        assert put.ok, [p.message for p in put.failed]
        assert sources(put) == [None, hosts[0].address, None, hosts[1].address]
        for host in hosts:
            assert (home_of(hosts) / f"slow-{host.address}").read_bytes() == data
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
    until(lambda: leftovers(home_of(hosts)) == [])


def test_a_file_that_changes_on_the_way(gateways: Gateways) -> None:
    write("huge", 60 << 20)
    hosts = gateways.server.hosts(3)
    put = Put(hosts, "huge", "changed-{{{host}}}", process_args=QUIET, broadcast=True).start()
    until(lambda: put.processes[0].transferred)  # type: ignore[attr-defined]
    os.truncate("huge", 1000)
    put.wait(LONG)
    assert {p.reason for p in put.processes} == {Reason.WRITE}
    assert all("became shorter" in p.message for p in put.processes)
    until(lambda: leftovers(home_of(hosts)) == [])
    assert list(home_of(hosts).glob("changed-*")) == []


# -- the end --------------------------------------------------------------------------------------


def test_one_that_is_killed_goes_on_feeding(gateways: Gateways) -> None:
    data = write("huge", 60 << 20)
    hosts = gateways.server.hosts(4)
    put = Put(hosts, "huge", "killed-{{{host}}}", process_args=QUIET, broadcast=True).start()
    until(lambda: relays(hosts[0]))
    (top,) = relays(hosts[0])
    until(lambda: put.processes[1].start_date)
    os.kill(top, signal.SIGSTOP)
    put.processes[1].kill()
    os.kill(top, signal.SIGCONT)
    put.wait(LONG)
    assert [p.exit_code for p in put.processes] == [0, 143, 0, 0]
    assert put.processes[1].killed
    assert sources(put)[3] == hosts[1].address
    assert sorted(path.name for path in home_of(hosts).glob("killed-*")) == [
        f"killed-{hosts[index].address}" for index in (0, 2, 3)
    ]
    assert (home_of(hosts) / f"killed-{hosts[3].address}").read_bytes() == data
    until(lambda: leftovers(home_of(hosts)) == [])


@pytest.mark.parametrize("frozen", [False, True], ids=["well", "frozen"])
@pytest.mark.parametrize("end", ["kill", "timeout"])
def test_kill_and_timeout_leave_nothing_behind(
    gateways: Gateways, monkeypatch: pytest.MonkeyPatch, end: str, frozen: bool
) -> None:
    monkeypatch.setattr(broadcast_stream, "SILENT", 4.0)
    write("huge", 60 << 20)
    hosts = gateways.server.hosts(5)
    args: dict[str, Any] = {**QUIET, **({"timeout": 0.7} if end == "timeout" else {})}
    put = Put(hosts, "huge", f"{end}-{{{{{{host}}}}}}", process_args=args, broadcast=True).start()
    until(lambda: put.processes[0].start_date and put.processes[1].start_date)
    stopped = [pid for pid in relays(hosts[0]) if frozen]
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    if end == "kill":
        put.kill()
    put.wait(LONG)
    for pid in stopped:
        try_to(os.kill, pid, signal.SIGCONT)
    for process in put.processes[:2]:
        assert process.killed or process.reason is Reason.CONNECT or process.ok, process
        assert process.timeouted is (end == "timeout") or process.ok
    assert put.ended
    until(lambda: leftovers(home_of(hosts)) == [])
    until(lambda: not any(programs(host) for host in hosts))


def try_to(function: Callable[..., object], *args: object) -> None:
    try:
        function(*args)
    except OSError:
        pass


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_script_that_dies_leaves_nothing_behind(gateways: Gateways, number: int) -> None:
    write("huge", 60 << 20)
    hosts = gateways.server.hosts(4)
    script = textwrap.dedent(f"""
        from execo import *
        hosts = [Host(*one) for one in {[tuple(words(host)) for host in hosts]!r}]
        put = Put(hosts, "huge", "died-{{{{{{host}}}}}}", broadcast=True).start()
        while not (put.processes[3].transferred or put.ended):
            sleep(0.01)
        print("there", flush=True)
        put.wait()
    """)
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "there\n"
    child.send_signal(number)
    child.wait(LONG)
    child.stdout.close()
    until(lambda: not any(programs(host) for host in hosts))
    until(lambda: leftovers(home_of(hosts)) == [])


def words(host: Host) -> list[Any]:
    return [host.address, host.user, str(host.keyfile), host.port]


# -- what is wrong --------------------------------------------------------------------------------


def test_bad_input(gateways: Gateways, large: bytes) -> None:
    hosts = gateways.server.hosts(2)
    with pytest.raises(TypeError, match="broadcast is True or False"):
        Put(hosts, "large", broadcast=1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="cannot be a broadcast"):
        Put(hosts, "large", broadcast=True, tool="rsync")
    with pytest.raises(ValueError, match="TaktukPut cannot be a broadcast"):
        TaktukPut(hosts, "large", broadcast=True)
    put = Put(hosts, "missing", process_args=QUIET, broadcast=True).run(LONG)
    assert {p.reason for p in put.processes} == {Reason.SPAWN}
    assert "missing: No such file" in put.processes[0].message
    put = Put(hosts, "large", "/dev/full", process_args=QUIET, broadcast=True).run(LONG)
    assert {p.reason for p in put.processes} == {Reason.EXIT_CODE}
    assert all("No space left" in p.message for p in put.processes)


def test_the_program_is_for_python_3_6() -> None:
    path = Path(broadcast_stream.__file__).with_name("broadcast_node.py")
    program = "import sys, vermin; sys.exit(vermin.main())"
    options = ["--no-tips", "-t=3.6-", "--violations", "--eval-annotations"]
    done = subprocess.run(
        [sys.executable, "-c", program, *options, str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
