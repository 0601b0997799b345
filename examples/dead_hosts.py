#!/usr/bin/env python3
"""Hosts that cannot be reached: each says why, and the others do their work.

You should see a line for each host, with the reason in one word and a sentence, after two seconds
(the time that the silent one has), and then the hosts that are left. A dead host and a command that
fails do not look alike.
"""

from __future__ import annotations

from execo import Host, Remote, filter_bad_hosts, logger
from execo.testing import Cluster

logger.setLevel("ERROR")  # each failure would be a warning in the log as well

with Cluster(5) as cluster, Cluster(1) as other:
    good, refuses, silent, locked, busy = cluster.hosts
    cluster.fault(refuses, "refuse")
    cluster.fault(silent, "silent")
    locked = Host(locked, keyfile=other.keyfile)  # a key that does not let in

    hosts = [good, refuses, silent, locked, busy]
    codes = [0, 0, 0, 0, 3]
    check = Remote("exit {{codes}}", hosts, {"connect_timeout": 2}).run()
    for process in check.processes:
        print(f"{process.host}: ok={process.ok} {process.reason or '-'}: {process.message}")

    left = filter_bad_hosts(check, hosts)
    Remote("true", left).run(check=True)  # would raise, if one of them failed
    print("left:", *left)
