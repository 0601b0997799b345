"""A host at the other end of a network that can be cut: a real server in a network namespace of its
own, which a pair of virtual interfaces leads to. Where the kernel, or the container, has none for
us, the server is here, and the way to it is a link of chaos_proxy that passes nothing on.

PYTEST_DONT_REWRITE: a test module may import this one before pytest takes it as a plugin.
"""

from __future__ import annotations

import contextlib
import random
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from chaos_proxy import Link, Network
from execo import Host
from sshd import RAISED, RealSshd

__all__ = ["FarHost", "far_host"]

_TIMEOUT = 60


class _FarSshd(RealSshd):
    """Listens in the network namespace of the process ``pid``."""

    def __init__(self, pid: int, clients: str) -> None:
        super().__init__({**RAISED, "AllowUsers": f"*@{clients}"})
        self._namespace = pid

    def _launch(self, program: str) -> None:
        script = self.folder / "far-sshd"
        script.write_text(f'#!/bin/sh\nexec nsenter -t {self._namespace} -n {program} "$@"\n')
        script.chmod(0o755)
        super()._launch(str(script))


class FarHost:
    """The host; ``server`` is what runs there. ``real``: behind a network of the kernel's.

    - ``cut()``: nothing passes any more, and nobody is told
    - ``mend()``: all passes again
    - ``slow()``: not more than some megabits a second come from there
    """

    def __init__(self, host: Host, server: RealSshd, way: _Veth | Link) -> None:
        self.host = host
        self.server = server
        self.real = isinstance(way, _Veth)
        self._way = way

    def cut(self) -> None:
        if isinstance(self._way, Link):
            self._way.now("freeze")
        else:
            self._way.inside("ip", "link", "set", "far", "down")

    def mend(self) -> None:
        if isinstance(self._way, Link):
            self._way.now("thaw")
        else:
            self._way.inside("ip", "link", "set", "far", "up")

    def slow(self) -> None:
        words = "tc qdisc replace dev far root tbf rate 8mbit burst 16kb latency 100ms".split()
        if isinstance(self._way, Link) or not self._way.try_inside(*words):
            return  # tests of chaos_proxy have slow ways, too


class _Veth:
    """A namespace, and the cable to it."""

    def __init__(self) -> None:
        self.name = f"ex{secrets.token_hex(4)}"
        net = f"198.18.{random.randrange(256)}"  # RFC 2544: of no real network
        low = 4 * random.randrange(64)
        self.here, self.there = f"{net}.{low + 1}", f"{net}.{low + 2}"
        self._keeper: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        # Ends with this process, and the namespace and both interfaces with it.
        self._keeper = subprocess.Popen(
            ["unshare", "-n", "sh", "-c", "echo; exec cat"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        try:
            assert self._keeper.stdout is not None
            if not self._keeper.stdout.readline():
                raise OSError("no network namespaces")
            peer = ("type", "veth", "peer", "name", "far", "netns", str(self.pid))
            _run("ip", "link", "add", self.name, *peer)
            _run("ip", "address", "add", f"{self.here}/30", "dev", self.name)
            _run("ip", "link", "set", self.name, "up")
            self.inside("ip", "address", "add", f"{self.there}/30", "dev", "far")
            self.inside("ip", "link", "set", "lo", "up")
            self.inside("ip", "link", "set", "far", "up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        assert self._keeper is not None
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            _run("ip", "link", "delete", self.name)
        self._keeper.communicate()

    @property
    def pid(self) -> int:
        assert self._keeper is not None
        return self._keeper.pid

    def inside(self, *words: str) -> None:
        _run("nsenter", "-t", str(self.pid), "-n", *words)

    def try_inside(self, *words: str) -> bool:
        try:
            self.inside(*words)
        except subprocess.SubprocessError:
            return False
        return True


def _run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True, timeout=_TIMEOUT)


@contextlib.contextmanager
def far_host(network: Network, near: RealSshd) -> Iterator[FarHost]:
    """One, as far away as this machine allows.

    :param network: where there is no other
    :param near: likewise
    """
    with contextlib.ExitStack() as stack:
        try:
            veth = stack.enter_context(_Veth())
        except (OSError, subprocess.SubprocessError):
            link = network.link(near.hosts(1, first=90)[0])
            yield FarHost(link.host, near, link)
            return
        server = stack.enter_context(_FarSshd(veth.pid, veth.here))
        host = Host(veth.there, server.user(), Path(server.keyfile), server.port)
        yield FarHost(host, server, veth)
