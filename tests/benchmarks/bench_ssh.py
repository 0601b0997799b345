"""Commands on many hosts, which are one real sshd on loopback: 100 and 1000 hosts, ``true``.

The server's limits are raised, and the user's shell is /bin/sh. *First* is the first run of a
script, *next* the same command once more: what keeps its connections does not connect again.

Beside it: execo 2.8.2; ClusterShell, pdsh and Ansible (with pipelining and ControlPersist) with a
fanout of 64; parallel-ssh; asyncssh, which connects to 64 at a time; and bare paramiko in 64
threads, which is the floor. Each body begins when the sessions of the one before are gone.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time

import ssh_bodies
from harness import Bench, Numbers, body, main, touch_memory
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

MANY = 1000
SILENT = 0.2
"""Of the many hosts, those that never send a banner."""
OUTPUT = 500_000_000
BUILT = 10_000


# -- ours -------------------------------------------------------------------------------------


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


# -- the figures ------------------------------------------------------------------------------


def runs(bench: Bench, n: int, rounds: int) -> None:
    """The two runs on ``n`` hosts, beside every peer."""
    each = {name: peer for name, peer in ssh_bodies.ONE_SSH_EACH.items() if available(name)}
    names = [*each, *ssh_bodies.IN_PROCESS]
    measured = bench.measure("ours", "bare_paramiko", *names, rounds=rounds, scale=n / HOSTS)
    mine, floor, *others = measured
    numbers = dict(zip(names, others, strict=True))
    for name, peer in each.items():
        bench.faster(f"{n} hosts, first / {peer}", mine["first"], numbers[name]["first"], 4)
        bench.faster(f"{n} hosts, next / {peer}", mine["next"], numbers[name]["next"], 25)
    for name, peer in ssh_bodies.IN_PROCESS.items():
        bench.at_most(f"{n} hosts, first / {peer}", mine["first"], numbers[name]["first"], 1.1)
        bench.at_most(f"{n} hosts, next / {peer}", mine["next"], numbers[name]["next"], 1.0)
    bench.at_most(f"{n} hosts, first / bare paramiko", mine["first"], floor["first"], 1.25)
    bench.at_most(f"{n} hosts, next / bare paramiko", mine["next"], floor["next"], 1.2)
    bench.below(f"{n} hosts, CPU of a next command", mine["cpu"] / n * 1000, 0.8, "ms")


def available(peer: str) -> bool:
    return peer != "peer_pdsh" or shutil.which("pdsh") is not None


def many(bench: Bench) -> None:
    """A thousand hosts; once, since the peers take minutes."""
    n = many_count(bench)
    scale = n / HOSTS
    runs(bench, n, rounds=1)
    (kept,) = bench.measure("ours_kept", rounds=1, scale=scale)
    bench.below(f"{n} hosts, memory of each", kept["memory"], 100, "KB")
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
        runs(bench, count(bench.scale), bench.rounds)
        many(bench)
        output(bench)
        building(bench)


if __name__ == "__main__":
    main(figures, rounds=3)
