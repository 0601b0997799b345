"""``detach=True``: a command that is left alone, and takes part in the script until then.

What becomes of it when the script ends or dies is in test_survival.py.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from execo import (
    Host,
    Local,
    PortForwarder,
    Process,
    Put,
    Remote,
    Report,
    SshProcess,
    TaktukRemote,
    configuration,
)
from execo.errors import Reason
from execo.transports.detached import DETACH_EXIT, DETACH_MESSAGE
from execo.transports.remote_shell import Mark, command_text
from remote_commands import QUIET, TIMEOUT, on, until
from sshd import RealSshd
from survival import session_processes

pytest_plugins = ["sshd", "remote_commands"]

TALK = 'echo out; echo err >&2; echo "in: $(cat)"; exit 3'
ROOT = Path(__file__).resolve().parent.parent
PLACES = ["local", "paramiko", "openssh", "taktuk"]


@pytest.fixture(params=PLACES)
def make(request: pytest.FixtureRequest, sshd: RealSshd, tmp_path: Path) -> Any:
    """Makes a detached process in each place, from a text for the shell or words."""
    host = sshd.hosts(1)[0]
    kind = request.param

    def make(cmd: Any, **options: Any) -> Any:
        options = {**QUIET, "detach": True, **options}
        if kind == "local":
            return Process(cmd, shell=isinstance(cmd, str), **options)
        if kind == "taktuk":
            remote = TaktukRemote(cmd, [host], process_args=options, substitute=False)
            return remote.processes[0]
        return SshProcess(cmd, host, {"transport": kind}, **options)

    return make


def test_it_is_a_process_like_others_but_for_its_stdin(make: Any) -> None:
    process = make(TALK).run(TIMEOUT)
    assert (process.stdout, process.stderr) == ("out\nin: \n", "err\n")
    assert (process.exit_code, process.drained) == (3, True)


def test_words_cwd_and_env(make: Any) -> None:
    words = ["sh", "-c", 'echo "$PWD" "$A" "$1"', "sh", "a 'b'\n$c"]
    process = make(words, cwd="/usr", env={"A": "x y"}).run(TIMEOUT)
    assert process.stdout == "/usr x y a 'b'\n$c\n"


def test_much_output_comes_whole(make: Any) -> None:
    process = make("head -c 3000000 /dev/zero; head -c 1000000 /dev/zero >&2").run(TIMEOUT)
    assert (len(process.stdout_bytes), len(process.stderr_bytes)) == (3000000, 1000000)


def test_it_can_be_killed(make: Any) -> None:
    process = make("echo ready; sleep 1000; true").start()
    assert process.expect("ready", TIMEOUT)[0] == 0
    assert repr(process).endswith("detached>")
    process.kill().wait(TIMEOUT)
    assert (process.killed, process.ok) == (True, True)


def test_its_timeout_holds_while_the_script_is_there(make: Any) -> None:
    process = make("sleep 1000; true", timeout=0.5).run(TIMEOUT)
    assert process.reason is Reason.TIMEOUT


def test_it_takes_no_input(make: Any) -> None:
    process = make("echo ready; sleep 1000; true").start()
    with pytest.raises(ValueError, match="detached: its stdin is empty"):
        process.write("x")
    process.close_stdin().kill().wait(TIMEOUT)


def test_an_action_of_them_takes_none_either(sshd: RealSshd) -> None:
    remote = Remote("sleep 1000", sshd.hosts(2), process_args={"detach": True}, fanout=1).start()
    with pytest.raises(ValueError, match="detached"):
        remote.write("x")
    assert remote.kill().wait(TIMEOUT).ended
    local = Local("sleep 1000", {"detach": True}).start()
    with pytest.raises(ValueError, match="detached"):
        local.write("x")
    local.kill().wait(TIMEOUT)


# -- on this machine ----------------------------------------------------------------------------


def test_process_id_and_signal_are_the_commands_own() -> None:
    process = Process(["sh", "-c", "echo $$; kill -USR1 $$"], detach=True, **QUIET).run(TIMEOUT)
    assert process.stdout == f"{process.pid}\n"
    assert process.exit_code == -signal.SIGUSR1


def test_what_cannot_be_started_is_told_as_ever() -> None:
    process = Process("/no/such/program", detach=True, **QUIET).run(TIMEOUT)
    assert (process.reason, process.exit_code) == (Reason.SPAWN, None)


def test_its_path_may_be_anything() -> None:
    for path, said in (("/nowhere", ["PATH=/nowhere"]), (None, [])):
        process = Process("/usr/bin/env", env={"PATH": path}, detach=True).run(TIMEOUT)
        lines = [line for line in process.stdout.splitlines() if line.startswith("PATH=")]
        assert lines == said, process.dump()


def test_nothing_but_its_variables_is_in_its_environment() -> None:
    bare, detached = (Process("env", detach=one).run(TIMEOUT).stdout for one in (None, True))
    kept = [
        sorted(line for line in text.splitlines() if not line.startswith(("_=", "PWD=", "OLDPWD=")))
        for text in (bare, detached)
    ]
    assert kept[0] == kept[1]


def test_the_relays_are_no_children_of_the_command() -> None:
    # A program that waits for all its children would wait for them.
    code = "import os\ntry: os.wait()\nexcept ChildProcessError: print('none')"
    assert Process(["python3", "-c", code], detach=True).run(TIMEOUT).stdout == "none\n"


def test_the_pipes_leave_nothing_in_the_folder_for_temporary_files(tmp_path: Path) -> None:
    folder = tmp_path / "a 'folder'"
    folder.mkdir()
    process = Process("echo out; sleep 1000", shell=True, detach=True, env={"TMPDIR": str(folder)})
    process.start()
    assert process.expect("out", TIMEOUT)[0] == 0
    until(lambda: not list(folder.iterdir()))
    process.kill().wait(TIMEOUT)


def test_without_a_folder_for_the_pipes_it_is_not_run(make: Any, tmp_path: Path) -> None:
    if make("true").transport == "local":
        process = make("echo ran", env={"TMPDIR": str(tmp_path / "none")}).run(TIMEOUT)
        assert (process.exit_code, process.stdout) == (DETACH_EXIT, "")
        assert process.stderr.startswith(DETACH_MESSAGE)
        assert "No such file" in process.stderr


def test_a_server_in_its_background_is_not_waited_for() -> None:
    text = "sleep 1000 & echo $!"
    process = Process(text, shell=True, detach=True).run(TIMEOUT)
    assert (process.ended, process.drained) == (True, False)
    os.kill(int(process.stdout), signal.SIGKILL)


# -- on hosts -------------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", ["bash", "zsh", "ksh", "csh", "tcsh", "fish"])
def test_every_login_shell_makes_the_pipes(shell: str) -> None:
    text = command_text(TALK, cwd="/", env={"A": "1"}, mark=Mark("0af", 3, True), relay=True)
    done = subprocess.run(
        [shell, "-c", text],
        check=False,
        input=b"input",
        capture_output=True,
        env={**os.environ, "SHELL": "/bin/sh"},
        timeout=TIMEOUT,
    )
    assert (done.stdout, done.stderr, done.returncode) == (b"out\nin: \n", b"err\n", 3)


@pytest.mark.parametrize("transport", ["paramiko", "openssh"])
def test_a_lost_connection_ends_the_process_and_not_the_command(
    sshd: RealSshd, plain: Host, word: str, transport: str
) -> None:
    text = f"echo ready; while :; do echo more; echo more >&2; sleep 0.1; : {word}; done"
    process = on(plain, text, {"transport": transport}, detach=True).start()
    assert process.expect("ready", TIMEOUT)[0] == 0
    left = running_texts(word)
    for pid in session_processes(sshd.pid):
        os.kill(pid, signal.SIGKILL)
    process.wait(TIMEOUT)
    try:
        assert process.reason is Reason.CONNECT, process
        assert not process.ok
        process.wait(1)
        assert left
        assert set(left) <= set(running_texts(word))
    finally:
        for pid in running_texts(word):
            os.kill(pid, signal.SIGKILL)


def running_texts(word: str) -> list[int]:
    """The shells that the command itself is: neither an ssh nor relays, which have its text too."""
    found = []
    for proc in Path("/proc").glob("[0-9]*"):
        try:
            words = (proc / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if len(words) == 4 and words[2].startswith(b"echo") and word.encode() in words[2]:
            found.append(int(proc.name))
    return found


# -- what it cannot be ----------------------------------------------------------------------------


def test_a_terminal_does_not_outlive_the_script(plain: Host) -> None:
    with pytest.raises(ValueError, match="detach and pty"):
        Process("true", pty=True, detach=True)
    with pytest.raises(ValueError, match="detach and pty"):
        SshProcess("true", plain, {"pty": True}, detach=True)
    later = on(plain, "true", detach=True)
    later.pty = True
    assert later.run(TIMEOUT).reason is Reason.SPAWN
    assert "detach and pty" in later.message


def test_it_is_said_with_a_truth_value() -> None:
    with pytest.raises(TypeError, match="detach"):
        Process("true", detach="yes")  # type: ignore[arg-type]


def test_what_passes_through_the_script_cannot_be_detached(plain: Host, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    put = Put([plain], [str(file)], process_args={**QUIET, "detach": True}).run(TIMEOUT)
    assert "cannot be detached" in put.processes[0].message
    forwarder = PortForwarder(plain, "127.0.0.1", 9, **QUIET)
    forwarder.detach = True
    forwarder.run(TIMEOUT)
    assert "cannot be detached" in forwarder.message


def test_the_configuration_alone_leaves_stdin_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(configuration, "kill_childs_at_end", False)
    process = Process("cat").start()
    process.write("hello")
    assert process.close_stdin().wait(TIMEOUT).stdout == "hello"
    assert not Process("cat", detach=False)._request().detach
    assert Process("cat")._request().detach


def test_a_report_counts_it_as_started_and_neither_ended_nor_failed() -> None:
    process = Process("sleep 1000", detach=True).start()
    stats = Report([process]).stats()
    assert (stats.num_started, stats.num_ended, stats.num_ok, stats.num_errors) == (1, 0, 1, 0)
    assert stats.end_date is None
    process.kill().wait(TIMEOUT)


LAST_LINE = """
import sys
from execo import Host, Remote, configuration
address, user, keyfile, port, transport, how = sys.argv[1:]
hosts = [Host(address, user, keyfile, int(port))] * 12
if how == "all":
    configuration["kill_childs_at_end"] = False
detach = {"detach": True} if how == "it" else {}
# More than may connect at a time.
Remote("echo x >> started; sleep 1; echo x >> ended", hosts, {"transport": transport},
       process_args=detach).start()
"""


@pytest.mark.parametrize("how", ["it", "all"])
@pytest.mark.parametrize("transport", ["paramiko", "openssh"])
def test_what_is_started_at_the_last_line_of_a_script_runs(
    plain: Host, transport: str, how: str
) -> None:
    def there(command: str) -> str:
        return str(on(plain, command).run(TIMEOUT).stdout)

    there("rm -f started ended")
    where = [plain.address, str(plain.user), str(plain.keyfile), str(plain.port)]
    script = subprocess.run(
        [sys.executable, "-c", LAST_LINE, *where, transport, how],
        cwd=ROOT,
        check=True,
        timeout=TIMEOUT,
        capture_output=True,
        text=True,
    )
    assert script.stderr == ""
    until(lambda: there("cat ended; true") == "x\n" * 12)
    assert there("cat started") == "x\n" * 12
