"""Real OpenSSH servers for tests, which are as many hosts as a test wants.

A test module that needs one says ``pytest_plugins = ["sshd"]``, and its tests take ``sshd`` (limits
raised, so that a test sees ours alone) or ``stock_sshd`` (the limits that hosts have)::

    def test_uptime(sshd):
        assert execo.Remote("uptime", sshd.hosts(3)).run().ok

As root the commands run as a user made for the server, in its own home; else as one's own.

PYTEST_DONT_REWRITE: a test module may import this one before pytest takes it as a plugin.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import pytest

from execo import Host

__all__ = ["RAISED", "STOCK", "RealSshd", "descendants", "sshd", "stock_sshd"]

STOCK: Mapping[str, str] = {}
"""sshd's own limits: MaxStartups 10:30:100, MaxSessions 10."""

RAISED: Mapping[str, str] = {"MaxStartups": "4000", "MaxSessions": "500"}

PATIENCE = 20.0
"""Seconds in which a server is there, or gone: a hang, not a speed."""

MARK = "EXECO_TEST_SSHD"
"""In the environment of every command that a server runs: the server's folder."""

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# Starts sshd and leaves a keeper behind, which tidies up after a script that was killed: a server
# that lets root in must not stay. Both are daemons rather than children, without the tests' mark in
# their environment, so that the leak guard does not take them for something that a test has left,
# whenever they were started.
START = """
folder=$1 owner=$2 sshd=$3
"$sshd" -f "$folder/sshd_config" -E "$folder/log" || exit
(
    tail --pid="$owner" -f /dev/null
    [ -d "$folder" ] || exit
    kill "$(cat "$folder/pid")"
    for home in "$folder"/home/*; do [ ! -d "$home" ] || userdel -f "${home##*/}"; done
    rm -rf "$folder"
) >/dev/null 2>&1 &
"""


class RealSshd:
    """A server of its own keys, configuration and users; ``with RealSshd() as sshd:`` runs it.

    - ``port``: the TCP port, on every address of 127.0.0.0/8
    - ``keyfile``: the private key that lets every user in
    - ``host_key``: the server's public key, as in a known_hosts file after the name
    - ``pid``: of the listening server

    :param settings: lines of sshd_config: a keyword and its value
    :param environment: variables to set for every command
    """

    def __init__(
        self,
        settings: Mapping[str, str] = RAISED,
        *,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.settings = dict(settings)
        self.environment = dict(environment or {})
        self.port = 0
        self.pid = 0
        self.host_key = ""
        self._users: dict[tuple[str, bool], str] = {}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    # -- what a test asks for -------------------------------------------------------------------

    def hosts(self, count: int = 1, *, user: str | None = None, first: int = 0) -> list[Host]:
        """So many different addresses of this server, from 127.0.1.1 on.

        :param user: who logs in; default: :meth:`user`, or oneself when not root; "root": one with
          root's rights, see there
        :param first: how many addresses to leave out
        """
        if user == "root":
            user = self.user(root=True)
        elif user is None:
            user = self.user() if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
        return [
            Host(f"127.0.{1 + index // 250}.{1 + index % 250}", user, self.keyfile, self.port)
            for index in range(first, first + count)
        ]

    def user(self, shell: str = "/bin/sh", *, root: bool = False) -> str:
        """The name of a user with this login shell. It is made at the first call, and removed with
        the server. When not root, or without that shell, the test is skipped.

        :param root: its user id is 0: root, without the start-up files of this machine's root
        """
        if os.geteuid() != 0:
            pytest.skip("only root can make the users that this test needs")
        if shutil.which(shell) is None:
            pytest.skip(f"needs {shell}, see tests/install-servers")
        if (Path(shell).name, root) not in self._users:
            # The port is in use once on this machine: two test runs never share a user.
            name = f"execo-{self.port}-{Path(shell).name}{'-root' if root else ''}"
            home = self.folder / "home" / name
            home.mkdir()
            # Not the locked password of useradd's default: sshd without PAM refuses such a user.
            kind = ["-o", "-u", "0"] if root else []
            _add_user(name, home, *kind, "-p", "*", "-s", shell)
            self._users[Path(shell).name, root] = name
        return self._users[Path(shell).name, root]

    def person(self, word: str, password: str, *, expired: bool = False) -> str:
        """The name of a user of its own who has a password. The settings have to let passwords in.

        :param word: tells persons apart, as part of the name
        :param expired: the password has to be changed at the next login
        """
        if os.geteuid() != 0:
            pytest.skip("only root can make the users that this test needs")
        name = f"execo-{self.port}-{word}"
        if (word, False) not in self._users:
            home = self.folder / "home" / name
            home.mkdir()
            _add_user(name, home, "-s", "/bin/sh")
            self._users[word, False] = name
        _run("chpasswd", stdin=f"{name}:{password}\n")
        _run("chage", "-d", "0" if expired else "2026-01-01", name)
        return name

    def admit(self, *keys: Path) -> None:
        """Let every user in with these keys, too. They are copied: the user's part of the server
        reads them, and may not look into a folder of pytest."""
        with open(f"{self.keyfile}.pub", "a") as file:
            file.writelines(Path(f"{key}.pub").read_text() for key in keys)

    @property
    def keyfile(self) -> Path:
        return self.folder / "user_key"

    @property
    def log(self) -> str:
        """What the server has logged."""
        try:
            return (self.folder / "log").read_text(errors="replace")
        except FileNotFoundError:
            return ""

    # -- start and stop -------------------------------------------------------------------------

    def start(self) -> None:
        """Returns when the server answers.

        :raises RuntimeError: if it does not; with its log
        """
        program = shutil.which("sshd", path=SYSTEM_PATH)
        if program is None:
            raise FileNotFoundError("needs sshd: apt install openssh-server")
        self.folder = Path(tempfile.mkdtemp(prefix="execo-sshd-"))
        self.folder.chmod(0o755)  # the users read their authorized keys, and have their homes here
        (self.folder / "home").mkdir()
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # made by systemd elsewhere
        for name in ("host_key", "user_key"):
            _run(
                "ssh-keygen",
                "-q",
                "-t",
                "ed25519",
                "-N",
                "",
                "-C",
                name,
                "-f",
                name,
                cwd=self.folder,
            )
        self.host_key = " ".join((self.folder / "host_key.pub").read_text().split()[:2])
        with socket.socket() as reserved:
            # Kept bound until the server listens, which needs the option on both sides: nobody
            # else gets this port meanwhile.
            reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            reserved.bind(("0.0.0.0", 0))
            self.port = reserved.getsockname()[1]
            (self.folder / "sshd_config").write_text(self._config())
            try:
                self._launch(program)
            except BaseException:
                self.stop()
                raise

    def _config(self) -> str:
        folder = self.folder
        environment = {MARK: str(folder), **self.environment}
        lines = {
            "Port": str(self.port),
            # sshd takes no network here, and a line for each of a thousand addresses would be a
            # thousand sockets. AllowUsers keeps other machines out.
            "ListenAddress": "0.0.0.0",
            "AllowUsers": "*@127.0.0.0/8",
            "HostKey": str(folder / "host_key"),
            "AuthorizedKeysFile": str(folder / "user_key.pub"),
            "PidFile": str(folder / "pid"),
            "Subsystem": "sftp internal-sftp",
            "SetEnv": " ".join(f'"{name}={value}"' for name, value in environment.items()),
            "UsePAM": "no",
            "StrictModes": "no",
            "UseDNS": "no",
            "PermitUserRC": "no",
            "PrintMotd": "no",
            "PrintLastLog": "no",
            **self.settings,
        }
        return "".join(f"{keyword} {value}\n" for keyword, value in lines.items())

    def _launch(self, program: str) -> None:
        done = subprocess.run(
            ["/bin/sh", "-c", START, "sh", str(self.folder), str(os.getpid()), program],
            env={"PATH": SYSTEM_PATH},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
        deadline = time.monotonic() + PATIENCE
        nap = threading.Event()
        # Written when it listens; an empty file is being written.
        while done.returncode == 0 and not self.pid and time.monotonic() < deadline:
            with contextlib.suppress(FileNotFoundError, ValueError):
                self.pid = int((self.folder / "pid").read_text())
            nap.wait(0.01)
        if not self.pid:
            raise RuntimeError(f"sshd does not start on port {self.port}:\n{done.stderr}{self.log}")

    def stop(self) -> None:
        """End the server, its sessions and what commands have left running; remove its users and
        files.
        """
        # The sessions are looked for before their parent is gone, the commands when no more can
        # come.
        sessions = descendants(self.pid) if self.pid else []
        if self.pid:
            _kill([self.pid])
        _kill(sessions)
        _kill(_marked(f"{MARK}={self.folder}"))
        for name in self._users.values():
            _run("userdel", "-f", name)
        self._users.clear()
        self.pid = 0
        shutil.rmtree(self.folder)


def _add_user(name: str, home: Path, *words: str) -> None:
    with contextlib.suppress(KeyError):
        # Of a run that was killed, whose server had our port.
        pwd.getpwnam(name)
        _run("userdel", "-f", name)
    _run("useradd", "-M", "-N", "-d", str(home), *words, name)
    os.chown(home, pwd.getpwnam(name).pw_uid, -1)


def _run(*command: str, cwd: Path | None = None, stdin: str = "") -> None:
    """:raises RuntimeError: if it fails; with what it wrote to stderr"""
    done = subprocess.run(
        command,
        cwd=cwd,
        env={"PATH": SYSTEM_PATH},
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)} exited with {done.returncode}: {done.stderr}")


def descendants(pid: int) -> list[int]:
    """The processes below one, by whatever is between."""
    children: dict[int, list[int]] = {}
    for proc in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            stat = (proc / "stat").read_text(errors="replace").rpartition(")")[2].split()
            children.setdefault(int(stat[1]), []).append(int(proc.name))
    found = [pid]
    for one in found:
        found.extend(children.get(one, ()))
    return found[1:]


def _marked(mark: str) -> list[int]:
    found = []
    for proc in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark.encode() in (proc / "environ").read_bytes().split(b"\0"):
                found.append(int(proc.name))
    return found


def _kill(pids: list[int]) -> None:
    """Kill hard, and wait until they are gone."""
    descriptors = []
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            descriptors.append(os.pidfd_open(pid))
            os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + PATIENCE
    for descriptor in descriptors:
        gone = select.poll()  # select() takes no number above 1023
        gone.register(descriptor, select.POLLIN)
        gone.poll(max(0, deadline - time.monotonic()) * 1000)
        os.close(descriptor)


# -- the plugin -----------------------------------------------------------------------------------


def _serve(settings: Mapping[str, str]) -> Iterator[RealSshd]:
    # The leak guard finds what remote commands leave behind by this mark, as it does local ones.
    guard = {name: os.environ[name] for name in ("LEAK_GUARD_OF",) if name in os.environ}
    server = RealSshd(settings, environment=guard)
    try:
        server.start()
    except FileNotFoundError as exc:
        pytest.skip(str(exc))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def sshd() -> Iterator[RealSshd]:
    """A real server whose limits are raised."""
    yield from _serve(RAISED)


@pytest.fixture(scope="session")
def stock_sshd() -> Iterator[RealSshd]:
    """A real server with the limits that it comes with."""
    yield from _serve(STOCK)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[Any]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        for value in getattr(item, "funcargs", {}).values():
            if isinstance(value, RealSshd):
                report.sections.append((f"sshd on port {value.port}", value.log[-4000:]))
    return report
