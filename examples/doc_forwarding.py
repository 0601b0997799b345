"""Ports of this machine that lead to services behind a host.

One should see what a service on the host answers to a client here, the same over a port that was
started without a block, and why there is no way through a host that is down.
"""

from __future__ import annotations

import socket
import sys

from execo import PortForwarder, ProcessesFailed, SshProcess, logger, transports
from execo.testing import Cluster

logger.setLevel("ERROR")

SERVICE = """
import socket
with socket.create_server(("127.0.0.1", 0)) as server:
    print("port", server.getsockname()[1], flush=True)
    while True:
        with server.accept()[0] as connection:
            connection.sendall(b"hello from behind the host")
"""

cluster = Cluster(1).start()
gateway = cluster.hosts[0]
service = SshProcess([sys.executable, "-c", SERVICE], gateway).start()
_, match = service.expect(r"port (\d+)\n", timeout=30)
port = int(match[1]) if match else 0

# A port here.
with PortForwarder(gateway, "localhost", port) as forwarder:
    address = ("127.0.0.1", forwarder.local_port)
    with socket.create_connection(address, timeout=30) as connection:
        print(connection.makefile().read())

# Without a block.
forwarder = PortForwarder(gateway, "localhost", port).start()
if forwarder.forwarding.wait(30):
    print(forwarder)
forwarder.kill().wait(30)
print(forwarder.ok, forwarder.killed)

# No way.
service.kill().wait(30)
cluster.fault(gateway, "refuse")
transports.close_idle()
try:
    with PortForwarder(gateway, "localhost", port):
        print("it does not come here")
except ProcessesFailed as error:
    print(error.processes[0].reason, error.processes[0].message)

cluster.stop()
