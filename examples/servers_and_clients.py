#!/usr/bin/env python3
"""Start servers on half of the hosts, let clients on the others talk to them, stop them.

You should see what each client has got from its server, and that the servers, which were killed at
the end of the block, are ok all the same: the script wanted it so. It runs on four hosts
that it starts itself, or on yours, if they have python3: ``--hosts "a b node[1-6]"``.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import threading

from execo import Host, ProcessOutputHandler, Remote, get_hosts_list
from execo.process import ProcessBase
from execo.testing import Cluster

SERVER = """
import socket, sys
with socket.create_server((sys.argv[1], 0)) as server:
    print("port", server.getsockname()[1], flush=True)
    while True:
        with server.accept()[0] as connection:
            connection.sendall(b"hello from " + sys.argv[1].encode())
"""
CLIENT = """
import socket, sys
with socket.create_connection((sys.argv[1], sys.argv[2]), timeout=20) as connection:
    print(connection.makefile().read())
"""


class Ports(ProcessOutputHandler):
    """Collects the ports of the servers: each prints its own when it listens."""

    def __init__(self) -> None:
        self.of: dict[str, str] = {}
        self._one_more = threading.Semaphore(0)

    def read_line(self, process: ProcessBase, stream: int, string: str) -> None:
        self.of[str(process.host)] = string.split()[1]
        self._one_more.release()

    def wait(self, servers: int) -> None:
        for _ in range(servers):
            if not self._one_more.acquire(timeout=30):
                raise SystemExit("a server has not started")


def main(hosts: list[Host], python: str) -> None:
    half = len(hosts) // 2
    ports = Ports()
    servers = Remote(
        [python, "-c", SERVER, "{{{host}}}"],
        hosts[:half],
        process_args={"stdout_handlers": [ports]},
        name="servers",
    )
    # At the end of the block they are killed.
    with servers.start():
        ports.wait(half)
        client = [python, "-c", CLIENT, "{{list(ports.of)}}", "{{list(ports.of.values())}}"]
        clients = Remote(client, hosts[half:], name="clients").run(timeout=60)
    servers.wait()

    for process in clients.processes:
        print(process.host, "got", process.stdout.strip(), process.message)
    for process in servers.processes:
        print(process.host, "killed:", process.killed, "ok:", process.ok)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--hosts", metavar="'A B ...'", help="default: four that it starts itself")
    names = parser.parse_args().hosts
    with Cluster(4) if names is None else contextlib.nullcontext() as cluster:
        if cluster:
            main(cluster.hosts, sys.executable)
        else:
            main(get_hosts_list(names.split()), "python3")
