"""A program for ClusterShell: a command on nodes, its events, copies, and a node that is not there.

One should see what the nodes answer, first as it comes and then gathered, and which of them could
not be reached.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from execo import default_connection_params
from execo.testing import Cluster

cluster = Cluster(4).start()
default_connection_params["ssh_config"] = cluster.folder / "ssh_config"
results = tempfile.mkdtemp(prefix="results-")

# A program.
from execo.clustershell import EventHandler, NodeSet, task_self  # noqa: E402

task = task_self()
worker = task.run("uname -s; exit 3", nodes="host[1-3]", timeout=30)
for output, nodes in task.iter_buffers():
    print(NodeSet.fromlist(nodes), output.message().decode())
for rc, nodes in worker.iter_retcodes():
    print(nodes, "exited with", rc)


# Its events.
class Show(EventHandler):
    def ev_read(self, worker, node, sname, msg):
        print(f"{node}: {msg.decode()}")

    def ev_hup(self, worker, node, rc):
        if rc == 255 and worker.node_reason(node):
            print(f"{node} was not reached: {worker.node_reason(node)}")

    def ev_close(self, worker, timedout):
        print("all have ended")


task.run("echo $((6 * 7))", nodes="host[1-3],127.0.0.99", handler=Show())
# Copies.
task.run("echo data > file", nodes="host[1-2]")
task.rcopy("file", results, nodes="host[1-2]")
task.resume()
# The end.
print(sorted(path.name for path in Path(results).iterdir()))
shutil.rmtree(results)
cluster.stop()
