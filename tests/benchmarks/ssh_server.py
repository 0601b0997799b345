"""The real sshd of benchmarks: what starts it, and what their bodies know of it."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import ROOT

if TYPE_CHECKING:
    from execo import Host

HOSTS = 100

SERVER = "EXECO_BENCH_SSH"
"""The variable that tells the bodies of the server."""


# -- in the bodies ----------------------------------------------------------------------------


def server() -> Any:
    """``user``, ``keyfile``, ``port``, ``pid``; ``silent``: [address, port] of the silent hosts;
    ``scratch``: a folder.
    """
    return json.loads(os.environ[SERVER])


def count(scale: float) -> int:
    return max(2, round(HOSTS * scale))


def addresses(scale: float) -> list[str]:
    return [f"127.0.{1 + index // 250}.{1 + index % 250}" for index in range(count(scale))]


def ssh_options() -> list[str]:
    """For the peers that run OpenSSH's client."""
    here = server()
    options = ["-F", "none", "-i", here["keyfile"], "-p", str(here["port"])]
    for option in ("StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR"):
        options += ["-o", option]
    return options


def wait_for_quiet() -> None:
    """Return when the server has no session left."""
    pid = server()["pid"]
    children = Path(f"/proc/{pid}/task/{pid}/children")
    deadline = time.monotonic() + 60
    while children.read_text().split():
        if time.monotonic() > deadline:
            raise TimeoutError("sessions of the body before are still there")
        time.sleep(0.02)


def hosts(scale: float) -> list[Host]:
    from execo import Host

    here = server()
    return [Host(one, here["user"], here["keyfile"], here["port"]) for one in addresses(scale)]


# -- around them ------------------------------------------------------------------------------


@contextlib.contextmanager
def silent_hosts(number: int) -> Iterator[list[tuple[str, int]]]:
    """Addresses and ports that take connections and say nothing: the kernel accepts for them."""
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(socket.create_server((f"127.2.0.{1 + index}", 0))).getsockname()
            for index in range(number)
        ]


@contextlib.contextmanager
def serving(silent: int, *, stock: bool = False) -> Iterator[None]:
    """The server, the silent hosts and a folder to write to, for the bodies that run meanwhile.

    :param stock: the server has the limits of sshd itself
    """
    sys.path.insert(0, str(ROOT / "tests"))
    from sshd import RAISED, STOCK, RealSshd

    scratch = tempfile.TemporaryDirectory(prefix="execo-bench-")
    with (
        scratch as folder,
        RealSshd(STOCK if stock else RAISED) as sshd,
        silent_hosts(silent) as quiet,
    ):
        Path(folder).chmod(0o755)
        (host,) = sshd.hosts()
        known = {
            "user": host.user,
            "keyfile": str(sshd.keyfile),
            "port": sshd.port,
            "pid": sshd.pid,
            "silent": quiet,
            "scratch": folder,
        }
        os.environ[SERVER] = json.dumps(known)
        yield
