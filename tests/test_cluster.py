"""``execo.testing.Cluster``: its life, who may log in, its limits, and ways to start it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import paramiko
import pytest

from cluster_clients import TIMEOUT, alive, execute, login, ssh, wait_until
from execo.testing import Cluster, ClusterError

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(3, env={"TEAM": "blue"}) as cluster:
        yield cluster


@pytest.fixture
def connect(cluster: Cluster) -> Iterator[Callable[..., paramiko.Transport]]:
    with contextlib.ExitStack() as stack:
        yield lambda place=0, of=cluster: stack.enter_context(login(of, place))


# -- the cluster ------------------------------------------------------------------------------


def test_each_host_has_its_own_address_and_home(cluster: Cluster) -> None:
    assert [host.address for host in cluster.hosts] == ["127.0.0.2", "127.0.0.3", "127.0.0.4"]
    for place, host in enumerate(cluster.hosts):
        done = ssh(cluster, host.address, "pwd; echo $HOME; echo $SSH_CONNECTION")
        home, again, connection = done.stdout.decode().splitlines()
        assert home == again == str(cluster.home(host)) == str(cluster.home(place))
        assert connection.split()[2:] == [host.address, str(host.port)]


def test_its_files_are_for_its_user_alone(cluster: Cluster) -> None:
    assert stat.S_IMODE(cluster.folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(os.stat(cluster.keyfile).st_mode) == 0o600
    assert (cluster.folder / "ssh_config").read_text() == cluster.ssh_config


def test_it_needs_to_be_started() -> None:
    cluster = Cluster(2)
    assert cluster.hosts == []
    assert cluster.pid is None
    with pytest.raises(ClusterError, match="call start"):
        _ = cluster.folder
    cluster.stop()


def test_it_stops_and_starts_again() -> None:
    cluster = Cluster(1)
    with cluster:
        folder, pid = cluster.folder, cluster.pid
        assert cluster.start() is cluster
        assert cluster.pid == pid
        assert ssh(cluster, "host1", "sleep 1000 >/dev/null 2>&1 & echo $!").returncode == 0
    assert not folder.exists()
    assert pid is not None
    assert not alive(pid)
    with cluster:
        assert cluster.folder != folder
        assert ssh(cluster, "host1", "echo again").stdout == b"again\n"


def test_two_at_once() -> None:
    with Cluster(2) as one, Cluster(2) as other:
        (one.home(0) / "mine").touch()
        assert ssh(one, "host1", "ls").stdout == b"mine\n"
        assert ssh(other, "host1", "ls").stdout == b""


def test_a_hundred_hosts() -> None:
    with Cluster(100) as cluster:
        assert len({(host.address, host.port) for host in cluster.hosts}) == 100
        assert ssh(cluster, "host100", "pwd").stdout.decode().strip() == str(cluster.home(99))


def test_a_stop_ends_all_that_commands_have_started() -> None:
    with Cluster(1) as cluster:
        script = "sleep 1001 >&- 2>&- <&- & echo $!; setsid nohup sleep 1002 >&- 2>&- <&- & echo $!"
        pids = [int(pid) for pid in ssh(cluster, "host1", script).stdout.split()]
        assert all(alive(pid) for pid in pids)
    assert len(pids) == 2
    wait_until(lambda: not any(alive(pid) for pid in pids))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_outlives_the_program(number: signal.Signals) -> None:
    script = (
        "from execo.testing import Cluster\n"
        "cluster = Cluster(1).start()\n"
        "print(cluster.folder, cluster.pid, flush=True)\n"
        "cluster.wait()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=environment
    ) as program:
        assert program.stdout is not None
        folder, pid = program.stdout.readline().split()
        command = ["ssh", "-n", "-F", f"{folder}/ssh_config", "host1", "echo $$; sleep 1003; true"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:
            assert client.stdout is not None
            shell = int(client.stdout.readline())
            program.send_signal(number)
            assert client.wait(TIMEOUT) == 255
    wait_until(lambda: not alive(int(pid)) and not alive(shell) and not Path(folder).exists())


def test_a_server_that_was_killed_is_reported() -> None:
    with Cluster(1) as cluster:
        assert cluster.pid is not None
        pid = int(ssh(cluster, "host1", "sleep 1004 >&- 2>&- <&- & echo $!").stdout)
        assert not cluster.wait(timeout=0)
        os.kill(cluster.pid, signal.SIGKILL)
        assert cluster.wait()
        with pytest.raises(ClusterError, match="is gone; its log"):
            cluster.connections(0)
    wait_until(lambda: not alive(pid))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 0}, "1 to 5000 hosts"),
        ({"max_sessions": -1}, "max_sessions"),
        ({"max_startups": 0}, "max_startups"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Cluster(**options)  # type: ignore[arg-type]


def test_a_server_that_cannot_start_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho no such luck >&2\nexit 1\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(ClusterError, match="no such luck"):
        Cluster(1).start()


# -- logging in -------------------------------------------------------------------------------


def test_another_key_is_refused(cluster: Cluster) -> None:
    host = cluster.hosts[0]
    other = paramiko.RSAKey.generate(2048)
    client = paramiko.SSHClient()
    client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
    assert host.port is not None
    with client, pytest.raises(paramiko.AuthenticationException):
        client.connect(
            host.address,
            host.port,
            cluster.user,
            pkey=other,
            allow_agent=False,
            look_for_keys=False,
        )
    done = ssh(cluster, "-o", "IdentityFile=none", "-o", "IdentitiesOnly=yes", "nobody@host1", "id")
    assert done.returncode == 255
    assert b"Permission denied (publickey)" in done.stderr


def test_another_user_and_a_password_are_refused(cluster: Cluster) -> None:
    with pytest.raises(paramiko.AuthenticationException), login(cluster, user="nobody"):
        pass
    host = cluster.hosts[0]
    assert host.port is not None
    sock = socket.create_connection((host.address, host.port), timeout=TIMEOUT)
    transport = paramiko.Transport(sock)
    try:
        transport.start_client(timeout=TIMEOUT)
        with pytest.raises(paramiko.BadAuthenticationType, match="publickey"):
            transport.auth_password(cluster.user, "secret")
    finally:
        transport.close()
        transport.join(TIMEOUT)


def test_connections_are_counted(
    cluster: Cluster, connect: Callable[..., paramiko.Transport]
) -> None:
    wait_until(lambda: cluster.connections(2) == 0)
    transport = connect(2)
    connect(2)
    wait_until(lambda: cluster.connections(2) == 2)
    transport.close()
    wait_until(lambda: cluster.connections(2) == 1)


# -- limits -----------------------------------------------------------------------------------


def test_max_sessions(connect: Callable[..., paramiko.Transport]) -> None:
    with Cluster(1, max_sessions=2) as small:
        transport = connect(0, small)
        first, _second = transport.open_session(), transport.open_session()
        with pytest.raises(paramiko.ChannelException, match="Connect failed"):
            transport.open_session()
        first.exec_command("true")
        assert first.recv_exit_status() == 0
        first.close()

        def is_free() -> bool:
            try:
                return bool(execute(transport, "echo free")[0] == b"free\n")
            except paramiko.ChannelException:
                return False  # paramiko's thread is about to answer the host's own close

        wait_until(is_free)
        assert execute(connect(0, small), "echo another")[0] == b"another\n"


def test_max_startups() -> None:
    with Cluster(1, max_startups=2) as small, contextlib.ExitStack() as stack:
        address = (small.hosts[0].address, small.hosts[0].port)

        def talk() -> bytes:
            sock = stack.enter_context(socket.create_connection(address, timeout=TIMEOUT))
            return sock.recv(100)

        assert [talk()[:4] for _ in range(3)] == [b"SSH-", b"SSH-", b"Exce"]
        stack.close()
        wait_until(lambda: ssh(small, "host1", "true").returncode == 0)
        with login(small), login(small), login(small) as third:
            assert execute(third, "echo those who are in do not count")[2] == 0


# -- from the shell, and in tests -------------------------------------------------------------


def test_from_the_shell() -> None:
    command = [sys.executable, "-m", "execo.testing", "2", "--max-sessions", "3"]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as program:
        assert program.stdout is not None
        assert program.stderr is not None
        lines: list[str] = []
        while not lines or not lines[-1].startswith("stop:"):
            lines.append(program.stdout.readline())
            assert lines[-1], "".join(lines)
        assert lines[0].startswith("host1 127.0.0.2 port ")
        assert lines[1].startswith("host2 127.0.0.3 port ")
        ready = next(line for line in lines if line.startswith("try: ")).split()[1:]
        done = subprocess.run([*ready, "pwd"], check=False, capture_output=True, timeout=TIMEOUT)
        folder = Path(done.stdout.decode().strip()).parent
        assert f"folder: {folder}\n" in lines
        program.send_signal(signal.SIGINT)
        assert program.wait(TIMEOUT) == 0
        assert program.stderr.read() == ""
        assert not folder.exists()


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["--help"], 0, "--max-sessions"),
        (["many"], 2, "invalid int value: 'many'"),
        (["0"], 2, "1 to 5000 hosts"),
    ],
)
def test_the_command_line_explains_itself(words: list[str], code: int, text: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "execo.testing", *words],
        cwd=ROOT,
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT,
    )
    assert done.returncode == code
    assert text in done.stdout
    assert "Traceback" not in done.stdout


def test_the_pytest_fixture(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["execo.testing.pytest_plugin"]\n')
    (tmp_path / "test_it.py").write_text(
        "def test_it(cluster):\n    assert len(cluster.hosts) == 4\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    assert "1 passed" in done.stdout, done.stdout + done.stderr


def test_the_other_helpers_do_without_paramiko() -> None:
    code = "import sys; from execo.testing import FakeTransport, Cluster; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert {"paramiko", "cryptography", "pytest"}.isdisjoint(done.stdout.split())


# -- a program that has children --------------------------------------------------------------


def test_it_stops_although_a_child_of_the_program_holds_its_pipe(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("execo.testing.cluster._STOP_TIMEOUT", 3600.0)
    small = Cluster(1).start()
    process = small._process
    assert process is not None
    assert process.stdin is not None
    # As a fork would leave it.
    with subprocess.Popen(["sleep", "1000"], pass_fds=[process.stdin.fileno()]) as child:
        small.stop()
        assert process.returncode == 0
        child.kill()


FORKS = """
import os, sys, signal
from execo.testing import Cluster
cluster = Cluster(1).start()
child = os.fork()
if child == 0:
    signal.pause()
print(cluster.pid, child, cluster.folder, flush=True)
signal.pause()
"""


def test_it_ends_with_a_killed_program_although_a_forked_child_lives() -> None:
    command = [sys.executable, "-c", FORKS]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        pid, child, folder = program.stdout.readline().split()
        program.kill()
        program.wait(TIMEOUT)
        try:
            wait_until(lambda: not Path(folder).exists() and not Path("/proc", pid).exists())
        finally:
            os.kill(int(child), signal.SIGKILL)
