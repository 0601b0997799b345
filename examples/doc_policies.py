"""Policies of actions: retries, a rate of starts, a limit of failures, and the failed ones again.

One should see how often a host was tried that was down at first, what became of an action whose
hosts failed, and that the failed ones were run again alone.
"""

from __future__ import annotations

import threading

from execo import Remote, Retry, logger
from execo.testing import Cluster

logger.setLevel("ERROR")  # each failure would be a warning in the log as well

with Cluster(8) as cluster:
    hosts, params = cluster.hosts, cluster.params
    cluster.fault(2, "refuse")
    threading.Timer(0.5, cluster.fault, (2, None)).start()

    # A host that reboots.
    retry = Retry(times=10, backoff=0.2)
    check = Remote("uptime", hosts, params, retry=retry).run()
    print(check.ok, [process.attempts for process in check.processes])

    # One after the other.
    Remote("uptime", hosts, params, start_rate=50).run()

    # Enough is enough.
    cmd = "test {{range(8)}} -ge 3"  # fails on the first three
    upgrade = Remote(cmd, hosts, params, fanout=2, max_failures="25%").run()
    for reason, processes in upgrade.by_reason().items():
        print(reason, len(processes), processes[-1].message)
    print("ok:", *upgrade.ok_hosts)

    # Only the failed ones.
    Remote("touch lock", hosts[4:6], params).run()
    work = Remote("test ! -e lock && echo done", hosts, params).run()
    print("failed:", *work.failed_hosts)
    Remote("rm lock", work.failed_hosts, params).run()
    print("failed:", *work.retry_failed().wait().failed_hosts)
