"""The command line as a user sees it: in a real terminal."""

from __future__ import annotations

import shlex
import shutil
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from become_users import PASSWORD, People
from execo.testing import Cluster
from sshd import RealSshd
from tmux import Terminal

pytest_plugins = ["become_users", "sshd"]


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    """80 columns and 24 lines."""
    if shutil.which("tmux") is None:
        pytest.skip("tmux is not installed (apt install tmux)")
    made = Terminal(tmp_path)
    try:
        made.type(f'execo() {{ {shlex.quote(sys.executable)} -m execo "$@"; }}; clear')
        made.wait_for(lambda lines: lines == ["$"])
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(3) as made:
        yield made


@pytest.fixture
def config(cluster: Cluster, terminal: Terminal) -> str:
    shutil.copy(cluster.folder / "ssh_config", terminal.folder / "config")
    return "--ssh-config config"


def test_lines_come_while_the_command_runs(
    terminal: Terminal, config: str, cluster: Cluster
) -> None:
    terminal.type(
        f"execo run {config} -w host[1-2] 'echo now; while [ ! -e go ]; do sleep 0.1; done'"
    )
    terminal.wait_for(lambda lines: {"host1: now", "host2: now"} <= set(lines))
    for place in (0, 1):
        (cluster.home(place) / "go").touch()
    terminal.wait_for_end()


def test_labels_have_colours(terminal: Terminal, config: str) -> None:
    terminal.type(
        f"execo run {config} -w host1 -n 'echo hi' > plain; NO_COLOR=1 execo run {config} "
        "-w host1 'echo plain'; execo run --color never " + config + " -w host1 'echo too'"
    )
    terminal.wait_for(lambda lines: "host1: too" in lines)
    assert "\x1b" not in terminal._tmux("capture-pane", "-p", "-e").replace("\x1b[39m", "")
    assert (terminal.folder / "plain").read_text() == "host1: hi\n"
    terminal.type(f"clear; execo run {config} -w host1 'echo coloured'")
    terminal.wait_for(lambda lines: "host1: coloured" in lines)
    assert "\x1b[1m" in terminal._tmux("capture-pane", "-p", "-e")


def test_ctrl_c_shows_what_is_pending(terminal: Terminal, config: str) -> None:
    terminal.type(f"clear; execo run {config} -f 2 -w host[1-3] 'echo on; sleep 1000'; echo =$?")
    terminal.wait_for(lambda lines: {"host1: on", "host2: on"} <= set(lines))
    terminal.key("C-c")
    lines = terminal.wait_for(lambda lines: "=130" in lines)
    assert any(line.endswith("execo: still running: host[1-2] (2)") for line in lines)
    assert any(line.endswith("execo: not started: host3 (1)") for line in lines)


def test_a_terminal_is_not_read_for_the_hosts(terminal: Terminal, config: str) -> None:
    terminal.type(f"clear; execo run {config} -w host1 'cat; echo end'; echo =$?")
    assert "host1: end" in terminal.wait_for(lambda lines: "=0" in lines)


def test_progress_is_shown_on_request(terminal: Terminal, config: str, cluster: Cluster) -> None:
    terminal.type(
        f"clear; execo run {config} -P -w host[1-3] 'while [ ! -e so ]; do sleep 0.1; done'"
    )
    terminal.wait_for(lambda lines: any("0/3" in line for line in lines))
    for place in range(3):
        (cluster.home(place) / "so").touch()
    lines = terminal.wait_for_end()
    assert any("3/3" in line for line in lines)


def test_the_prompt(terminal: Terminal, config: str) -> None:
    terminal.type(f"clear; XDG_STATE_HOME=$PWD execo shell {config} -w host[1-3]")
    terminal.wait_for(lambda lines: lines[-1:] == ["host[1-3]>"])
    terminal.type("-host3")
    terminal.wait_for(lambda lines: lines[-1:] == ["host[1-2]>"])
    terminal.type("=")
    terminal.type("echo one")
    lines = terminal.wait_for(lambda lines: "one" in lines and lines[-1:] == ["host[1-2]>"])
    assert "host[1-2] (2)" in lines
    # Ctrl-C ends what runs, and nothing else.
    terminal.type("=")
    terminal.type("echo begun; sleep 1000")
    terminal.wait_for(lambda lines: {"host1: begun", "host2: begun"} <= set(lines))
    terminal.key("C-c")
    terminal.wait_for(lambda lines: any("still running" in line for line in lines))
    terminal.wait_for(lambda lines: lines[-1:] == ["host[1-2]>"])
    # At the prompt it gives up what was typed.
    terminal._tmux("send-keys", "-l", "echo never")
    terminal.wait_for(lambda lines: lines[-1:] == ["host[1-2]> echo never"])
    terminal.key("C-c")
    terminal.wait_for(lambda lines: lines[-1:] == ["host[1-2]>"])
    # The arrow brings the last command back.
    terminal.type("@host3")
    terminal.wait_for(lambda lines: lines[-1:] == ["host3>"])
    terminal.type("echo again {{{host}}}")
    terminal.wait_for(lambda lines: "host3: again host3" in lines)
    terminal.type("clear-is-no-command")
    terminal.wait_for(lambda lines: any("exited 127" in line for line in lines))
    terminal.key("Up")
    terminal.key("Up")
    terminal.wait_for(lambda lines: lines[-1:] == ["host3> echo again {{{host}}}"])
    terminal.key("Enter")
    terminal.wait_for(lambda lines: lines.count("host3: again host3") == 2)
    terminal.type("quit")
    terminal.wait_for(lambda lines: lines[-1:] == ["$"])
    history = terminal.folder / "execo" / "history"
    assert stat.S_IMODE(history.stat().st_mode) == 0o600
    assert "echo begun; sleep 1000" in history.read_text()
    # It is there the next time.
    terminal.type(f"clear; XDG_STATE_HOME=$PWD execo shell {config} -w host1")
    terminal.wait_for(lambda lines: lines[-1:] == ["host1>"])
    terminal.key("Up")
    terminal.key("Up")
    terminal.wait_for(lambda lines: any("echo again" in line for line in lines[-1:]))
    terminal.key("C-c")
    terminal.key("C-d")
    terminal.wait_for(lambda lines: lines[-1:] == ["$"])


def test_the_prompt_is_not_among_the_data(terminal: Terminal, config: str) -> None:
    terminal.type(f"clear; execo shell {config} -w host1 > data")
    terminal.wait_for(lambda lines: lines[-1:] == ["host1>"])
    terminal.type("echo hello")
    terminal.wait_for(lambda lines: lines == ["host1> echo hello", "host1>"])
    terminal.key("C-d")
    terminal.wait_for(lambda lines: lines[-1:] == ["$"])
    assert (terminal.folder / "data").read_text() == "host1: hello\n"


@pytest.mark.sshd
def test_a_password_is_typed_once_and_stdin_is_for_the_hosts(
    terminal: Terminal, sshd: RealSshd, people: People
) -> None:
    words = f"--ssh-config none --host-key-policy off --port {sshd.port} -i {sshd.keyfile}"
    words += f" -l {people.asks} --become root -K"
    terminal.type(
        f"clear; echo data | execo run {words} -w 127.0.3.[1-3] -b 'id -un; cat'; echo =$?"
    )
    terminal.wait_for(lambda lines: any(line.endswith("all others):") for line in lines))
    terminal.type(PASSWORD)
    lines = terminal.wait_for(lambda lines: "=0" in lines)
    assert lines[-7:-2] == ["-" * 15, "127.0.3.[1-3] (3)", "-" * 15, "root", "data"]
    assert PASSWORD not in "".join(lines)
