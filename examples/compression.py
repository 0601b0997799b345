#!/usr/bin/env python3
"""A study of compressors: tools x levels x real files x 3 repetitions, each on a host of its own.

It is killed once on the way, as a reservation that ends kills it, and started again: what was done
is not done again. You should see the combinations pass by, a table of sizes and times, and where
the page with the plots, the timeline of all hosts and every single result is. It takes about a
minute, on four hosts that it starts itself, or on yours::

    examples/compression.py --hosts "a b node[1-4]"

They need gzip, bzip2 and xz. Results stay in a folder; ``-c FOLDER`` says in which, and goes on
with what is there. Pictures and the page need matplotlib and Jinja2:
``pip install 'execo[plot,report]'``.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import statistics
import sys
import sysconfig
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from execo import Process, ProcessOutputHandler
from execo.engine import Experiment, NotEnoughHosts, Trial, load, write_report
from execo.testing import Cluster

LARGEST = 500_000
"""Bytes of a file, at the most: some levels take a second for that."""


class Compression(Experiment):
    """What a reader needs to know: which tool, at which level, on which file, how often."""

    factors = {
        "tool": ["gzip", "bzip2", "xz"],
        "level": [1, 6, 9],
        "file": ["sources", "program", "numbers"],
    }
    repeat = 3
    put = ["sources", "program", "numbers"]
    version = "1"

    def run(self, trial: Trial) -> list[str]:
        tool = f"{trial['tool']} -{trial['level']}"
        return [
            f"{tool} < {trial['file']} > packed",
            f"{trial['tool']} -d < packed | cmp - {trial['file']} && wc -c < packed",
        ]

    def parse(self, trial: Trial) -> dict[str, Any]:
        packing = trial.measured[0].processes[0]
        share = int(trial.stdout) / Path(trial["file"]).stat().st_size
        return {"share": share, "seconds": packing.end_date - packing.start_date}


def real_files() -> None:
    """Make them, in the current folder: text of people, text of machines, and code."""
    library = Path(sysconfig.get_path("stdlib"))
    sources = b"".join(path.read_bytes() for path in sorted(library.glob("*.py")))
    Path("sources").write_bytes(sources[:LARGEST])
    programs = [Path(sys.executable).resolve(), *(library / "lib-dynload").glob("*.so")]
    program = max(programs, key=lambda path: path.stat().st_size)
    Path("program").write_bytes(program.read_bytes()[:LARGEST])
    Path("numbers").write_text("".join(f"{n},{n * n % 9973}\n" for n in range(40_000)))


class Follower(ProcessOutputHandler):
    """Shows what is done, and what goes wrong; kills the process, without a chance to tidy up, when
    ``kill_at`` are done."""

    def __init__(self, kill_at: int | None) -> None:
        super().__init__()
        self.count = 0
        self.kill_at = kill_at

    def read_line(self, process: Any, stream: int, string: str, eof: bool, error: bool) -> None:
        _, mark, what = string.partition("INFO: done ")
        if not mark:
            if string.strip() and " INFO: " not in string:
                print(string.rstrip(), flush=True)
            return
        self.count += 1
        print(f"{self.count:>3}  {what.rstrip()}", flush=True)
        if self.count == self.kill_at:
            process.kill(signal.SIGKILL)


def study(hosts: str | None) -> None:
    """What is killed, and goes on: the experiment alone."""
    words = ["-l", "INFO", "-c", "results"]
    with Cluster(4) if hosts is None else contextlib.nullcontext() as cluster:
        try:
            if cluster is not None:
                Compression().main(words, hosts=cluster.hosts)
            else:
                Compression().main([*words, "--hosts", hosts])
        except NotEnoughHosts as exc:
            sys.exit(str(exc))


def start(hosts: str | None, kill_at: int | None = None) -> Process:
    """Run :func:`study` in a process of its own."""
    command = [sys.executable, os.path.abspath(__file__), "--study"]
    command += [] if hosts is None else ["--hosts", hosts]
    follower = Follower(kill_at)
    return Process(command, stderr_handlers=[follower], nolog_exit_code=True).run()


def table(results: dict[Any, Any]) -> str:
    """A line for each tool and level: the share of the size that is left, and seconds."""
    columns = Compression.factors["file"]
    found = defaultdict(list)
    for one, result in results.items():
        found[one["tool"], one["level"], one["file"]].append(result)
    lines = [" " * 10 + "".join(f"{name:>18}" for name in columns)]
    for tool in Compression.factors["tool"]:
        for level in Compression.factors["level"]:
            line = f"{tool + ' -' + str(level):<10}"
            for name in columns:
                share = statistics.mean(each["share"] for each in found[tool, level, name])
                seconds = statistics.median(each["seconds"] for each in found[tool, level, name])
                line += f"{share:>9.1%} {seconds:>6.2f} s"
            lines.append(line)
    return "\n".join(lines)


def main(hosts: str | None) -> int:
    """Run it all in the current folder; returns the exit code."""
    real_files()
    total = len(Compression().combinations())
    before = done()
    if len(before) < total // 3:
        first = start(hosts, kill_at=total // 3 - len(before))
        if not first.killed:
            return 1  # it has said why
        print(f"-- killed: {len(done())} of {total} done. And again:", flush=True)
    second = start(hosts)
    results = done()
    print(f"-- {len(results)} of {total} done\n")
    if not second.ok or len(results) < total:
        print("not all is done:", second)
        return 1
    print(table(results))
    try:
        run = load("results")
        print(f"\nall of it, with pictures: {write_report(run).resolve()}")
    except ImportError as exc:
        print(f"\nno pictures: {exc}")
    return 0


def done() -> dict[Any, Any]:
    """The results so far."""
    if not Path("results").exists():
        return {}
    run = load("results")
    return {row.combination: row.result for row in run.results if row.state == "done"}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Compare compressors on many hosts.")
    parser.add_argument("--hosts", metavar="'A B ...'", help="default: four that it starts itself")
    parser.add_argument("-c", dest="folder", metavar="FOLDER", help="default: a new one in /tmp")
    parser.add_argument("--study", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.study:
        study(arguments.hosts)
    else:
        folder = Path(arguments.folder or tempfile.mkdtemp(prefix="execo-compression-"))
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.chdir(folder):
            sys.exit(main(arguments.hosts))
