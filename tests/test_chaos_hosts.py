"""Servers that are killed, stop or freeze, networks that are cut, gateways that die and disks that
are full: each command is complete or marked as lost, runs once at the most, and holds up no other.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from chaos_hosts import (
    TRANSPORTS,
    Counted,
    commands,
    idle,
    session_of,
    sessions_below,
    signal_all,
    transfer,
)
from chaos_proxy import Network
from execo import Action, Host
from execo.errors import Reason
from execo.process import ProcessBase
from far_host import FarHost, far_host
from invariants import PATIENCE, Watch, wait_until
from sshd import RealSshd

pytest_plugins = ["sshd"]

SOON = {"connect_timeout": 30, "keepalive": 1}
STEADY = {"connect_timeout": 30, "keepalive": 10}


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    with Network() as one:
        yield one


@pytest.fixture(autouse=True)
def nothing_kept() -> None:
    idle()


def started(command: Counted, hosts: Sequence[Host], action: Action) -> None:
    """They run, and all have printed something."""
    assert wait_until(lambda: all(process.stdout for process in action.processes))
    assert [command.times(host) for host in hosts] == [1] * len(hosts)


def check_lost(command: Counted, processes: Sequence[ProcessBase]) -> None:
    for process in processes:
        assert process.wait(PATIENCE).ended, process.dump()
        assert process.reason is Reason.CONNECT, process.dump()
        assert process.stdout
        command.check(process)


def check_whole(command: Counted, processes: Sequence[ProcessBase]) -> None:
    for process in processes:
        assert process.wait(PATIENCE).finished_ok, process.dump()
        command.check(process)


# -- servers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_sessions_that_are_killed_while_commands_print(sshd: RealSshd, transport: str) -> None:
    hosts = sshd.hosts(8)
    with Watch() as watch:
        command = Counted(sshd, watch, blocks=20, gate=True)
        action = commands(transport, command.text, hosts, watch, STEADY).start()
        started(command, hosts, action)
        signal_all([session_of(command.pids(host)[0]) for host in hosts[:4]], signal.SIGKILL)
        check_lost(command, action.processes[:4])
        command.open_gate()
        check_whole(command, action.processes[4:])
        watch.check(action)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_sessions_that_freeze_for_a_while_or_for_ever(sshd: RealSshd, transport: str) -> None:
    hosts = sshd.hosts(6)
    with Watch() as watch:
        command = Counted(sshd, watch, blocks=20, gate=True)
        for_ever, for_a_while = (
            commands(transport, command.text, some, watch, params)
            for some, params in ((hosts[:2], SOON), (hosts[2:], STEADY))
        )
        for action in (for_ever, for_a_while):
            action.start()
        started(command, hosts[:2], for_ever)
        started(command, hosts[2:], for_a_while)
        sessions = [session_of(command.pids(host)[0]) for host in hosts]
        signal_all(sessions[:4], signal.SIGSTOP)
        try:
            check_lost(command, for_ever.processes)
            command.open_gate()
            check_whole(command, for_a_while.processes[2:])
            assert not any(process.ended for process in for_a_while.processes[:2])
        finally:
            signal_all(sessions[:4], signal.SIGCONT)
        check_whole(command, for_a_while.processes)
        watch.check(for_ever, for_a_while)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_server_that_is_killed_and_then_all_its_sessions(transport: str) -> None:
    with RealSshd() as server, Watch() as watch:
        hosts = server.hosts(3)
        short, long = (Counted(server, watch, blocks=20, gate=True) for _ in range(2))
        running = [commands(transport, one.text, hosts, watch, SOON) for one in (short, long)]
        for command, action in zip((short, long), running, strict=True):
            started(command, hosts, action.start())
        sessions = sessions_below(server)
        os.kill(server.pid, signal.SIGKILL)
        # Who is there stays, and nobody comes.
        late = commands(transport, short.text, server.hosts(2, first=8), watch, SOON).start()
        for process in late.processes:
            assert process.wait(PATIENCE).ended
            assert process.reason is Reason.CONNECT, process.dump()
            assert process.stdout == ""
            short.check(process)
        short.open_gate()
        check_whole(short, running[0].processes)
        signal_all(sessions, signal.SIGKILL)
        check_lost(long, running[1].processes)
        long.open_gate()  # for what has lost its host before there was a guard
        watch.check(*running, late)


# -- networks -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def far(network: Network, sshd: RealSshd) -> Iterator[FarHost]:
    with far_host(network, sshd) as one:
        one.slow()
        yield one


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_network_that_is_cut(sshd: RealSshd, far: FarHost, transport: str) -> None:
    near = sshd.hosts(1)
    with Watch() as watch:
        beside = Counted(sshd, watch, blocks=20, gate=True)
        command = Counted(far.server, watch, blocks=20, gate=True)
        others = commands(transport, beside.text, near, watch, STEADY).start()
        short = commands(transport, command.text, [far.host], watch, STEADY).start()
        started(beside, near, others)
        started(command, [far.host], short)
        far.cut()
        beside.open_gate()
        command.open_gate()
        try:
            check_whole(beside, others.processes)
            assert short.running
            far.mend()
            check_whole(command, short.processes)
            command = Counted(far.server, watch, blocks=20, gate=True)
            long = commands(transport, command.text, [far.host], watch, SOON).start()
            started(command, [far.host], long)
            far.cut()
            check_lost(command, long.processes)
        finally:
            far.mend()
            command.open_gate()
        watch.check(others, short, long)


# -- gateways -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gateway_server() -> Iterator[RealSshd]:
    with RealSshd() as server:
        yield server


@pytest.mark.parametrize("do", ["reset", "freeze", "kill"])
@pytest.mark.parametrize("transport", ["paramiko", "openssh"])
def test_a_gateway_that_dies(
    sshd: RealSshd,
    gateway_server: RealSshd,
    network: Network,
    tmp_path: Path,
    transport: str,
    do: str,
) -> None:
    gateway = network.link(gateway_server.hosts(1)[0])
    behind = [Host(f"behind{n}", host.user) for n, host in enumerate(sshd.hosts(3, first=101))]
    beside = sshd.hosts(2, first=110)
    config = tmp_path / "ssh_config"
    real = zip(behind, sshd.hosts(3, first=101), strict=True)
    names = [("gw", gateway.host), *((alias.address, host) for alias, host in real)]
    config.write_text(
        "Host behind*\n  ProxyJump gw\n"
        + "".join(
            f"Host {name}\n  HostName {host.address}\n  Port {host.port}\n  User {host.user}\n"
            f"  IdentityFile {host.keyfile}\n"
            for name, host in names
        )
        + "Host *\n"
        "  StrictHostKeyChecking no\n  UserKnownHostsFile /dev/null\n"
    )
    ways: dict[str, Any] = {**SOON, "ssh_config": str(config)}
    with Watch() as watch:
        command = Counted(sshd, watch, blocks=20, gate=True)
        whole = Counted(sshd, watch, blocks=20, gate=True)
        lost = commands(transport, command.text, behind, watch, ways).start()
        others = commands(transport, whole.text, beside, watch, STEADY).start()
        started(command, behind, lost)
        started(whole, beside, others)
        if do == "kill":
            signal_all(sessions_below(gateway_server), signal.SIGKILL)
        else:
            gateway.now(do)
        try:
            check_lost(command, lost.processes)
            whole.open_gate()
            check_whole(whole, others.processes)
        finally:
            network.heal()
            command.open_gate()
        watch.check(lost, others)


# -- full disks -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def full(sshd: RealSshd) -> Iterator[Path]:
    """A folder on a small disk that has no room left for more than some blocks; where nothing may
    be mounted, a device that is full, too."""
    folder = sshd.folder / "full"
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=256k,mode=1777", "tmpfs", str(folder)]
    if subprocess.run(words, capture_output=True, check=False).returncode != 0:
        yield Path("/dev/full")
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_disk_that_is_full(sshd: RealSshd, full: Path, tmp_path: Path, transport: str) -> None:
    hosts = sshd.hosts(3)
    mounted = full.is_dir()
    source = tmp_path / "data"
    source.write_bytes(os.urandom(600_000))
    place = f"{full}/{{{{{{host}}}}}}" if mounted else str(full)
    if mounted:
        for host in hosts:
            (full / host.address).write_bytes(b"old")
    with Watch() as watch:
        chosen = hosts if mounted else hosts[:1]
        put = transfer(transport, "put", chosen, str(source), place, watch, STEADY)
        put.start().wait(PATIENCE)
        for process in put.processes:
            assert (process.ended, process.ok) == (True, False), process.dump()
            assert process.reason is Reason.EXIT_CODE, process.dump()
            assert "No space left on device" in process.message, process.dump()
        target = full / "printed" if mounted else full
        text = f"echo before; yes | head -c 600000 > {target}; echo $?; rm -f {full}/printed"
        write = commands(transport, text, chosen, watch, STEADY).start().wait(PATIENCE)
        for process in write.processes:
            assert process.ok, process.dump()
            assert process.stdout == "before\n1\n"
            assert "No space left" in process.stderr
        if mounted:
            assert {path.name: path.read_bytes() for path in full.iterdir()} == {
                host.address: b"old" for host in hosts
            }
            for host in hosts:
                with contextlib.suppress(FileNotFoundError):
                    (full / host.address).unlink()
        watch.check(put, write)
