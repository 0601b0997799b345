"""Connections that are kept: what there is of them, in numbers.

One should see that four hosts have a connection each, that they are idle, and that they are gone
when they were given back.
"""

from __future__ import annotations

from execo import Remote, logger, transports
from execo.testing import Cluster

logger.setLevel("ERROR")

with Cluster(4) as cluster:
    # What there is.
    Remote("true", cluster.hosts).run()
    print(transports.statistics())
    now = transports.statistics().connections
    print("connected:", now.ready, "of these idle:", now.idle, "failed so far:", now.failed)

    # Given back.
    transports.close_idle()
    print("connected:", transports.statistics().connections.ready)
