"""Ways to hosts that fail, at any byte and in every way: each command is complete or marked as
lost, has run once at the most, and holds up no other. ``EXECO_ROUNDS`` multiplies the random ones.
"""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from chaos_hosts import (
    LOSSES,
    TRANSPORTS,
    Counted,
    commands,
    guards_of,
    idle,
    signal_all,
    transfer,
)
from chaos_proxy import DOWN, UP, Fault, Link, Network
from execo import Action, configuration
from execo.errors import Reason
from execo.transfer import process as transfer_process
from invariants import PATIENCE, Watch, left_of, wait_until
from rounds import ROUNDS, chance
from sshd import RealSshd

pytest_plugins = ["sshd"]

HOSTS = 20

SOON = {"connect_timeout": 3, "keepalive": 0.5}
"""For hosts that may fail at any time: so that what is promised to take a while takes a short
one."""

LATER = {"connect_timeout": 30, "keepalive": 1}
"""For hosts that fail later: a busy machine takes its time until they run."""

STEADY = {"connect_timeout": 30, "keepalive": 10}
"""For hosts that do not fail."""

ANY_DO = ("reset", "close", "half", "freeze", "garbage", "flip")


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    with Network() as one:
        yield one


@pytest.fixture(scope="module")
def all_links(sshd: RealSshd, network: Network) -> list[Link]:
    return [network.link(host) for host in sshd.hosts(HOSTS, first=30)]


@pytest.fixture
def links(all_links: list[Link], network: Network) -> Iterator[list[Link]]:
    idle()
    yield all_links
    network.heal()


def finish(action: Action, network: Network) -> None:
    """It ends by itself; what is frozen is to go on afterwards, so that hosts hear of the end."""
    try:
        assert action.wait(PATIENCE).ended, [one.dump() for one in action.processes]
    finally:
        network.heal()
        action.kill().wait(PATIENCE)


def all_print(action: Action) -> bool:
    return all(process.stdout or process.ended for process in action.processes)


# -- at any byte ----------------------------------------------------------------------------------


def any_fault(random: random.Random) -> Fault:
    """A fault at any moment, more often in the beginning, where less is said."""
    way = random.choice([UP, DOWN, DOWN, DOWN])
    most = {UP: [2500, 6000, 7000], DOWN: [3500, 12_000, 200_000]}[way]
    return Fault(
        random.choice(ANY_DO),
        random.randrange(random.choice(most)),
        way,
        size=random.choice([1, 5, 64, 5000]),
        seed=random.randrange(10**6),
    )


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_many_hosts_of_which_some_fail(
    sshd: RealSshd, network: Network, links: list[Link], transport: str
) -> None:
    choice = chance()
    for _ in range(ROUNDS):
        idle()
        bad, good = links[: HOSTS // 2], links[HOSTS // 2 :]
        for link in bad:
            # Who tries again may meet another one.
            again = [any_fault(choice)] if choice.random() < 0.3 else []
            link.plan(any_fault(choice), *again)
        with Watch() as watch:
            command = Counted(sshd, watch)
            failing = commands(transport, command.text, [link.host for link in bad], watch, SOON)
            steady = commands(transport, command.text, [link.host for link in good], watch, STEADY)
            failing.start()
            steady.start()
            finish(failing, network)
            assert steady.wait(PATIENCE).finished_ok, steady.failed
            for process in [*failing.processes, *steady.processes]:
                command.check(process)
            watch.check(failing, steady)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_reset_at_each_stage(
    sshd: RealSshd, network: Network, links: list[Link], transport: str
) -> None:
    links[0].plan()
    with Watch() as watch:
        silent = commands(transport, f"sleep {watch.word}", [links[0].host], watch, STEADY)
        silent.start()
        assert wait_until(lambda: bool(left_of(watch.word)))
        _, started = links[0].passed[-1]
        banner, keys = links[0].marks
        silent.kill().wait(PATIENCE)
        watch.check(silent)
    assert 0 < banner < keys < started
    stages = [0, 1, banner, (banner + keys) // 2, keys]
    stages += [keys + (started - keys) * part // 8 for part in range(1, 9)]
    stages += [started + 50_000, started + 100_000]
    for link, stage in zip(links, stages, strict=False):
        link.plan(Fault("reset", stage))
    with Watch() as watch:
        command = Counted(sshd, watch)
        hosts = [link.host for link in links[: len(stages)]]
        action = commands(transport, command.text, hosts, watch, STEADY).start()
        finish(action, network)
        for process in action.processes:
            command.check(process)
        # Those in the middle of their output, that have certainly run.
        for process in action.processes[-2:]:
            assert process.reason is Reason.CONNECT, process.dump()
            assert command.times(process.host) == 1  # type: ignore[attr-defined]
        watch.check(action)


# -- behind the exit ------------------------------------------------------------------------------


@pytest.mark.parametrize("do", ["reset", "close", "freeze"])
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_output_that_is_lost_behind_an_exit(
    network: Network,
    links: list[Link],
    transport: str,
    do: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(configuration, "drain_timeout", 2 * PATIENCE)
    with Watch() as watch:
        # Something of it holds the output open.
        text = f"sleep {watch.word} & echo first; exit {{{{[0, 3, 255]}}}}"
        action = commands(transport, text, [link.host for link in links[:3]], watch, LATER).start()
        assert wait_until(lambda: all_print(action))
        for link in links[:3]:
            link.now(do)
        finish(action, network)
        for process in action.processes:
            assert (process.ok, process.reason) == (False, Reason.CONNECT), process.dump()
            assert process.stdout == "first\n"
        signal_all(left_of(watch.word), signal.SIGKILL)  # left behind, as far as hosts know
        watch.check(action)


# -- what is damaged ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data", ["cd" * 64, "00002000" + "00" * 12], ids=["anything", "a long message"]
)
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_garbage_between_two_messages(
    sshd: RealSshd,
    network: Network,
    links: list[Link],
    transport: str,
    data: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # What follows looks like a part of a message that never ends, and answers to questions, too.
    monkeypatch.setattr("execo.transports.liveness._MOST_DOUBTS", 2)
    with Watch() as watch:
        text = f"echo ready; exec sleep {watch.word}"
        spoilt, other = (
            commands(transport, text, [link.host], watch, params).start()
            for link, params in zip(links, (LATER, STEADY), strict=False)
        )
        assert wait_until(lambda: all_print(spoilt) and all_print(other))
        # Before it is there, what runs on a host that is lost runs on.
        assert wait_until(lambda: len(guards_of(sshd)) >= 2)
        links[0].now("garbage", data=data)
        (lost,) = spoilt.processes
        assert lost.wait(PATIENCE).ended
        assert (lost.reason, lost.stdout) == (Reason.CONNECT, "ready\n"), lost.dump()
        assert other.running
        network.heal()
        other.kill().wait(PATIENCE)
        watch.check(spoilt, other)


# -- slow and silent ------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_slow_ways(sshd: RealSshd, network: Network, links: list[Link], transport: str) -> None:
    for link, size in zip(links, (300, 1000, 5000), strict=False):
        link.plan(*[Fault("slow", size=size, pause=0.002)] * 3)
    with Watch() as watch:
        command = Counted(sshd, watch, blocks=4)
        hosts = [link.host for link in links[:4]]
        action = commands(transport, command.text, hosts, watch, STEADY).start()
        assert action.wait(PATIENCE).finished_ok, action.failed
        for process in action.processes:
            command.check(process)
        watch.check(action)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_silence_for_a_while_loses_nothing(
    sshd: RealSshd, network: Network, links: list[Link], transport: str
) -> None:
    with Watch() as watch:
        command = Counted(sshd, watch, blocks=20, gate=True)
        hosts = [link.host for link in links[:4]]
        action = commands(transport, command.text, hosts, watch, STEADY).start()
        assert wait_until(lambda: all_print(action))
        for link in links[:3]:
            link.now("freeze")
        command.open_gate()
        assert action.processes[3].wait(PATIENCE).ok
        assert not any(process.ended for process in action.processes[:3])
        for link in links[:3]:
            link.now("thaw")
        assert action.wait(PATIENCE).finished_ok, action.failed
        for process in action.processes:
            command.check(process)
        watch.check(action)


# -- transfers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", ["paramiko", "openssh"])
def test_a_file_that_is_cut_behind_the_exit_of_its_script(
    network: Network,
    links: list[Link],
    tmp_path: Path,
    transport: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(configuration, "drain_timeout", 2 * PATIENCE)
    with Watch() as watch:
        # Half of it, and something that holds the output open.
        script = f"printf 'execo-get file 8 644 0\\nf\\0half'; sleep {watch.word} & exit 0"
        monkeypatch.setattr(transfer_process, "get_command", lambda names: ("sh", "-c", script))
        place = f"{tmp_path}/here"
        hosts = [links[0].host]
        action = transfer(transport, "get", hosts, "f", place, watch, LATER).start()
        assert wait_until(lambda: bool(left_of(watch.word)))
        threading.Event().wait(0.5)  # for its exit to come; without it, the test proves less
        links[0].now("reset")
        finish(action, network)
        (process,) = action.processes
        assert process.reason is Reason.CONNECT, process.dump()
        assert not os.path.exists(place)
        signal_all(left_of(watch.word), signal.SIGKILL)
        watch.check(action)


def check_no_more(folder: Path, count: int) -> None:
    """No file under a temporary name is left there, once hosts have heard of the end."""
    assert wait_until(lambda: len(list(folder.iterdir())) == count), list(folder.iterdir())


@pytest.mark.parametrize("kind", ["put", "get"])
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_files_are_whole_or_not_there(
    sshd: RealSshd,
    network: Network,
    links: list[Link],
    tmp_path: Path,
    transport: str,
    kind: str,
) -> None:
    choice = chance()
    home = sshd.folder / "home" / sshd.user()
    for number in range(ROUNDS):
        idle()
        data = os.urandom(400_000)
        source = (home if kind == "get" else tmp_path) / f"data-{os.getpid()}-{number}"
        source.write_bytes(data)
        source.chmod(0o644)
        targets = (tmp_path if kind == "get" else home) / f"to-{os.getpid()}-{transport}-{number}"
        targets.mkdir()
        targets.chmod(0o777)
        chosen = links[:8]
        for link in chosen[1:]:
            way = choice.choice([UP, DOWN])
            busy = (way == UP) == (kind == "put")
            most = choice.choice([4000, 12_000, 400_000] if busy else [2500, 5000])
            seed = choice.randrange(10**6)
            link.plan(Fault(choice.choice(ANY_DO), choice.randrange(most), way, seed=seed))
        for link in chosen:
            (targets / link.host.address).write_bytes(b"old")
            (targets / link.host.address).chmod(0o666)
        with Watch() as watch:
            hosts = [link.host for link in chosen]
            place = f"{targets}/{{{{{{host}}}}}}"
            action, steady = (
                transfer(transport, kind, some, str(source), place, watch, params).start()
                for some, params in ((hosts[1:], SOON), (hosts[:1], STEADY))
            )
            finish(action, network)
            assert steady.wait(PATIENCE).finished_ok, steady.failed
            for process in [*action.processes, *steady.processes]:
                there = targets / process.host.address  # type: ignore[attr-defined]
                what = process.dump()
                assert there.read_bytes() in (data, b"old"), what
                if process.ok:
                    assert there.read_bytes() == data, what
                else:
                    assert process.reason in LOSSES, what
            watch.check(action, steady)
            check_no_more(targets, len(chosen))
        source.unlink()
