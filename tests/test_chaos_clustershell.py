"""The Task API over ways to nodes that fail: each node has one end and each worker one, what a
command has finished is complete, and nothing is left. ``EXECO_ROUNDS`` multiplies the random ones.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chaos_hosts import idle
from chaos_proxy import DOWN, UP, Fault, Link, Network
from execo import Reason, default_connection_params
from execo.clustershell import EventHandler, Task, task_cleanup, task_self
from invariants import PATIENCE, Watch, check_idle, left_of, wait_until
from rounds import ROUNDS, chance
from sshd import RealSshd

pytest_plugins = ["sshd"]

NODES = 10
LINES = 3000
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    with Network() as one:
        yield one


@pytest.fixture(scope="module")
def all_links(sshd: RealSshd, network: Network) -> list[Link]:
    return [network.link(host) for host in sshd.hosts(NODES, first=60)]


@pytest.fixture
def links(all_links: list[Link], network: Network) -> Iterator[list[Link]]:
    idle()
    yield all_links
    network.heal()


@pytest.fixture(params=["paramiko", "openssh"])
def task(
    request: pytest.FixtureRequest,
    links: list[Link],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Task]:
    """A task whose nodes n0, n1, ... are the ends of the links."""
    config = tmp_path / "ssh_config"
    config.write_text(
        "".join(
            f"Host n{number}\n  HostName {link.host.address}\n  Port {link.host.port}\n"
            f"  User {link.host.user}\n  IdentityFile {link.host.keyfile}\n"
            for number, link in enumerate(links)
        )
    )
    wanted = {"ssh_config": str(config), "transport": request.param, "keepalive": 0.5}
    for key, value in {**wanted, "host_key_policy": "off"}.items():
        monkeypatch.setitem(default_connection_params, key, value)
    task = task_self()
    task.set_info("connect_timeout", 5)
    yield task
    task_cleanup()


class Told(EventHandler):
    """What workers tell."""

    def __init__(self) -> None:
        self.events: Counter[tuple[str, Any]] = Counter()
        self.lines: Counter[str] = Counter()
        self.codes: dict[str, int | None] = {}
        self.timedout: bool | None = None

    def ev_start(self, worker: Any) -> None:
        assert not self.events
        self.events["start", None] += 1

    def ev_pickup(self, worker: Any, node: str) -> None:
        self.events["pickup", node] += 1

    def ev_read(self, worker: Any, node: str, sname: str, msg: bytes) -> None:
        assert node not in self.codes
        self.lines[node] += msg.isdigit()

    def ev_hup(self, worker: Any, node: str, rc: int | None) -> None:
        self.events["hup", node] += 1
        self.codes[node] = rc

    def ev_close(self, worker: Any, timedout: bool) -> None:
        self.events["close", None] += 1
        self.timedout = timedout

    def check(self, nodes: int, ended: int) -> None:
        """Each node was begun, so many have ended, and each thing was told once."""
        assert set(self.events.values()) == {1}
        told = Counter(name for name, _ in self.events)
        assert told == Counter(start=1, pickup=nodes, hup=ended, close=1)


def any_fault(random: random.Random) -> Fault:
    way = random.choice([UP, DOWN, DOWN])
    do = random.choice(["reset", "close", "half", "freeze", "garbage", "flip"])
    most = random.choice([2500, 6000, 20_000])
    return Fault(do, random.randrange(most), way, seed=random.randrange(10**6))


def test_nodes_of_which_some_fail(task: Task, links: list[Link], network: Network) -> None:
    choice = chance()
    for _ in range(ROUNDS):
        idle()
        for link in links[: NODES // 2]:
            link.plan(any_fault(choice))
        with Watch() as watch:
            told = Told()
            command = f"seq {LINES}; : {watch.word}; exit 3"
            worker = task.run(command, nodes=f"n[0-{NODES - 1}]", handler=told, timeout=PATIENCE)
            told.check(NODES, ended=NODES)
            network.heal()
            for number in range(NODES):
                node = f"n{number}"
                reason = worker.node_reason(node)
                # As far as anybody can see it has run to its end: then all of it is there.
                if told.codes[node] == 3 and reason is None:
                    assert told.lines[node] == LINES
                else:
                    assert number < NODES // 2
                    assert (told.codes[node], reason is None) in [(255, False), (3, False)]
            watch.check_nothing_left()
            check_idle()


def test_nodes_that_fall_silent(task: Task, links: list[Link], network: Network) -> None:
    default_connection_params["keepalive"] = None
    with Watch() as watch:
        frozen = set()

        class Freezing(Told):
            def ev_read(self, worker: Any, node: str, sname: str, msg: bytes) -> None:
                super().ev_read(worker, node, sname, msg)
                if node in ("n0", "n1") and node not in frozen:
                    frozen.add(node)
                    links[int(node[1])].now("freeze")

        told = Freezing()
        command = f"echo begun; case $SSH_CONNECTION in *) sleep {watch.word};; esac"
        worker = task.run(command, nodes="n[0-3]", handler=told, timeout=3)
        told.check(4, ended=0)
        assert told.timedout
        assert worker.did_timeout()
        assert sorted(task.iter_keys_timeout()) == ["n0", "n1", "n2", "n3"]
        network.heal()
        watch.check_nothing_left()
        check_idle()


def test_an_abort_in_a_flood(task: Task) -> None:
    with Watch() as watch:

        class Aborting(Told):
            def ev_read(self, worker: Any, node: str, sname: str, msg: bytes) -> None:
                super().ev_read(worker, node, sname, msg)
                if self.lines.total() > 20_000:
                    task.abort()

        told = Aborting()
        task.shell(f"yes 1; : {watch.word}", nodes=f"n[0-{NODES - 1}]", handler=told)
        task.resume()
        assert told.events["close", None] == 1
        assert not told.codes
        assert list(task.iter_buffers()) == []
        watch.check_nothing_left()
        check_idle()
        assert task.run("exit 4", nodes="n1").node_rc("n1") == 4


SCRIPT = """
import sys
from execo import default_connection_params
from execo.clustershell import task_self

address, user, keyfile, port, transport, word = sys.argv[1:]
default_connection_params.update(user=user, keyfile=keyfile, port=int(port), transport=transport)
task_self().run("sleep " + word, nodes=address)
"""


@pytest.mark.parametrize("transport", ["paramiko", "openssh"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["kill", "ctrl-c"])
def test_a_script_that_is_ended(sshd: RealSshd, transport: str, number: int) -> None:
    (host,) = sshd.hosts(1)
    with Watch() as watch:
        words = [host.address, host.user, str(host.keyfile), str(host.port), transport, watch.word]
        with subprocess.Popen(
            [sys.executable, "-c", SCRIPT, *map(str, words)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stderr=subprocess.DEVNULL,
        ) as script:
            # The script itself bears the word, and so does the ssh that takes it there.
            assert wait_until(lambda: any(_sleeps(pid) for pid in left_of(watch.word)))
            script.send_signal(number)
        assert script.returncode == -number
        watch.check_nothing_left()


def _sleeps(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/comm").read_text() == "sleep\n"
    except OSError:
        return False


def test_the_reason_is_that_of_the_way(task: Task, links: list[Link]) -> None:
    links[0].plan(*[Fault("reset", 0)] * 50)  # a few may be the limit of a busy server
    worker = task.run("exit 255", nodes="n[0-1]")
    assert worker.node_rc("n0") == worker.node_rc("n1") == 255
    assert worker.node_reason("n0") is Reason.CONNECT
    assert worker.node_reason("n1") is None
