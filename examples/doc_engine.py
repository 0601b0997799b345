"""An engine that works through a sweep.

One should see what each pair of hosts has answered.
"""

from __future__ import annotations

import contextlib
import tempfile

from execo import Remote
from execo.testing import Cluster

# The engine.
from execo_engine import Engine, ParamSweeper, sweep


class Sizes(Engine):
    def __init__(self):
        super().__init__()
        self.args_parser.add_argument("--hosts", default="node[1-4]")

    def run(self):
        self.sweeper = ParamSweeper(self.result_dir + "/sweep", sweep({"size": [64, 1024]}))
        self.run_combinations(self.sweeper, self.measure, hosts=self.hosts(), needs=2)

    def hosts(self):
        return self.args.hosts

    def measure(self, attempt):
        server, client = attempt.hosts
        remote = Remote(f"head -c {attempt['size']} /dev/zero | wc -c", [client])
        return f"{client} to {server}: {attempt.run(remote).processes[0].stdout.strip()}"


# On a cluster.
with (
    Cluster(4) as cluster,
    tempfile.TemporaryDirectory() as folder,
    contextlib.chdir(folder),
):
    engine = Sizes()
    engine.hosts = lambda: cluster.hosts
    engine.start(["-l", "WARNING", "-c", "results"])
    print(*engine.sweeper.results.values(), sep="\n")
