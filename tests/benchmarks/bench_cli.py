"""What the command line costs: to the first output on one host, and to gather that of a thousand.

The hosts are those of ``execo.testing``, which run on the same machine. Beyond connecting: the wall
time of ``execo run -b`` with the same output everywhere, less that of a script which only runs
``true`` on the same hosts. Beside it, what it costs to group large outputs.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from harness import Bench, Numbers, body, main

HOSTS = 1000
FIRST_OUTPUT = 0.35
BEYOND = 2.0
MEGABYTES = 100

CONNECT = """
import sys
from execo import Remote
hosts = [f"host{number}" for number in range(1, int(sys.argv[2]) + 1)]
assert Remote("true", hosts, {"ssh_config": sys.argv[1]}).run().ok
"""


def seconds(words: Sequence[str]) -> tuple[float, float, bytes]:
    """To the first line of output, to the end, and all output."""
    begin = time.perf_counter()
    run = subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE)
    assert run.stdout is not None
    line = run.stdout.readline()
    first = time.perf_counter() - begin
    rest = run.stdout.read()
    if run.wait() != 0:
        raise RuntimeError(f"{words} has failed")
    return first, time.perf_counter() - begin, line + rest


@body
def one_host(scale: float) -> Numbers:
    """One host, warm: the second run of the same."""
    from execo.testing import Cluster

    with Cluster(1) as cluster:
        config = str(cluster.folder / "ssh_config")
        words = ["-m", "execo", "run", "--ssh-config", config, "-w", "host1", "echo hello"]
        seconds(words)
        first, whole, output = seconds(words)
        assert output == b"host1: hello\n"
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import execo, paramiko"], check=True)
    return {"first": first, "whole": whole, "imports": time.perf_counter() - begin}


@body
def gathered(scale: float) -> Numbers:
    """Many hosts whose outputs are the same."""
    from execo.testing import Cluster

    count = int(HOSTS * scale)
    with Cluster(count) as cluster:
        config = str(cluster.folder / "ssh_config")
        _, connecting, _ = seconds(["-c", CONNECT, config, str(count)])
        words = ["run", "--ssh-config", config, "-w", f"host[1-{count}]"]
        _, gathering, output = seconds(["-m", "execo", *words, "-b", "seq 100"])
        assert output.startswith(f"{'-' * 15}\nhost[1-{count}] ({count})\n".encode()), output
        assert len(output.splitlines()) == 103, output
        _, live, _ = seconds(["-m", "execo", *words, "seq 100"])
    return {"connecting": connecting, "gathering": gathering, "live": live}


@body
def grouping(scale: float) -> Numbers:
    """Outputs of one process each, alike and all different, without a host."""
    from execo.gathering import gather

    class Done:
        start_date, exit_code, name = 0.0, 0, "done"

        def __init__(self, output: bytes) -> None:
            self.stdout_bytes = output

    size = int(MEGABYTES * scale * 1e6) // HOSTS
    same: list[Any] = [Done(b"x" * size) for _ in range(HOSTS)]
    other: list[Any] = [Done(b"%d" % number + b"x" * size) for number in range(HOSTS)]
    found = {}
    for name, processes in (("same", same), ("other", other)):
        begin = time.perf_counter()
        groups = gather(processes)
        found[name] = time.perf_counter() - begin
        assert len(groups) == (1 if name == "same" else HOSTS)
    lines = int(200_000 * scale)
    old = "\n".join(f"line {number}" for number in range(lines))
    new = "\n".join(f"line {number}" if number % 2 else "other" for number in range(lines))
    begin = time.perf_counter()
    gather([Done(old.encode()), Done(new.encode())]).diff()
    return {**found, "diff": time.perf_counter() - begin}


def figures(bench: Bench) -> None:
    """What the command line costs."""
    (one,) = bench.measure("one_host", rounds=max(3, bench.rounds))
    bench.below("execo run on one host: to the first output", one["first"], FIRST_OUTPUT, "s")
    bench.show("   to its end; beside: importing execo and paramiko", one["whole"], one["imports"])
    (many,) = bench.measure("gathered")
    beyond = many["gathering"] - many["connecting"]
    bench.below(f"execo run -b on {HOSTS} hosts, beyond connecting", beyond, BEYOND, "s")
    bench.show(
        "   all of it; beside: a script that connects", many["gathering"], many["connecting"]
    )
    bench.show("   each line as it comes; beside: the same", many["live"], many["connecting"])
    (groups,) = bench.measure("grouping")
    bench.show(f"grouping {MEGABYTES} MB of {HOSTS} processes, all the same", groups["same"])
    bench.show("   all different", groups["other"])
    bench.show("   diff of 200 000 lines, every second one differs", groups["diff"])


if __name__ == "__main__":
    main(figures, rounds=3)
