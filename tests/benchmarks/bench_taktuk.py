"""``true`` on a hundred hosts, and a file to them, through taktuk: one real sshd on loopback.

Beside ours the ``taktuk`` command with the same options and connector. *Bare* is what one types:
``broadcast exec``, which begins when all hosts are connected. *Bare, at once* gives each host its
command as soon as it is connected, as ours does. *Gone* is when ours has also let go of all hosts,
which a script does not wait for. The file goes beside ``broadcast put``, which verifies nothing.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from harness import Bench, Numbers, body, main
from ssh_server import count, hosts, server, serving, wait_for_quiet

LIMIT = 1.1
# Its ``put`` starts nothing on the hosts; ours a shell, a script that verifies, and a guard.
PUT_LIMIT = 1.5
SIZE = 100_000


@body
def ours(scale: float) -> Numbers:
    from execo import transports
    from execo.taktuk import TaktukRemote

    wait_for_quiet()
    targets = hosts(scale)
    begin = time.perf_counter()
    remote = TaktukRemote("true", targets).run()
    end = time.perf_counter()
    assert remote.ok, repr(remote)
    transports.close_idle()
    return {"seconds": end - begin, "gone": time.perf_counter() - begin}


def bare(scale: float, at_once: bool) -> Numbers:
    from execo.config import make_connection_params
    from execo.connection import connection_to
    from execo.transports.taktuk_words import connector

    wait_for_quiet()
    targets = hosts(scale)
    _, target = connection_to(targets[0], make_connection_params({"transport": "taktuk"}))
    words = [*target.options.taktuk, "-d", "-1", "-o", 'status="$line\\n"', "-c", connector(target)]
    if at_once:
        words.append("-n")
    for host in targets:
        words += ["-m", host.address]
        if at_once:
            words += ["-[", "exec", "[", "true", "]", "-]"]
    words += ["quit"] if at_once else ["broadcast", "exec", "[", "true", "]"]
    begin = time.perf_counter()
    done = subprocess.run(words, capture_output=True, check=True, stdin=subprocess.DEVNULL)
    seconds = time.perf_counter() - begin
    assert done.stdout.count(b"0\n") == len(targets), done
    return {"seconds": seconds}


@body
def bare_taktuk(scale: float) -> Numbers:
    return bare(scale, at_once=False)


@body
def bare_taktuk_at_once(scale: float) -> Numbers:
    return bare(scale, at_once=True)


@contextlib.contextmanager
def scratch() -> Iterator[tuple[str, str]]:
    """A file, and a folder that the user may write to: all hosts are this machine."""
    with tempfile.TemporaryDirectory(prefix="put-", dir=server()["scratch"]) as folder:
        path = Path(folder) / "data"
        path.write_bytes(os.urandom(SIZE))
        Path(folder).chmod(0o777)
        yield str(path), folder


@body
def put(scale: float) -> Numbers:
    from execo.transfer.taktuk import TaktukPut

    wait_for_quiet()
    targets = hosts(scale)
    with scratch() as (name, folder):
        begin = time.perf_counter()
        action = TaktukPut(targets, name, folder + "/{{{host}}}").run()
        seconds = time.perf_counter() - begin
        assert action.ok, repr(action)
        sizes = [(Path(folder) / host.address).stat().st_size for host in targets]
        assert sizes == [SIZE] * len(targets), sizes
    return {"seconds": seconds}


@body
def bare_put(scale: float) -> Numbers:
    from execo.config import make_connection_params
    from execo.connection import connection_to
    from execo.transports.taktuk_words import connector

    wait_for_quiet()
    targets = hosts(scale)
    _, target = connection_to(targets[0], make_connection_params({"transport": "taktuk"}))
    words = [*target.options.taktuk, "-d", "-1", "-c", connector(target)]
    for host in targets:
        words += ["-m", host.address]
    with scratch() as (name, folder):
        # It knows no names that differ from host to host: all write to one.
        words += ["broadcast", "put", "[", name, "]", "[", f"{folder}/to", "]"]
        begin = time.perf_counter()
        subprocess.run(words, capture_output=True, check=True, stdin=subprocess.DEVNULL)
        seconds = time.perf_counter() - begin
        assert (Path(folder) / "to").stat().st_size == SIZE
    return {"seconds": seconds}


def figures(bench: Bench) -> None:
    """A hundred hosts through one taktuk."""
    n = count(bench.scale)
    with serving(0):
        mine, plain, at_once = bench.measure("ours", "bare_taktuk", "bare_taktuk_at_once")
    bench.at_most(f"{n} hosts / bare taktuk", mine["seconds"], plain["seconds"], LIMIT)
    bench.at_most(f"{n} hosts, gone / bare taktuk", mine["gone"], plain["seconds"], LIMIT)
    bench.show(f"{n} hosts / bare, at once", mine["seconds"], at_once["seconds"])
    bench.show(f"{n} hosts, gone / bare, at once", mine["gone"], at_once["seconds"])
    with serving(0):
        mine, plain = bench.measure("put", "bare_put")
    what = f"{SIZE // 1000} KB to {n} hosts / broadcast put"
    bench.at_most(what, mine["seconds"], plain["seconds"], PUT_LIMIT)


if __name__ == "__main__":
    main(figures, rounds=5)
