"""The real servers of sshd.py: what they offer, and that nothing of them stays."""

from __future__ import annotations

import os
import pwd
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import paramiko
import pytest

from execo import Host
from sshd import RAISED, STOCK, RealSshd

pytest_plugins = ["pytester", "sshd"]

pytestmark = pytest.mark.sshd

TESTS = Path(__file__).parent
# For other interpreters, which find execo and sshd.py there.
PATHS = [str(TESTS), str(TESTS.parent), *filter(None, [os.environ.get("PYTHONPATH")])]

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make other users")


def ssh(host: Host, command: str) -> str:
    """What the command printed."""
    options = "-F none -o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null"
    where = ["-i", str(host.keyfile), "-p", str(host.port), "-l", str(host.user), host.address]
    done = subprocess.run(
        ["ssh", *options.split(), "-o", "LogLevel=ERROR", *where, command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def connect() -> Iterator[Callable[[Host], paramiko.Transport]]:
    opened: list[paramiko.Transport] = []

    def connect(host: Host) -> paramiko.Transport:
        transport = paramiko.Transport((host.address, host.port or 22))
        opened.append(transport)
        key = paramiko.Ed25519Key.from_private_key_file(str(host.keyfile))
        transport.connect(username=str(host.user), pkey=key)
        return transport

    yield connect
    for transport in opened:
        transport.close()
        transport.join(20)


# -- what it offers -------------------------------------------------------------------------------


def test_it_is_as_many_hosts_as_one_wants(sshd: RealSshd) -> None:
    hosts = sshd.hosts(3)
    assert [host.address for host in hosts] == ["127.0.1.1", "127.0.1.2", "127.0.1.3"]
    assert len(set(sshd.hosts(10_000))) == 10_000
    assert sshd.hosts(1, first=999)[0].address == "127.0.4.250"
    for host in (*hosts, *sshd.hosts(1, first=999)):
        assert ssh(host, "echo $SSH_CONNECTION").split()[2:] == [host.address, str(sshd.port)]


@as_root
def test_commands_run_as_an_unprivileged_user_in_a_home_of_its_own() -> None:
    with RealSshd() as server:  # not the one of all tests, which leave files in its homes
        (host,) = server.hosts()
        name, shell, home = ssh(host, "id -un; echo $SHELL; pwd; touch here").split()
        assert name == host.user == server.user()
        assert shell == "/bin/sh"
        assert os.listdir(home) == ["here"]


@as_root
def test_root_logs_in(sshd: RealSshd) -> None:
    assert ssh(sshd.hosts(user="root")[0], "id -u").strip() == "0"


@as_root
@pytest.mark.parametrize(
    ("shell", "command"),
    [
        ("/bin/bash", "echo $((1 + 1)) ${BASH_VERSION:+bash}"),
        ("/usr/bin/tcsh", "@ n = 1 + 1; echo $n tcsh"),
        ("/usr/bin/fish", "echo (math 1 + 1) fish"),
    ],
)
def test_users_with_other_login_shells(sshd: RealSshd, shell: str, command: str) -> None:
    user = sshd.user(shell)
    assert ssh(sshd.hosts(user=user)[0], command).split() == ["2", Path(shell).name]
    assert sshd.user(shell) == user


def test_the_host_key(sshd: RealSshd, connect: Callable[[Host], paramiko.Transport]) -> None:
    key = connect(sshd.hosts()[0]).get_remote_server_key()
    assert f"{key.get_name()} {key.get_base64()}" == sshd.host_key


def test_sftp(sshd: RealSshd, connect: Callable[[Host], paramiko.Transport]) -> None:
    (host,) = sshd.hosts()
    sftp = paramiko.SFTPClient.from_transport(connect(host))
    assert sftp is not None
    assert sftp.normalize(".") == ssh(host, "pwd").strip()
    sftp.close()


# -- the limits -----------------------------------------------------------------------------------


def test_sessions_of_a_connection(
    sshd: RealSshd, stock_sshd: RealSshd, connect: Callable[[Host], paramiko.Transport]
) -> None:
    many, few = connect(sshd.hosts()[0]), connect(stock_sshd.hosts()[0])
    # Kept: a session that is garbage is closed.
    kept = [many.open_session() for _ in range(11)] + [few.open_session() for _ in range(10)]
    with pytest.raises(paramiko.ChannelException):
        few.open_session()
    assert len(kept) == 21


def banners(server: RealSshd, count: int) -> int:
    """How many of so many silent clients are greeted; the others are dropped."""
    clients = [socket.create_connection(("127.0.1.1", server.port), 30) for _ in range(count)]
    try:
        return sum(_is_greeted(client) for client in clients)
    finally:
        for client in clients:
            client.close()


def _is_greeted(client: socket.socket) -> bool:
    try:
        return client.recv(4) == b"SSH-"
    except ConnectionResetError:
        return False


def test_clients_that_have_not_logged_in() -> None:
    # Servers of its own: such clients are in the way of other tests for as long as they last.
    with RealSshd(RAISED) as raised, RealSshd(STOCK) as stock:
        assert banners(raised, 110) == 110
        # From 10 on a third is dropped by lot, from 100 on everyone.
        assert 10 <= banners(stock, 110) <= 100


def test_other_settings() -> None:
    with RealSshd({"ForceCommand": "echo forced"}, environment={"HUE": "dark blue"}) as server:
        assert ssh(server.hosts()[0], "echo free") == "forced\n"
    with RealSshd({}, environment={"HUE": "dark blue"}) as server:
        assert ssh(server.hosts()[0], "echo $HUE") == "dark blue\n"


def test_a_server_that_does_not_start_says_why() -> None:
    server = RealSshd({"Nonsense": "yes"})
    with pytest.raises(RuntimeError, match="Nonsense"):
        server.start()
    assert not server.folder.exists()


# -- nothing stays --------------------------------------------------------------------------------


def is_running(pid: int) -> bool:
    """False for a zombie too: whoever is process 1 here may reap late."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""
    except OSError:
        return False


def is_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def test_it_takes_all_that_it_ran_along() -> None:
    with RealSshd() as server:
        (host,) = server.hosts()
        listening = server.pid
        sleeping = int(ssh(host, "sleep 1000 >/dev/null 2>&1 & echo $!"))
        assert is_running(listening)
        assert is_running(sleeping)
    assert not is_running(listening)
    assert not is_running(sleeping)
    assert not server.folder.exists()
    assert os.geteuid() != 0 or not is_user(str(host.user))


def test_it_goes_with_a_script_that_is_killed() -> None:
    script = """if True:
        import os, signal, sshd
        server = sshd.RealSshd()
        server.start()
        print(server.pid, server.folder, server.hosts()[0].user, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(PATHS)},
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    pid, folder, user = done.stdout.split()
    descriptor = os.pidfd_open(int(pid))
    ended, _, _ = select.select([descriptor], [], [], 20)
    os.close(descriptor)
    assert ended, "the server is still there"
    deadline = time.monotonic() + 20
    nap = threading.Event()
    while Path(folder).exists() and time.monotonic() < deadline:
        nap.wait(0.05)
    assert not Path(folder).exists()
    assert os.geteuid() != 0 or not is_user(user)


# -- with the other fixtures ----------------------------------------------------------------------


@pytest.fixture
def inner(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], pytest.RunResult]:
    """Runs tests in a pytest of their own, with the same conftest.py and servers."""
    conftest = (TESTS / "conftest.py").read_text()
    pytester.makeconftest(conftest.replace("SETTLE = 2.0", "SETTLE = 0.3"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(PATHS))

    def run(tests: str) -> pytest.RunResult:
        pytester.makepyfile(f"from {__name__} import ssh\npytest_plugins = ['sshd']\n{tests}")
        # The marker of this module is not registered there.
        options = ["-p", "no:cacheprovider", "-W", "ignore::pytest.PytestUnknownMarkWarning"]
        return pytester.runpytest_subprocess(*options, timeout=90)

    return run


def test_the_leak_guard_names_what_a_remote_command_left(
    inner: Callable[[str], pytest.RunResult],
) -> None:
    result = inner(
        """
def test_leaks(sshd):
    print("sleeping", ssh(sshd.hosts()[0], "sleep 1000 >/dev/null 2>&1 & echo $!"))

def test_does_not(sshd):
    ssh(sshd.hosts()[0], "true")
"""
    )
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*test_leaks*", "*left behind*", "*orphan process *: sleep 1000*"])
    (pid,) = [line.split()[1] for line in result.outlines if line.startswith("sleeping ")]
    assert not is_running(int(pid))


def test_a_server_that_starts_in_a_test_is_no_leak(
    inner: Callable[[str], pytest.RunResult],
) -> None:
    result = inner(
        """
def test_late(request):
    ssh(request.getfixturevalue("sshd").hosts()[0], "true")
"""
    )
    result.assert_outcomes(passed=1)


def test_a_failure_shows_the_log(inner: Callable[[str], pytest.RunResult]) -> None:
    result = inner(
        """
def test_fails(sshd):
    ssh(sshd.hosts(user="nobody-here")[0], "true")
"""
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*- sshd on port *", "*nobody-here*"])
