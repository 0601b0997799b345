"""Commands over SSH connections of this process: shared connections, output, input, terminals."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from execo import Host, ParallelActions, Process, Remote, SequentialActions, configuration
from execo.errors import Reason
from execo.testing import Cluster
from execo.transports import close_idle
from execo.transports.channel import SshChannel
from remote_commands import QUIET, TIMEOUT, HostScript, logins, on, run, running, until
from sshd import RealSshd

pytest_plugins = ["sshd", "remote_commands", "execo.testing.pytest_plugin"]


# -- connections are shared -----------------------------------------------------------------------


def test_a_second_command_opens_no_connection(plain: Host, sshd: RealSshd) -> None:
    before = logins(sshd)
    for number in range(5):
        assert run(plain, f"echo {number}").stdout == f"{number}\n"
    assert logins(sshd) == before + 1


def test_commands_at_once_share_connections(plain: Host, sshd: RealSshd) -> None:
    assert run(plain, "true").ok
    before = logins(sshd)
    processes = [on(plain, "cat").start() for _ in range(9)]
    for process in processes:
        process.write("x")
        process.close_stdin()
        process.wait(TIMEOUT)
    assert [process.stdout for process in processes] == ["x"] * 9
    assert logins(sshd) == before


def test_all_actions_on_a_host_share_its_connection(sshd: RealSshd) -> None:
    hosts = sshd.hosts(3)
    before = logins(sshd)
    steps = [Remote("echo {{[1, 2, 3]}}", hosts), Remote("true", hosts)]
    tree = SequentialActions([ParallelActions(steps), Remote("exit 0", hosts)]).run(TIMEOUT)
    assert tree.finished_ok
    assert logins(sshd) == before + 3


def test_other_parameters_are_another_connection(plain: Host, sshd: RealSshd) -> None:
    assert run(plain, "true").ok
    before = logins(sshd)
    assert run(plain, "true", {"connect_timeout": 7}).ok
    assert run(plain, "true", {"guard": False}).ok
    assert run(Host("127.0.1.9", plain.user, plain.keyfile, plain.port), "true").ok
    assert logins(sshd) == before + 3
    # The same ones, said otherwise.
    stranger = Host(plain.address, port=plain.port)
    assert run(stranger, "true", {"user": plain.user, "keyfile": plain.keyfile}).ok
    assert logins(sshd) == before + 3


def test_close_idle_closes_what_no_command_uses(cluster: Cluster) -> None:
    first, second = cluster.hosts[:2]
    busy = on(first, "cat").start()
    assert run(second, "true").ok
    busy.write("a\n")
    until(lambda: busy.stdout)
    assert (cluster.connections(first), cluster.connections(second)) == (1, 1)
    close_idle()
    until(lambda: cluster.connections(second) == 0)
    busy.write("b\n")
    busy.close_stdin()
    busy.wait(TIMEOUT)
    assert (busy.stdout, busy.ok) == ("a\nb\n", True)
    close_idle()
    until(lambda: cluster.connections(first) == 0)
    assert run(first, "echo again").stdout == "again\n"


def test_a_connection_that_the_host_has_closed_is_made_anew(cluster: Cluster) -> None:
    host = cluster.hosts[0]
    assert run(host, "true").ok
    try:
        cluster.fault(host, "close")
    finally:
        cluster.heal()
    until(lambda: not any(thread.name == "execo-ssh" for thread in threading.enumerate()))
    assert run(host, "echo back").stdout == "back\n"


# -- the limits that servers have -----------------------------------------------------------------


def test_two_hundred_commands_run_at_once_on_a_stock_host(stock_sshd: RealSshd) -> None:
    host = stock_sshd.hosts(1)[0]
    before = logins(stock_sshd)
    remote = Remote("echo ready; cat", [host] * 200).start()
    until(lambda: all(process.stdout for process in remote.processes) or remote.failed)
    assert remote.failed == []  # all two hundred run
    print("bye", file=remote)
    remote.close_stdin().wait(TIMEOUT)
    assert remote.finished_ok
    assert {process.stdout for process in remote.processes} == {"ready\nbye\n"}
    # Nine on each connection, beside its guard.
    assert logins(stock_sshd) - before <= 30


def test_sixty_stock_hosts_are_reached_at_once(stock_sshd: RealSshd) -> None:
    # They are one server, which drops connections from the eleventh on that has not logged in.
    remote = Remote("echo {{{host}}}", stock_sshd.hosts(60)).run(TIMEOUT)
    assert remote.finished_ok, remote.failed
    assert [process.stdout.strip() for process in remote.processes] == [
        host.address for host in remote.hosts
    ]


@pytest.fixture
def narrow_sshd() -> Iterator[RealSshd]:
    """One session on a connection: a command, and no guard beside it."""
    with RealSshd({"MaxSessions": "1"}) as server:
        yield server


def test_one_session_on_a_connection_is_enough(narrow_sshd: RealSshd, word: str) -> None:
    host = narrow_sshd.hosts(1)[0]
    remote = Remote("echo {{range(12)}}; exit {{range(12)}}", [host] * 12, process_args=QUIET)
    remote.run(TIMEOUT)
    assert [process.exit_code for process in remote.processes] == list(range(12))
    assert [process.stdout for process in remote.processes] == [f"{n}\n" for n in range(12)]
    for number in range(3):
        assert run(host, f"exit {number}").exit_code == number
    # sshd signals the command for a user.
    process = on(host, f"sleep {word}").start()
    until(lambda: running(word))
    process.kill().wait(TIMEOUT)
    assert (process.ended, process.killed) == (True, True)
    until(lambda: not running(word))


@pytest.mark.parametrize("first", [{"cwd": "/tmp"}, {"env": {"WORD": "x"}}, {"detach": True}])
def test_the_one_session_is_not_the_guards(narrow_sshd: RealSshd, first: dict[str, Any]) -> None:
    # Which is opened first for a command that says more than its text.
    host = narrow_sshd.hosts(1)[0]
    remote = Remote("echo {{range(3)}}", [host] * 3, process_args={**QUIET, **first}).run(TIMEOUT)
    assert [process.stdout for process in remote.processes] == ["0\n", "1\n", "2\n"]
    assert run(host, "echo next", **first).stdout == "next\n"


def test_a_host_that_opens_no_more_sessions(plain: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(plain, "true").ok

    class Refused(SshChannel):
        def __init__(self, session: Any, listener: Any, requests: Any) -> None:
            super().__init__(session, listener, requests, kind="none@example.org")

    with monkeypatch.context() as patch:
        patch.setattr("execo.transports.channel.SshChannel", Refused)
        process = run(plain, "true")
    assert process.reason is Reason.SPAWN
    assert f"{plain.address} opens no session: " in process.message
    assert run(plain, "echo again").stdout == "again\n"


def test_a_kill_reaches_a_command_before_the_guard_is_refused(
    narrow_sshd: RealSshd, word: str
) -> None:
    host = narrow_sshd.hosts(1)[0]
    for _ in range(5):
        process = on(host, f"exec sleep {word}").start()
        until(lambda process=process: process.start_date)  # type: ignore[misc]
        process.kill(auto_force_kill_timeout=None)
        process.wait(TIMEOUT)
        assert (process.ended, process.killed) == (True, True)
        close_idle()
    until(lambda: not running(word))


# -- how commands end -----------------------------------------------------------------------------


def test_an_exit_code_is_the_commands(host: Host) -> None:
    for code in (0, 1, 3, 126, 127, 255):
        process = run(host, f"exit {code}")
        assert (process.exit_code, process.error, process.ok) == (code, False, code == 0)


def test_a_death_by_signal_is_told_as_one(host: Host) -> None:
    for name in ("KILL", "TERM", "SEGV", "ABRT", "HUP", "PIPE", "USR1"):
        process = run(host, f"ulimit -c 0; kill -{name} $$; sleep 1000")
        assert process.exit_code == -getattr(signal, f"SIG{name}")
        assert process.reason is Reason.SIGNAL
        assert (process.killed, process.error) == (False, False)


def test_a_signal_that_no_server_can_be_asked_for_is_told(
    plain: Host, caplog: pytest.LogCaptureFixture
) -> None:
    process = on(plain, "echo ready; cat", {"guard": False}).start()
    process.expect("ready", timeout=TIMEOUT)
    process.kill(signal.SIGRTMIN + 3)
    until(lambda: caplog.messages)
    assert f"signal {signal.SIGRTMIN + 3} is not sent" in caplog.text
    assert "internal error" not in caplog.text
    process.close_stdin().wait(TIMEOUT)
    assert process.ok


def test_a_signal_that_ssh_has_no_name_for(plain: Host) -> None:
    process = run(plain, "echo before; kill -34 $$; sleep 1000")
    assert process.reason is Reason.SIGNAL
    assert (process.exit_code, process.ok) == (None, False)
    assert plain.address in process.message
    assert "a signal that the host calls" in process.message
    assert process.stdout == "before\n"


def test_a_command_that_does_not_exist(plain: Host) -> None:
    process = run(plain, ["no-such-command", "x"])
    assert (process.exit_code, process.reason) == (127, Reason.EXIT_CODE)
    assert "no-such-command" in process.stderr


# -- output ---------------------------------------------------------------------------------------


def test_stdout_and_stderr_are_apart_and_binary(host: Host) -> None:
    text = r"printf '\000\001\377\r\n'; printf '\376\000' >&2"
    for _ in range(2):  # the first command of a connection, and one that is marked
        process = run(host, text)
        assert (process.stdout_bytes, process.stderr_bytes) == (b"\0\1\xff\r\n", b"\xfe\0")


def test_the_first_bytes_of_much_output_are_kept(plain: Host) -> None:
    process = run(plain, "printf first; head -c 30000000 /dev/zero", max_output=1000)
    assert process.stdout_bytes == b"first" + bytes(995)
    assert process.truncated
    assert process.ok


def test_what_holds_the_output_does_not_hold_up_the_end(plain: Host, word: str) -> None:
    process = run(plain, f"sleep {word} & echo hi")
    assert (process.stdout, process.ok, process.drained) == ("hi\n", True, False)
    assert run(plain, "echo more").stdout == "more\n"  # its channel is still open there


def test_twenty_megabytes_go_through_cat_on_five_hosts(sshd: RealSshd) -> None:
    data = bytes(range(256)) * 80_000
    remote = Remote("cat", sshd.hosts(5)).start()
    remote.write(data[:10_000_000])
    remote.write(data[10_000_000:])
    remote.close_stdin().wait(TIMEOUT)
    assert remote.finished_ok
    assert [process.stdout_bytes == data for process in remote.processes] == [True] * 5


def test_one_that_floods_does_not_hold_up_the_others_of_its_connection(plain: Host) -> None:
    class Slow:
        gate = threading.Event()

        def write(self, text: str) -> int:
            self.gate.wait(TIMEOUT)
            return len(text)

    flood = on(plain, "head -c 20000000 /dev/zero", stdout_handlers=[Slow()]).start()
    until(lambda: flood.stdout_bytes)
    try:
        for number in range(3):
            assert run(plain, f"echo {number}").stdout == f"{number}\n"
        assert not flood.ended
    finally:
        Slow.gate.set()
    flood.wait(TIMEOUT)
    assert len(flood.stdout_bytes) == 20_000_000


# -- input ----------------------------------------------------------------------------------------


def test_print_writes_to_all_hosts(sshd: RealSshd) -> None:
    remote = Remote("read a; read b; echo $b $a; cat", sshd.hosts(3)).start()
    print("one", file=remote)
    print("two", file=remote, flush=True)
    print("rest", file=remote)
    remote.close_stdin().wait(TIMEOUT)
    assert [process.stdout for process in remote.processes] == ["two one\nrest\n"] * 3


def test_input_that_nobody_reads_is_a_write_error(plain: Host) -> None:
    process = on(plain, "exit 0").start()
    process.write(bytes(8_000_000))
    process.wait(TIMEOUT)
    assert (process.exit_code, process.write_error, process.reason) == (0, True, Reason.WRITE)


def test_what_was_written_before_the_connection_arrives(sshd: RealSshd) -> None:
    processes = [on(host, "cat").start() for host in sshd.hosts(4, first=20)]
    for number, process in enumerate(processes):
        process.write(f"{number}\n")
        process.close_stdin()
    for number, process in enumerate(processes):
        process.wait(TIMEOUT)
        assert process.stdout == f"{number}\n"


# -- terminals ------------------------------------------------------------------------------------


def test_stdin_and_stdout_are_a_terminal(host: Host) -> None:
    process = on(host, "test -t 0 && test -t 1 && echo yes; tty; stty size; cat", pty=True).start()
    process.write("line\nhalf")
    process.close_stdin()
    process.wait(TIMEOUT)
    lines = process.stdout.split("\r\n")
    assert (lines[0], lines[2:]) == ("yes", ["24 80", "line", "half"])
    assert lines[1].startswith("/dev/pts/")
    assert process.ok
    assert run(host, "test -t 0 || echo no").stdout == "no\n"


def test_ctrl_c_on_a_terminal_interrupts(host: Host) -> None:
    process = on(host, "trap 'echo caught; exit 4' INT; echo ready; sleep 1000; true", pty=True)
    process.start()
    until(lambda: "ready" in process.stdout)
    for _ in range(5):
        # A shell that is forked, and has yet to become sleep, takes it for itself.
        process.write("\x03")
        if process.wait(TIMEOUT / 5).ended:
            break
    assert "caught" in process.stdout
    assert process.exit_code == 4


def test_kill_ends_what_runs_on_a_terminal(host: Host, word: str) -> None:
    process = on(host, f"sleep {word} & sleep {word}; true", {"pty": True}).start()
    until(lambda: len(running(word)) == 2)
    process.kill().wait(TIMEOUT)
    assert (process.exit_code, process.killed) == (-15, True)
    until(lambda: not running(word))


# -- folder and environment -----------------------------------------------------------------------


@pytest.mark.parametrize("before", [0, 1], ids=["first", "later"])
def test_folder_and_variables(host: Host, before: int) -> None:
    for _ in range(before):
        assert run(host, "true").ok
    process = run(host, 'pwd; echo "$A"', cwd="/usr/lib", env={"A": "x ' \n\"y", "B": None})
    assert process.stdout == "/usr/lib\nx ' \n\"y\n"
    home = run(host, "echo ~").stdout
    assert run(host, "pwd", cwd="~").stdout == home
    assert run(host, "echo ${LANGUAGE-unset}", env={"LANGUAGE": None}).stdout == "unset\n"
    words = run(host, ["printenv", "A"], env={"A": "$HOME"})
    assert words.stdout == "$HOME\n"


def test_a_folder_that_does_not_exist(host: Host) -> None:
    process = run(host, "echo never", cwd="/nowhere")
    assert (process.stdout, process.exit_code) == ("", 126)
    assert "cannot change to folder /nowhere: No such file or directory" in process.stderr


@pytest.mark.parametrize("shell", ["/usr/bin/fish", "/bin/csh", "/usr/bin/zsh", "/bin/bash"])
def test_any_login_shell_will_do(sshd: RealSshd, shell: str) -> None:
    host = sshd.hosts(1, user=sshd.user(shell))[0]
    remote = Remote(["printf", "%s|", "a b", "$HOME;exit 4", "it's !x"], [host] * 3)
    remote.run(TIMEOUT)
    assert {process.stdout for process in remote.processes} == {"a b|$HOME;exit 4|it's !x|"}
    process = run(host, "pwd; printenv A", cwd="/usr", env={"A": "b c"})
    assert process.stdout == "/usr\nb c\n"


# -- left alone at the end of the script: see test_inprocess_exit ----------------------------------


def test_a_detached_command_can_be_killed(
    plain: Host, word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(configuration, "kill_childs_at_end", False)
    process = on(plain, f"sleep {word} & sleep {word}; true").start()
    until(lambda: len(running(word)) == 2)
    process.kill().wait(TIMEOUT)
    assert process.killed
    until(lambda: not running(word))


# -- forks ----------------------------------------------------------------------------------------

FORK = """
import multiprocessing

def work(queue):
    remote = Remote("echo child; cat", [host] * 3).start()
    remote.write("x")
    remote.close_stdin().wait(30)
    queue.put([process.stdout for process in remote.processes])

SshProcess("true", host).run()
running = SshProcess("echo ready; cat", host).start()
while not running.stdout:
    running.wait(0.01)
context = multiprocessing.get_context("fork")
queue = context.Queue()
for _ in range(2):
    child = context.Process(target=work, args=(queue,))
    child.start()
    print(queue.get(timeout=30))
    child.join(30)
    assert child.exitcode == 0, child.exitcode
    again = SshProcess("echo parent", host).run(30)
    print(again.stdout, again.ok)
running.write("still here")
running.close_stdin()
running.wait(30)
print(running.stdout, running.ok)
"""


def test_a_forked_child_has_connections_of_its_own(
    plain: Host, sshd: RealSshd, tmp_path: Path
) -> None:
    before = logins(sshd)
    with HostScript(tmp_path, FORK, plain) as script:
        code, out, err = script.finish()
    assert (code, err) == (0, "")
    once = "['child\\nx', 'child\\nx', 'child\\nx']\nparent\n True\n"
    assert out == once * 2 + "ready\nstill here True\n"
    assert logins(sshd) == before + 3


def test_local_commands_go_on_beside(plain: Host) -> None:
    local = Process("cat").start()
    assert run(plain, "true").ok
    local.write("x")
    local.close_stdin()
    local.wait(TIMEOUT)
    assert local.stdout == "x"
