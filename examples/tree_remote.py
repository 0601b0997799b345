#!/usr/bin/env python3
"""Run a command on hosts through a gateway.

You should see which way leads to which host, what the hosts say, and that a host behind a gateway
that does not exist fails with its name. It runs on four hosts that it starts itself.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from execo import TreeRemote, load_topology
from execo.testing import Cluster


def main(cluster: Cluster, folder: Path) -> None:
    first = cluster.hosts[0]
    # A gateway logs in with keys of its own; these hosts know one key alone.
    access: dict[str, Any] = {
        "user": first.user,
        "port": first.port,
        "keyfile": first.keyfile,
        "ssh_options": ("-i", str(first.keyfile)),
    }
    path = folder / "topology.conf"
    path.write_text(
        """[routes]
admin: 127.0.0.2, nowhere.invalid
127.0.0.2: 127.0.0.[3-4]
nowhere.invalid: 127.0.0.5
"""
    )
    # What leads where.
    topology = load_topology(path, root="admin")
    for host in cluster.hosts:
        print(host.address, "through", *topology.parents(host.address) or ["nothing"])

    # As with Remote.
    names = [host.address for host in cluster.hosts]
    action = TreeRemote(
        "sort; exit {{range(4)}}",
        names,
        access,
        topology=topology,
        process_args={"nolog_exit_code": True, "nolog_error": True},
    ).start()
    print("pear\napple", file=action)
    action.close_stdin().wait(60)
    for process in action.processes:
        print(process.host, process.exit_code, *process.stdout.split())
    last = action.processes[-1]
    print(last.reason, "nowhere.invalid" in (last.message or ""))


if __name__ == "__main__":
    with Cluster(4) as cluster, tempfile.TemporaryDirectory() as folder:
        main(cluster, Path(folder))
