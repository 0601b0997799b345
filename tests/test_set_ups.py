"""Many connections that are made at once: how many are on their way, and whom they hold up."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from execo import Host, Remote
from execo._core.runtime import get_runtime
from execo.errors import Reason
from execo.testing import Cluster
from execo.transports import close_idle, get, statistics
from execo.transports.inprocess import InProcessTransport
from execo.transports.set_ups import SILENT
from remote_commands import QUIET, TIMEOUT, HostScript, on, run, until

pytest_plugins = ["sshd", "remote_commands", "execo.testing.pytest_plugin"]


class Greeters:
    """Servers that greet ``delay`` seconds after a connection, and hang up then; or never.

    ``peak`` is how many have waited for their greeting at once.
    """

    def __init__(self, count: int, delay: float | None) -> None:
        self.peak = 0
        self._delay = delay
        self._waiting: list[tuple[float, socket.socket]] = []
        self._over = False
        self._sockets = [
            socket.create_server((f"127.0.9.{1 + number % 250}", 0)) for number in range(count)
        ]
        self._thread = threading.Thread(target=self._serve)

    @property
    def hosts(self) -> list[Host]:
        return [Host(sock.getsockname()[0], port=sock.getsockname()[1]) for sock in self._sockets]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._over = True
        self._thread.join()
        for sock in (*self._sockets, *(sock for _, sock in self._waiting)):
            sock.close()

    def _serve(self) -> None:
        with selectors.DefaultSelector() as selector:
            for sock in self._sockets:
                selector.register(sock, selectors.EVENT_READ)
            while not self._over:
                for key, _ in selector.select(0.01):
                    assert isinstance(key.fileobj, socket.socket)
                    self._waiting.append((time.monotonic(), key.fileobj.accept()[0]))
                self.peak = max(self.peak, len(self._waiting))
                self._greet()

    def _greet(self) -> None:
        now = time.monotonic()
        while self._delay is not None and self._waiting:
            since, sock = self._waiting[0]
            if since + self._delay > now:
                return
            del self._waiting[0]
            with sock, contextlib.suppress(OSError):
                sock.sendall(b"SSH-2.0-late\r\n")


@pytest.fixture(autouse=True)
def no_experience() -> Iterator[None]:
    """What is known of how soon hosts answer is not that of other tests."""
    transport = get(get_runtime(), "paramiko")
    assert isinstance(transport, InProcessTransport)
    set_ups = transport.pool._set_ups
    set_ups._patience = SILENT
    yield
    set_ups._patience = SILENT
    close_idle()


def failing(hosts: list[Host]) -> Remote:
    return Remote("true", hosts, {"connect_timeout": 30}, QUIET)


def test_of_hosts_that_answer_late_few_are_asked_at_a_time() -> None:
    # As those of a machine do that has too much to do: more of them at once would be later still.
    with Greeters(64, delay=0.7) as first:
        failing(first.hosts).run(TIMEOUT)
    with Greeters(200, delay=0.7) as late:
        remote = failing(late.hosts).run(TIMEOUT)
    assert {process.reason for process in remote.processes} == {Reason.CONNECT}
    assert 32 <= late.peak < 130


def test_silent_hosts_hold_up_nobody_even_if_others_have_answered_late(cluster: Cluster) -> None:
    with Greeters(64, delay=0.7) as late:
        failing(late.hosts).run(TIMEOUT)
    with Greeters(150, delay=None) as silent:
        stuck = failing(silent.hosts).start()
        assert Remote("true", cluster.hosts, None, QUIET).run(TIMEOUT).ok
        assert all(process.running for process in stuck.processes)
        until(lambda: statistics().connections.silent == 150)
        stuck.kill().wait(TIMEOUT)


def test_one_that_is_retried_does_not_make_others_wait() -> None:
    with Cluster(1, max_startups=1) as strict:
        # One is let in at a time: the last of them takes long.
        params = [{"connect_timeout": 30 + number} for number in range(30)]
        processes = [on(strict.hosts[0], "true", one).start() for one in params]
        for process in processes:
            process.wait(TIMEOUT)
        assert all(process.ok for process in processes), processes
        transport = get(get_runtime(), "paramiko")
        assert isinstance(transport, InProcessTransport)
        assert transport.pool._set_ups._patience < 2 * SILENT
        close_idle()


def test_thousands_that_fail_at_once() -> None:
    # Each makes room for the next one within the call that begins it.
    hosts = [Host("255.255.255.255", port=1 + number) for number in range(3000)]
    remote = Remote("true", hosts, {"connect_timeout": None}, QUIET).run(TIMEOUT)
    assert remote.ended
    assert {process.reason for process in remote.processes} == {Reason.CONNECT}
    assert "port 3000: " in remote.processes[-1].message


def test_an_error_of_ours_ends_with_its_host(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*args: object) -> None:
        raise OverflowError("too much")

    for name in ("dial.TcpDial._begin", "ssh_login.SshLogin.start"):
        with monkeypatch.context() as patch:
            patch.setattr(f"execo.transports.{name}", broken)
            process = run(cluster.hosts[0], "true")
        assert process.message == "internal error: too much"
        assert f"internal error with {cluster.hosts[0].address}" in caplog.text
    assert run(cluster.hosts[0], "true").ok


FEW = """
import resource
from execo.transports import statistics

resource.setrlimit(resource.RLIMIT_NOFILE, (110, 110))
hosts = [Host(f"127.0.3.{number}", user, keyfile, int(port)) for number in range(1, 101)]
sessions = {}
for part in (hosts[:60], hosts[60:], hosts[90:], hosts[:10], hosts[90:]):
    remote = Remote("echo $PPID", part).run()
    assert remote.ok, remote.failed
    for process in remote.processes[-5:]:
        session = sessions.setdefault(process.host.address, process.stdout)
        assert session == process.stdout, "it was closed, and made again"
    assert statistics().connections.ready <= 65
print("ready", flush=True)
"""


def test_where_descriptors_are_few_those_go_that_were_not_used_for_longest(
    plain: Host, tmp_path: Path
) -> None:
    with HostScript(tmp_path, FEW, plain) as script:
        script.wait_ready()
        assert script.finish()[0] == 0
