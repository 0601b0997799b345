"""Everything that may befall a run, many times: all tests/test_chaos_*.py, by pytest.

Prints one line for each round and a total; the exit code is 1 if a round has failed. What fails is
printed as pytest does, with the seed of what was random in it.

Run ``python tests/benchmarks/rounds_chaos.py [--rounds N] [--each N] [-- words for pytest]``.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from harness import ROOT, machine

FIGURE = re.compile(r"(\d+) (passed|failed|errors?|skipped)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=10, help="runs of all tests (%(default)s)")
    parser.add_argument("--each", type=int, default=1, help="EXECO_ROUNDS of each (%(default)s)")
    parser.add_argument("words", nargs="*", help="more words for pytest: -k, -n")
    options = parser.parse_args()
    files = sorted(str(path) for path in (ROOT / "tests").glob("test_chaos_*.py"))
    print(f"# {Path(sys.argv[0]).name}: {machine()}; {len(files)} files, {options.rounds} rounds")
    total: Counter[str] = Counter()
    began = time.monotonic()
    for number in range(1, options.rounds + 1):
        start = time.monotonic()
        # Long rounds take their time, and a hang is still a hang.
        limit = ["-o", f"timeout={120 * options.each}"]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", *limit, *files, *options.words],
            cwd=ROOT,
            env={**os.environ, "EXECO_ROUNDS": str(options.each)},
            capture_output=True,
            text=True,
            check=False,
        )
        last = done.stdout.strip().rpartition("\n")[2]
        counts = Counter({word.rstrip("s"): int(count) for count, word in FIGURE.findall(last)})
        total += counts
        total["bad rounds"] += done.returncode != 0
        print(f"round {number}: {_told(counts)} in {time.monotonic() - start:.0f} s", flush=True)
        if done.returncode != 0:
            print(done.stdout, done.stderr, flush=True)
    good = options.rounds - total.pop("bad rounds", 0)
    took = time.monotonic() - began
    print(f"total: {good}/{options.rounds} rounds, {_told(total)} in {took:.0f} s")
    sys.exit(0 if good == options.rounds else 1)


def _told(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {word}" for word, count in sorted(counts.items())) or "no test"


if __name__ == "__main__":
    main()
