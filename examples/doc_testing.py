"""Tests with the embedded cluster: hosts, faults, a fixture.

One should see how a program behaves when a host dies under it.
"""

from __future__ import annotations

from execo import Host, Remote, filter_bad_hosts
from execo.testing import Cluster


# The program.
def healthy(hosts: list[Host]) -> list[Host]:
    """The hosts on which a command runs within five seconds."""
    quiet = {"nolog_error": True, "nolog_timeout": True, "timeout": 5}
    check = Remote("true", hosts, {"connect_timeout": 2}, process_args=quiet)
    return filter_bad_hosts(check.run(), hosts)


# Its tests.
def test_all_are_healthy(cluster: Cluster) -> None:
    assert healthy(cluster.hosts) == cluster.hosts


def test_a_dead_host_is_left_out(cluster: Cluster) -> None:
    good, dead, *others = cluster.hosts
    cluster.fault(dead, "refuse")
    cluster.fault(dead, "close")
    try:
        assert healthy(cluster.hosts) == [good, *others]
    finally:
        cluster.heal()


# Without pytest.
with Cluster(4) as cluster:
    test_all_are_healthy(cluster)
    test_a_dead_host_is_left_out(cluster)
    print("both pass on", *cluster.hosts)
