#!/usr/bin/env python3
"""Compress text on many hosts, each with another tool and level, and compare what comes out.

Two files are put on each host, compressed there, and fetched; what has come must give the same
bytes again. You should see a line for each host (its tool, the compressed size, the share of the
original, seconds), "all files came back unchanged" with the number of hosts, and execo's report of
what ran.

It runs on eight hosts that it starts itself on this machine, or on yours::

    examples/quickstart.py --hosts "a b node[1-6]"

A host that cannot be reached, or lacks its tool, is skipped, and its line says why. The exit code
is 1 if a file differs or was not fetched, or if no host is left.
"""

from __future__ import annotations

import argparse
import bz2
import contextlib
import gzip
import lzma
import random
import sys
import tempfile
from itertools import cycle
from pathlib import Path

from execo import Get, Host, Put, Remote, Report, filter_bad_hosts, get_hosts_list
from execo.testing import Cluster

# The first tool is for the first host, and so on; from the first again if there are more hosts.
TOOLS = ["gzip -1", "gzip -3", "gzip -6", "gzip -9", "python3 -m gzip"]
TOOLS += ["bzip2 -1", "bzip2 -9", "xz -6"]
UNPACK = {".gz": gzip.decompress, ".bz2": bz2.decompress, ".xz": lzma.decompress}

# A failure is shown below, in the line of its host, and needs no warning in the log.
QUIET = {"nolog_error": True, "nolog_exit_code": True}


def main(hosts: list[Host]) -> int:
    """Run it all in the current folder; returns the exit code."""
    for name in ("plays.txt", "poems.txt"):
        Path(name).write_text(text(200_000))

    # {{{host}}} is the address of the host. Folders that are missing are made.
    put = Put(hosts, "*.txt", "execo-demo-{{{host}}}/", name="put", process_args=QUIET).run()
    reached = filter_bad_hosts(put, hosts)

    # {{TOOLS}} is the first tool on the first host, the second one on the second, and so on.
    command = "cd 'execo-demo-{{{host}}}' && {{TOOLS}} *.txt"
    compress = Remote(command, reached, name="compress", process_args=QUIET).run()
    done = [(p, tool) for p, tool in zip(compress.processes, cycle(TOOLS)) if p.ok]
    able = filter_bad_hosts(compress, reached)

    # Any expression that gives a sequence may stand there: each host has a folder of its own here.
    results = "results/{{range(len(hosts))}}/"
    get = Get(able, "execo-demo-{{{host}}}/*.txt.*", results, name="get").run()
    Remote("rm -rf 'execo-demo-{{{host}}}'", reached).run()

    original = sum(path.stat().st_size for path in Path().glob("*.txt"))
    print(f"{original} bytes\n{'host':<16}{'tool':<18}{'bytes':>10}{'share':>8}{'seconds':>9}")
    unchanged = 0
    for rank, (process, tool) in enumerate(done):
        files = list(Path("results", str(rank)).glob("*"))
        unchanged += len(files) == 2 and all(comes_back(path) for path in files)
        size = sum(path.stat().st_size for path in files)
        seconds = process.end_date - process.start_date
        address = process.host.address
        print(f"{address:<15} {tool:<18}{size:>10}{size / original:>8.1%}{seconds:>9.2f}")
    skipped = [*put.failed, *compress.failed]
    for process in skipped:
        print(f"{process.host.address:<15} skipped: {process.message} {process.stderr.strip()}")
    print(f"all files came back unchanged from {unchanged} of {len(hosts)} hosts", end="; ")
    print(f"skipped: {len(skipped)}, different: {len(done) - unchanged}")
    print(Report([put, compress, get]))
    return 0 if done and unchanged == len(done) else 1


def text(words: int) -> str:
    """Something to compress, the same each time."""
    chance = random.Random(words)
    letters = "etaoinshrdlu"
    known = ["".join(chance.choices(letters, k=chance.randint(1, 9))) for _ in range(5000)]
    return " ".join(chance.choices(known, k=words))


def comes_back(packed: Path) -> bool:
    """Whether a compressed file gives the bytes of the file that it was made of."""
    with contextlib.suppress(OSError, EOFError, lzma.LZMAError):
        return UNPACK[packed.suffix](packed.read_bytes()) == Path(packed.stem).read_bytes()
    return False


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Compress text on many hosts.")
    parser.add_argument("--hosts", metavar="'A B ...'", help="default: eight that it starts itself")
    names = parser.parse_args().hosts
    with (
        Cluster(8) if names is None else contextlib.nullcontext() as cluster,
        tempfile.TemporaryDirectory() as folder,
        contextlib.chdir(folder),
    ):
        sys.exit(main(cluster.hosts if cluster else get_hosts_list(names.split())))
