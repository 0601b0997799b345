"""A cluster of SSH hosts on loopback, for tests and for trying things out."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pwd
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from execo.errors import ExecoError
from execo.host import Host

from .leftovers import kill_leftovers
from .settings import Fault, Settings

__all__ = ["Cluster", "ClusterError"]

_ROOT = Path(__file__).resolve().parents[2]
_START_TIMEOUT = 60.0
_STOP_TIMEOUT = 10.0
_MAX_HOSTS = 5000


class ClusterError(ExecoError):
    """The process of a cluster could not be started, or is gone."""


class Cluster:
    """SSH hosts on loopback, in one process of their own, without root.

    ::

        with Cluster(4) as cluster:
            Remote("hostname", cluster.hosts, cluster.params).run()

    Each host has its own address, 127.0.0.2 and on, where the system allows (elsewhere its own
    port of 127.0.0.1), and its own home folder; all have the same throw-away keys. They do what
    OpenSSH's sshd does: commands with their environment, signals, terminals, stdin, sftp,
    forwarding to ports of loopback; only the key of the cluster lets in. Their commands run as
    the user of this program, on this machine. Other than sshd, they deliver signals to commands
    of root, too, and limit no connections that are not logged in unless asked (``max_startups``).

    All ends with the ``with`` block, with :meth:`stop`, or with this program, however it ends: the
    hosts, the commands that they run, the folder. On Linux also what commands have put into a
    session of its own, unless it has changed its HOME.

    New in execo 3. Reference for the behaviour: OpenSSH 9.2.

    :param n: how many hosts
    :param max_sessions: sessions that a connection may have open at once, sshd's MaxSessions
    :param max_startups: connections to a host that are not logged in yet; more are closed before
      the banner, as past sshd's MaxStartups. None = no limit; sshd's own default drops some from
      the eleventh on (10:30:100)
    :param shell: the user's shell
    :param env: more variables for every command
    :param accept_env: patterns, with blanks between them, of the variables that clients may set,
      sshd's AcceptEnv
    :raises ValueError: for a number of hosts or a limit that cannot be
    """

    def __init__(
        self,
        n: int = 4,
        *,
        max_sessions: int = 10,
        max_startups: int | None = None,
        shell: str = "/bin/sh",
        env: Mapping[str, str] | None = None,
        accept_env: str = "LANG LC_*",
    ) -> None:
        if not 1 <= n <= _MAX_HOSTS:
            raise ValueError(f"a cluster has 1 to {_MAX_HOSTS} hosts, not {n}")
        if max_sessions < 0:
            raise ValueError(f"max_sessions is a number from 0 on, not {max_sessions}")
        if max_startups is not None and max_startups < 1:
            raise ValueError(f"max_startups is a number from 1 on, or None: not {max_startups}")
        self._settings = Settings(
            folder="",
            hosts=n,
            user=_own_name(),
            shell=shell,
            env=dict(env or {}),
            accept_env=accept_env.split(),
            max_sessions=max_sessions,
            max_startups=max_startups,
        )
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0
        self._hosts: list[Host] = []

    # -- what it has --------------------------------------------------------------------------

    @property
    def hosts(self) -> list[Host]:
        """The hosts, with user, key and port: a new list of new objects. Empty before start()."""
        return [Host(host) for host in self._hosts]

    @property
    def user(self) -> str:
        """The user who may log in: the one of this program."""
        return self._settings.user

    @property
    def folder(self) -> Path:
        """Where all its files are, for this user alone: keys, ``ssh_config``, ``known_hosts``,
        a home folder for each host, and ``server.log``.

        :raises ClusterError: if it does not run
        """
        if not self._settings.folder:
            raise ClusterError(f"{self!r} does not run: call start(), or use a with block")
        return Path(self._settings.folder)

    @property
    def keyfile(self) -> str:
        """Path of the private key that lets in.

        :raises ClusterError: if it does not run
        """
        return str(self.folder / "id_ed25519")

    @property
    def params(self) -> dict[str, Any]:
        """Connection parameters for its hosts: user, key, host keys that are not looked at, and
        no file of ssh_config, which may say of all hosts what is wrong for these.

        :raises ClusterError: if it does not run
        """
        return {
            "user": self.user,
            "keyfile": self.keyfile,
            "host_key_policy": "off",
            "ssh_config": False,
        }

    @property
    def ssh_config(self) -> str:
        """Text of a configuration for ``ssh``, ``scp`` and ``sftp``, which is also in the file
        ``ssh_config`` of the folder. There the hosts are named host1, host2, ...

        :raises ClusterError: if it does not run
        """
        folder = self.folder
        alone = len({host.address for host in self._hosts}) == len(self._hosts)
        lines = []
        for number, host in enumerate(self._hosts, 1):
            names = f"host{number} {host.address}" if alone else f"host{number}"
            lines += [
                f"Host {names}",
                f"    HostName {host.address}",
                f"    Port {host.port}",
                f"    User {self.user}",
                f"    IdentityFile {self.keyfile}",
                f"    UserKnownHostsFile {folder / 'known_hosts'}",
                "    GlobalKnownHostsFile /dev/null",
                "    StrictHostKeyChecking yes",
                "    IdentitiesOnly yes",
                "    IdentityAgent none",
                "    BatchMode yes",
            ]
        return "\n".join(lines) + "\n"

    @property
    def pid(self) -> int | None:
        """Process id of the server, None if it does not run."""
        return None if self._process is None else self._process.pid

    def home(self, host: Host | int) -> Path:
        """The home folder of a host.

        :param host: one of ``hosts``, or its place among them, from 0
        :raises ValueError: for a host that is not of this cluster
        """
        return self.folder / f"host{self._place(host) + 1}"

    def connections(self, host: Host | int) -> int:
        """How many connections are logged in to a host now.

        :param host: as for :meth:`home`
        """
        answer = self._ask({"order": "connections", "host": self._place(host)})
        return int(answer["connections"])

    # -- what can be done to it ---------------------------------------------------------------

    def start(self) -> Self:
        """Start it; returns when all hosts listen, after some tenths of a second. Does nothing if
        it runs.

        :raises ClusterError: if it cannot be started; with what the server said
        """
        if self._process is not None:
            return self
        folder = os.path.realpath(tempfile.mkdtemp(prefix="execo-cluster-"))
        self._settings = dataclasses.replace(self._settings, folder=folder)
        self._owner = os.getpid()
        try:
            self._process = self._spawn()
            answer = self._ask(dataclasses.asdict(self._settings))
            self._hosts = [
                Host(address, user=self.user, keyfile=self.keyfile, port=port)
                for address, port in answer["hosts"]
            ]
            (self.folder / "ssh_config").write_text(self.ssh_config)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End the hosts and their commands, remove the folder. Does nothing if it does not run, or
        in a forked child of the program that has started it."""
        folder = self._settings.folder
        if not folder or self._owner != os.getpid():
            return
        process, self._process = self._process, None
        if process is not None:
            _end(process)
        # The server has done so, unless it was killed.
        kill_leftovers(folder)
        shutil.rmtree(folder, ignore_errors=True)
        self._settings = dataclasses.replace(self._settings, folder="")
        self._hosts = []

    def wait(self, timeout: float | None = None) -> bool:
        """Block until its process has ended by itself, which it does only if it is killed.

        :param timeout: seconds; None = no limit
        :returns: True if it has ended
        """
        process = self._process
        if process is not None:
            try:
                process.wait(timeout)
            except subprocess.TimeoutExpired:
                return False
        return True

    def fault(self, host: Host | int, fault: Fault | str | None) -> None:
        """Make something go wrong with a host, from now on; when this returns, it does.

        :param host: as for :meth:`home`
        :param fault: see :class:`Fault`; None = healthy again
        :raises ValueError: for an unknown fault, or a host that is not of this cluster
        """
        name = None if fault is None else _checked_fault(fault).value
        self._ask({"order": "fault", "host": self._place(host), "fault": name})

    def heal(self) -> None:
        """All hosts are healthy again."""
        for place in range(len(self._hosts)):
            self.fault(place, None)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        state = "stopped" if self._process is None else f"pid {self.pid}"
        return f"<Cluster of {self._settings.hosts} hosts: {state}>"

    # -- its process --------------------------------------------------------------------------

    def _place(self, host: Host | int) -> int:
        if isinstance(host, int):
            if 0 <= host < len(self._hosts):
                return host
        else:
            for place, one in enumerate(self._hosts):
                if (one.address, one.port) == (host.address, host.port):
                    return place
        raise ValueError(f"{host!r} is not a host of {self!r}: take one of its hosts")

    def _spawn(self) -> subprocess.Popen[bytes]:
        # The server is to find the same execo and libraries, installed or not.
        path = [str(_ROOT), *(os.path.abspath(one) for one in sys.path if one)]
        with (self.folder / "server.log").open("wb") as log:
            # The warnings of libraries are for those who maintain execo.
            python = [sys.executable, "-P", "-W", "ignore"]
            return subprocess.Popen(
                [*python, "-m", "execo.testing.sshd", str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd="/",
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
                # A Ctrl-C is for the program: it ends the cluster when it is done with it.
                start_new_session=True,
            )

    def _ask(self, message: dict[str, Any]) -> dict[str, Any]:
        process = self._process
        if process is None:
            raise ClusterError(f"{self!r} does not run: call start(), or use a with block")
        assert process.stdin is not None
        assert process.stdout is not None
        with self._lock:
            # A gone server is told by the end of its answers.
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(json.dumps(message).encode() + b"\n")
                process.stdin.flush()
            with selectors.PollSelector() as selector:
                selector.register(process.stdout, selectors.EVENT_READ)
                ready = selector.select(_START_TIMEOUT)
            line = process.stdout.readline() if ready else b""
        if not line.endswith(b"\n"):
            what = "is gone" if ready else f"has not answered for {_START_TIMEOUT:.0f} s"
            raise ClusterError(f"the server of {self!r} {what}; its log ends with:\n{self._log()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _log(self) -> str:
        try:
            return (self.folder / "server.log").read_text(errors="replace")[-4000:]
        except OSError as error:
            return f"(no log: {error})"


def _own_name() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container that was started with any number
        return "user"


def _end(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    # Not by the end of its stdin alone: a forked child of the program holds the pipe open, too.
    process.terminate()
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
    try:
        process.wait(_STOP_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
    process.stdout.close()


def _checked_fault(fault: Fault | str) -> Fault:
    try:
        return Fault(fault)
    except ValueError:
        known = ", ".join(Fault)
        raise ValueError(f"unknown fault {fault!r}: None or one of {known}") from None
