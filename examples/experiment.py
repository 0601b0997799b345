#!/usr/bin/env python3
"""A whole experiment in two dozen lines: compressors x levels x repetitions, each on a host of its
own; run again with the same ``-c DIR``, it goes on where it was.

You should see the size and the time of each, and at the end that nothing is left to do.
It runs on hosts that it starts itself, or on yours: ``--hosts "a b node[1-6]"``.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from pathlib import Path

from execo.engine import Trial, experiment
from execo.testing import Cluster


def size_and_time(trial: Trial) -> dict[str, float]:
    return {"bytes": int(trial.stdout), "seconds": trial.seconds}


@experiment(
    factors={"tool": ["gzip", "bzip2"], "level": [1, 9]},
    repeat=3,
    put="words",
    parse=size_and_time,
)
def compress(trial: Trial) -> str:
    return f"{trial['tool']} -{trial['level']} < words | wc -c"


if __name__ == "__main__":
    own = not any(argument.startswith("--hosts") for argument in sys.argv)
    with (
        Cluster(4) if own else contextlib.nullcontext() as cluster,
        tempfile.TemporaryDirectory() as folder,
        contextlib.chdir(folder),
    ):
        Path("words").write_text("".join(f"{n} {n * n}\n" for n in range(20000)))
        results = compress.main(["-l", "WARNING", *sys.argv[1:]], hosts=cluster and cluster.hosts)
        for combination, result in results.items():
            print(f"{combination['tool']} -{combination['level']}: {result['bytes']} bytes")
        print(f"{len(results)} of {len(compress.combinations())} done")
