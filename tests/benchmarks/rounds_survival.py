"""What survives a script and what ends with it, many times: as root, as a user, and under sudo.

The rounds are those of ``tests/survival.py``, against a real sshd on loopback. Prints how many of
how many went as they should; the exit code is 1 if one did not. As root only.

Run ``python tests/benchmarks/rounds_survival.py [--rounds N] [--at-once N] [--transport NAME]``.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path

from harness import ROOT, machine

sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from sshd import RealSshd  # noqa: E402 - it is where the line above says
from survival import KINDS, TRANSPORTS, WHO, rounds, ways_of, world  # noqa: E402

TITLES = {
    "left": "nohup'ed server",
    "detached": "detach=True",
    "running": "all else",
}
ROW = "{:<10}{:<17}{:<18}{:<9}{:>12}{:>12}{:>12}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=100, help="of each figure (%(default)s)")
    parser.add_argument("--at-once", type=int, default=50, help="rounds a script (%(default)s)")
    parser.add_argument("--transport", choices=TRANSPORTS, help="this one alone")
    options = parser.parse_args()
    print(f"# {Path(sys.argv[0]).name}: {machine()}; {options.rounds} rounds")
    columns = ("as root", "as a user", "under sudo")
    print(ROW.format("transport", "what", "end", "", *columns), flush=True)
    missed = 0
    with RealSshd() as sshd, world(sshd) as place:
        for transport in [options.transport] if options.transport else TRANSPORTS:
            for way in ways_of(transport):
                good: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
                for who in WHO:
                    left = options.rounds
                    while left > 0:
                        count = min(left, options.at_once)
                        outcome = rounds(place, who, transport, way, count)
                        left -= count
                        for kind, number in outcome.good.items():
                            good[kind][who] += number
                            missed += number != count
                for kind in KINDS:
                    if good[kind]:
                        figures = [f"{good[kind][who]}/{options.rounds}" for who in WHO]
                        fate = "ends" if kind == "running" else "survives"
                        print(ROW.format(transport, TITLES[kind], way, fate, *figures), flush=True)
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
