"""The samples of the quickstart: a process, hosts, commands and files on them, failures, a report.

One should see the name of this machine, an answer of each host, the words that they have counted,
why two commands failed, and a table.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from execo import Get, Process, Put, Remote, Report, SequentialActions, SshProcess, filter_bad_hosts
from execo.testing import Cluster

# A first process.
process = Process("uname -n").run()
print("this is", process.stdout.strip())
print(process.ok, process.exit_code)

# Four hosts.
cluster = Cluster(4).start()
hosts = cluster.hosts

# One host.
there = SshProcess("echo hello from $HOME", hosts[0]).run()
print(there.host, there.ok, there.stdout.strip())

# Many at once.
colours = ["red", "green", "blue"]
paint = Remote("echo {{{host}}} is {{colours}}", hosts).run(timeout=30)
for process in paint.processes:
    print(process.stdout.strip())

folder = Path(tempfile.mkdtemp())

# Files there and back.
(folder / "words.txt").write_text("apple pear cherry\n")
steps = SequentialActions(
    [
        Put(hosts, folder / "words.txt", "work/"),
        Remote("wc -w < work/words.txt > work/count.txt", hosts),
        Get(hosts, "work/count.txt", f"{folder}/results/" + "{{{host}}}/"),
    ],
    name="count words",
).run(timeout=60)
for path in sorted(folder.glob("results/*/count.txt")):
    print(path.parent.name, path.read_text().strip())

# Some that fail.
cluster.fault(hosts[1], "refuse")
cluster.fault(hosts[1], "close")
numbers = [0, 0, 3, 0]
quiet = {"nolog_error": True, "nolog_exit_code": True}
check = Remote("exit {{numbers}}", hosts, process_args=quiet).run(timeout=30)
for process in check.failed:
    print(process.host, "|", process.reason, "|", process.message)
print("left:", *filter_bad_hosts(check, hosts))

# A report.
print(Report([steps, check]))

# The end.
cluster.stop()
shutil.rmtree(folder)
