"""``python -m execo.testing 8``: a cluster of SSH hosts on loopback, until Ctrl-C."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence

from .cluster import Cluster, ClusterError

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a cluster until SIGINT or SIGTERM.

    :param arguments: the words of the command line, None = those of this program
    :returns: the exit code: 0, or 1 if the cluster could not be started or was lost
    """
    parser = argparse.ArgumentParser(
        prog="python -m execo.testing",
        description="Run SSH hosts on loopback, print how to reach them, and stay until Ctrl-C.",
    )
    parser.add_argument("n", nargs="?", type=int, default=4, help="number of hosts (default: 4)")
    parser.add_argument(
        "--max-sessions",
        type=int,
        default=10,
        metavar="N",
        help="sessions that a connection may have at once (default: 10)",
    )
    parser.add_argument(
        "--max-startups",
        type=int,
        metavar="N",
        help="connections to a host that are not logged in yet (default: no limit)",
    )
    parser.add_argument("--shell", default="/bin/sh", help="the user's shell (default: /bin/sh)")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        cluster = Cluster(
            options.n,
            max_sessions=options.max_sessions,
            max_startups=options.max_startups,
            shell=options.shell,
        )
    except ValueError as error:
        parser.error(str(error))
    try:
        with cluster:
            sys.stdout.write(description(cluster))
            sys.stdout.flush()
            cluster.wait()
    except KeyboardInterrupt:
        return 0
    except ClusterError as error:
        sys.stderr.write(f"{parser.prog}: {error}\n")
        return 1
    sys.stderr.write(f"{parser.prog}: the server of the cluster has ended\n")
    return 1


def description(cluster: Cluster) -> str:
    """What is printed: the hosts, the folder, the ssh_config, and how to use it."""
    lines = [
        f"host{number} {host.address} port {host.port}"
        for number, host in enumerate(cluster.hosts, 1)
    ]
    file = cluster.folder / "ssh_config"
    lines += ["", f"folder: {cluster.folder}", "", f"# {file}"]
    lines += [cluster.ssh_config, f"try: ssh -F {file} host1", "stop: Ctrl-C"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
