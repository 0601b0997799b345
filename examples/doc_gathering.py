"""Equal outputs of many hosts together. Shows which host differs, and in what."""

from __future__ import annotations

from execo import STDERR, STDOUT, Process, Remote, Report
from execo.gathering import gather
from execo.testing import Cluster

with Cluster(4) as cluster:
    hosts = cluster.hosts
    # Groups.
    remote = Remote("echo kernel 6.1; echo modules {{[12, 12, 13, 12]}}", hosts).run()
    groups = remote.gather()
    print(groups)
    # What differs.
    most, *others = groups
    for group in others:
        print("not as", len(most), "others:", group.hosts, group.exit_codes)
    print(groups.diff(), end="")
    # Of anything.
    gather(remote.processes, STDOUT | STDERR)
    Report([remote, Process("echo kernel 6.1", shell=True).run()]).gather()
    # Until here.

assert [len(group) for group in groups] == [3, 1]
