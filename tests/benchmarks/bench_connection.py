"""From a host to a target: what it costs to look up a thousand hosts in a file of ssh_config.

The file is one of 200 lines as people have them: fifty hosts with names of their own, a few groups
behind a gateway, settings for all. Cold: each host for the first time. Warm: all of them again,
which is what every further command costs.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from harness import Bench, Numbers, body, main

HOSTS = 1000
COLD, WARM = 150.0, 10.0


def text() -> str:
    """The file."""
    lines = ["Host *.lab lab-*", "    ProxyJump gw", "    User lab", "Host gw", "    Port 2222"]
    for number in range(45):
        lines += [
            f"Host srv{number} srv{number}.example.org",
            f"    HostName 10.0.0.{number}",
            f"    User user{number}",
            f"    IdentityFile ~/.ssh/id_{number}",
        ]
    lines += ["Host *", "    SendEnv LANG LC_*", "    HashKnownHosts yes"]
    lines += ["    ServerAliveInterval 30", "    ControlMaster auto", "    ControlPath ~/.ssh/%C"]
    return "\n".join(lines) + "\n"


@body
def look_up(scale: float) -> Numbers:
    """Microseconds a host: of processor time, since nothing is waited for."""
    from execo import Host
    from execo.config import make_connection_params
    from execo.connection import connection_to

    count = int(HOSTS * scale)
    with tempfile.TemporaryDirectory(prefix="execo-bench-") as folder:
        file = Path(folder) / "config"
        file.write_text(text())
        params = make_connection_params({"ssh_config": str(file)})
        begin = time.thread_time()
        connection_to(Host("the-first"), params)  # reads the file
        found = {"read": (time.thread_time() - begin) * 1e3}
        for name, pattern in (("direct", "node{}"), ("jump", "node{}.lab")):
            hosts = [Host(pattern.format(number)) for number in range(count)]
            for turn in ("cold", "warm"):
                begin = time.thread_time()
                for host in hosts:
                    connection_to(host, params)
                found[f"{name} {turn}"] = (time.thread_time() - begin) / count * 1e6
    return found


def figures(bench: Bench) -> None:
    """What it costs to look hosts up in a file of ssh_config."""
    (ours,) = bench.measure("look_up")
    bench.show(
        f"the first host: {len(text().splitlines())} lines are read", ours["read"], unit="ms"
    )
    for name, what in (("direct", "a host"), ("jump", "a host behind a gateway")):
        bench.below(f"{what}, for the first time", ours[f"{name} cold"], COLD, "us")
        bench.below(f"{what}, again", ours[f"{name} warm"], WARM, "us")


if __name__ == "__main__":
    main(figures, rounds=5)
