"""Random programs for the property tests, as many as one likes, from seeds that are printed.

The programs and the claims are those of ``tests/test_properties.py``. Prints how many were played,
and what they have reached: changes of state, situations of a process, calls. The exit code is 1 if
one has failed; it is printed then, as it was found and as small as it could
be made, with its seed.

Run ``python tests/benchmarks/rounds_properties.py [--runs N] [--seed N] [--first]``.
"""

from __future__ import annotations

import argparse
import secrets
import sys
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

from harness import ROOT, machine
from hypothesis import HealthCheck, Phase, given, seed, settings

sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import claims  # noqa: E402 - it is where the line above says
from noting import watched  # noqa: E402
from playing import Player  # noqa: E402
from program import Program, programs  # noqa: E402

BATCH = 500
"""Programs that are made from one seed."""


class Reached:
    """What all programs together have reached."""

    def __init__(self) -> None:
        self.programs = self.cycles = self.processes = 0
        self.failures: list[str] = []
        self.trees: set[str] = set()
        self.transitions: Counter[Any] = Counter()
        self.situations: Counter[Any] = Counter()
        self.calls: Counter[str] = Counter()

    def add(self, program: Program, play: Player) -> None:
        self.programs += 1
        self.cycles += len(program.cycles)
        self.processes += len(play.processes)
        self.trees.add(repr(program.tree))
        self.transitions += play.transitions
        self.situations += play.situations
        self.calls += play.done

    def show(self, seconds: float) -> None:
        print(f"programs {self.programs}, {1000 * seconds / max(1, self.programs):.1f} ms each")
        print(f"distinct trees {len(self.trees)}, cycles {self.cycles}, processes {self.processes}")
        for (old, new), count in sorted(self.transitions.items()):
            print(f"  {old:>16} -> {new:<16} {count}")
        print(f"distinct situations of a process {len(self.situations)}")
        reasons: Counter[str] = Counter()
        for situation, count in self.situations.items():
            reasons[f"{situation[0]}: {situation[1]}"] += count
        for text, count in sorted(reasons.items()):
            print(f"  {text:<32} {count}")
        print("calls: " + ", ".join(f"{name} {n}" for name, n in sorted(self.calls.items())))


def run(start: int, count: int, reached: Reached, *, first: bool) -> None:
    """Play so many programs of one seed."""
    phases = (Phase.generate,) if first else (Phase.generate, Phase.shrink)

    @seed(start)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        derandomize=False,
        phases=phases,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(programs())
    def play(program: Program) -> None:
        try:
            player = Player(program, claims)
            wrong = player.play()
            reached.add(program, player)
            assert not wrong, "\n".join(wrong)
        except AssertionError as exc:
            # Kept, since what depends on which thread was quicker may not come a second time.
            reached.failures.append(f"{exc}\n{program!r}")
            raise

    play()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--runs", type=int, default=1000, help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, help="of the first programs; default: by chance")
    parser.add_argument("--first", action="store_true", help="show a failure as it is found")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    print(f"# {Path(sys.argv[0]).name}: {machine()}; {options.runs} runs", flush=True)
    reached, failed, begun = Reached(), 0, time.monotonic()
    with watched():
        while reached.programs < options.runs and not failed:
            start = secrets.randbits(32) if options.seed is None else options.seed
            options.seed = None
            count = min(BATCH, options.runs - reached.programs)
            try:
                run(start, count, reached, first=options.first)
            except (Exception, BaseExceptionGroup) as exc:  # noqa: BLE001 - it is shown
                failed += 1
                shown = dict.fromkeys([*reached.failures[:1], *reached.failures[-1:]])
                traceback.print_exception(exc, file=sys.stdout)
                print(f"seed {start}: {type(exc).__name__}\n", *shown, sep="\n", flush=True)
            print(f"seed {start}: {reached.programs} programs", flush=True)
    reached.show(time.monotonic() - begun)
    print(f"failed: {failed}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
