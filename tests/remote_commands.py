"""Commands on hosts that are this machine: started, waited for, and looked for among all processes.

For tests of the in-process SSH transport. A test module says
``pytest_plugins = ["sshd", "remote_commands"]``; its tests take ``host`` (they run twice: as a user
with root's rights, whom sshd lets signal nothing, and as an ordinary one) or ``plain`` (once), and
``word`` (an argument of ``sleep`` that nobody else uses).

PYTEST_DONT_REWRITE: a test module may import this one before pytest takes it as a plugin.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import pytest

from execo import Host, SshProcess
from sshd import RealSshd

__all__ = ["QUIET", "TIMEOUT", "HostScript", "logins", "on", "run", "running", "until"]

TIMEOUT = 40.0
"""Seconds: a hang, not a speed."""

QUIET: dict[str, Any] = {
    "nolog_error": True,
    "nolog_exit_code": True,
    "nolog_timeout": True,
    "nolog_write_error": True,
}
"""Process arguments for commands that are meant to fail."""


def until(condition: Callable[[], object], seconds: float = TIMEOUT) -> None:
    """Wait until it holds."""
    deadline = time.monotonic() + seconds
    nap = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        nap.wait(0.02)


def running(word: str) -> list[int]:
    """The processes that have ``word`` as an argument."""
    found = []
    for proc in Path("/proc").glob("[0-9]*"):
        try:
            if word.encode() in (proc / "cmdline").read_bytes().split(b"\0"):
                found.append(int(proc.name))
        except OSError:
            continue
    return found


def logins(sshd: RealSshd) -> int:
    """How many connections have logged in to a server so far."""
    return sshd.log.count("Accepted publickey")


def on(host: Host, cmd: Any, params: dict[str, Any] | None = None, **options: Any) -> SshProcess:
    """A command for a host, not started."""
    return SshProcess(cmd, host, params, **{**QUIET, **options})


def run(host: Host, cmd: Any, params: dict[str, Any] | None = None, **options: Any) -> SshProcess:
    """A command that has ended on a host."""
    process = on(host, cmd, params, **options).start()
    process.wait(TIMEOUT)
    assert process.ended, process
    return process


@pytest.fixture(params=["root", "user"])
def host(request: pytest.FixtureRequest, sshd: RealSshd) -> Host:
    """A host, once with root's rights, once as a user."""
    if request.param == "root" and os.geteuid() == 0:
        return sshd.hosts(1, user="root")[0]
    return sshd.hosts(1)[0]


@pytest.fixture
def plain(sshd: RealSshd) -> Host:
    """A host, as a user."""
    return sshd.hosts(1)[0]


@pytest.fixture
def word() -> Iterator[str]:
    """An argument for ``sleep``; what still has it after the test is ended."""
    text = f"1000.{time.monotonic_ns()}"
    yield text
    for end in ("", "1", "2", "3"):
        for pid in running(text + end):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


# -- scripts --------------------------------------------------------------------------------------

_HEAD = """
import os, signal, sys, threading, time
from execo import *

address, user, keyfile, port = sys.argv[1:]
word = os.environ["WORD"]  # not an argument: the script does not find itself
host = Host(address, user, keyfile, int(port))

def ready(*processes):
    for process in processes:
        while "ready" not in process.stdout and not process.ended:
            process.wait(0.01)
        if not process.running:
            print(process, process.stderr)
    print("ready", flush=True)

"""


class HostScript:
    """A script in an interpreter of its own, with a host to run on.

    :param source: its text; ``host``, ``word`` and ``ready(*processes)`` are there
    :param env: more variables for it
    """

    def __init__(
        self,
        folder: Path,
        source: str,
        host: Host,
        word: str = "",
        *,
        env: dict[str, str] | None = None,
    ) -> None:
        path = folder / f"script-{uuid.uuid4()}.py"
        path.write_text(_HEAD + source)
        where = [host.address, str(host.user or ""), str(host.keyfile or ""), str(host.port)]
        self.popen = subprocess.Popen(
            [sys.executable, str(path), *where],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "PYTHONPATH": str(Path(__file__).parent.parent),
                "WORD": word,
                # Python 3.12 and later warn of every fork of a program with threads.
                "PYTHONWARNINGS": "ignore:This process:DeprecationWarning",
                **(env or {}),
            },
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.popen.kill()
        self.popen.communicate()

    def wait_ready(self) -> None:
        assert self.popen.stdout is not None
        line = self.popen.stdout.readline()
        assert line == "ready\n", line + self.finish()[2]

    def finish(self) -> tuple[int, str, str]:
        """(exit code, stdout, stderr) at its end."""
        out, err = self.popen.communicate(timeout=TIMEOUT)
        return self.popen.returncode, out, err
