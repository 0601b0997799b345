#!/usr/bin/env python3
"""Run commands on several hosts through one taktuk command.

You should see how many hosts have answered, who has sorted the words that all were given, and that
servers on all hosts were ended. It needs taktuk here (``apt install taktuk``), and says so if it is
not there. It runs on four hosts that it starts itself, or on yours, if they have perl:
``--hosts "a b node[1-99]"``.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil

from execo import Host, TaktukRemote, get_hosts_list
from execo.testing import Cluster


def main(hosts: list[Host]) -> None:
    # As with Remote.
    uptime = TaktukRemote("echo {{{host}}} is up", hosts).run(timeout=60)
    for process in uptime.failed:
        print(process.host, process.reason, process.message)
    print("answers:", sum(process.ok for process in uptime.processes), "of", len(hosts))

    # Input for all, or for one.
    sort = TaktukRemote("sort", hosts).start()
    print("pear\napple", file=sort)
    sort.processes[0].write("cherry\n")
    sort.close_stdin().wait(60)
    for process in sort.processes:
        print(process.host, *process.stdout.split())

    # All connections from here.
    flat = {"taktuk_options": ("-s", "-d", "-1")}
    servers = TaktukRemote("echo ready; sleep 1000", hosts, flat)
    with servers.start():
        servers.expect(r"ready\n", timeout=60)
    servers.wait(60)
    print("servers ended:", servers.ended, "ok:", servers.ok)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--hosts", metavar="'A B ...'", help="default: four that it starts itself")
    names = parser.parse_args().hosts
    if shutil.which("taktuk") is None:
        print("taktuk is not installed: apt install taktuk")
    else:
        with Cluster(4) if names is None else contextlib.nullcontext() as cluster:
            main(cluster.hosts if cluster else get_hosts_list(names.split()))
