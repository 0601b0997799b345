#!/usr/bin/env python3
"""An experiment as a class: two hosts for each combination, files fetched and read, attempts that
fail and come again.

You should see how many bytes each pair of hosts has exchanged, and the plan of it before.
It runs on four hosts that it starts itself.
"""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import Any

from execo import Action, Remote
from execo.engine import Experiment, Trial
from execo.testing import Cluster


class Exchange(Experiment):
    factors = {("blocks", "size"): [(1, 512), (4, 512), (4, 4096)], "tool": ["dd", "head"]}
    hosts = 2
    get = "received"
    retries = 2
    timeout = 30
    version = "1"

    def where(self, combination: Any) -> bool:
        return combination["tool"] == "dd" or combination["size"] > 512

    def run(self, trial: Trial) -> list[str | Action]:
        count, size = trial["blocks"], trial["size"]
        if trial["tool"] == "dd":
            send = f"dd if=/dev/zero bs={size} count={count} of=sent"
        else:
            send = f"head -c {count * size} /dev/zero > sent"
        # A text runs on both hosts; an action does what it says, here something else on each.
        where = f"cd {trial.workdir} && "
        name = Remote(where + "echo {{['first', 'second']}} > who", trial.hosts)
        return [send, name, "cat sent who > received"]

    def parse(self, trial: Trial) -> dict[str, Any]:
        received = [path.read_bytes() for path in trial.fetched("received")]
        return {
            "bytes": sum(map(len, received)),
            "who": " and ".join(text.strip(b"\0").decode().strip() for text in received),
        }


with (
    Cluster(4) as cluster,
    tempfile.TemporaryDirectory() as folder,
    contextlib.chdir(folder),
):
    arguments = ["-l", "WARNING", "-c", "results"]
    Exchange().main([*arguments, "--dry-run"], hosts=cluster.hosts)
    results = Exchange().main([*arguments, "--jobs", "2"], hosts=cluster.hosts)
    for combination, result in results.items():
        print(dict(combination), result)
    kept = sorted(path.name for path in Path("results").iterdir())
    print(*kept)
