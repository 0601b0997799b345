"""Commands on hosts through the ssh command, against a real sshd."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from contract import Recorder
from execo import Host, Process, Remote, SshProcess, transports
from execo._core.runtime import get_runtime
from execo.config import make_connection_params
from execo.connection import connection_to
from execo.errors import Reason
from execo.transports.base import ConnectionOptions, Exec, Target
from execo.transports.openssh_words import Abilities, ssh_words, tells_of_commands
from sshd import RealSshd

pytest_plugins = ["sshd"]

TIMEOUT = 30.0
OPENSSH = {"transport": "openssh"}


@pytest.fixture(params=["root", "user"])
def host(request: pytest.FixtureRequest, sshd: RealSshd) -> Host:
    if request.param == "root" and os.geteuid() == 0:
        return sshd.hosts(1, user="root")[0]
    return sshd.hosts(1)[0]


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + TIMEOUT
    nap = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        nap.wait(0.02)


def running(word: str) -> list[int]:
    """The processes that have ``word`` as an argument."""
    found = []
    for proc in Path("/proc").glob("[0-9]*"):
        try:
            if word.encode() in (proc / "cmdline").read_bytes().split(b"\0"):
                found.append(int(proc.name))
        except OSError:
            continue
    return found


def on(host: Host, cmd: Any, params: dict[str, Any] | None = None, **options: Any) -> SshProcess:
    options = {"nolog_error": True, "nolog_exit_code": True, **options}
    return SshProcess(cmd, host, {**OPENSSH, **(params or {})}, **options)


def run(host: Host, cmd: Any, params: dict[str, Any] | None = None, **options: Any) -> SshProcess:
    process = on(host, cmd, params, **options).start()
    process.wait(TIMEOUT)
    assert process.ended, process
    return process


# -- running --------------------------------------------------------------------------------------


def test_a_command_writes_and_exits(host: Host) -> None:
    process = run(host, "echo out; echo err >&2; exit 3")
    assert (process.stdout, process.stderr, process.exit_code) == ("out\n", "err\n", 3)
    assert process.pid is None


@pytest.mark.parametrize("code", [0, 126, 127, 255])
def test_an_exit_code_is_the_commands(host: Host, code: int) -> None:
    process = run(host, f"exit {code}")
    assert (process.exit_code, process.error) == (code, False)


def test_a_death_by_signal_is_255(host: Host) -> None:
    process = run(host, "kill -9 $$")
    assert (process.exit_code, process.error) == (255, False)


def test_a_command_runs_on_several_hosts(sshd: RealSshd) -> None:
    remote = Remote("echo {{{host}}}", sshd.hosts(3), OPENSSH).run()
    assert [process.stdout for process in remote.processes] == [
        "127.0.1.1\n",
        "127.0.1.2\n",
        "127.0.1.3\n",
    ]


def test_ten_megabytes_go_there_and_back(host: Host) -> None:
    data = os.urandom(10_000_000)
    process = on(host, "cat").start()
    process.write(data)
    process.close_stdin()
    process.wait(TIMEOUT)
    assert process.stdout_bytes == data


def test_fifty_megabytes_come(host: Host) -> None:
    process = run(host, "head -c 50000000 /dev/zero")
    assert process.stdout_bytes == bytes(50_000_000)


def test_words_folder_and_variables(host: Host) -> None:
    words = ("printf", "%s|", "a b", "$HOME;exit 4", "")
    assert run(host, words).stdout == "a b|$HOME;exit 4||"
    process = run(host, 'pwd; echo "$A"', cwd="/usr", env={"A": "x ' y"})
    assert process.stdout == "/usr\nx ' y\n"
    assert "cannot change to folder" in run(host, "true", cwd="/nowhere").stderr


def test_a_nul_cannot_be_sent(host: Host) -> None:
    process = run(host, "echo a\0b")
    assert process.reason is Reason.SPAWN
    assert "NUL" in process.message


def test_a_terminal(host: Host) -> None:
    process = on(host, "test -t 0 && stty size; cat", pty=True).start()
    process.write("hello\nhalf")
    process.close_stdin()
    process.wait(TIMEOUT)
    assert (process.stdout, process.stderr, process.exit_code) == (
        "24 80\r\nhello\r\nhalf",
        "",
        0,
    )


# -- ending ---------------------------------------------------------------------------------------

FAMILIES = {
    "alone": "exec sleep {}",
    "children": "sleep {} & sleep {}; true",
    "sessions": "setsid sleep {} & nohup setsid sleep {} >/dev/null 2>&1 & sleep {}; true",
    "stopped": "sleep {} & sleep 0.5; kill -STOP $!; sleep {}; true",
}


@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_kill_ends_all_that_was_started(host: Host, kind: str, number: signal.Signals) -> None:
    word = f"1000.{time.monotonic_ns()}"
    process = on(host, FAMILIES[kind].replace("{}", word)).start()
    until(lambda: len(running(word)) >= FAMILIES[kind].count("{}"))
    process.kill(number)
    process.wait(TIMEOUT)
    assert (process.exit_code, process.killed, process.ok) == (-number, True, True)
    until(lambda: not running(word))


def test_kill_at_once_leaves_nothing(host: Host) -> None:
    word = f"1000.{time.monotonic_ns()}"
    for delay in (0.0, 0.05, 0.1, 0.15, 0.2):
        process = on(host, f"sleep {word} & sleep {word}; true").start()
        threading.Event().wait(delay)
        process.kill()
        process.wait(TIMEOUT)
        assert process.ended
        assert process.killed or process.reason is Reason.CANCELLED
    until(lambda: not running(word))


def test_a_timeout_ends_it(host: Host) -> None:
    process = run(host, "sleep 1000 & sleep 1000", timeout=1, nolog_timeout=True)
    assert (process.timeouted, process.reason) == (True, Reason.TIMEOUT)


def test_another_signal_is_the_commands_affair(host: Host) -> None:
    process = on(host, "trap 'echo got; exit 7' USR1; echo ready; while :; do sleep 0.1; done")
    process.start()
    until(lambda: process.stdout)
    process.kill(signal.SIGUSR1, auto_force_kill_timeout=None)
    process.wait(TIMEOUT)
    assert (process.stdout, process.exit_code) == ("ready\ngot\n", 7)


def test_other_commands_of_the_host_go_on(host: Host) -> None:
    first, second = on(host, "cat").start(), on(host, "cat").start()
    second.write("x\n")
    until(lambda: second.stdout)
    first.kill().wait(TIMEOUT)
    assert first.ended
    second.write("y\n")
    second.close_stdin()
    second.wait(TIMEOUT)
    assert second.stdout == "x\ny\n"


def test_without_a_guard_the_connection_ends(host: Host) -> None:
    process = on(host, "echo ready; sleep 1000; true", {"guard": False}, pty=True).start()
    until(lambda: process.stdout)
    process.kill().wait(TIMEOUT)
    assert (process.exit_code, process.killed) == (-signal.SIGTERM, True)


SCRIPT = """
import sys, threading
from execo import Host, SshProcess
address, user, keyfile, port, word = sys.argv[1:]
host = Host(address, user, keyfile, int(port))
params = {{"transport": "openssh"}}
left = f"nohup sleep {{word}}1 >/dev/null 2>&1 & echo started"
assert SshProcess(left, host, params).run().ok
text = f"sleep {{word}} & setsid sleep {{word}} & trap '' TERM HUP; echo ready; "
process = SshProcess(text + f"sleep {{word}}; sleep {{word}}", host, params).start()
while "ready" not in process.stdout:
    threading.Event().wait(0.05)
print("ready", flush=True)
{end}
"""


@pytest.mark.parametrize("end", ["threading.Event().wait()", "pass"])
def test_the_end_of_a_script_ends_what_has_not_ended(host: Host, end: str) -> None:
    word = f"1000.{time.monotonic_ns()}"
    where = [host.address, str(host.user), str(host.keyfile), str(host.port), word]
    command = [sys.executable, "-c", SCRIPT.format(end=end), *where]
    script = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parent.parent)
    with script:
        assert script.stdout is not None
        assert script.stdout.readline() == b"ready\n"
        if end != "pass":
            until(lambda: any("execo-guard" in text for text in shells_of(script.pid)))
            threading.Event().wait(1.0)  # for the guard to be there, not only its ssh
            script.kill()
        script.wait(TIMEOUT)
    until(lambda: not running(word))
    left = running(f"{word}1")
    assert len(left) == 1
    os.kill(left[0], signal.SIGKILL)
    until(lambda: not running(f"{word}1"))


def shells_of(parent: int) -> list[str]:
    """The command lines of the children of ``parent``."""
    found = []
    for proc in Path("/proc").glob("[0-9]*"):
        try:
            stat = (proc / "stat").read_text(errors="replace").rpartition(")")[2].split()
            if stat[1] == str(parent):
                found.append((proc / "cmdline").read_text(errors="replace"))
        except OSError:
            continue
    return found


# -- what fails -----------------------------------------------------------------------------------


def moved(host: Host, port: int) -> Host:
    return Host(host.address, host.user, host.keyfile, port)


@pytest.fixture
def plain(sshd: RealSshd) -> Host:
    return sshd.hosts(1)[0]


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.1.1", 0)) as listening:
        yield listening


def test_a_port_where_nobody_listens(plain: Host, listener: socket.socket) -> None:
    port = listener.getsockname()[1]
    listener.close()
    process = run(moved(plain, port), "true")
    assert process.reason is Reason.CONNECT
    assert "Connection refused" in process.message
    assert f"{plain.address} (user {plain.user}, port {port})" in process.message


def test_a_name_that_does_not_exist(plain: Host) -> None:
    process = run(Host("nowhere.invalid", plain.user, plain.keyfile, plain.port), "true")
    assert process.reason is Reason.CONNECT
    assert "Could not resolve hostname" in process.message


def test_a_port_that_says_nothing(plain: Host, listener: socket.socket) -> None:
    process = run(moved(plain, listener.getsockname()[1]), "true", {"connect_timeout": 1})
    assert process.reason is Reason.CONNECT
    assert "timed out" in process.message


def test_a_port_that_is_no_ssh_server(plain: Host, listener: socket.socket) -> None:
    def babble() -> None:
        peer, _ = listener.accept()
        with peer:
            peer.sendall(b"\0\1garbage\n" * 100)
            peer.recv(1000)

    thread = threading.Thread(target=babble)
    thread.start()
    process = run(moved(plain, listener.getsockname()[1]), "true")
    thread.join(TIMEOUT)
    assert process.reason is Reason.CONNECT
    assert "is it an SSH server" in process.message


def test_a_key_that_the_host_does_not_know(plain: Host, tmp_path: Path) -> None:
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    process = run(Host(plain.address, plain.user, key, plain.port), "true")
    assert process.reason is Reason.AUTH
    assert "Permission denied" in process.message
    process = run(Host(plain.address, plain.user, tmp_path / "no key", plain.port), "true")
    assert process.reason is Reason.AUTH
    assert process.stderr == ""


def test_a_host_key_that_has_changed(plain: Host, sshd: RealSshd, tmp_path: Path) -> None:
    known = tmp_path / "known hosts"
    options = ["-o", f'UserKnownHostsFile="{known}"']
    params = {"host_key_policy": "strict", "ssh_options": options}
    process = run(plain, "true", params)
    assert process.reason is Reason.HOST_KEY
    assert run(plain, "true", {**params, "host_key_policy": "accept-new"}).ok
    assert run(plain, "true", params).ok
    other = subprocess.check_output(["ssh-keygen", "-y", "-f", sshd.keyfile], text=True)
    known.write_text(f"[{plain.address}]:{plain.port} {other}")
    transports.close_idle()  # a connection that is kept is not asked again
    process = run(plain, "true", params)
    assert process.reason is Reason.HOST_KEY
    assert "HAS CHANGED" in process.message
    assert run(plain, "true", {**params, "host_key_policy": "off", "ssh_options": []}).ok


def test_a_key_file_that_is_not_there(plain: Host, tmp_path: Path) -> None:
    key = tmp_path / "id_gone"
    process = run(Host(plain.address, plain.user, key, plain.port), "true")
    assert process.reason is Reason.AUTH
    assert f"the key file {key} does not exist" in process.message


def test_a_server_that_goes_away_in_the_middle(host: Host) -> None:
    process = run(host, "echo first; sleep 0.5; kill -9 $PPID; sleep 1")
    assert process.reason is Reason.CONNECT
    assert "was lost" in process.message
    assert process.stdout == "first\n"


def test_a_host_that_freezes_is_given_up_after_kill(host: Host) -> None:
    process = on(host, "echo $PPID; trap '' TERM; sleep 1000; true").start()
    until(lambda: process.stdout.endswith("\n"))
    server = int(process.stdout)
    os.kill(server, signal.SIGSTOP)
    process.kill(signal.SIGKILL)
    process.wait(TIMEOUT)
    os.kill(server, signal.SIGCONT)
    assert process.reason is Reason.CONNECT
    assert "does not answer" in process.message


def test_an_option_that_ssh_does_not_know(plain: Host) -> None:
    process = run(plain, "true", {"ssh_options": ["-o", "NoSuchOption=1"]})
    assert process.reason is Reason.SPAWN
    assert "Bad configuration option" in process.message


def test_no_ssh_here(plain: Host) -> None:
    process = run(plain, "true", {"ssh": "no-such-ssh"})
    assert process.reason is Reason.SPAWN
    assert "openssh-client" in process.message


STUB = """#!/bin/sh
log=; while [ $# -gt 0 ]; do [ "$1" = -E ] && log=$2; shift; done
[ "$log" ] && echo 'MESSAGE' >"$log"
exit 255
"""


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("Received disconnect from web1: 2: Too many authentication failures", Reason.AUTH),
        ("Unable to negotiate: no matching cipher found. Their offer: x", Reason.AUTH),
        ("ssh: connect to host web1 port 22: No route to host", Reason.CONNECT),
        ("something that nobody has seen", Reason.CONNECT),
        ("", None),
    ],
)
def test_messages_of_another_ssh(
    plain: Host, tmp_path: Path, message: str, reason: Reason | None
) -> None:
    stub = tmp_path / "ssh"
    stub.write_text(STUB.replace("MESSAGE", message))
    stub.chmod(0o755)
    process = run(plain, "true", {"ssh": str(stub)})
    assert process.reason is (reason or Reason.EXIT_CODE)
    assert message in process.message
    assert process.exit_code == (None if reason else 255)


# -- what is left ---------------------------------------------------------------------------------


def test_no_file_is_left_of_ended_commands(plain: Host) -> None:
    run(plain, "true")
    run(plain, "exit 255")
    folder = log_folder()
    assert [name for name in os.listdir(folder) if not name.startswith("m")] == []
    assert folder.stat().st_mode & 0o777 == 0o700


def test_one_guard_serves_a_target(plain: Host) -> None:
    processes = [on(plain, "cat").start() for _ in range(3)]
    until(guards)
    assert len(guards()) == 1
    for process in processes:
        process.close_stdin()
        process.wait(TIMEOUT)
    assert len(guards()) == 1
    assert Process(["true"]).run().ok


def log_folder() -> Path:
    transport: Any = transports.get(get_runtime(), "openssh")
    return Path(transport._folder.file(0)).parent


def guards() -> list[str]:
    return [text for text in shells_of(os.getpid()) if "execo-guard" in text]


def test_a_folder_of_messages_that_is_removed_is_made_again(plain: Host) -> None:
    assert run(plain, "true").ok
    folder = log_folder()
    shutil.rmtree(folder)
    process = run(plain, "echo on")
    assert (process.stdout, process.ok) == ("on\n", True)
    assert log_folder() != folder


LEAVES_FOLDER = """
import os, signal, sys
from execo._core.runtime import get_runtime
from execo.transports.openssh_folder import LogFolder
get_runtime()  # which sees to forked children, as in every script with a transport
folder = LogFolder()
path = os.path.dirname(folder.file(1))
if not os.fork():
    print(path, flush=True)  # the child: it has given up what it inherited
sys.stdin.read()
"""


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A folder of temporary files; in a longer path no socket could be made."""
    with tempfile.TemporaryDirectory(prefix="execo-t", dir="/tmp") as folder:
        yield Path(folder)


def test_only_folders_of_killed_scripts_are_removed(short_path: Path) -> None:
    def script() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", LEAVES_FOLDER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parent.parent,
            env={**os.environ, "TMPDIR": str(short_path), "XDG_RUNTIME_DIR": ""},
        )

    with script() as killed:
        assert killed.stdout is not None
        left = Path(killed.stdout.readline().strip())
        killed.kill()  # its forked child lives on, and holds nothing
        killed.wait(TIMEOUT)
        (short_path / "execo-ssh-link").symlink_to(short_path)
        with script() as runs, script() as another:
            assert runs.stdout is not None
            assert another.stdout is not None
            first = Path(runs.stdout.readline().strip())
            second = Path(another.stdout.readline().strip())
            assert not left.exists()
            assert first.exists()
            assert second.exists()
            assert (short_path / "execo-ssh-link").is_symlink()
            assert runs.stdin is not None
            assert another.stdin is not None
            runs.stdin.close()
            another.stdin.close()


# -- not too many at once -------------------------------------------------------------------------


def test_forty_commands_on_a_stock_host(stock_sshd: RealSshd) -> None:
    remote = Remote("echo {{range(40)}}", stock_sshd.hosts(1) * 40, OPENSSH).run(90)
    assert remote.finished_ok, remote.failed
    assert [process.stdout for process in remote.processes] == [f"{n}\n" for n in range(40)]


def test_forty_commands_run_at_once(stock_sshd: RealSshd) -> None:
    remote = Remote("echo ready; cat", stock_sshd.hosts(1) * 40, OPENSSH).start()
    until(lambda: all(process.stdout for process in remote.processes) or remote.failed)
    assert remote.failed == []
    remote.close_stdin().wait(TIMEOUT)
    assert remote.finished_ok


def test_sixty_addresses_of_a_stock_server(stock_sshd: RealSshd) -> None:
    remote = Remote("echo {{{host}}}", stock_sshd.hosts(60), OPENSSH).run(90)
    assert remote.finished_ok, remote.failed


def test_those_that_wait_are_given_up(plain: Host, listener: socket.socket) -> None:
    silent = moved(plain, listener.getsockname()[1])
    processes = [on(silent, "true").start() for _ in range(20)]
    for process in processes:
        process.kill()
    for process in processes:
        process.wait(TIMEOUT)
    assert all(process.killed or process.reason is Reason.CANCELLED for process in processes)
    assert Reason.CANCELLED in {process.reason for process in processes}
    assert run(plain, "echo on").stdout == "on\n"


def test_a_silent_host_holds_up_no_other(plain: Host, listener: socket.socket) -> None:
    silent = moved(plain, listener.getsockname()[1])
    processes = [on(silent, "true").start() for _ in range(20)]
    assert run(plain, "echo on").stdout == "on\n"
    assert not any(process.ended for process in processes)
    for process in processes:
        process.kill().wait(TIMEOUT)


LEAVES = """
import sys
from execo import Host, SshProcess
address, user, keyfile, port = sys.argv[1:]
host = Host(address, user, keyfile, int(port))
for _ in range(40):
    SshProcess("true", host, {"transport": "openssh"}).start()
"""


def test_the_end_of_a_script_gives_up_those_that_wait(plain: Host, listener: socket.socket) -> None:
    where = [plain.address, str(plain.user), str(plain.keyfile), str(listener.getsockname()[1])]
    command = [sys.executable, "-c", LEAVES, *where]
    root = Path(__file__).parent.parent
    done = subprocess.run(command, cwd=root, check=False, capture_output=True, timeout=TIMEOUT)
    assert (done.returncode, done.stdout) == (0, b""), done.stderr
    assert b"Traceback" not in done.stderr


# -- a guard that goes -----------------------------------------------------------------------------


def test_the_loss_of_the_guard_is_told(plain: Host, caplog: pytest.LogCaptureFixture) -> None:
    process = on(plain, "echo ready; sleep 1000; true").start()
    until(lambda: process.stdout)
    until(lambda: the_guard().ready)
    os.kill(the_guard()._channel.pid, signal.SIGKILL)
    process.wait(TIMEOUT)
    assert process.reason is Reason.CONNECT
    assert "the guard's connection to" in process.message
    assert "the guard's connection to" in caplog.text


def test_the_next_guard_of_a_host_takes_over(plain: Host, caplog: pytest.LogCaptureFixture) -> None:
    transport = transports.get(get_runtime(), "openssh")
    target = connection_to(plain, make_connection_params(OPENSSH))[1]
    detached = Recorder(get_runtime().loop)
    transport.open_all([(Exec("echo ready; cat", target=target, detach=True), detached)])
    detached.wait(lambda sink: sink.out)
    until(lambda: the_guard().ready)
    lost = the_guard()
    os.kill(lost._channel.pid, signal.SIGKILL)
    until(lambda: lost.gone)
    later = on(plain, "echo ready; sleep 1000; true").start()
    until(lambda: later.stdout)
    assert detached.channel is not None
    get_runtime().loop.run_sync(detached.channel.send_signal, signal.SIGTERM)
    detached.wait_over()
    later.kill().wait(TIMEOUT)
    assert "no guard on" not in caplog.text


def the_guard() -> Any:
    transport: Any = transports.get(get_runtime(), "openssh")
    (guard,) = (guard for guard in transport._live_guards if not guard.gone and guard.users)
    return guard


# -- what the user's files of configuration say ----------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "RemoteCommand echo mine",
        "ForkAfterAuthentication yes",
        "StdinNull yes",
        "SessionType none",
        "PermitLocalCommand yes\nLocalCommand echo local",
        "LocalForward PORT 127.0.0.1:1\nExitOnForwardFailure yes",
    ],
)
def test_a_configuration_for_sessions_by_hand_does_no_harm(
    plain: Host, listener: socket.socket, tmp_path: Path, line: str
) -> None:
    config = tmp_path / "config"
    config.write_text(line.replace("PORT", f"127.0.1.1:{listener.getsockname()[1]}") + "\n")
    process = on(plain, "cat", {"ssh_options": ["-F", str(config)]}).start()
    process.write("hello")
    process.close_stdin()
    process.wait(TIMEOUT)
    assert (process.stdout, process.ok) == ("hello", True), process.message


def test_the_users_own_forwardings_stay() -> None:
    for words in (["-L", "1:h:2"], ["-D1"], ["-o", "RemoteForward=1 h:2"], ["-qTR1:h:2"]):
        options = ConnectionOptions(ssh_options=tuple(words))
        said = ssh_words(Target("web1", options=options), False, "/log", Abilities(), "x")
        assert "ClearAllForwardings=yes" not in said


@pytest.mark.parametrize(
    ("words", "tells"),
    [
        (["-S/run/mux"], False),
        (["-S", "/run/mux"], False),
        (["-qM"], False),
        (["-o", "ControlMaster auto"], False),
        (["-oControlPath=/run/mux"], False),
        (["-o", "LogVerbose=x"], False),
        (["-o", "ControlMaster=no"], True),
        (["-i", "/home/control/-s"], True),
        (["-o", "IdentityFile=/home/logverbose"], True),
        (["-J", "-S"], True),
        ([], True),
    ],
)
def test_which_words_keep_ssh_from_telling(words: list[str], tells: bool) -> None:
    assert tells_of_commands(ConnectionOptions(ssh_options=tuple(words))) is tells


# -- the command line -----------------------------------------------------------------------------


def test_who_and_where_come_first_then_the_users_options_then_ours() -> None:
    options = ConnectionOptions(ssh_options=("-o", "BatchMode=no"), connect_timeout=1.2)
    target = Target("web1", "ann", 2222, '/a "b" 100%', options)
    words = ssh_words(target, False, "/log", Abilities(), "uptime")
    assert words[:9] == (
        "ssh",
        "-T",
        "-l",
        "ann",
        "-p",
        "2222",
        "-o",
        r'IdentityFile="/a \"b\" 100%%"',
        "-o",
    )
    assert words.index("BatchMode=no") < words.index("BatchMode=yes")
    assert "ConnectTimeout=2" in words
    assert words[-5:] == ("-E", "/log", "--", "web1", "uptime")


@pytest.mark.parametrize(
    ("policy", "known_hosts", "wanted"),
    [
        ("off", (), {"StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null"}),
        ("off", ("/k",), {"StrictHostKeyChecking=no", 'UserKnownHostsFile="/k"'}),
        ("accept-new", (), {"StrictHostKeyChecking=accept-new"}),
        ("strict", ("/k", "/l"), {"StrictHostKeyChecking=yes", 'UserKnownHostsFile="/k" "/l"'}),
    ],
)
def test_host_key_policies(policy: str, known_hosts: tuple[str, ...], wanted: set[str]) -> None:
    options = ConnectionOptions(host_key_policy=policy, known_hosts=known_hosts)
    words = ssh_words(Target("web1", options=options), True, "/log", Abilities(), "x")
    assert wanted <= set(words)
    assert "-tt" in words
