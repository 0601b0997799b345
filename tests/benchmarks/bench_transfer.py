"""Files to hosts, which are one real sshd on loopback: a small one to many, a large one to one, and
one to twenty at once.

*First* makes the connections; to connect to a hundred hosts takes this machine longer than a tenth
of the peer's time, whatever connects. Beside it: execo 2.8.2's ``Put``, and ``scp``. Each body has
folders of its own.
"""

from __future__ import annotations

import contextlib
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from harness import Bench, Numbers, body, main, raise_limit
from ssh_server import addresses, count, hosts, server, serving, ssh_options, wait_for_quiet

SMALL = 100_000
LARGE = 200_000_000
WIDE = 100_000_000
AT_ONCE = 20


def source(size: int, folder: str) -> str:
    """A file of so many bytes, in the page cache."""
    path = Path(folder) / "data"
    path.write_bytes(bytes(range(256)) * (size // 256 + 1))
    with path.open("r+b") as file:
        file.truncate(size)
    return str(path)


@contextlib.contextmanager
def folders() -> Iterator[tuple[str, str]]:
    """One to send from, and one that the user may write to: all hosts are this machine."""
    with (
        tempfile.TemporaryDirectory(prefix="from-", dir=server()["scratch"]) as local,
        tempfile.TemporaryDirectory(prefix="to-", dir=server()["scratch"]) as remote,
    ):
        Path(remote).chmod(0o777)
        yield local, remote


def check(folder: str, size: int, number: int = 1) -> None:
    sizes = [path.stat().st_size for path in Path(folder).iterdir()]
    assert sizes == [size] * number, sizes


# The hosts share a disk: each gets a file of its own, as it would on a real one.


@body
def ours_many(scale: float) -> Numbers:
    from execo import Put

    wait_for_quiet()
    targets = hosts(scale)
    with folders() as (local, folder):
        name = source(SMALL, local)

        def run() -> float:
            begin = time.perf_counter()
            put = Put(targets, [name], folder + "/{{{host}}}").run()
            seconds = time.perf_counter() - begin
            assert put.ok, repr(put)
            check(folder, SMALL, len(targets))
            return seconds

        return {"first": run(), "next": run()}


@body
def peer_execo2_many(scale: float) -> Numbers:
    from execo import Put  # version 2.8.2

    wait_for_quiet()
    raise_limit()
    targets = addresses(scale)
    params = {"user": server()["user"], "scp_options": tuple(scp_options())}
    with folders() as (local, folder):
        name = source(SMALL, local)
        begin = time.perf_counter()
        put = Put(targets, [name], folder + "/{{{host}}}", params).run()
        seconds = time.perf_counter() - begin
        assert put.ok
        check(folder, SMALL, len(targets))
    return {"seconds": seconds}


@body
def ours_large(scale: float) -> Numbers:
    from execo import Put

    wait_for_quiet()
    size = round(LARGE * scale)
    with folders() as (local, folder):
        name = source(size, local)
        begin = time.perf_counter()
        put = Put(hosts(scale)[:1], [name], folder).run()
        seconds = time.perf_counter() - begin
        assert put.ok, repr(put)
        check(folder, size)
    return {"seconds": seconds}


@body
def bare_scp(scale: float) -> Numbers:
    wait_for_quiet()
    size = round(LARGE * scale)
    with folders() as (local, folder):
        name = source(size, local)
        target = f"{server()['user']}@{addresses(scale)[0]}:{folder}"
        begin = time.perf_counter()
        subprocess.run(
            ["scp", "-q", *scp_options(), name, target], stdin=subprocess.DEVNULL, check=True
        )
        seconds = time.perf_counter() - begin
        check(folder, size)
    return {"seconds": seconds}


def wide() -> list[str]:
    """Addresses, as many whatever the scale."""
    return addresses(1)[:AT_ONCE]


@body
def ours_wide(scale: float) -> Numbers:
    from execo import Put

    wait_for_quiet()
    size = round(WIDE * scale)
    with folders() as (local, folder):
        name = source(size, local)
        begin = time.perf_counter()
        put = Put(hosts(1)[:AT_ONCE], [name], folder + "/{{{host}}}").run()
        seconds = time.perf_counter() - begin
        assert put.ok, repr(put)
        check(folder, size, AT_ONCE)
    return {"seconds": seconds}


@body
def bare_scp_wide(scale: float) -> Numbers:
    wait_for_quiet()
    size = round(WIDE * scale)
    with folders() as (local, folder):
        name = source(size, local)
        begin = time.perf_counter()
        running = [
            subprocess.Popen(
                ["scp", "-q", *scp_options(), name, f"{server()['user']}@{one}:{folder}/{one}"],
                stdin=subprocess.DEVNULL,
            )
            for one in wide()
        ]
        codes = [process.wait() for process in running]
        seconds = time.perf_counter() - begin
        assert not any(codes), codes
        check(folder, size, AT_ONCE)
    return {"seconds": seconds}


def scp_options() -> list[str]:
    return ["-P" if option == "-p" else option for option in ssh_options()]


def figures(bench: Bench) -> None:
    """Files to hosts."""
    with serving(0):
        mine, old = bench.measure("ours_many", "peer_execo2_many")
        what = f"{SMALL // 1000} KB to {count(bench.scale)} hosts / execo 2.8.2"
        # The peer keeps no connection: its first Put is like every other one.
        bench.faster(f"{what}, connections kept", mine["next"], old["seconds"], 10)
        bench.show(f"{what}, first", mine["first"], old["seconds"])
        mine, scp = bench.measure("ours_large", "bare_scp")
        what = f"{LARGE * bench.scale / 1e6:g} MB to one host / scp"
        bench.at_most(what, mine["seconds"], scp["seconds"], 1.0)
        mine, scp = bench.measure("ours_wide", "bare_scp_wide")
        what = f"{WIDE * bench.scale / 1e6:g} MB to {AT_ONCE} hosts at once / {AT_ONCE} scp"
        bench.at_most(what, mine["seconds"], scp["seconds"], 1.0)


if __name__ == "__main__":
    main(figures, rounds=3)
