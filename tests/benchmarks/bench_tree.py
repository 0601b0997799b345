"""``true`` on a thousand hosts through two levels of gateways, beside the direct way: one real sshd
on loopback, behind a proxy that lets each connection wait for 200 ms.

All gateways are this machine, too: their ``ssh`` processes share its cores, which they do not
elsewhere. *First* connects to all hosts, *next* runs over the connections that are there.
"""

from __future__ import annotations

import json
import os
import sys
import time
from types import SimpleNamespace
from typing import Any

from delaying import delaying
from harness import ROOT, Bench, Numbers, body, main
from ssh_server import SERVER, server, serving, wait_for_quiet

HOSTS = 1000
DELAY = 0.2
ABOVE, BELOW = 2, 8
"""Gateways next to this machine, and next to the hosts."""


def names(first: int, count: int) -> list[str]:
    return [f"127.0.{1 + index // 250}.{1 + index % 250}" for index in range(first, first + count)]


def count(scale: float) -> int:
    return max(20, round(HOSTS * scale))


def access() -> dict[str, Any]:
    here = server()
    known = {"user": here["user"], "keyfile": here["keyfile"], "port": here["port"]}
    return {**known, "connect_timeout": 120}  # on a busy machine, too


def rounds_of(action: Any) -> Numbers:
    found = {}
    for name in ("first", "next", "third"):
        begin = time.perf_counter()
        action.run()
        found[name] = time.perf_counter() - begin
        assert action.ok, (repr(action), action.failed[:1] and action.failed[0].message)
        action.reset()
    found["next"] = min(found["next"], found.pop("third"))
    return found


@body
def tree(scale: float) -> Numbers:
    from execo import Topology, TreeRemote, transports

    wait_for_quiet()
    leaves, upper, lower = names(0, count(scale)), names(1100, ABOVE), names(1200, BELOW)
    topology = Topology([("here", upper), (upper, lower), (lower, leaves)], root="here")
    found = rounds_of(TreeRemote("true", leaves, access(), topology=topology))
    transports.close_idle()
    return found


@body
def direct(scale: float) -> Numbers:
    from execo import Remote, transports

    wait_for_quiet()
    found = rounds_of(Remote("true", names(0, count(scale)), access()))
    transports.close_idle()
    return found


def figures(bench: Bench) -> None:
    """Hosts behind two levels of gateways."""
    n = count(bench.scale)
    with serving(0):
        sys.path.insert(0, str(ROOT / "tests"))
        from gateways import give_key

        here = server()
        give_key(SimpleNamespace(keyfile=here["keyfile"]), here["user"])  # type: ignore[arg-type]
        with delaying(here["port"], DELAY) as port:
            os.environ[SERVER] = json.dumps({**here, "port": port})
            mine, other = bench.measure("tree", "direct")
    bench.show(f"{n} hosts, first command / direct", mine["first"], other["first"])
    bench.show(f"{n} hosts, next command / direct", mine["next"], other["next"])


if __name__ == "__main__":
    main(figures, rounds=3)
