"""Workers that share the folder of a ParamSweeper, killed at random by SIGKILL, many times.

Every combination is done exactly once in the end, nothing that was done is lost, nothing is handed
out to two, and what the dead held is handed out again. Prints how often; the exit code is 1 if
something is not so.

Run ``python tests/benchmarks/rounds_sweeper.py [--workers N] [--kills N] [--combinations N]``.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from pathlib import Path

from harness import ROOT, machine

sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from sweeping_rounds import killed_at_random  # noqa: E402 - it is where the line above says


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--workers", type=int, default=50, help="(default: %(default)s)")
    parser.add_argument("--kills", type=int, default=1000, help="(default: %(default)s)")
    parser.add_argument("--combinations", type=int, default=3000, help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**9))
    options = parser.parse_args()
    print(f"# {Path(sys.argv[0]).name}: {machine()}; seed {options.seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        found = killed_at_random(
            Path(folder),
            workers=options.workers,
            kills=options.kills,
            combinations=options.combinations,
            chance=random.Random(options.seed),
        )
    print(
        f"{options.workers} workers, {found.kills} kills, {found.seconds:.0f} s:"
        f" {options.combinations} combinations done once each,"
        f" {found.taken_back} were taken back from the dead, {found.torn} lines torn"
    )
    for text in found.wrong:
        print(f"WRONG: {text}")
    sys.exit(1 if found.wrong else 0)


if __name__ == "__main__":
    main()
