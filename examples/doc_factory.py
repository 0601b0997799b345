"""Actions and processes whose kind is chosen by the configuration, or by what is given.

One should see the kinds that were chosen, and the same script on this machine and on a host.
"""

from __future__ import annotations

from execo import Host, configuration, get_fileput, get_process, get_remote
from execo.action import ActionFactory
from execo.config import CHAINPUT, TAKTUK
from execo.testing import Cluster

# The tool of the configuration.
configuration["remote_tool"] = TAKTUK
print(type(get_remote("uptime", "node[1-500]")).__name__)
print(type(get_fileput("node[1-500]", "input.dat")).__name__)

# A tool for some.
factory = ActionFactory(fileput_tool=CHAINPUT)
print(type(factory.get_fileput("node[1-500]", "input.dat")).__name__)


# Here or there.
def count(host: Host | None) -> str:
    process = get_process("seq 3", host=host, timeout=30).run()
    return process.stdout.strip().replace("\n", " ")


with Cluster(1) as cluster:
    print(count(None), "|", count(cluster.hosts[0]))
