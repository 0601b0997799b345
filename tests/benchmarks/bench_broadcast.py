"""A large file to twenty hosts, one real sshd on loopback: ``Put(broadcast=True)`` and ``ChainPut``
beside ``Put``, which sends it once to each.

On loopback all hosts share the cores of this machine, with which they encrypt what they pass on: so
the figures *through a narrow uplink* are what the broadcast is for. There all that leaves "this
machine" passes a proxy that lets so many bytes a second through, and the hosts reach one another
without it. *Left this machine* is what the proxy has counted.
"""

from __future__ import annotations

import os
import pwd
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from bench_transfer import check, folders, source
from harness import ROOT, Bench, Numbers, body, main
from ssh_server import addresses, server, serving, wait_for_quiet
from uplink import uplink

LARGE = 200_000_000
HOSTS = 20
UPLINK = 25_000_000
"""Bytes a second: 200 Mbit/s."""


def put(scale: float, kind: str, params: dict[str, Any]) -> float:
    """Seconds that it takes."""
    from execo import ChainPut, Host, Put

    wait_for_quiet()
    here = server()
    size = round(LARGE * scale)
    # No port: each side has it from its own configuration.
    targets = [Host(one, here["user"], here["keyfile"]) for one in addresses(1)[:HOSTS]]
    with folders() as (local, folder):
        name = source(size, local)
        args: dict[str, Any] = {"broadcast": True} if kind == "broadcast" else {}
        action = (ChainPut if kind == "chain" else Put)(
            targets, [name], folder + "/{{{host}}}", params, **args
        )
        begin = time.perf_counter()
        action.run()
        seconds = time.perf_counter() - begin
        assert action.ok, (repr(action), action.failed[0].message)
        check(folder, size, HOSTS)
        if kind == "broadcast":
            direct = [one for one in action.processes if one.received_from is None]  # type: ignore[attr-defined]
            assert len(direct) == 1, len(direct)
    return seconds


def unlimited(scale: float, kind: str) -> Numbers:
    return {"seconds": put(scale, kind, {"port": server()["port"]})}


def limited(scale: float, kind: str) -> Numbers:
    with uplink(server()["port"], UPLINK) as way, tempfile.NamedTemporaryFile("w") as config:
        config.write(f"Host *\n Port {way.port}\n")
        config.flush()
        seconds = put(scale, kind, {"ssh_config": config.name})
        return {"seconds": seconds, "sent": way.sent() / 1e6}


@body
def each(scale: float) -> Numbers:
    return unlimited(scale, "put")


@body
def broadcast(scale: float) -> Numbers:
    return unlimited(scale, "broadcast")


@body
def chain(scale: float) -> Numbers:
    return unlimited(scale, "chain")


@body
def each_limited(scale: float) -> Numbers:
    return limited(scale, "put")


@body
def broadcast_limited(scale: float) -> Numbers:
    return limited(scale, "broadcast")


@body
def chain_limited(scale: float) -> Numbers:
    return limited(scale, "chain")


def figures(bench: Bench) -> None:
    """One file to many hosts, which pass it on."""
    what = f"{LARGE * bench.scale / 1e6:g} MB to {HOSTS} hosts"
    with serving(0):
        sys.path.insert(0, str(ROOT / "tests"))
        from gateways import give_key

        here = server()
        give_key(SimpleNamespace(keyfile=here["keyfile"]), here["user"])  # type: ignore[arg-type]
        # How hosts find one another.
        config = Path(pwd.getpwnam(here["user"]).pw_dir) / ".ssh" / "config"
        config.write_text(f"Host *\n Port {here['port']}\n")
        os.chmod(config, 0o644)
        one, tree, line = bench.measure("each", "broadcast", "chain")
        bench.show(f"{what}, broadcast / Put", tree["seconds"], one["seconds"])
        bench.show(f"{what}, ChainPut / Put", line["seconds"], one["seconds"])
        one, tree, line = bench.measure("each_limited", "broadcast_limited", "chain_limited")
        what += f", {UPLINK / 1e6:g} MB/s"
        bench.faster(f"{what}, broadcast / Put", tree["seconds"], one["seconds"], 4)
        bench.show(f"{what}, ChainPut / Put", line["seconds"], one["seconds"])
        bench.show("left this machine, broadcast / Put", tree["sent"], one["sent"], "MB")
        bench.show("left this machine, ChainPut / Put", line["sent"], one["sent"], "MB")


if __name__ == "__main__":
    main(figures, rounds=1)
