#!/usr/bin/env python3
"""Run commands on several hosts at once: per-host values, per-host output, input for all.

You should see a line from each host, the same words sorted by each of them, and the exit code of a
command that only half of them could do. It runs on four hosts that it starts itself, or on yours:
``--hosts "a b node[1-6]"``.
"""

from __future__ import annotations

import argparse
import contextlib

from execo import Host, Remote, get_hosts_list
from execo.testing import Cluster

# One value for each host: {{PORTS}} in a command is the value of the host's rank.
PORTS = range(8000, 9000)
COMMANDS = ["true", "false"]  # and from the first again, when there are more hosts


def main(hosts: list[Host]) -> None:
    greet = Remote("echo {{{host}}} would listen on {{PORTS}}", hosts).run(timeout=30)
    for process in greet.processes:
        print(process.host, "says:", process.stdout.strip())

    # All get the same input. They wait for its end.
    sort = Remote("sort", hosts).start()
    print("pear\napple\ncherry", file=sort)
    sort.close_stdin().wait(30)
    print({process.stdout for process in sort.processes})

    # A failure is data. Here it is expected, and not worth a warning in the log.
    half = Remote("{{COMMANDS}}", hosts, process_args={"nolog_exit_code": True}).run(timeout=30)
    for process in half.processes:
        print(process.host, process.cmd, process.exit_code, process.ok)
    print("all went well:", half.ok)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--hosts", metavar="'A B ...'", help="default: four that it starts itself")
    names = parser.parse_args().hosts
    with Cluster(4) if names is None else contextlib.nullcontext() as cluster:
        main(cluster.hosts if cluster else get_hosts_list(names.split()))
