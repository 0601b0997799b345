"""The record of a run, and what comes back from it."""

from __future__ import annotations

import tempfile

from execo import Remote
from execo.engine import Record, load, sweep
from execo.testing import Cluster

parent = tempfile.TemporaryDirectory()
folder = f"{parent.name}/run"

with Cluster(2) as cluster:
    hosts = cluster.hosts
    # The run.
    with Record(folder, hosts=hosts, seeds={"sizes": 42}) as record:
        for combination in sweep({"size": [1, 2]}):
            with record.combination(combination):
                size = combination["size"]
                remote = Remote(f"echo {size}{size}", hosts).run()
            numbers = [int(process.stdout) for process in remote.processes]
            record.result(combination, {"sum": sum(numbers)}, hosts=hosts)
    # Its end.

# On another day, perhaps on another machine.
run = load(folder)
print(run.manifest["hosts"]["127.0.0.2"]["kernel"])
for process in run.processes:
    print(process.host, process.combination, process.outcome, run.output(process))
for row in run.results:
    print(row.combination, row.result)
# Until here.

assert sorted(process.stdout or "" for process in run.processes) == ["11\n"] * 2 + ["22\n"] * 2
assert [row.result for row in run.results] == [{"sum": 22}, {"sum": 44}]
parent.cleanup()
