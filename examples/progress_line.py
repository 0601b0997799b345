#!/usr/bin/env python3
"""Put a large file on hosts and print how far that is, on one line that is written over; then
change a few of its bytes, and put it again by rsync, which sends little more than these.

You should see the line at 100 %, and that the second transfer took a small part of the bytes.
It runs on three hosts that it starts itself, or on yours: ``--hosts "a b node[1-6]"``.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import tempfile
from pathlib import Path

from execo import Host, Put, Remote, get_hosts_list
from execo.testing import Cluster
from execo.transfer import Progress


def show(put: Put, progress: Progress) -> None:
    """Called at most four times a second, and once at the end."""
    percent = 100 * progress.transferred / progress.total if progress.total else 0
    rate = progress.rate / 1e6
    end = "\n" if progress.ended else ""
    print(f"\r{put.name}: {percent:3.0f} %, {rate:.0f} MB/s ", end=end, flush=True)


def main(hosts: list[Host]) -> None:
    data = Path("data")
    data.write_bytes(os.urandom(30_000_000))
    Put(hosts, "data", "execo-progress/{{{host}}}", name="all of it", progress=show).run()

    with data.open("r+b") as file:
        file.write(b"a few bytes")
    again = Put(hosts, "data", "execo-progress/{{{host}}}", tool="rsync").run()
    for process in again.failed:
        print(process.message)
    progress = again.progress
    if again.ok and progress.total:
        print(f"by rsync: {100 * progress.transferred / progress.total:.1f} % of the bytes")
    Remote("rm -rf execo-progress", hosts).run()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--hosts", metavar="'A B ...'", help="default: three that it starts itself")
    names = parser.parse_args().hosts
    with (
        Cluster(3) if names is None else contextlib.nullcontext() as cluster,
        tempfile.TemporaryDirectory() as folder,
        contextlib.chdir(folder),
    ):
        main(cluster.hosts if cluster else get_hosts_list(names.split()))
