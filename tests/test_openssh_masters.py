"""The shared connections of the openssh transport, against a real sshd and a stub of ssh."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from contract import Recorder
from execo import Host, Remote, SshProcess, transports
from execo._core.runtime import get_runtime
from execo.config import make_connection_params
from execo.connection import connection_to
from execo.errors import Reason
from execo.transports import openssh_folder, openssh_master, openssh_pulse
from execo.transports.base import ConnectionOptions, Exec, Target
from execo.transports.openssh_folder import LogFolder
from execo.transports.openssh_words import Abilities, client_words, master_words, unshared
from execo.transports.ssh_messages import MasterEvent, read_event
from sshd import RealSshd

pytest_plugins = ["sshd"]

TIMEOUT = 40.0
OPENSSH = {"transport": "openssh"}
ROOT = Path(__file__).parent.parent


@pytest.fixture
def host(sshd: RealSshd) -> Iterator[Host]:
    transports.close_idle()
    yield sshd.hosts(1)[0]
    transports.close_idle()


def until(condition: Any) -> None:
    deadline = time.monotonic() + TIMEOUT
    nap = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        nap.wait(0.02)


def on(host: Host, cmd: Any, params: dict[str, Any] | None = None, **options: Any) -> SshProcess:
    options = {"nolog_error": True, "nolog_exit_code": True, **options}
    return SshProcess(cmd, host, {**OPENSSH, **(params or {})}, **options)


def run(host: Host, cmd: Any, params: dict[str, Any] | None = None, **options: Any) -> SshProcess:
    process = on(host, cmd, params, **options).start()
    process.wait(TIMEOUT)
    assert process.ended, process
    return process


def transport() -> Any:
    return transports.get(get_runtime(), "openssh")


def statistics() -> dict[str, int]:
    found: dict[str, int] = transport().statistics()
    return found


def masters() -> list[Any]:
    return [one for one in transport().masters.live() if one.ready]


def logins(sshd: RealSshd) -> int:
    return sshd.log.count("Accepted publickey")


# -- shared ---------------------------------------------------------------------------------------


def test_the_commands_of_a_host_share_a_connection(host: Host, sshd: RealSshd) -> None:
    before = logins(sshd)
    assert [run(host, f"exit {code}").exit_code for code in (0, 3, 255)] == [0, 3, 255]
    together = Remote("echo {{range(6)}}", [host] * 6, OPENSSH).run(TIMEOUT)
    assert [process.stdout for process in together.processes] == [f"{n}\n" for n in range(6)]
    assert logins(sshd) == before + 1


def test_the_guard_shares_it_too(host: Host, sshd: RealSshd) -> None:
    before = logins(sshd)
    process = on(host, "echo ready; sleep 1000; true").start()
    until(lambda: any(guard.ready for guard in transport()._live_guards))
    assert statistics()["sessions"] == 2
    process.kill().wait(TIMEOUT)
    assert process.exit_code == -signal.SIGTERM
    assert logins(sshd) == before + 1


def test_more_commands_than_a_connection_takes(stock_sshd: RealSshd) -> None:
    transports.close_idle()
    remote = Remote("echo ready; cat", stock_sshd.hosts(1) * 30, OPENSSH).start()
    until(lambda: all(process.stdout for process in remote.processes) or remote.failed)
    assert remote.failed == []
    assert statistics()["masters"] == 4
    remote.write("x\n")
    remote.close_stdin().wait(TIMEOUT)
    assert {process.stdout for process in remote.processes} == {"ready\nx\n"}
    assert "sessions refused" not in statistics()


@pytest.mark.parametrize("sessions", ["1", "3"])
def test_a_host_that_takes_fewer_sessions(sessions: str) -> None:
    with RealSshd({"MaxSessions": sessions, "MaxStartups": "100"}) as strict:
        host = strict.hosts(1)[0]
        assert run(host, "rm -f ran").ok
        # What was written before a session was refused is not lost, and nothing runs twice.
        remote = Remote("echo {{range(12)}} >> ran; cat", [host] * 12, OPENSSH).start()
        remote.write("one\n" + "x" * 100_000)
        remote.close_stdin().wait(TIMEOUT)
        assert remote.finished_ok, remote.failed
        assert {process.stdout for process in remote.processes} == {"one\n" + "x" * 100_000}
        ran = run(host, "sort -n ran").stdout
        assert ran == "".join(f"{n}\n" for n in range(12))
        remote = Remote("echo on", [host] * 5, OPENSSH).run(TIMEOUT)
        assert remote.finished_ok
        transports.close_idle()


def test_a_host_that_takes_no_sessions_says_so() -> None:
    with RealSshd({"MaxSessions": "0"}) as closed:
        process = run(closed.hosts(1)[0], "true")
        assert process.reason is Reason.CONNECT
        assert "MaxSessions" in process.message or "refused" in process.message
        transports.close_idle()


def test_a_terminal_that_is_started_again_has_its_input() -> None:
    with RealSshd({"MaxSessions": "1"}) as strict:
        host = strict.hosts(1)[0]
        first = on(host, "echo ready; cat", {"guard": False}).start()
        until(lambda: first.stdout)
        second = on(host, "cat", {"guard": False}, pty=True).start()
        second.write("hello\nhalf")
        second.close_stdin()
        second.wait(TIMEOUT)
        assert second.stdout == "hello\r\nhalf"
        first.close_stdin()
        first.wait(TIMEOUT)
        transports.close_idle()


# -- masters that go ------------------------------------------------------------------------------


def test_a_master_that_is_killed_loses_all_its_commands(host: Host) -> None:
    processes = [on(host, "echo ready; sleep 1000; true").start() for _ in range(3)]
    until(lambda: all(process.stdout for process in processes))
    # Which ends what runs there.
    until(lambda: any(guard.ready for guard in transport()._live_guards))
    (master,) = masters()
    os.kill(master._channel.pid, signal.SIGKILL)
    for process in processes:
        process.wait(TIMEOUT)
        assert process.reason is Reason.CONNECT
        assert process.stdout == "ready\n"
    assert not os.path.exists(master.socket)
    assert run(host, "echo on").stdout == "on\n"


def test_a_connection_that_the_host_closes_between_two_commands(host: Host) -> None:
    for _ in range(3):
        server = int(run(host, "echo $PPID").stdout)
        os.kill(server, signal.SIGKILL)
        process = run(host, "echo on")
        assert (process.stdout, process.ok) == ("on\n", True), process.message


def test_a_socket_that_somebody_has_removed(host: Host) -> None:
    assert run(host, "true").ok
    (master,) = masters()
    os.unlink(master.socket)
    assert run(host, "echo on").stdout == "on\n"
    until(lambda: master.over)


def test_a_frozen_master_does_not_hold_up_commands(host: Host, tmp_path: Path) -> None:
    params = {"connect_timeout": 2}
    assert run(host, "rm -f frozen; true", params).ok
    (master,) = masters()
    os.kill(master._channel.pid, signal.SIGSTOP)
    process = on(host, "echo ran >> frozen; cat", params).start()
    process.write("input")
    process.close_stdin()
    process.wait(TIMEOUT)
    assert (process.stdout, process.ok) == ("input", True)
    assert run(host, "cat frozen", params).stdout == "ran\n"
    assert master.over


def test_a_frozen_master_is_given_up_after_kill(host: Host) -> None:
    process = on(host, "echo ready; sleep 1000; true").start()
    process.expect("ready", timeout=TIMEOUT)
    until(lambda: any(guard.ready for guard in transport()._live_guards))
    (master,) = masters()
    os.kill(master._channel.pid, signal.SIGSTOP)
    process.kill(signal.SIGKILL)
    process.wait(TIMEOUT)
    assert process.reason is Reason.CONNECT
    assert "does not answer" in process.message
    assert run(host, "echo on").stdout == "on\n"
    os.kill(master._channel.pid, signal.SIGCONT)


def test_a_master_that_froze_while_idle_is_replaced(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openssh_pulse, "QUIET", 0.0)
    params = {"connect_timeout": None, "guard": False}
    assert run(host, "rm -f frozen; true", params).ok
    (master,) = masters()
    os.kill(master._channel.pid, signal.SIGSTOP)
    # No limit of theirs, and none of ssh's, would end these.
    remote = Remote("echo ran >> frozen", [host] * 3, {**OPENSSH, **params}).run(TIMEOUT)
    assert remote.finished_ok
    assert run(host, "cat frozen", params).stdout == "ran\n" * 3
    assert master.over


def test_an_idle_master_that_answers_stays(
    host: Host, sshd: RealSshd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openssh_pulse, "QUIET", 0.0)
    monkeypatch.setattr(openssh_pulse, "ANSWERS_WITHIN", 1.0)
    before = logins(sshd)
    assert [run(host, "sleep 0.5; echo on").stdout for _ in range(4)] == ["on\n"] * 4
    assert logins(sshd) == before + 1


def test_commands_on_a_master_that_freezes_are_lost_in_time(host: Host) -> None:
    params = {"keepalive": 0.5, "guard": False}
    processes = [on(host, "echo ready; sleep 1000; true", params).start() for _ in range(3)]
    until(lambda: all(process.stdout for process in processes))
    (master,) = masters()
    os.kill(master._channel.pid, signal.SIGSTOP)
    for process in processes:
        process.wait(TIMEOUT)
    # Without a guard they run on.
    assert run(host, "pkill -f '[s]leep 1000'; echo on", params).stdout == "on\n"
    for process in processes:
        assert process.reason is Reason.CONNECT
        assert "does not answer" in process.message


def test_silent_commands_of_a_master_that_runs_are_not_lost(host: Host) -> None:
    params = {"keepalive": 0.1, "guard": False}
    assert run(host, "sleep 2; echo on", params).stdout == "on\n"


def test_sessions_of_killed_commands_say_nothing_of_the_limit(stock_sshd: RealSshd) -> None:
    transports.close_idle()
    host = stock_sshd.hosts(1)[0]
    params = {"guard": False}
    remote = Remote("echo ready; sleep 1000; true", [host] * 10, {**OPENSSH, **params})
    for process in remote.processes:
        process.ignore_error = process.nolog_error = True
        process.ignore_exit_code = process.nolog_exit_code = True
    remote.start()
    until(lambda: all(process.stdout for process in remote.processes))
    # Nobody there signals them: they run on, and the host counts their sessions.
    remote.kill().wait(TIMEOUT)
    assert run(host, "echo on", params).stdout == "on\n"
    before = logins(stock_sshd)
    assert [run(host, "echo on", params).stdout for _ in range(3)] == ["on\n"] * 3
    assert logins(stock_sshd) == before + 1
    assert run(host, "pkill -f '[s]leep 1000'; true", params).ok
    transports.close_idle()


def test_a_host_that_answers_and_then_stalls(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openssh_master, "GRACE", 0.2)
    params = {**OPENSSH, **stub.make("stalls"), "connect_timeout": 1}
    remote = Remote("true", ["web1"] * 3, params, process_args={"nolog_error": True}).run(TIMEOUT)
    for process in remote.processes:
        assert process.reason is Reason.CONNECT
        assert "has not let us in" in process.message


def test_a_connection_that_nobody_uses_is_closed(host: Host) -> None:
    target = connection_to(host, make_connection_params(OPENSSH))[1]
    target = replace(target, options=replace(target.options, idle_limit=0.2, guard=False))
    sink = Recorder(get_runtime().loop)
    transport().open_all([(Exec("echo on", target=target), sink)])
    sink.wait_over()
    until(lambda: not masters())
    assert statistics()["masters closed idle"] >= 1


def test_close_idle_closes_what_nobody_uses_alone(host: Host) -> None:
    process = on(host, "echo ready; cat").start()
    until(lambda: process.stdout)
    transports.close_idle()
    assert len(masters()) == 1
    process.close_stdin()
    process.wait(TIMEOUT)
    transports.close_idle()
    assert statistics()["masters"] == 0
    assert statistics()["sessions"] == 0


def _alive() -> list[openssh_master.OpenSshMaster]:
    gc.collect()
    objects = gc.get_objects()
    return [each for each in objects if isinstance(each, openssh_master.OpenSshMaster)]


def _limits(name: str) -> list[str]:
    """The calls of that method that are to come."""
    loop = get_runtime().loop
    handles = loop.run_sync(lambda: list(vars(loop._aio)["_scheduled"])) or []
    calls = [repr(handle._args) for handle in handles if not handle.cancelled()]
    return [call for call in calls if name in call]


def test_a_shared_connection_that_is_over_is_forgotten(host: Host) -> None:
    # Its time limits end with it, or each is kept for minutes, with all that hangs on it.
    assert run(host, "true").ok
    transports.close_idle()
    until(lambda: not _alive())


def test_one_that_falls_idle_often_has_one_time_limit(host: Host) -> None:
    for _ in range(3):
        assert run(host, "true", {"idle_limit": 300}).ok
    until(lambda: len(_limits("_retire_idle")) == 1)


SCRIPT = """
import sys, threading
from execo import Host, SshProcess
address, user, keyfile, port, end = sys.argv[1:]
host = Host(address, user, keyfile, int(port))
processes = [SshProcess("echo ready; cat", host, {"transport": "openssh"}) for _ in range(12)]
for process in processes:
    process.start()
for process in processes:
    process.expect("ready", timeout=60)
print("ready", flush=True)
if end == "killed":
    threading.Event().wait()
"""


@pytest.mark.parametrize("end", ["killed", "exit"])
def test_no_master_and_no_socket_outlives_its_script(host: Host, end: str, tmp_path: Path) -> None:
    folder = Path("/tmp") / f"execo-test-{os.getpid()}-{time.monotonic_ns()}"
    folder.mkdir()
    try:
        where = [host.address, str(host.user), str(host.keyfile), str(host.port), end]
        with subprocess.Popen(
            [sys.executable, "-c", SCRIPT, *where],
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, "TMPDIR": str(folder), "XDG_RUNTIME_DIR": ""},
        ) as script:
            assert script.stdout is not None
            assert script.stdout.readline() == b"ready\n"
            assert sockets(folder)
            if end == "killed":
                script.kill()
            script.wait(TIMEOUT)
        until(lambda: not with_word(str(folder)))
        if end == "exit":
            assert list(folder.iterdir()) == []
        code = "from execo.transports.openssh_folder import LogFolder as F\n"
        code += "f = F(sockets=True); f.file(1);"
        subprocess.run(
            [sys.executable, "-c", code + "f.close()"],
            cwd=ROOT,
            env={**os.environ, "TMPDIR": str(folder), "XDG_RUNTIME_DIR": ""},
            check=True,
            timeout=TIMEOUT,
        )
        assert list(folder.iterdir()) == []
    finally:
        subprocess.run(["rm", "-rf", str(folder)], check=True)


def sockets(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*/*") if path.is_socket()]


def with_word(part: str) -> list[str]:
    """The ssh processes that have ``part`` in an argument."""
    found = []
    for proc in Path("/proc").glob("[0-9]*"):
        try:
            words = (proc / "cmdline").read_text(errors="replace").split("\0")
        except OSError:
            continue
        if words[0] == "ssh" and any(part in word for word in words):
            found.append(" ".join(words))
    return found


# -- each its own ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ssh", "options", "why"),
    [
        (("ssh",), (), None),
        (("/usr/bin/ssh", "-4"), ("-J", "gateway", "-A"), None),
        (("ssh",), ("-o", "ControlPath=/run/mine"), "share connections"),
        (("ssh",), ("-M",), "share connections"),
        (("ssh",), ("-o", "ControlMaster=auto"), "share connections"),
        (("ssh",), ("-L", "1:h:2"), "'L'"),
        (("ssh",), ("-o", "RemoteForward 1 h:2"), "'remoteforward'"),
        (("ssh",), ("-E", "/log"), "'E'"),
        (("ssh",), ("-qX",), "'X'"),
        (("oarsh",), (), "oarsh"),
        (("sudo", "ssh"), (), "sudo"),
    ],
)
def test_who_shares(ssh: tuple[str, ...], options: tuple[str, ...], why: str | None) -> None:
    told = unshared(ConnectionOptions(ssh=ssh, ssh_options=options))
    if why is None:
        assert told is None
    else:
        assert told is not None
        assert why in told


def test_the_users_own_control_path_is_respected(host: Host, tmp_path: Path) -> None:
    folder = Path("/tmp") / f"execo-test-{os.getpid()}"
    folder.mkdir()
    options = ["-o", "ControlMaster=auto", "-o", f"ControlPath={folder}/c"]
    options += ["-o", "ControlPersist=1"]
    try:
        assert run(host, "echo on", {"ssh_options": options, "guard": False}).stdout == "on\n"
        assert (folder / "c").is_socket()
        assert masters() == []
        until(lambda: not (folder / "c").exists())
    finally:
        folder.rmdir()


def test_what_is_left_alone_has_a_connection_of_its_own(host: Host) -> None:
    target = connection_to(host, make_connection_params(OPENSSH))[1]
    target = replace(target, options=replace(target.options, guard=False))
    sink = Recorder(get_runtime().loop)
    transport().open_all([(Exec("echo on; cat", target=target, detach=True), sink)])
    sink.wait(lambda sink: sink.out)
    assert masters() == []
    assert sink.channel is not None
    get_runtime().loop.run_sync(sink.channel.close_stdin)
    sink.wait_over()


def test_no_socket_where_every_path_is_too_long(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openssh_folder, "_LONGEST_SOCKET", 10)
    user = replace_options(host)
    assert run(user, "echo on").stdout == "on\n"
    assert masters() == []


def test_a_target_that_is_lost_ends_nothing_of_another_on_the_same_machine(host: Host) -> None:
    processes = [
        on(one, "echo ready; sleep 1000; true").start() for one in (host, replace_options(host))
    ]
    for process in processes:
        process.expect("ready", timeout=TIMEOUT)
    until(lambda: sum(guard.ready for guard in transport()._live_guards) == 2)
    lost, other = processes
    master = next(one for one in masters() if one.target.address == host.address)
    os.kill(master._channel.pid, signal.SIGKILL)
    assert lost.wait(TIMEOUT).reason is Reason.CONNECT
    threading.Event().wait(2)  # time for the guard to do harm
    assert other.running
    assert other.kill().wait(TIMEOUT).killed


def test_commands_wait_for_no_guard_that_has_a_connection_of_its_own(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first command of the target came when there could be no master, so the guard that it
    wants in the end has none either; it is slow to say that it is there, and the next command has a
    master by then."""
    gate = tmp_path / "gate"
    ssh = tmp_path / "ssh"
    ssh.write_text(
        f'#!/bin/sh\ncase "$*" in *execo-guard*) while [ ! -e {gate} ]; do sleep 0.1; done;; esac\n'
        'exec ssh "$@"\n'
    )
    ssh.chmod(0o755)
    params = {"ssh": str(ssh)}
    other = on(replace_options(host, "127.0.4"), "cat").start()
    until(masters)
    with monkeypatch.context() as patched:
        patched.setattr("execo.transports.openssh_masters.highest_descriptor_limit", lambda: 12)
        first = on(host, "echo ready; cat", params).start()
        first.expect("ready", timeout=TIMEOUT)
        until(lambda: any(guard.alone for guard in transport()._live_guards))
    second = on(host, "echo ready; cat", params).start()
    until(lambda: len(masters()) == 2)
    second.expect("ready", timeout=TIMEOUT)
    gate.touch()
    for process in (first, second, other):
        process.close_stdin().wait(TIMEOUT)
        assert process.ok


def test_a_guard_that_has_no_master_does_not_go_ahead(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards stay: those of many hosts had all descriptors, and their commands waited for ever."""
    other = on(replace_options(host, "127.0.4"), "cat").start()
    until(masters)
    monkeypatch.setattr("execo.transports.openssh_masters.highest_descriptor_limit", lambda: 16)
    monkeypatch.setattr("execo.transports.openssh_channel._GUARD_AFTER", 3600)
    process = on(host, "echo ready; sleep 1000; true").start()
    process.expect("ready", timeout=TIMEOUT)
    (guard,) = [one for one in transport()._live_guards if one.target.address == host.address]
    assert guard._channel is None
    process.kill().wait(TIMEOUT)  # which wants it
    assert process.exit_code == -signal.SIGTERM
    assert guard.alone
    other.close_stdin().wait(TIMEOUT)


def replace_options(host: Host, network: str = "127.0.3") -> Host:
    """The same host as another target, which has no master yet."""
    return Host(host.address.replace("127.0.1", network), host.user, host.keyfile, host.port)


def test_a_folder_is_short_enough_for_sockets(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    deep = tmp_path / ("d" * 80)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    folder = LogFolder(sockets=True)
    path = folder.socket(12345)
    assert len(path) + 17 < 90
    assert Path(path).parent.stat().st_mode & 0o777 == 0o700
    folder.close()
    assert not Path(path).parent.exists()


def test_a_forked_child_does_not_take_back_what_the_watchdog_is_to_remove() -> None:
    """The table of the watchdog is the parent's, too."""
    taken_back: list[str] = []
    folder = LogFolder(lambda path: lambda: taken_back.append(path))
    path = Path(folder.file(1)).parent
    folder.close_inherited()
    assert taken_back == []
    folder.close()
    assert not path.exists()


# -- the words ------------------------------------------------------------------------------------


def test_a_client_can_connect_nowhere_by_itself() -> None:
    options = ConnectionOptions(ssh=("ssh", "-4J", "a"), ssh_options=("-J", "b", "-AJc", "-i", "J"))
    words = client_words(Target("web1", options=options), False, "/log", Abilities(), "x", "/s/m1")
    assert words[:6] == ("ssh", "-4", "-S", "/s/m1", "-o", "ProxyCommand=false")
    assert "-J" not in words
    assert "b" not in words
    assert "-A" in words
    assert words[words.index("-i") : words.index("-i") + 2] == ("-i", "J")
    assert words[-5:] == ("-E", "/log", "--", "web1", "x")


def test_a_silent_host_is_asked_as_the_parameters_say() -> None:
    def asked(**options: Any) -> set[str]:
        words = master_words(
            Target("web1", options=ConnectionOptions(**options)), Abilities(), "/m"
        )
        return {word for word in words if word.startswith("ServerAlive")}

    assert asked() == {"ServerAliveInterval=30", "ServerAliveCountMax=3"}
    assert asked(keepalive=6.5, keepalive_count=2) == {
        "ServerAliveInterval=7",
        "ServerAliveCountMax=2",
    }
    assert "ServerAliveInterval=0" in asked(keepalive=None)


def test_a_master_shares_whatever_the_files_say() -> None:
    options = ConnectionOptions(ssh_options=("-o", "BatchMode=no"))
    words = master_words(Target("web1", options=options), Abilities(), "/s/m1")
    assert words[:7] == ("ssh", "-M", "-N", "-T", "-S", "/s/m1", "-o")
    assert words.index("ControlPersist=no") < words.index("ControlMaster=no")
    assert words[-2:] == ("--", "web1")


def test_what_a_master_says() -> None:
    said = "debug2: clientloop.c:client_session2_setup():2558 (pid=1): id 2"
    assert read_event(said) == (MasterEvent.SESSION, 2, "")
    said = "debug1: clientloop.c:client_session2_setup():2642 (pid=1): Sending command: id 3"
    assert read_event(said) == (MasterEvent.COMMAND, -1, "id 3")
    said = "ControlSocket /s/m1 already exists, disabling multiplexing"
    assert read_event(said) == (MasterEvent.CANNOT_LISTEN, -1, "")
    assert read_event("ssh: connect to host web1 port 22: Connection refused") is None


# -- a stub of ssh --------------------------------------------------------------------------------

STUB = r"""#!/bin/sh
# MESSAGE is what every connection ends with; WAY is what masters do.
log=; master=; socket=; words="$*"
while [ $# -gt 0 ]; do
    case $1 in
    -V) exit 0 ;;
    -M) master=1 ;;
    -E) log=$2; shift ;;
    -S) socket=$2; shift ;;
    --) break ;;
    esac
    shift
done
[ "$master" ] && kind=master || { [ "$socket" ] && kind=client || kind=alone; }
echo $kind >>'CALLS'
fail() { if [ "$log" ]; then echo "$1" >"$log"; else echo "$1" >&2; fi; exit 255; }
listen='debug3: mux.c:muxserver_listen():1346 (pid=1): mux listener channel 0 fd 4'
case $kind-WAY in
master-fails) fail 'MESSAGE' ;;
master-cannot) fail "ControlSocket $socket already exists, disabling multiplexing" ;;
master-odd) exit 3 ;;
master-stalls) exec sleep 1000 ;;
master-*) : >"$socket"; echo "$listen" >&2; exec sleep 1000 ;;
client-refuses) fail 'mux_client_request_session: session request failed: Session open refused' ;;
client-gone) fail "Control socket connect($socket): Connection refused" ;;
esac
[ 'MESSAGE' = '' ] || fail 'MESSAGE'
cat
"""

MESSAGES = {
    "ssh: connect to host web1 port 22: Connection refused": Reason.CONNECT,
    "ssh: connect to host web1 port 22: Connection timed out": Reason.CONNECT,
    "ssh: connect to host web1 port 22: No route to host": Reason.CONNECT,
    "ssh: Could not resolve hostname web1: Name or service not known": Reason.CONNECT,
    "Connection timed out during banner exchange": Reason.CONNECT,
    "kex_exchange_identification: Connection closed by remote host": Reason.CONNECT,
    "Connection closed by 10.0.0.1 port 22": Reason.CONNECT,
    "Connection reset by 10.0.0.1 port 22": Reason.CONNECT,
    "client_loop: send disconnect: Broken pipe": Reason.CONNECT,
    "Timeout, server web1 not responding.": Reason.CONNECT,
    "ann@web1: Permission denied (publickey).": Reason.AUTH,
    "Received disconnect from 10.0.0.1 port 22:2: Too many authentication failures": Reason.AUTH,
    "Unable to negotiate with 10.0.0.1 port 22: no matching cipher found": Reason.AUTH,
    "Host key verification failed.": Reason.HOST_KEY,
    "No ED25519 host key is known for web1 and you have requested strict checking.": (
        Reason.HOST_KEY
    ),
    "command-line: line 0: Bad configuration option: foo": Reason.SPAWN,
    "something that nobody has seen": Reason.CONNECT,
}


class Stub:
    """A program ``ssh``, and what it was run as."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._calls = folder / "calls"

    def make(self, way: str, message: str = "") -> dict[str, Any]:
        folder = self._folder / f"bin{time.monotonic_ns()}"
        folder.mkdir()
        text = STUB.replace("WAY", way).replace("MESSAGE", message)
        (folder / "ssh").write_text(text.replace("CALLS", str(self._calls)))
        (folder / "ssh").chmod(0o755)
        return {"ssh": str(folder / "ssh"), "guard": False}

    @property
    def calls(self) -> list[str]:
        return self._calls.read_text().split()


@pytest.fixture
def stub(tmp_path: Path) -> Iterator[Stub]:
    yield Stub(tmp_path)
    transports.close_idle()


@pytest.mark.parametrize("message", MESSAGES)
@pytest.mark.parametrize("way", ["fails", "cannot"])
def test_each_failure_with_and_without_sharing(stub: Stub, way: str, message: str) -> None:
    params = {**OPENSSH, **stub.make(way, message)}
    process = SshProcess("true", "web1", params, nolog_error=True).run(TIMEOUT)
    assert process.reason is MESSAGES[message]
    assert message.rstrip(".") in process.message
    assert process.exit_code is None


def test_one_attempt_fails_for_all_that_wait_for_it(stub: Stub) -> None:
    params = {**OPENSSH, **stub.make("fails", "web1: Permission denied (publickey).")}
    options = {"nolog_error": True}
    remote = Remote("true", ["web1"] * 5, params, process_args=options).run(TIMEOUT)
    assert [process.reason for process in remote.processes] == [Reason.AUTH] * 5
    assert stub.calls == ["master"]


@pytest.mark.parametrize("way", ["cannot", "odd"])
def test_where_sharing_does_not_work_each_has_its_own(stub: Stub, way: str) -> None:
    params = {**OPENSSH, **stub.make(way)}
    for _ in range(2):
        process = SshProcess("true", "web1", params).start()
        process.write("input")
        process.close_stdin()
        process.wait(TIMEOUT)
        assert (process.stdout, process.ok) == ("input", True)
    assert stub.calls == ["master", "alone", "alone"]


@pytest.mark.parametrize("way", ["refuses", "gone"])
def test_what_a_master_has_not_taken_is_started_once_more(stub: Stub, way: str) -> None:
    params = {**OPENSSH, **stub.make(way)}
    process = SshProcess("true", "web1", params).start()
    process.write("input")
    process.close_stdin()
    process.wait(TIMEOUT)
    assert (process.stdout, process.stderr, process.ok) == ("input", "", True)
    assert stub.calls == ["master", "client", "alone"]


def test_what_was_started_once_more_fails_for_good(stub: Stub) -> None:
    message = "ssh: connect to host web1 port 22: Connection refused"
    params = {**OPENSSH, **stub.make("refuses", message)}
    process = SshProcess("true", "web1", params, nolog_error=True).run(TIMEOUT)
    assert process.reason is Reason.CONNECT
    assert "Connection refused" in process.message
    assert stub.calls == ["master", "client", "alone"]
