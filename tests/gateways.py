"""Gateways and hosts behind them: addresses of one real server, whose user has a key for them all.

A test module that needs them says ``pytest_plugins = ["gateways", "sshd"]``, and takes
``gateways``.

PYTEST_DONT_REWRITE: a test module may import this one before pytest takes it as a plugin.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from execo import Host
from execo.topology import Topology
from execo.transports.tree_frames import FrameParser, bootstrap_words, frame, program
from sshd import RealSshd

__all__ = ["Gateways", "Program", "gateways", "give_key"]

ROOT = "here"
_LONG = 60.0
GATEWAYS = 240
"""From this one on, the server's addresses are those of gateways, and from 0 on those of hosts."""


class Gateways:
    """Hosts of one server, and gateways of it."""

    def __init__(self, server: RealSshd) -> None:
        self.server = server
        self.user = server.hosts(1)[0].user or ""
        give_key(server, self.user)

    def hosts(self, count: int = 1, *, first: int = 0) -> list[Host]:
        """Hosts behind the gateways: what is known of them is their address."""
        return [Host(one.address) for one in self.server.hosts(count, first=first)]

    def names(self, count: int, *, level: int = 1) -> list[str]:
        """The addresses of gateways."""
        first = GATEWAYS + 4 * (level - 1)
        return [one.address for one in self.server.hosts(count, first=first)]

    def topology(self, hosts: Sequence[Host | str], levels: int = 1, *, width: int = 1) -> Topology:
        """So many levels of gateways, each of so many."""
        rows: list[tuple[list[str], list[str]]] = []
        above = [ROOT]
        for level in range(1, levels + 1):
            rows.append((above, self.names(width, level=level)))
            above = rows[-1][1]
        rows.append((above, [one.address if isinstance(one, Host) else one for one in hosts]))
        return Topology(rows, root=ROOT)

    def access(self) -> dict[str, Any]:
        """The connection parameters that let one in."""
        server = self.server
        return {"user": self.user, "keyfile": str(server.keyfile), "port": server.port}

    def params(
        self, levels: int = 1, *, hosts: int = 40, width: int = 1, **more: Any
    ) -> dict[str, Any]:
        """Connection parameters that lead to the hosts through gateways."""
        topology = self.topology(self.hosts(hosts), levels, width=width)
        return {**self.access(), "transport": "tree", "topology": topology, **more}


class Program:
    """The program, run by some Python here, with words that are no ssh."""

    def __init__(self, python: str, fanout: int = 2) -> None:
        self.process = subprocess.Popen(
            [python, *bootstrap_words(fanout)[1:]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        self.parser = FrameParser()
        self.frames: list[Any] = []
        self.send(program())

    def send(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)

    def run(self, number: int, *words: str, room: int = 1 << 20, shared: bool = False) -> None:
        payload = "\0".join(words).encode()
        self.send(frame("run", payload, id=number, shared=shared, room=room))

    def until(self, condition: Callable[[list[Any]], object]) -> None:
        assert self.process.stdout is not None
        while not condition(self.frames):
            data = self.process.stdout.read(65536)
            assert data, self.frames
            self.frames += self.parser.feed(data)

    def until_over(self, number: int) -> None:
        # The exit may be told before the last output.
        self.until(
            lambda frames: {"exit": 1, "end": 2}.items() <= Counter(self.ops(number)).items()
        )

    def until_exit(self, number: int) -> None:
        self.until(lambda frames: "exit" in self.ops(number))

    def out(self, number: int) -> bytes:
        return b"".join(one.payload for one in self.frames if one.id == number)

    def ops(self, number: int) -> list[str]:
        return [one.op for one in self.frames if one.id == number]

    def end(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(_LONG)
        self.process.stdout.close()


def give_key(server: RealSshd, user: str) -> None:
    """A key of its own, which all hosts of the server know, as the user of a gateway has one."""
    entry = pwd.getpwnam(user)
    if entry.pw_uid == os.geteuid():
        pytest.skip("only root can make the users that this test needs")
    folder = Path(entry.pw_dir) / ".ssh"
    folder.mkdir(mode=0o700, exist_ok=True)
    key = folder / "id_ed25519"
    shutil.copy(server.keyfile, key)
    key.chmod(0o600)
    for path in (folder, key):
        os.chown(path, entry.pw_uid, entry.pw_gid)


@pytest.fixture
def gateways(sshd: RealSshd) -> Gateways:
    """Gateways and hosts of the real server."""
    return Gateways(sshd)
