"""Hosts that are reached as a file of ssh_config says.

One should see the names that the file gives to hosts, and what is wrong with a line.
"""

from __future__ import annotations

import os
import tempfile

from execo import Remote, SshProcess, logger
from execo.config import default_connection_params
from execo.testing import Cluster

logger.setLevel("ERROR")

cluster = Cluster(2).start()
folder = tempfile.TemporaryDirectory()
path = os.path.join(folder.name, "lab.conf")
with open(path, "w") as file:
    for name, host in zip(["front", "db"], cluster.hosts, strict=True):
        print(f"Host {name}", file=file)
        print(f"    HostName {host.address}", file=file)
        print(f"    Port {host.port}", file=file)
    print(f"Host *\n    User {cluster.user}\n    ConnectTimeout 5", file=file)

# A file of one's own.
default_connection_params["ssh_config"] = path
default_connection_params["keyfile"] = cluster.keyfile
print(Remote("echo on {{{host}}}", ["front", "db"]).run().ok)

# One host without any file.
alone = {"ssh_config": False, "user": cluster.user, "port": cluster.hosts[0].port}
print(SshProcess("true", cluster.hosts[0].address, alone).run().ok)

# A line that cannot be read.
wrong = os.path.join(folder.name, "wrong.conf")
with open(wrong, "w") as file:
    file.write("Host *\n    ConnectTimeout soon\n")
broken = SshProcess("true", "front", {"ssh_config": wrong}, nolog_error=True).run()
print(broken.reason, broken.message.replace(folder.name, "~"))
cluster.stop()
folder.cleanup()
