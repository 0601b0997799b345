#!/usr/bin/env python3
"""Look from here at a page that each of several hosts shows to itself alone.

You should see one line for each host: the port of this machine that led to it, and what its page
says. It runs on three hosts that it starts itself, or on yours, if they have python3:
``--hosts "a b node[1-6]"``.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import sys

from execo import Host, PortForwarder, ProcessesFailed, Remote, get_hosts_list
from execo.testing import Cluster

SERVER = """
import http.server, sys
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        page = f"{sys.argv[1]} answers for {self.path}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)
with http.server.HTTPServer(("127.0.0.1", 0), Page) as server:
    print("port", server.server_port, flush=True)
    server.serve_forever()
"""


def page(port: int, path: str) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    with contextlib.closing(connection):
        connection.request("GET", path)
        return connection.getresponse().read().decode()


def main(hosts: list[Host], python: str) -> None:
    servers = Remote([python, "-c", SERVER, "{{{host}}}"], hosts, name="servers")
    with servers.start():
        # In the order of the hosts: what each of them has printed.
        heard = servers.expect(r"port (\d+)\n", timeout=30)
        for host, (process, _, match) in zip(hosts, heard, strict=True):
            if match is None:
                print(host.address, "has no server:", process.message)
                continue
            try:
                with PortForwarder(host, "127.0.0.1", int(match[1])) as forwarder:
                    print(f"port {forwarder.local_port}:", page(forwarder.local_port, "/status"))
            except ProcessesFailed as error:
                print(error)
    servers.wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--hosts", metavar="'A B ...'", help="default: three that it starts itself")
    names = parser.parse_args().hosts
    with Cluster(3) if names is None else contextlib.nullcontext() as cluster:
        if cluster:
            main(cluster.hosts, sys.executable)
        else:
            main(get_hosts_list(names.split()), "python3")
