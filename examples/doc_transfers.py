"""Files to hosts and back: what goes where, patterns, names of each host, failures.

One should see where files have arrived, and why a transfer failed.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path

from execo import Get, Put, Remote, raw
from execo.testing import Cluster

cluster = Cluster(2).start()
hosts = cluster.hosts
place = contextlib.ExitStack()
place.enter_context(contextlib.chdir(place.enter_context(tempfile.TemporaryDirectory())))
Path("app/bin").mkdir(parents=True)
Path("app/bin/run.sh").write_text("echo running\n")
Path("one.txt").write_text("1\n")
Path("two.txt").write_text("2\n")

# Put.
Put(hosts, "one.txt", "renamed.txt").run()
Put(hosts, ["one.txt", "two.txt"], "many").run()
Put(hosts, "*.txt", "~/matching").run()
Put(hosts, "app", "software").run()
print(*sorted(Remote("find . -type f", hosts[:1]).run().processes[0].stdout.split()))

# For each host another file.
seeds = ["one.txt", "two.txt"]
Put(hosts, "{{seeds}}", "seed.txt").run()

# Get.
Get(hosts, "many/*.txt", "results/{{{host}}}/").run()
Get(hosts, "software/app", "results/{{{host}}}").run()
print(*sorted(str(path) for path in Path("results").rglob("*") if path.is_file()))

# Two hosts, one name.
try:
    Get(hosts, "seed.txt", "seeds/")
except ValueError as error:
    print(error)

# What fails says why.
get = Get(
    hosts,
    ["seed.txt", "no such file"],
    "more/{{{host}}}/",
    process_args={"timeout": 60, "nolog_exit_code": True},
    fanout=10,
).run()
for process in get.failed:
    print(process.reason, "|", process.message)

# By rsync.
if shutil.which("rsync"):
    Put(hosts, "app", "software", tool="rsync").run()
    Get(hosts, "software/app", "copies/{{{host}}}/", tool="rsync").run()
    print(*sorted(str(path) for path in Path("copies").rglob("*.sh")))

# One large file to many.
Path("image.tar").write_bytes(bytes(20_000))
put = Put(hosts, "image.tar", "images/", broadcast=True).run()
for process in put.processes:
    print(process.host, "has it from", process.received_from or "this machine")

# Names with braces.
Path("{{cookie}}.txt").write_text("3\n")
Put(hosts, "{{cookie}}.txt", "braces/", substitute=False).run()
Put(hosts, raw("{{cookie}}.txt"), "braces/{{{host}}}.txt").run()
print(Remote("ls braces", hosts[:1]).run().processes[0].stdout.split())

place.close()
cluster.stop()
