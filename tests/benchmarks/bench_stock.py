"""A real sshd with the limits that hosts have: MaxStartups 10:30:100, MaxSessions 10.

Fifty processes at once on one host, and two hundred runs in a row: how many of them fail. Beside
it the tools that run one ``ssh`` for each command, and parallel-ssh.
"""

from __future__ import annotations

import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

from harness import Bench, Numbers, body, main
from ssh_server import addresses, hosts, server, serving, ssh_options, wait_for_quiet

AT_ONCE = 50
IN_A_ROW = 200


@body
def ours_at_once(scale: float) -> Numbers:
    return at_once(scale, "auto")


@body
def openssh_at_once(scale: float) -> Numbers:
    return at_once(scale, "openssh")


def at_once(scale: float, transport: str) -> Numbers:
    from execo import Remote

    wait_for_quiet()
    (host,) = hosts(0)[:1]
    number = max(2, round(AT_ONCE * scale))
    begin = time.perf_counter()
    remote = Remote("sleep 1", [host] * number, {"transport": transport})
    remote.run()
    seconds = time.perf_counter() - begin
    return {"seconds": seconds, "failed": sum(not process.ok for process in remote.processes)}


@body
def ours_in_a_row(scale: float) -> Numbers:
    return in_a_row(scale, "auto")


@body
def openssh_in_a_row(scale: float) -> Numbers:
    return in_a_row(scale, "openssh")


def in_a_row(scale: float, transport: str) -> Numbers:
    from execo import SshProcess

    wait_for_quiet()
    (host,) = hosts(0)[:1]
    number = max(2, round(IN_A_ROW * scale))
    begin = time.perf_counter()
    done = [SshProcess("true", host, {"transport": transport}).run() for _ in range(number)]
    seconds = time.perf_counter() - begin
    return {"seconds": seconds, "failed": sum(not process.ok for process in done)}


@body
def bare_ssh_at_once(scale: float) -> Numbers:
    wait_for_quiet()
    command = ["ssh", *ssh_options(), "-l", server()["user"], addresses(0)[0], "sleep 1"]
    number = max(2, round(AT_ONCE * scale))

    def run(_: int) -> int:
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
        ).returncode

    begin = time.perf_counter()
    with ThreadPoolExecutor(number) as pool:
        codes = list(pool.map(run, range(number)))
    return {"seconds": time.perf_counter() - begin, "failed": sum(map(bool, codes))}


@body
def bare_ssh_in_a_row(scale: float) -> Numbers:
    wait_for_quiet()
    command = ["ssh", *ssh_options(), "-l", server()["user"], addresses(0)[0], "true"]
    number = max(2, round(IN_A_ROW * scale))
    begin = time.perf_counter()
    codes = [
        subprocess.run(
            command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
        ).returncode
        for _ in range(number)
    ]
    return {"seconds": time.perf_counter() - begin, "failed": sum(map(bool, codes))}


def figures(bench: Bench) -> None:
    """A host with the stock limits of sshd."""
    number = max(2, round(AT_ONCE * bench.scale))
    row = max(2, round(IN_A_ROW * bench.scale))
    with serving(0, stock=True):
        mine, ssh, bare = bench.measure("ours_at_once", "openssh_at_once", "bare_ssh_at_once")
        bench.below(f"{number} at once on one host, failed", mine["failed"], 1, "")
        bench.below(f"{number} at once, transport openssh, failed", ssh["failed"], 1, "")
        bench.show(f"{number} at once, {number} ssh, failed", bare["failed"], unit="")
        bench.show(f"{number} at once (sleep 1) / ssh", mine["seconds"], bare["seconds"])
        mine, ssh, bare = bench.measure("ours_in_a_row", "openssh_in_a_row", "bare_ssh_in_a_row")
        bench.below(f"{row} in a row, failed", mine["failed"], 1, "")
        bench.below(f"{row} in a row, transport openssh, failed", ssh["failed"], 1, "")
        bench.show(f"{row} in a row / ssh", mine["seconds"], bare["seconds"])
        bench.show(f"{row} in a row, transport openssh / ssh", ssh["seconds"], bare["seconds"])


if __name__ == "__main__":
    main(figures, rounds=3)
