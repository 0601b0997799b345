"""Servers that outlive their script.

One should see that two servers run, what they have printed, and that they can still be ended.
"""

from __future__ import annotations

from execo import Remote, Report
from execo.testing import Cluster

with Cluster(2) as cluster:
    hosts = cluster.hosts
    server = "echo listening; while sleep 1; do echo still there; done"

    # Detached.
    servers = Remote(server, hosts, process_args={"detach": True}).start()
    servers.expect("listening", timeout=30)
    print(servers.processes[0])
    print(Report([servers]))

    # Ended all the same.
    servers.kill().wait()
    print(servers.ok)
