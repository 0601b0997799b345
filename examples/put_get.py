#!/usr/bin/env python3
"""Put files on hosts, work on them there, and get the results, each host's in a place of its own.

You should see the files that came back, and how long the longest line is that each host has found.
It runs on three hosts that it starts itself, or on yours: ``--hosts "a b node[1-6]"``.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
from pathlib import Path

from execo import Get, Host, Put, Remote, SequentialActions, get_hosts_list
from execo.testing import Cluster


def main(hosts: list[Host]) -> None:
    Path("input/words").mkdir(parents=True)
    Path("input/words/few.txt").write_text("one two\nthree\n")
    Path("input/words/more.txt").write_text("four five six\nseven\n")
    Path("longest.sh").write_text("cat words/*.txt | awk '{ print length }' | sort -n | tail -1\n")

    # A folder goes under its own name into the folder that is named; missing folders are made.
    steps = SequentialActions(
        [
            Put(hosts, ["input/words", "longest.sh"], "execo-put-get"),
            Remote("cd execo-put-get && mkdir -p out && sh longest.sh > out/longest", hosts),
            Get(hosts, "execo-put-get/out", "results/{{{host}}}/"),
            Remote("rm -rf execo-put-get", hosts),
        ],
        name="words",
    ).run(timeout=60)
    for process in steps.failed:
        print(process, process.message)

    for path in sorted(Path("results").rglob("longest")):
        print(path, path.read_text().strip())


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
