"""Variables whose values nobody else gets to see."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from become_users import PASSWORD, People
from execo import Local, Process, Remote, SshProcess, TaktukRemote, transports
from execo.testing import Cluster
from sshd import RealSshd

pytest_plugins = ["become_users", "sshd"]

PATIENCE = 60.0

ODD = 'it\'s "a" $HOME `x` \\n \\\\ !\n\ttwo lines, é, \udcff\udcfe\x01\x04\x7f end\n\n'
SHOW = "printf %s \"$TOKEN\" | od -An -v -tx1 | tr -d ' \\n'"


@pytest.fixture(autouse=True)
def nothing_is_kept() -> Iterator[None]:
    yield
    transports.close_idle()


def shown(process: Any) -> str:
    """What the command has found, from what SHOW has printed."""
    return bytes.fromhex(process.stdout.strip()).decode("utf-8", "surrogateescape")


@pytest.mark.parametrize("value", ["", "plain", ODD, "x" * 20_000, "-n", ".", " a "])
@pytest.mark.parametrize("pty", [False, True])
@pytest.mark.parametrize("transport", ["paramiko", "openssh"])
def test_any_value_arrives(sshd: RealSshd, transport: str, pty: bool, value: str) -> None:
    process = SshProcess(
        SHOW, sshd.hosts(1)[0], {"transport": transport}, secret_env={"TOKEN": value}, pty=pty
    ).run(PATIENCE)
    assert shown(process) == value


@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash", "/bin/zsh", "/bin/csh", "/usr/bin/fish"])
def test_whatever_the_login_shell_is(sshd: RealSshd, shell: str) -> None:
    host = sshd.hosts(1, user=sshd.user(shell))[0]
    process = SshProcess(["sh", "-c", SHOW], host, secret_env={"TOKEN": ODD}).run(PATIENCE)
    assert shown(process) == ODD
    text = SshProcess("echo $TOKEN", host, secret_env={"TOKEN": "one"}).run(PATIENCE)
    assert text.stdout == "one\n"


@pytest.mark.parametrize("pty", [False, True])
def test_as_another_user_too(sshd: RealSshd, people: People, pty: bool) -> None:
    params = {"become_password": PASSWORD, "become": "root"}
    host = people.host(sshd, "asks")
    process = SshProcess(SHOW, host, params, secret_env={"TOKEN": ODD}, pty=pty).run(PATIENCE)
    assert shown(process) == ODD


def test_on_an_embedded_host() -> None:
    with Cluster(1) as cluster:
        process = SshProcess(SHOW, cluster.hosts[0], secret_env={"TOKEN": ODD}).run(PATIENCE)
        transports.close_idle()
    assert shown(process) == ODD


def test_input_follows_it(sshd: RealSshd) -> None:
    host = sshd.hosts(1)[0]
    process = SshProcess('cat; echo "$TOKEN"', host, secret_env={"TOKEN": "t"}).start()
    block = "a line\n" * 50_000
    process.write(block)
    process.close_stdin()
    assert process.wait(PATIENCE).stdout == block + "t\n"


def test_it_goes_with_folder_and_environment(sshd: RealSshd) -> None:
    process = SshProcess(
        'echo "$A $B"; pwd',
        sshd.hosts(1)[0],
        cwd="/",
        env={"A": "a", "B": "not this one"},
        secret_env={"B": "b"},
    ).run(PATIENCE)
    assert process.stdout == "a b\n/\n"


def test_on_many_hosts(sshd: RealSshd) -> None:
    action = Remote(SHOW, sshd.hosts(3), secret_env={"TOKEN": ODD}).run()
    assert [shown(process) for process in action.processes] == [ODD] * 3


def test_on_this_machine() -> None:
    assert shown(Process(["sh", "-c", SHOW], secret_env={"TOKEN": ODD}).run(PATIENCE)) == ODD
    action = Local(SHOW, process_args={"shell": True, "secret_env": {"TOKEN": ODD}}).run()
    assert shown(action.processes[0]) == ODD


@pytest.mark.parametrize("transport", ["paramiko", "openssh"])
def test_it_is_in_no_words_of_a_command(
    sshd: RealSshd, people: People, transport: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As ps would see it, from before the start to the end."""
    seen: list[bytes] = []
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            for name in os.listdir("/proc"):
                with contextlib.suppress(OSError):
                    words = Path("/proc", name, "cmdline").read_bytes()
                    if b"swordfish" in words:
                        seen.append(words)

    looker = threading.Thread(target=look)
    looker.start()
    processes: list[SshProcess] = []
    try:
        with caplog.at_level(1):
            processes += [
                SshProcess(
                    "exec sleep 0.2",
                    people.host(sshd, "free", 20 + number),
                    {"transport": transport},
                    secret_env={"TOKEN": "swordfish"},
                    become="root" if number % 2 else None,
                ).run(PATIENCE)
                for number in range(5)
            ]
    finally:
        over.set()
        looker.join()
    assert [process.exit_code for process in processes] == [0] * 5
    assert seen == []
    shown_texts = [repr(one) + str(one) + one.dump() for one in processes]
    shown_texts += [repr(one._request()) + repr(one.secret_env) for one in processes]
    assert "swordfish" not in "".join(shown_texts) + caplog.text


@pytest.mark.parametrize("name", ["", "a b", "A=B", "1A", "é", "A\nB", "A-B"])
@pytest.mark.parametrize("kind", [Process, lambda cmd, **args: SshProcess(cmd, "host", **args)])
def test_what_is_no_name_is_refused(kind: Any, name: str) -> None:
    with pytest.raises(ValueError, match="secret_env") as info:
        kind("true", secret_env={name: "swordfish"})
    assert "swordfish" not in str(info.value)


def test_what_is_no_value_is_refused() -> None:
    with pytest.raises(ValueError, match="a NUL") as info:
        Process("true", secret_env={"A": "sword\0fish"})
    assert "sword" not in str(info.value)
    with pytest.raises(TypeError, match="bytes for 'A'") as wrong:
        Process("true", secret_env={"A": b"swordfish"})  # type: ignore[dict-item]
    with pytest.raises(TypeError, match=r"secret_env is a dict .* not a str$"):
        Process("true", secret_env="A=swordfish")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"env is a dict .* not a list$"):
        Process("true", env=[("A", "b")])  # type: ignore[arg-type]
    assert "swordfish" not in str(wrong.value)


def test_taktuk_says_that_it_cannot(sshd: RealSshd) -> None:
    action = TaktukRemote(
        "true", sshd.hosts(1), None, {"nolog_error": True}, secret_env={"A": "b"}
    ).run()
    assert "secret_env does not go through the transport 'taktuk'" in action.processes[0].message


def test_a_host_that_ends_the_shell_is_told(sshd: RealSshd) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can make the user that this test needs")
    host = sshd.hosts(1, user=sshd.user("/bin/false"))[0]
    process = SshProcess("true", host, secret_env={"A": "b"}, nolog_error=True).run(PATIENCE)
    assert "cannot begin the command: it has ended without a word" in process.message
