"""Progress on the terminal. Run it in one, to see its lines."""

from __future__ import annotations

import tempfile
from pathlib import Path

from execo import ParallelActions, Put, Remote, configuration
from execo.engine import ParamSweeper, sweep
from execo.progress import show
from execo.testing import Cluster

parent = tempfile.TemporaryDirectory()
data = Path(parent.name, "data")
data.write_bytes(bytes(20_000_000))

with Cluster(4) as cluster:
    hosts = cluster.hosts
    # What is named.
    put = Put(hosts, data, "doc_progress/data", name="data")
    check = Remote("sleep {{[1, 2, 1, 3]}}; cksum doc_progress/data", hosts, name="cksum")
    with show(put, check):
        put.run()
        check.run()
        print("all the same:", len({process.stdout for process in check.processes}) == 1)
    # A sweep.
    sweeper = ParamSweeper(f"{parent.name}/sweep", sweep({"size": [1, 2, 4], "kind": "ab"}))
    with show(sweeper):
        while combination := sweeper.get_next():
            print(Remote(f"echo {combination['size']}; sleep 0.3", hosts[:1]).run().ok)
            sweeper.done(combination)
    # Whatever runs.
    with show():
        ParallelActions([Remote("sleep 1", [host]) for host in hosts]).run()
    # Always.
    configuration["progress"] = True
    Remote("rm -rf doc_progress; sleep 1", hosts).run()
    # Until here.

assert put.ok
assert check.ok
sweeper.close()
parent.cleanup()
