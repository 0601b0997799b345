"""Commands on many hosts, which are one real sshd on loopback: 100 and 1000 hosts, ``true``.

The server's limits are raised, and the user's shell is /bin/sh. *First* is the first run of a
script, *next* the same command once more: what keeps its connections does not connect again.

Beside it: execo 2.8.2; ClusterShell and pdsh with a fanout of 64; parallel-ssh; asyncssh, which
connects to 64 at a time; and bare paramiko in 64 threads, which is the floor. Each body begins when
the sessions of the one before are gone.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import Bench, Numbers, body, main, raise_limit, touch_memory
from ssh_server import (
    HOSTS,
    addresses,
    count,
    hosts,
    server,
    serving,
    ssh_options,
    wait_for_quiet,
)

if TYPE_CHECKING:
    import paramiko

MANY = 1000
SILENT = 0.2
"""Of the many hosts, those that never send a banner."""
OUTPUT = 500_000_000
BUILT = 10_000
AT_ONCE = 64
IDLE_SECONDS = 5.0


def twice(run: Callable[[], None]) -> Numbers:
    begin = time.perf_counter()
    run()
    middle = time.perf_counter()
    run()
    return {"first": middle - begin, "next": time.perf_counter() - middle}


# -- ours -------------------------------------------------------------------------------------


@body
def ours(scale: float) -> Numbers:
    from execo import Remote

    wait_for_quiet()
    targets = hosts(scale)

    def run() -> None:
        remote = Remote("true", targets).run()
        assert remote.ok, repr(remote)

    return twice(run)


@body
def ours_kept(scale: float) -> Numbers:
    """What the kept connections cost: KB of memory each, and time of one core in percent."""
    from execo import Remote

    wait_for_quiet()
    targets = hosts(scale)
    assert Remote("true", targets[:1]).run().ok  # what is there once, however many hosts
    before = resident()
    remote = Remote("true", targets).run()
    assert remote.ok, repr(remote)
    growth = (resident() - before) / (len(targets) - 1)
    time.sleep(1)  # what the end has left to do
    busy, begin = time.process_time(), time.perf_counter()
    time.sleep(IDLE_SECONDS)
    idle = (time.process_time() - busy) / (time.perf_counter() - begin) * 100
    return {"memory": growth, "idle": idle}


def resident() -> float:
    """Kilobytes of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1000


@body
def ours_answering(scale: float) -> Numbers:
    return answering(scale, with_silent=False)


@body
def ours_with_silent(scale: float) -> Numbers:
    return answering(scale, with_silent=True)


def answering(scale: float, with_silent: bool) -> Numbers:
    """Seconds until the hosts that answer have ended, with silent ones between them."""
    from execo import Host, Remote

    wait_for_quiet()
    here = server()
    silent = {Host(one, here["user"], here["keyfile"], port) for one, port in here["silent"]}
    targets = hosts(scale)[: count(scale) - len(silent)]
    mixed = list(targets)
    if with_silent:
        step = len(targets) // len(silent)
        for index, host in enumerate(silent):
            mixed.insert(index * (step + 1), host)
    begin = time.perf_counter()
    remote = Remote("true", mixed).start()
    pairs = zip(mixed, remote.processes, strict=True)
    good = [process for host, process in pairs if host not in silent]
    for process in good:
        process.wait()
    seconds = time.perf_counter() - begin
    remote.kill()
    assert len(good) == len(targets)
    assert all(process.ok for process in good)
    return {"seconds": seconds}


@body
def ours_output(scale: float) -> Numbers:
    from execo import SshProcess

    wait_for_quiet()
    size = round(OUTPUT * scale)
    (host,) = hosts(scale)[:1]
    touch_memory(round(size * 2.5))
    begin = time.perf_counter()
    process = SshProcess(f"head -c {size} /dev/zero", host).run()
    waited = time.perf_counter()
    assert len(process.stdout) == size
    return {"wait": waited - begin, "total": time.perf_counter() - begin}


@body
def ours_built(scale: float) -> Numbers:
    from execo import Remote

    names = [f"node-{index}" for index in range(round(BUILT * scale))]
    Remote("true", names[:1])
    begin = time.perf_counter()
    plain = Remote("true", names)
    middle = time.perf_counter()
    substituted = Remote("echo {{{host}}}", names)
    end = time.perf_counter()
    assert len(plain.processes) == len(substituted.processes) == len(names)
    return {"plain": middle - begin, "substituted": end - middle}


# -- the floor --------------------------------------------------------------------------------


@body
def bare_paramiko(scale: float) -> Numbers:
    from concurrent.futures import ThreadPoolExecutor

    import paramiko

    wait_for_quiet()
    raise_limit()
    here = server()
    key = paramiko.Ed25519Key.from_private_key_file(here["keyfile"])
    targets = addresses(scale)
    transports: list[paramiko.Transport] = []

    def connect(address: str) -> paramiko.Transport:
        sock = socket.create_connection((address, here["port"]), 30)
        transport = paramiko.Transport(sock)
        # After the constructor, which makes the socket wake its thread up ten times a second.
        sock.settimeout(60)
        transport.start_client(timeout=60)
        transport.auth_publickey(here["user"], key)
        return transport

    def command(transport: paramiko.Transport) -> None:
        channel = transport.open_session()
        channel.exec_command("true")
        assert channel.recv_exit_status() == 0
        channel.close()

    def first(address: str) -> paramiko.Transport:
        transport = connect(address)
        command(transport)
        return transport

    with ThreadPoolExecutor(AT_ONCE) as pool:

        def run() -> None:
            if transports:
                list(pool.map(command, transports))
            else:
                transports.extend(pool.map(first, targets))

        numbers = twice(run)
    for transport in transports:
        transport.sock.shutdown(socket.SHUT_RDWR)  # its thread sleeps in a long recv()
        transport.close()
    return numbers


@body
def bare_ssh_output(scale: float) -> Numbers:
    wait_for_quiet()
    here = server()
    size = round(OUTPUT * scale)
    touch_memory(round(size * 2.5))
    address = addresses(scale)[0]
    command = ["ssh", *ssh_options(), "-l", here["user"], address, f"head -c {size} /dev/zero"]
    begin = time.perf_counter()
    blocks = []
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        while block := os.read(process.stdout.fileno(), 64 * 1024):
            blocks.append(block)
    seconds = time.perf_counter() - begin
    assert process.returncode == 0
    assert sum(map(len, blocks)) == size
    return {"seconds": seconds}


# -- the peers --------------------------------------------------------------------------------


@body
def peer_execo2(scale: float) -> Numbers:
    from execo import Remote  # version 2.8.2

    wait_for_quiet()
    raise_limit()
    here = server()
    options = tuple(ssh_options())
    params = {"user": here["user"], "ssh_options": options}
    targets = addresses(scale)

    def run() -> None:
        remote = Remote("true", targets, params).run()
        assert remote.ok

    return twice(run)


@body
def peer_clustershell(scale: float) -> Numbers:
    from ClusterShell.NodeSet import NodeSet
    from ClusterShell.Task import task_self

    wait_for_quiet()
    raise_limit()
    task = task_self()
    task.set_info("fanout", AT_ONCE)
    task.set_info("ssh_user", server()["user"])
    task.set_info("ssh_options", " ".join(ssh_options()))
    targets = NodeSet.fromlist(addresses(scale))

    def run() -> None:
        task.run("true", nodes=targets)
        assert task.max_retcode() == 0

    return twice(run)


@body
def peer_pdsh(scale: float) -> Numbers:
    wait_for_quiet()
    where = ["-l", server()["user"], "-w", ",".join(addresses(scale))]
    environment = {**os.environ, "PDSH_SSH_ARGS_APPEND": " ".join(ssh_options())}

    def run() -> None:
        subprocess.run(
            ["pdsh", "-S", "-R", "ssh", "-f", str(AT_ONCE), *where, "true"],
            env=environment,
            stdin=subprocess.DEVNULL,
            check=True,
        )

    return twice(run)


@body
def peer_parallel_ssh(scale: float) -> Numbers:
    return parallel_ssh(scale, AT_ONCE)


@body
def peer_parallel_ssh_default(scale: float) -> Numbers:
    return parallel_ssh(scale, 100)


def parallel_ssh(scale: float, pool_size: int) -> Numbers:
    from pssh.clients import ParallelSSHClient  # type: ignore[import-not-found]

    wait_for_quiet()
    raise_limit()
    here = server()
    client = ParallelSSHClient(
        addresses(scale),
        user=here["user"],
        port=here["port"],
        pkey=here["keyfile"],
        allow_agent=False,
        pool_size=pool_size,
    )

    def run() -> None:
        output = client.run_command("true")
        client.join(output)
        assert all(one.exit_code == 0 for one in output)

    return twice(run)


@body
def peer_asyncssh(scale: float) -> Numbers:
    import asyncio

    import asyncssh  # type: ignore[import-not-found]

    wait_for_quiet()
    raise_limit()
    here = server()
    connections: list[Any] = []

    async def connect(address: str, window: asyncio.Semaphore) -> None:
        async with window:
            connections.append(
                await asyncssh.connect(
                    address,
                    here["port"],
                    username=here["user"],
                    client_keys=[here["keyfile"]],
                    known_hosts=None,
                    agent_path=None,
                    config=None,
                )
            )

    async def run() -> None:
        if not connections:
            window = asyncio.Semaphore(AT_ONCE)
            await asyncio.gather(*(connect(address, window) for address in addresses(scale)))
        for done in await asyncio.gather(*(one.run("true") for one in connections)):
            assert done.exit_status == 0

    with asyncio.Runner() as runner:
        return twice(lambda: runner.run(run()))


# -- the figures ------------------------------------------------------------------------------

PEERS = (
    ("peer_clustershell", "ClusterShell"),
    ("peer_pdsh", "pdsh"),
    ("peer_parallel_ssh", f"parallel-ssh, {AT_ONCE}"),
    ("peer_parallel_ssh_default", "parallel-ssh, 100"),
    ("peer_asyncssh", "asyncssh"),
)


def runs(bench: Bench) -> None:
    """A hundred hosts, with every peer."""
    n = count(bench.scale)
    peers = [peer for peer in PEERS if peer[0] != "peer_pdsh" or shutil.which("pdsh")]
    names = [name for name, _ in peers]
    mine, floor, old, *others = bench.measure("ours", "bare_paramiko", "peer_execo2", *names)
    compare(bench, n, mine, old)
    bench.at_most(f"{n} hosts, first / bare paramiko", mine["first"], floor["first"], 1.25)
    bench.at_most(f"{n} hosts, next / bare paramiko", mine["next"], floor["next"], 1.2)
    for (_, name), other in zip(peers, others, strict=True):
        bench.show(f"{n} hosts, first / {name}", mine["first"], other["first"])
        bench.show(f"{n} hosts, next / {name}", mine["next"], other["next"])


def compare(bench: Bench, n: int, mine: Numbers, old: Numbers) -> None:
    bench.faster(f"{n} hosts, first / execo 2.8.2", mine["first"], old["first"], 4)
    bench.faster(f"{n} hosts, next / execo 2.8.2", mine["next"], old["next"], 25)


def many(bench: Bench) -> None:
    """A thousand hosts; once, since the peer takes minutes."""
    n = many_count(bench)
    scale = n / HOSTS
    mine, floor, old = bench.measure("ours", "bare_paramiko", "peer_execo2", rounds=1, scale=scale)
    compare(bench, n, mine, old)
    bench.show(f"{n} hosts, first / bare paramiko", mine["first"], floor["first"])
    bench.show(f"{n} hosts, next / bare paramiko", mine["next"], floor["next"])
    (kept,) = bench.measure("ours_kept", rounds=1, scale=scale)
    bench.below(f"{n} hosts, memory of each", kept["memory"], 120, "KB")
    bench.below(f"{n} hosts, idle, of one core", kept["idle"], 0.5, "%")
    alone, mixed = bench.measure("ours_answering", "ours_with_silent", rounds=1, scale=scale)
    silent = round(n * SILENT)
    what = f"{n - silent} hosts and {silent} silent ones / without these"
    bench.at_most(what, mixed["seconds"], alone["seconds"], 1.3)


def many_count(bench: Bench) -> int:
    # At most: the server takes 2 MB for each.
    return max(10, min(MANY, round(MANY * bench.scale)))


def output(bench: Bench) -> None:
    mine, ssh = bench.measure("ours_output", "bare_ssh_output")
    what = f"{OUTPUT * bench.scale / 1e6:g} MB of stdout,"
    bench.at_most(f"{what} wait() / ssh", mine["wait"], ssh["seconds"], 1.0)
    bench.show(f"{what} wait() and len(stdout) / ssh", mine["total"], ssh["seconds"])


def building(bench: Bench) -> None:
    (built,) = bench.measure("ours_built")
    what = f"building a Remote over {round(BUILT * bench.scale)} hosts"
    bench.below(what, built["plain"], 0.5 * bench.scale, "s")
    bench.show(f"{what}, each its own command", built["substituted"])


def figures(bench: Bench) -> None:
    """Commands on many hosts."""
    with serving(round(many_count(bench) * SILENT)):
        runs(bench)
        many(bench)
        output(bench)
        building(bench)


if __name__ == "__main__":
    main(figures, rounds=3)
