"""Hosts of ``execo.testing.Cluster`` do what OpenSSH's sshd does, for ssh and paramiko."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import paramiko
import pytest

from cluster_clients import TIMEOUT, alive, execute, login, ssh, wait_until
from execo.testing import Cluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster(3, env={"TEAM": "blue"}) as cluster:
        yield cluster


@pytest.fixture
def connect(cluster: Cluster) -> Iterator[Callable[..., paramiko.Transport]]:
    with contextlib.ExitStack() as stack:
        yield lambda place=0, of=cluster: stack.enter_context(login(of, place))


# -- commands ---------------------------------------------------------------------------------


def test_output_and_exit_code(cluster: Cluster, connect: Callable[..., paramiko.Transport]) -> None:
    transport = connect()
    for code in (0, 3, 255):
        command = f"printf 'a\\0b'; printf x >&2; exit {code}"
        assert execute(transport, command) == (b"a\0b", b"x", code)
        done = ssh(cluster, "host1", command)
        assert (done.stdout, done.stderr, done.returncode) == (b"a\0b", b"x", code)


def test_many_short_commands_on_one_connection(connect: Callable[..., paramiko.Transport]) -> None:
    transport = connect()
    for number in range(50):
        assert execute(transport, f"exit {number}") == (b"", b"", number)


def test_big_output_is_whole(cluster: Cluster) -> None:
    done = ssh(cluster, "host1", "head -c 100000000 /dev/zero | tr '\\0' x; exit 4")
    assert done.returncode == 4
    assert len(done.stdout) == 100_000_000
    assert done.stdout.count(b"x") == 100_000_000


def test_big_input_is_whole(cluster: Cluster) -> None:
    data = os.urandom(20_000_000)
    assert ssh(cluster, "host1", "cat", stdin=data).stdout == data


def test_input_that_nobody_reads_holds_up_nothing(cluster: Cluster) -> None:
    done = ssh(cluster, "host1", "exec <&-; echo done; exit 5", stdin=bytes(10_000_000))
    assert (done.stdout, done.returncode) == (b"done\n", 5)


def test_a_slow_client_holds_up_the_command(connect: Callable[..., paramiko.Transport]) -> None:
    channel = connect().open_session()
    channel.settimeout(TIMEOUT)
    channel.exec_command("head -c 50000000 /dev/zero; echo done >&2")
    assert channel.recv(1) == b"\0"
    assert not channel.recv_stderr_ready()
    received = 1
    while data := channel.recv(1 << 20):
        received += len(data)
    assert received == 50_000_000
    assert channel.recv_stderr(10) == b"done\n"


def test_the_exit_status_does_not_wait_for_the_output(
    connect: Callable[..., paramiko.Transport],
) -> None:
    channel = connect().open_session()
    channel.settimeout(TIMEOUT)
    # What is in the background has /dev/null for its 0, whatever is redirected from there.
    channel.exec_command("exec 3<&0; (read x <&3; echo late) & exit 6")
    assert channel.recv_exit_status() == 6
    assert not channel.eof_received
    channel.sendall(b"go\n")
    assert channel.makefile("rb").read() == b"late\n"
    wait_until(lambda: channel.closed)


def test_the_end_of_the_output_does_not_wait_for_the_exit(
    connect: Callable[..., paramiko.Transport],
) -> None:
    channel = connect().open_session()
    channel.settimeout(TIMEOUT)
    channel.exec_command("exec >&- 2>&-; read x; exit 7")
    assert channel.recv(1) == b""
    assert not channel.exit_status_ready()
    channel.sendall(b"go\n")
    assert channel.recv_exit_status() == 7


def test_the_exit_status_comes_before_the_end_of_the_channel(cluster: Cluster) -> None:
    folder = Path(tempfile.mkdtemp(prefix="execo-test-"))  # short, for a socket
    shared = str(folder / "m")
    config = str(cluster.folder / "ssh_config")
    words = ["ssh", "-F", config, "-M", "-N", "-S", shared, "host1"]
    with subprocess.Popen(words, stdin=subprocess.DEVNULL) as master:
        try:
            wait_until(lambda: os.path.exists(shared))
            # Both directions have ended, so the master closes the channel, and waits for the rest.
            done = ssh(cluster, "-S", shared, "host1", "exec >&- 2>&-; sleep 0.5; exit 7")
            assert done.returncode == 7
        finally:
            master.kill()  # ssh may miss a TERM that comes just before it sleeps
    shutil.rmtree(folder)


def test_the_environment_is_that_of_a_login(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LC_PAPER", "a4 b")
    monkeypatch.setenv("SECRET", "no")
    done = ssh(cluster, "-o", "SendEnv=LC_PAPER SECRET", "host1", "env")
    env = dict(line.split("=", 1) for line in done.stdout.decode().splitlines())
    assert env.pop("PATH").endswith("/usr/bin:/sbin:/bin")
    client, connection = env.pop("SSH_CLIENT"), env.pop("SSH_CONNECTION")
    assert client.split()[0] == connection.split()[0]
    assert env == {
        "HOME": str(cluster.home(0)),
        "LC_PAPER": "a4 b",
        "LOGNAME": cluster.user,
        "PWD": str(cluster.home(0)),
        "SHELL": "/bin/sh",
        "TEAM": "blue",
        "USER": cluster.user,
    }


def test_a_login_shell_reads_its_stdin(cluster: Cluster) -> None:
    done = ssh(cluster, "host1", stdin=b"echo $0; exit 8\n")
    assert done.returncode == 8
    assert b"sh" in done.stdout


# -- signals ----------------------------------------------------------------------------------


def send_signal(channel: paramiko.Channel, name: str) -> None:
    message = paramiko.Message()
    message.add_byte(paramiko.common.cMSG_CHANNEL_REQUEST)
    message.add_int(channel.remote_chanid)
    message.add_string("signal")
    message.add_boolean(False)
    message.add_string(name)
    channel.get_transport()._send_user_message(message)  # type: ignore[attr-defined]


def test_a_signal_reaches_the_whole_session(connect: Callable[..., paramiko.Transport]) -> None:
    channel = connect().open_session()
    channel.settimeout(TIMEOUT)
    channel.exec_command("sleep 1005 & echo $!; trap 'echo caught; exit 9' USR1; wait")
    pid = int(channel.makefile("rb").readline())
    send_signal(channel, "STOP")  # not one that sshd takes
    send_signal(channel, "USR1")
    assert channel.makefile("rb").read() == b"caught\n"
    assert channel.recv_exit_status() == 9
    wait_until(lambda: not alive(pid))


@pytest.mark.parametrize("name", ["TERM", "KILL", "SEGV"])
def test_a_death_by_signal_is_told(cluster: Cluster, name: str) -> None:
    done = ssh(cluster, "-v", "host1", f"kill -{name} $$")
    assert done.returncode == 255
    assert b"rtype exit-signal" in done.stderr


# -- terminals --------------------------------------------------------------------------------


def test_a_terminal(connect: Callable[..., paramiko.Transport]) -> None:
    channel = connect().open_session()
    channel.settimeout(TIMEOUT)
    channel.get_pty("vt100", 100, 30)
    channel.exec_command("tty; echo $SSH_TTY $TERM; stty size; echo err >&2; read x; stty size")
    output = channel.makefile("rb")
    name = output.readline().strip()
    assert name.startswith(b"/dev/")
    assert [output.readline() for _ in range(3)] == [
        name + b" vt100\r\n",
        b"30 100\r\n",
        b"err\r\n",
    ]
    channel.resize_pty(90, 20)
    channel.sendall(b"go\n")
    assert output.read() == b"go\r\n20 90\r\n"
    assert channel.recv_exit_status() == 0


def test_the_terminal_has_the_modes_that_were_asked_for(cluster: Cluster) -> None:
    # script gives ssh a terminal, with echo and output processing off and ^X as interrupt.
    config = cluster.folder / "ssh_config"
    inner = f"stty -echo -opost intr ^X; ssh -tt -F {config} host1 'stty -a'"
    done = subprocess.run(
        ["script", "-qec", inner, "/dev/null"],
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=TIMEOUT,
    )
    words = done.stdout.decode().replace(";", " ").split()
    assert "intr = ^X" in done.stdout.decode()
    assert {"-echo", "-opost", "icanon"} <= set(words)


def test_control_c_interrupts(connect: Callable[..., paramiko.Transport]) -> None:
    channel = connect().open_session()
    channel.settimeout(TIMEOUT)
    channel.get_pty()
    channel.exec_command("trap 'echo int; exit 2' INT; echo ready; while :; do sleep 0.05; done")
    output = channel.makefile("rb")
    assert output.readline() == b"ready\r\n"
    channel.sendall(b"\x03")
    assert b"int" in output.read()
    assert channel.recv_exit_status() == 2


@pytest.mark.parametrize("how", ["channel", "connection"])
def test_a_terminal_is_hung_up_with_its_client(
    cluster: Cluster, connect: Callable[..., paramiko.Transport], how: str
) -> None:
    transport = connect()
    channel = transport.open_session()
    channel.settimeout(TIMEOUT)
    channel.get_pty()
    channel.exec_command("trap 'echo hup > hup; exit' HUP; echo $$; while :; do sleep 0.05; done")
    pid = int(channel.makefile("rb").readline())
    (channel if how == "channel" else transport).close()
    wait_until(lambda: not alive(pid))
    hup = cluster.home(0) / "hup"
    assert hup.read_text() == "hup\n"
    hup.unlink()


@pytest.mark.parametrize("how", ["channel", "connection"])
def test_a_command_without_one_runs_on(
    cluster: Cluster, connect: Callable[..., paramiko.Transport], how: str
) -> None:
    transport = connect()
    channel = transport.open_session()
    channel.settimeout(TIMEOUT)
    # Its stdin ends, and sooner or later what it prints meets a closed pipe.
    script = "read x; while echo y; do sleep 0.05; done 2>&-; echo broken > sad"
    channel.exec_command(f"trap '' PIPE; echo $$; {script}")
    pid = int(channel.makefile("rb").readline())
    assert alive(pid)
    (channel if how == "channel" else transport).close()
    wait_until(lambda: not alive(pid))
    sad = cluster.home(0) / "sad"
    assert sad.read_text() == "broken\n"
    sad.unlink()


# -- files ------------------------------------------------------------------------------------


def test_scp_and_sftp(cluster: Cluster, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(1_000_000))
    source.chmod(0o750)
    config = str(cluster.folder / "ssh_config")
    for words in ([str(source), "host2:there"], ["host2:there", str(tmp_path / "back")]):
        subprocess.run(["scp", "-q", "-F", config, *words], check=True, timeout=TIMEOUT)
    assert (tmp_path / "back").read_bytes() == source.read_bytes()
    assert stat.S_IMODE((cluster.home(1) / "there").stat().st_mode) == 0o750
    done = ssh(cluster, "-b", "-", "host2", stdin=b"pwd\nrename there here\nls\n", program="sftp")
    assert done.returncode == 0
    assert str(cluster.home(1)).encode() in done.stdout
    assert os.listdir(cluster.home(1)) == ["here"]


def test_what_sftp_can_do(cluster: Cluster, connect: Callable[..., paramiko.Transport]) -> None:
    home = cluster.home(2)
    sftp = paramiko.SFTPClient.from_transport(connect(2))
    assert sftp is not None
    with sftp:
        assert sftp.normalize(".") == str(home)
        with sftp.open("file", "w") as file:
            file.write("0123456789")
        with sftp.open("file", "a") as file:
            file.write("x")
        sftp.truncate("file", 5)
        assert (home / "file").read_text() == "01234"
        with sftp.open("file", "r+") as file:
            file.seek(2)
            file.write("!")
            assert file.stat().st_size == 5
        assert (home / "file").read_text() == "01!34"
        sftp.chmod("file", 0o640)
        sftp.utime("file", (1, 2))
        attributes = sftp.stat("file")
        assert attributes.st_mode == stat.S_IFREG | 0o640
        assert attributes.st_mtime == 2
        sftp.mkdir("folder")
        sftp.symlink("file", "folder/link")
        assert sftp.readlink("folder/link") == "file"
        assert [(one.filename, stat.S_ISLNK(one.st_mode or 0)) for one in
                sftp.listdir_attr("folder")] == [("link", True)]  # fmt: skip
        with pytest.raises(OSError, match="Failure"):
            sftp.rename("file", "folder")
        sftp.rename("file", "moved")
        with pytest.raises(FileNotFoundError):
            sftp.stat("file")
        with pytest.raises(OSError, match="Failure"):
            sftp.rmdir("folder")
        sftp.remove("folder/link")
        sftp.rmdir("folder")
        sftp.remove(str(home / "moved"))
    assert list(home.iterdir()) == []


# -- forwarding -------------------------------------------------------------------------------


def test_ports_of_loopback_are_forwarded(connect: Callable[..., paramiko.Transport]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(TIMEOUT)
        target = server.getsockname()
        channel = connect().open_channel("direct-tcpip", target, ("127.0.0.1", 1))
        channel.settimeout(TIMEOUT)
        peer, _ = server.accept()
        with peer:
            peer.settimeout(TIMEOUT)
            channel.sendall(b"question")
            channel.shutdown_write()
            assert peer.makefile("rb").read() == b"question"
            peer.sendall(b"answer")
            peer.shutdown(socket.SHUT_WR)
            assert channel.makefile("rb").read() == b"answer"


def test_other_forwardings_are_refused(connect: Callable[..., paramiko.Transport]) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # and does not listen
        with pytest.raises(paramiko.ChannelException, match="Connect failed"):
            connect().open_channel("direct-tcpip", bound.getsockname(), ("127.0.0.1", 1))
    with pytest.raises(paramiko.ChannelException, match="prohibited"):
        connect().open_channel("direct-tcpip", ("192.0.2.1", 80), ("127.0.0.1", 1))
