"""The end of a script, however it ends, and its commands over SSH connections of its own."""

from __future__ import annotations

import signal
import threading
import time
from pathlib import Path

import pytest

from execo import Host
from remote_commands import HostScript, running, until
from sshd import RealSshd

pytest_plugins = ["sshd", "remote_commands"]

SOON = 15.0
"""Seconds; five are promised, and the machine may be busy."""

ENDS = {
    "end of script": ("", None, 0),
    "sys.exit": ("sys.exit(3)", None, 3),
    "exception": ("1 / 0", None, 1),
    "ctrl-c": ("time.sleep(60)", signal.SIGINT, -signal.SIGINT),
    "os._exit": ("os._exit(7)", None, 7),
    "kill -9": ("time.sleep(60)", signal.SIGKILL, -signal.SIGKILL),
    "kill -TERM": ("time.sleep(60)", signal.SIGTERM, -signal.SIGTERM),
}
ORDERLY = ("end of script", "sys.exit", "exception", "ctrl-c")

# What has ended has left something behind: the first command of the connection, which bears no
# mark, and a later one. Two more run.
FAMILY = """
left = "nohup sleep {0} >/dev/null 2>&1 & exit"
SshProcess(left.format(word + "1"), host).run()
SshProcess(left.format(word + "2"), host).run()
text = "sleep {0} & setsid sleep {0} & trap '' HUP; echo ready; sleep {0}; :".format(word)
running = [SshProcess(text, host).start(), SshProcess("cd /; " + text, host).start()]
ready(*running)
"""


@pytest.mark.parametrize("way", ENDS)
def test_what_runs_ends_with_the_script(
    sshd: RealSshd, tmp_path: Path, word: str, way: str
) -> None:
    # With root's rights, where sshd itself would signal nothing; see below for users.
    host = sshd.hosts(1, user="root")[0]
    source, number, code = ENDS[way]
    with HostScript(tmp_path, FAMILY + source, host, word) as script:
        script.wait_ready()
        assert running(f"{word}1")
        begin = time.monotonic()
        if number is not None:
            script.popen.send_signal(number)
        returned, _, err = script.finish()
        assert returned == code
        if way in ORDERLY:
            # Not soon but now: the script has waited; at most two seconds, for a host that is busy.
            assert running(word) == [] or time.monotonic() - begin > 2
            assert err.count("Traceback") == (way in ("exception", "ctrl-c"))
            assert "failed" not in err
    until(lambda: not running(word), SOON)
    if way not in ORDERLY:
        threading.Event().wait(1.0)  # time for the guard to do harm
    assert [len(running(f"{word}{n}")) for n in "12"] == [1, 1]


FIRST = """
text = "sleep {0} & setsid sleep {0} & echo ready; sleep {0}; :".format(word)
ready(SshProcess(text, host).start())
"""


@pytest.mark.parametrize("way", ["end of script", "kill -9"])
def test_the_first_command_ends_too(host: Host, tmp_path: Path, word: str, way: str) -> None:
    source, number, _ = ENDS[way]
    with HostScript(tmp_path, FIRST + source, host, word) as script:
        script.wait_ready()
        threading.Event().wait(0.5)  # for the guard, which follows it
        if number is not None:
            script.popen.send_signal(number)
        script.finish()
    until(lambda: not running(word), SOON)


STUBBORN = """
text = "trap '' TERM HUP INT; sleep {0} & setsid sleep {0} & echo ready; sleep {0}; :".format(word)
SshProcess("true", host).run()
ready(*[SshProcess(text, host).start() for _ in range(3)])
"""


@pytest.mark.parametrize("way", ["end of script", "kill -9"])
def test_what_ignores_term_ends_too(host: Host, tmp_path: Path, word: str, way: str) -> None:
    source, number, _ = ENDS[way]
    with HostScript(tmp_path, STUBBORN + source, host, word) as script:
        script.wait_ready()
        until(lambda: len(running(word)) == 9)
        if number is not None:
            script.popen.send_signal(number)
        script.finish()
        if number is None:
            until(lambda: not running(word), 2.0)
    until(lambda: not running(word), SOON)


def test_a_second_ctrl_c_does_not_wait(plain: Host, tmp_path: Path, word: str) -> None:
    source = """
try:
    print("ready", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    print("ready", flush=True)
"""
    term = 'configuration["term_timeout"] = 600.0\n'
    with HostScript(tmp_path, term + STUBBORN + source, plain, word) as script:
        script.wait_ready()
        script.wait_ready()  # and is where it catches the Ctrl-C
        script.popen.send_signal(signal.SIGINT)
        script.wait_ready()
        threading.Event().wait(1.0)
        script.popen.send_signal(signal.SIGINT)
        script.finish()
    until(lambda: not running(word), SOON)


@pytest.mark.parametrize("way", ["end of script", "kill -9"])
def test_kill_childs_at_end_false_leaves_them_running(
    host: Host, tmp_path: Path, word: str, way: str
) -> None:
    end, number, _ = ENDS[way]
    source = f"""
configuration["kill_childs_at_end"] = False
SshProcess("true", host).run()
text = f"sleep {{word}}1 >/dev/null 2>&1 & echo ready; exec sleep {{word}} >/dev/null 2>&1"
ready(SshProcess(text, host).start())
{end}
"""
    with HostScript(tmp_path, source, host, word) as script:
        script.wait_ready()
        threading.Event().wait(0.5)
        if number is not None:
            script.popen.send_signal(number)
        _, _, err = script.finish()
        assert err == ""
    threading.Event().wait(1.5)  # time to do harm
    assert [len(running(word)), len(running(f"{word}1"))] == [1, 1]


@pytest.mark.parametrize("shell", ["/usr/bin/fish", "/bin/csh"])
def test_any_login_shell_will_do(sshd: RealSshd, tmp_path: Path, word: str, shell: str) -> None:
    host = sshd.hosts(1, user=sshd.user(shell))[0]
    source = """
text = f"sleep {word} & echo ready; sleep {word}; true"
processes = [SshProcess(text, host).start() for _ in range(2)]
ready(*processes)
left = f"nohup sleep {word}1 >/dev/null & exit"
assert SshProcess(["sh", "-c", left], host).run().ok
ready(*processes)
time.sleep(60)
"""
    with HostScript(tmp_path, source, host, word) as script:
        script.wait_ready()
        script.wait_ready()
        assert len(running(word)) == 4
        script.popen.kill()
        script.finish()
    until(lambda: not running(word), SOON)
    threading.Event().wait(0.5)
    assert len(running(f"{word}1")) == 1


def test_what_was_never_reached_does_not_hold_up_the_end(plain: Host, tmp_path: Path) -> None:
    source = """
import socket
silent = socket.create_server((address, 0))
quiet = Host(address, user, keyfile, silent.getsockname()[1])
params = {"connect_timeout": 600}
processes = [SshProcess("true", quiet, params).start() for _ in range(3)]
print(all(process.running for process in processes))
"""
    with HostScript(tmp_path, source, plain) as script:
        assert script.finish() == (0, "True\n", "")


def test_the_end_without_commands_says_nothing(plain: Host, tmp_path: Path) -> None:
    source = 'print(Remote("echo hi", [host] * 12).run().finished_ok)'
    with HostScript(tmp_path, source, plain) as script:
        assert script.finish() == (0, "True\n", "")


AGAIN = """
session = int(SshProcess("echo $PPID", host).run().stdout)
SshProcess("true", host).run()  # by now the guard is there
os.kill(session, signal.SIGSTOP)
again = SshProcess("echo ready; sleep {}".format(word), host).start()
time.sleep(0.3)
os.kill(session, signal.SIGKILL)
ready(again)
"""


def test_a_command_that_was_sent_again_ends_with_the_script(
    plain: Host, tmp_path: Path, word: str
) -> None:
    with HostScript(tmp_path, AGAIN, plain, word) as script:
        script.wait_ready()
        assert script.finish()[0] == 0
        assert running(word) == []
