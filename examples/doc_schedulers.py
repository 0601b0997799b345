"""An experiment on nodes of Slurm.

One should see what two nodes say of themselves, and the four results of the experiment; or that
there is no Slurm here.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from pathlib import Path

from execo import Remote
from execo.engine import experiment
from execo.schedulers import Allocation
from execo.testing import Cluster

if not os.environ.get("SLURM_CONF") and not Path("/etc/slurm/slurm.conf").exists():
    print("there is no Slurm here")
    sys.exit()


# The experiment.
@experiment(
    factors={"tool": ["gzip", "bzip2"], "level": [1, 9]},
    duration="0:02:00",
    parse=lambda trial: int(trial.stdout),
)
def compress(trial):
    return f"seq 10000 | {trial['tool']} -{trial['level']} | wc -c"


# A Slurm to try things out, whose nodes have no sshd.
stack = contextlib.ExitStack()
cluster = stack.enter_context(Cluster(4))
there = dict(zip(["n1", "n2", "n3", "n4"], cluster.hosts, strict=True))
compress.connection_params = cluster.params
stack.enter_context(contextlib.chdir(stack.enter_context(tempfile.TemporaryDirectory())))


def reach(name):
    return there[name]


# Nodes.
with Allocation(2, "0:10:00", host=reach) as nodes:
    uptime = Remote("uptime", nodes).run()

# What they say.
print(f"{len(uptime.processes)} nodes, ok: {uptime.ok}")
arguments = ["-l", "WARNING", "-c", "results"]

# On them.
for _ in range(5):
    results = compress.main(arguments, hosts=Allocation(4, "0:30:00", host=reach))
    if len(results) == len(compress.combinations()):
        break

# The end.
print(*(f"{one['tool']} -{one['level']}: {size} bytes" for one, size in results.items()), sep="\n")
stack.close()
