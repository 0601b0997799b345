"""Commands on hosts through taktuk, against a real sshd."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from execo import Host, configuration, transports
from execo.errors import NotSupported, Reason
from execo.taktuk import TaktukProcess, TaktukRemote
from execo.transports import taktuk_channel
from execo.transports.taktuk_run import TaktukRun
from remote_commands import QUIET, HostScript, running, until
from sshd import RealSshd

pytest_plugins = ["sshd", "remote_commands"]

if shutil.which("taktuk") is None:
    pytest.skip("needs taktuk, see tests/install-servers", allow_module_level=True)

LONG = 40.0
"""Seconds that nothing here takes: a hang."""


@pytest.fixture
def hosts(sshd: RealSshd) -> list[Host]:
    return sshd.hosts(3)


@pytest.fixture
def silent() -> Iterator[Host]:
    """It takes connections, and says nothing."""
    with socket.create_server(("127.0.9.1", 0)) as listening:
        yield Host("127.0.9.1", port=listening.getsockname()[1])


def remote(cmd: Any, hosts: Any, params: dict[str, Any] | None = None, **options: Any) -> Any:
    """A TaktukRemote that is meant to fail quietly, not started."""
    return TaktukRemote(cmd, hosts, params, process_args={**QUIET, **options})


def run(cmd: Any, hosts: Any, params: dict[str, Any] | None = None, **options: Any) -> Any:
    """One that has ended."""
    action = remote(cmd, hosts, params, **options).start()
    action.wait(LONG)
    assert action.ended, action.processes
    return action


def outputs(action: Any) -> list[str]:
    return [process.stdout for process in action.processes]


def taktuks(parent: int | None = None) -> list[int]:
    """The taktuks that ``parent`` (default: this process) has started."""
    parent = os.getpid() if parent is None else parent
    found = []
    for proc in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (proc / "cmdline").read_bytes().split(b"\0")
            stat = (proc / "stat").read_text(errors="replace").rpartition(")")[2].split()
            if any(word.endswith(b"/taktuk") for word in words[:4]) and int(stat[1]) == parent:
                found.append(int(proc.name))
    return found


# -- running --------------------------------------------------------------------------------------


def test_one_taktuk_runs_a_command_on_all(hosts: list[Host]) -> None:
    action = remote(
        "echo {{{host}}} {{list('xyz')}}; echo err >&2; cat; exit {{[0, 3]}}", hosts
    ).start()
    until(lambda: all(process.stderr for process in action.processes))
    assert len(taktuks()) == 1
    action.close_stdin()
    action.wait(LONG)
    names = [host.address for host in hosts]
    assert outputs(action) == [f"{name} {one}\n" for name, one in zip(names, "xyz", strict=True)]
    assert [process.stderr for process in action.processes] == ["err\n"] * 3
    assert [process.exit_code for process in action.processes] == [0, 3, 0]


def test_its_pid_is_the_one_on_the_host(hosts: list[Host]) -> None:
    process = TaktukProcess("echo $$", hosts[0]).run(LONG)
    assert process.stdout == f"{process.pid}\n"


def test_a_process_alone_is_like_one_over_ssh(hosts: list[Host]) -> None:
    words = ("printf", "%s|", "a b", "$HOME", "-]", "]", "\x1b\x1e\x1f", "\n", "é\udcff")
    process = TaktukProcess(words, hosts[0]).run(LONG)
    assert process.stdout == "a b|$HOME|-]|]|\x1b\x1e\x1f|\n|é\udcff|"
    process = TaktukProcess("pwd; echo $A", hosts[0], cwd="/usr", env={"A": "x\ny"}).run(LONG)
    assert process.stdout == "/usr\nx y\n"
    assert repr(process) == "<TaktukProcess 'pwd; echo $A' on 127.0.1.1: exited 0>"


def test_a_folder_that_is_not_there(hosts: list[Host]) -> None:
    (process,) = run("true", hosts[:1], cwd="/nowhere").processes
    assert (process.exit_code, "/nowhere" in process.stderr) == (126, True)


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh", "fish"])
def test_the_login_shell_reads_the_command(sshd: RealSshd, shell: str) -> None:
    path = shutil.which(shell)
    if path is None:
        pytest.skip(f"needs {shell}, see tests/install-servers")
    (host,) = sshd.hosts(1, user=sshd.user(path))
    (process,) = run("echo $0; exit 4", [host]).processes
    assert process.exit_code == 4
    assert Path(process.stdout.strip() or shell).name == shell  # fish has no $0


def test_a_command_sees_nothing_of_taktuks_own_pipes(hosts: list[Host]) -> None:
    (process,) = run("ls /proc/self/fd; yes | head -n 1", hosts[:1]).processes
    assert (process.stdout.split(), process.stderr) == (["0", "1", "2", "3", "y"], "")


def test_hosts_may_differ_in_user_and_key(sshd: RealSshd, tmp_path: Path) -> None:
    (ann,) = sshd.hosts(1)
    (root,) = sshd.hosts(1, user="root", first=1)
    key = tmp_path / "other key"
    shutil.copy(sshd.keyfile, key)
    other = Host("127.0.1.3", ann.user, key, ann.port)
    action = remote("id -un; cat", [ann, root, other]).start()
    until(lambda: all(outputs(action)))
    assert len(taktuks()) == 1
    action.close_stdin()
    action.wait(LONG)
    assert [process.exit_code for process in action.processes] == [0, 0, 0]


def test_ten_megabytes_go_there_and_back(hosts: list[Host]) -> None:
    data = os.urandom(10_000_000)
    process = TaktukProcess("cat", hosts[0]).start()
    process.write(data)
    process.close_stdin()
    process.wait(LONG)
    assert process.stdout_bytes == data


def test_input_goes_to_all_or_to_one_in_order(hosts: list[Host]) -> None:
    action = remote("cat", hosts).start()
    action.write("before the start\n")
    for number in range(50):
        action.write(f"{number}\n")
        action.processes[number % 3].write("only\n")
    action.close_stdin()
    action.wait(LONG)
    for index, text in enumerate(outputs(action)):
        lines = text.split("\n")
        assert lines[0] == "before the start"
        assert [line for line in lines[1:-1] if line != "only"] == [str(n) for n in range(50)]
        assert [n for n, line in enumerate(lines) if line == "only"] == [
            2 + number + sum(one % 3 == index for one in range(number))
            for number in range(50)
            if number % 3 == index
        ]


def test_a_process_that_is_held_up_holds_up_the_others_at_last(hosts: list[Host]) -> None:
    # One stream for all: a megabyte of the one waits, then nothing comes of the other.
    release = threading.Event()

    class Slow:
        def write(self, text: str) -> None:
            release.wait(LONG)

    commands = ["head -c 20000000 /dev/zero", "head -c 30000000 /dev/zero", "echo short"]
    action = remote("{{commands}}", hosts)
    assert len(commands) == len(action.processes)
    slow, fast, short = action.processes
    slow.stdout_handlers.append(Slow())
    action.start()
    short.wait(LONG)
    seen = -1
    while seen != len(fast.stdout_bytes):
        seen = len(fast.stdout_bytes)
        fast.wait(0.5)
    release.set()
    action.wait(LONG)
    assert (len(slow.stdout_bytes), len(fast.stdout_bytes)) == (20_000_000, 30_000_000)


def test_a_terminal_is_refused(hosts: list[Host]) -> None:
    (process,) = run("true", hosts[:1], pty=True).processes
    assert process.reason is Reason.SPAWN
    assert "taktuk gives no terminal: use Remote" in process.message


def test_a_connection_cannot_be_carried(hosts: list[Host]) -> None:
    from execo._core.runtime import get_runtime
    from execo.transports.base import Forward

    transport = transports.get(get_runtime(), "taktuk")
    with pytest.raises(NotSupported, match="taktuk"):
        transport.open_all([(Forward("localhost", 80), None)])  # type: ignore[list-item]


# -- a tree ---------------------------------------------------------------------------------------


def test_hosts_are_reached_through_one_another(sshd: RealSshd, tmp_path: Path) -> None:
    # No key file is named, so that taktuk makes a tree. All read the same configuration of ssh.
    (host,) = sshd.hosts(1, user="root")
    config = tmp_path / "config"
    config.write_text(f"IdentityFile {sshd.keyfile}\nUser {host.user}\nPort {host.port}\n")
    names = [f"127.0.1.{n}" for n in range(1, 10)]
    params = {
        "taktuk_options": ("-s", "-d", "2", "-w", "2"),
        "taktuk_connector_options": ("-F", str(config)),
    }
    action = remote("echo $TAKTUK_POSITION; ps -o args= -p $PPID; cat", names, params).start()
    action.write("all\n")
    action.processes[7].write("eight\n")
    until(lambda: "eight" in action.processes[7].stdout)
    connectors = [name for name in names if any(connects(pid, name) for pid in taktuks())]
    assert 0 < len(connectors) <= 2
    action.processes[3].kill().wait(LONG)
    assert action.processes[3].exit_code == -signal.SIGTERM
    action.close_stdin()
    action.wait(LONG)
    assert [out.split("\n")[0] for out in outputs(action)] == [str(n) for n in range(1, 10)]
    assert all("all\n" in out for out in outputs(action))


def connects(parent: int, name: str) -> bool:
    """Whether ``parent`` has a connector to ``name``, or a shell that runs one."""
    return any(parent in (_parent(pid), _parent(_parent(pid))) for pid in running(name))


def _parent(pid: int) -> int:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return 0
    return int(stat.rpartition(")")[2].split()[1])


def _is_zombie(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    return stat.rpartition(")")[2].split()[0] == "Z"


def test_what_hangs_below_a_lost_host_is_lost(sshd: RealSshd, tmp_path: Path) -> None:
    (host,) = sshd.hosts(1, user="root")
    config = tmp_path / "config"
    config.write_text(f"IdentityFile {sshd.keyfile}\nUser {host.user}\nPort {host.port}\n")
    params = {
        "taktuk_options": ("-s", "-d", "1"),  # a chain
        "taktuk_connector_options": ("-F", str(config)),
    }
    action = remote("cat", [f"127.0.1.{n}" for n in range(1, 5)], params).start()
    until(lambda: all(process.pid for process in action.processes))
    os.kill(_parent(action.processes[0].pid), signal.SIGKILL)  # the taktuk there
    action.wait(LONG)
    first, *below = action.processes
    assert {process.reason for process in action.processes} == {Reason.CONNECT}
    assert "the connection to 127.0.1.1 was lost" in first.message
    assert all("is lost" in process.message for process in below)


# -- signals --------------------------------------------------------------------------------------


FAMILIES = {
    "in the background": "sleep {0} & sleep {0}",
    "in another group": "timeout 1000 sleep {0}; true",
    "in another session": "setsid sleep {0} & sleep {0}",
}


@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_kill_ends_all_that_was_started(
    hosts: list[Host], word: str, kind: str, number: signal.Signals
) -> None:
    action = remote(FAMILIES[kind].format(word), hosts).start()
    until(lambda: len(running(word)) == 6)
    action.kill(number)
    action.wait(LONG)
    assert [process.exit_code for process in action.processes] == [-number] * 3
    until(lambda: not running(word))


def test_one_is_killed_and_the_others_go_on(hosts: list[Host]) -> None:
    action = remote("echo ready; cat", hosts).start()
    until(lambda: all(outputs(action)))
    action.processes[1].kill().wait(LONG)
    assert [process.running for process in action.processes] == [True, False, True]
    action.close_stdin()
    action.wait(LONG)
    assert [process.exit_code for process in action.processes] == [0, -signal.SIGTERM, 0]


def test_kill_at_once_leaves_nothing(hosts: list[Host], word: str) -> None:
    action = remote(f"sleep {word}", hosts).start()
    action.kill()
    action.wait(LONG)
    assert all(process.ended for process in action.processes)
    transports.close_idle()
    until(lambda: not running(word) and not taktuks())


def test_a_timeout_ends_it(hosts: list[Host], word: str) -> None:
    action = run(f"sleep {word}", hosts, timeout=1)
    assert all(process.timeouted for process in action.processes)
    assert {process.reason for process in action.processes} == {Reason.TIMEOUT}
    assert not running(word)


@pytest.mark.parametrize("guard", [True, False])
def test_another_signal_is_the_commands_affair(hosts: list[Host], guard: bool) -> None:
    text = "trap 'echo got; exit 7' USR1; echo ready; while :; do sleep 0.1; done"
    action = remote(text, hosts, {"guard": guard}).start()
    until(lambda: all(outputs(action)))
    action.kill(signal.SIGUSR1)
    action.wait(LONG)
    assert outputs(action) == ["ready\ngot\n"] * 3
    assert [process.exit_code for process in action.processes] == [7] * 3


OUT_OF_REACH = "env -i setsid sleep {0} & echo ready; exec {1}"
"""What has no mark is found by no guard, and holds the output of its command."""


@pytest.mark.parametrize("guard", [True, False])
@pytest.mark.parametrize("rest", ["sleep 1000", "true"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_output_that_is_held_out_of_reach(
    hosts: list[Host], word: str, guard: bool, rest: str, number: signal.Signals
) -> None:
    action = remote(OUT_OF_REACH.format(word, rest), hosts, {"guard": guard}).start()
    until(lambda: all(outputs(action)) and len(running(word)) == 3)
    action.kill(number, auto_force_kill_timeout=0.5)
    action.wait(LONG)
    assert [process.exit_code for process in action.processes] == [-signal.SIGKILL] * 3
    assert not any(process.drained for process in action.processes)
    assert outputs(action) == ["ready\n"] * 3


def test_what_takes_its_time_to_end_is_not_cut_short(hosts: list[Host]) -> None:
    text = "trap 'exit 5' TERM; (trap '' TERM; sleep 3; echo last) & echo ready; wait"
    action = remote(text, hosts[:1]).start()
    until(lambda: all(outputs(action)))
    action.kill()
    action.wait(LONG)
    assert (action.processes[0].exit_code, outputs(action)) == (5, ["ready\nlast\n"])


def test_what_is_out_of_reach_is_not_waited_for_after_its_time(
    hosts: list[Host], word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(configuration, "kill_timeout", 2)
    (process,) = run(OUT_OF_REACH.format(word, "sleep 1000"), hosts[:1], timeout=1).processes
    assert (process.reason, process.drained) == (Reason.TIMEOUT, False)
    transports.close_idle()
    assert not taktuks()


def test_the_leader_alone(hosts: list[Host], word: str) -> None:
    text = f"sleep {word} & echo ready; wait"
    action = remote(text, hosts[:1], kill_subprocesses=False).start()
    until(lambda: all(outputs(action)))
    action.kill()
    until(lambda: _parent(action.processes[0].pid) == 0 or _is_zombie(action.processes[0].pid))
    assert running(word)
    os.kill(running(word)[0], signal.SIGKILL)
    action.wait(LONG)
    assert action.processes[0].exit_code == -signal.SIGTERM


def test_what_survives_is_killed_when_the_script_has_no_time(hosts: list[Host], word: str) -> None:
    text = f"(trap '' TERM; exec sleep {word} >/dev/null 2>&1) & echo ready; wait"
    action = remote(text, hosts[:1]).start()
    until(lambda: all(outputs(action)) and running(word))
    action.kill()
    action.wait(LONG)
    assert running(word)
    transports.close_idle()
    until(lambda: not running(word))


def test_what_has_ended_may_leave_something_behind(hosts: list[Host], word: str) -> None:
    action = run(f"nohup sleep {word} >/dev/null 2>&1 & exit", hosts[:1])
    assert action.ok
    transports.close_idle()
    assert len(running(word)) == 1


# -- hosts that fail ------------------------------------------------------------------------------


def test_unreachable_hosts_are_told_apart(sshd: RealSshd, tmp_path: Path) -> None:
    good = sshd.hosts(2)
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    with socket.socket() as unused:
        unused.bind(("127.0.1.9", 0))
        refused = Host("127.0.1.9", good[0].user, sshd.keyfile, unused.getsockname()[1])
        nowhere = Host("nowhere.invalid", good[0].user, sshd.keyfile, sshd.port)
        stranger = Host("127.0.1.8", good[0].user, key, sshd.port)
        action = run("echo hi", [good[0], refused, nowhere, stranger, good[1]])
    first, no_port, no_name, no_key, last = action.processes
    assert (first.stdout, last.stdout) == ("hi\n", "hi\n")
    assert [one.reason for one in (no_port, no_name, no_key)] == [
        Reason.CONNECT,
        Reason.CONNECT,
        Reason.AUTH,
    ]
    assert "127.0.1.9" in no_port.message
    assert "Connection refused" in no_port.message
    assert "Could not resolve hostname" in no_name.message
    assert "Permission denied" in no_key.message
    assert [one.exit_code for one in (no_port, no_name, no_key)] == [None] * 3


def test_a_host_key_that_is_not_known(hosts: list[Host], tmp_path: Path) -> None:
    options = ("-o", f"UserKnownHostsFile={tmp_path}/known")
    params = {"host_key_policy": "strict", "taktuk_connector_options": options}
    (process,) = run("true", hosts[:1], params).processes
    assert process.reason is Reason.HOST_KEY
    assert run("true", hosts[:1], {**params, "host_key_policy": "accept-new"}).ok
    assert run("true", hosts[:1], params).ok


def test_a_host_without_perl(hosts: list[Host]) -> None:
    (process,) = run("true", hosts[:1], {"taktuk_options": ("-s", "-I", "noperl")}).processes
    assert process.reason is Reason.SPAWN
    assert "apt install perl" in process.message
    assert "127.0.1.1" in process.message


def test_a_host_without_room_for_a_process(hosts: list[Host]) -> None:
    params = {"taktuk_options": ("-s", "-I", "prlimit --nproc=1 perl")}
    (process,) = run("echo hi", hosts[:1], params).processes
    assert process.reason is Reason.SPAWN
    assert "cannot start 'echo hi' on 127.0.1.1" in process.message
    assert "Resource temporarily unavailable" in process.message
    transports.close_idle()
    assert not taktuks()


def test_no_taktuk_here(hosts: list[Host]) -> None:
    action = run("true", hosts, {"taktuk": "no-such-taktuk"})
    for process in action.processes:
        assert process.reason is Reason.SPAWN
        assert "cannot run 'no-such-taktuk'" in process.message
        assert "apt install taktuk" in process.message


def test_no_connector_here(hosts: list[Host]) -> None:
    (process,) = run("true", hosts[:1], {"taktuk_connector": "no-such-ssh"}).processes
    assert process.reason is Reason.SPAWN
    assert "cannot run 'no-such-ssh'" in process.message
    assert "taktuk_connector" in process.message


@pytest.mark.parametrize("options", [("-d",), ("-c",), ("-s", "-l")], ids=str)
def test_options_that_taktuk_does_not_understand(
    hosts: list[Host], options: tuple[str, ...]
) -> None:
    action = run("true", hosts, {"taktuk_options": options})
    for process in action.processes:
        assert process.reason is Reason.SPAWN, process.message
        assert "taktuk_options" in process.message


@pytest.mark.parametrize("words", [("-m", "127.0.1.77"), ("-G", "x"), ("-f", "x"), ("-E", "a")])
def test_options_that_would_mix_up_the_hosts(hosts: list[Host], words: tuple[str, ...]) -> None:
    action = run("true", hosts, {"taktuk_options": ("-s", *words)})
    for process in action.processes:
        assert process.reason is Reason.SPAWN
        assert f"taktuk_options cannot have {words[0]!r}" in process.message


# The connector is a command of the shell, and the address is added to it.
@pytest.mark.parametrize(
    ("address", "told"),
    [
        *((address, "use Remote") for address in ("a/b", "~")),
        *(
            (address, "cannot be part of a command")
            for address in ("a;id", "a|id", "$HOME", "`id`", "a'", 'a"', "a(b")
        ),
    ],
)
def test_an_address_that_is_more_than_a_word(hosts: list[Host], address: str, told: str) -> None:
    (process,) = run("true", hosts[:1], {"host_rewrite_func": lambda name: address}).processes
    assert process.reason is Reason.SPAWN
    assert told in process.message


def test_a_nul_cannot_be_sent(hosts: list[Host]) -> None:
    good, bad = run("{{['echo hi', 'echo \\0']}}", hosts[:2]).processes
    assert good.stdout == "hi\n"
    assert "NUL" in bad.message


def test_text_that_is_no_bytes_fails_alone(hosts: list[Host]) -> None:
    commands = ["echo hi", "echo \ud800"]
    good, bad = run("{{commands}}", hosts[: len(commands)]).processes
    assert good.stdout == "hi\n"
    assert bad.reason is Reason.SPAWN
    assert "cannot run 'echo \\ud800' on 127.0.1.2" in bad.message


def test_a_silent_host_holds_up_no_other(hosts: list[Host], silent: Host) -> None:
    action = remote("echo hi", [silent, *hosts], {"connect_timeout": 20}).start()
    quiet, *others = action.processes
    for process in others:
        process.wait(15)
    assert [process.stdout for process in others] == ["hi\n"] * 3
    assert not quiet.ended
    action.kill()
    action.wait(LONG)
    assert quiet.reason is Reason.CANCELLED


def test_a_silent_host_is_given_up_in_the_end(hosts: list[Host], silent: Host) -> None:
    quiet, good = run("echo hi", [silent, hosts[0]], {"connect_timeout": 1}).processes
    assert good.ok
    assert quiet.reason is Reason.CONNECT
    assert "timed out" in quiet.message


def test_a_timeout_does_not_wait_for_a_silent_host(
    hosts: list[Host], silent: Host, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(taktuk_channel, "UNDELIVERED_AFTER", 0.5)
    action = remote(f"sleep {word}", [silent, hosts[0]], {"connect_timeout": 20}, timeout=1)
    quiet, busy = action.start().processes
    busy.wait(15)
    assert (busy.exit_code, busy.timeouted) == (-signal.SIGTERM, True)
    until(lambda: not running(word))
    assert not quiet.ended
    action.kill()
    action.wait(LONG)


def test_a_host_is_lost_in_the_middle(hosts: list[Host], word: str) -> None:
    action = remote(f"echo ready; sleep {word}; cat", hosts).start()
    until(lambda: all(outputs(action)))
    action.processes[0].write("x")  # it waits in the host's taktuk
    os.kill(_parent(action.processes[0].pid), signal.SIGKILL)
    lost = action.processes[0]
    lost.wait(LONG)
    assert lost.reason is Reason.CONNECT
    assert "the connection to 127.0.1.1" in lost.message
    assert [process.running for process in action.processes] == [False, True, True]
    until(lambda: len(running(word)) == 2)
    action.kill()
    action.wait(LONG)


@pytest.mark.parametrize(
    ("number", "name"), [(signal.SIGKILL, "SIGKILL"), (signal.SIGRTMIN + 1, "signal 35")], ids=str
)
def test_the_local_taktuk_is_killed(hosts: list[Host], word: str, number: int, name: str) -> None:
    action = remote(f"echo ready; setsid sleep {word}", hosts).start()
    until(lambda: all(outputs(action)))
    for pid in taktuks():
        os.kill(pid, number)
    action.wait(LONG)
    for process in action.processes:
        assert process.reason is Reason.CONNECT
        assert f"taktuk command on this machine was ended ({name})" in process.message
        assert process.stdout == "ready\n"
    until(lambda: not running(word))


def test_giving_back_what_is_idle_disturbs_no_start(
    hosts: list[Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    transports.close_idle()

    def made_slowly(*args: Any) -> Any:
        # The file of hosts is there, and another thread gives back the folder.
        closing.start()
        closing.join(0.5)
        return TaktukRun(*args)

    closing = threading.Thread(target=transports.close_idle)
    monkeypatch.setattr("execo.transports.taktuk.TaktukRun", made_slowly)
    action = run("echo hi", hosts)
    closing.join(LONG)
    assert outputs(action) == ["hi\n"] * 3


# -- the end of the script ------------------------------------------------------------------------

ENDS = {
    "end of script": ("", None),
    "os._exit": ("os._exit(7)", None),
    "kill -9": ("time.sleep(60)", signal.SIGKILL),
    "ctrl-c": ("time.sleep(60)", signal.SIGINT),
}
SOURCE = """
from execo.taktuk import TaktukRemote
hosts = [host] * 2
left = "nohup sleep {{0}} >/dev/null 2>&1 & exit".format(word + "1")
TaktukRemote(left, hosts[:1]).run()
text = "sleep {{0}} & setsid sleep {{0}} & trap '' HUP; echo ready; sleep {{0}}; :".format(word)
running = TaktukRemote(text, hosts, process_args={{"nolog_exit_code": True}}).start()
ready(*running.processes)
time.sleep(0.5)  # for the guards
{end}
"""


@pytest.mark.parametrize("way", ENDS)
def test_what_runs_ends_with_the_script(
    hosts: list[Host], tmp_path: Path, word: str, way: str
) -> None:
    end, number = ENDS[way]
    with HostScript(tmp_path, SOURCE.format(end=end), hosts[0], word) as script:
        script.wait_ready()
        until(lambda: len(running(word)) == 6)
        if number is not None:
            threading.Event().wait(1.0)
            script.popen.send_signal(number)
        script.finish()
    until(lambda: not running(word))
    assert len(running(word + "1")) == 1


def test_no_file_is_left(
    hosts: list[Host], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    transports.close_idle()
    action = remote("cat", hosts[:1]).start()
    until(lambda: action.processes[0].pid)
    until(lambda: not [one for one in tmp_path.rglob("*") if one.is_file()])
    (folder,) = tmp_path.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    action.close_stdin()
    action.wait(LONG)
    transports.close_idle()
    assert list(tmp_path.iterdir()) == []


def test_a_hundred_hosts(sshd: RealSshd) -> None:
    hosts = sshd.hosts(100)
    action = run("echo {{{host}}}", hosts)
    assert outputs(action) == [f"{host.address}\n" for host in hosts]


def test_a_guard_costs_no_time_when_it_is_told_goodbye(hosts: list[Host]) -> None:
    assert run("true", hosts).ok
    begin = time.monotonic()
    transports.close_idle()
    assert not taktuks()
    assert time.monotonic() - begin < LONG
