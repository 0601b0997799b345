"""What the benchmarks share: bodies in processes of their own, in turns, and a table of figures.

A *body* is a function of a benchmark that does the measured work once and returns numbers. Each
call of a body is a new interpreter, so that nothing is warm, two generations of a package never
meet, and a peer is imported where it is installed and nowhere else. The bodies of one figure take
turns (A, B, A, B, ...), so that whatever else the machine does falls on both; what is compared are
their medians.

Run ``python tests/benchmarks/bench_x.py [--rounds N] [--scale F]``; the exit code is 1 if a figure
misses its limit. What the peers need is installed into ``.venv-peers`` of the checkout.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import platform
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PEERS = ROOT / ".venv-peers"
PACKAGES = (
    "execo==2.8.2",
    "ClusterShell==1.10.1",
    "parallel-ssh==2.16.0",
    "asyncssh==2.24.0",
    "paramiko==5.1.0",
    "ansible-core==2.19.14",
)
LIMIT = 600
"""Seconds after which a body is a failure: a hang, not a speed."""

ROW = "{:<58}{:>13}{:>13}{:>8}  {:<14}{}"
# Linux; Python does not name it everywhere.
MAP_POPULATE = getattr(mmap, "MAP_POPULATE", 0)

Numbers = dict[str, float]
Body = Callable[[float], Numbers]

bodies: dict[str, Body] = {}


def body(function: Body) -> Body:
    """Make a function of the scale that returns numbers a body, under its own name."""
    bodies[function.__name__] = function
    return function


class Bench:
    """The figures of one benchmark, measured and printed.

    :param rounds: how often each body runs
    :param scale: what all sizes are multiplied with
    """

    def __init__(self, rounds: int, scale: float) -> None:
        self.rounds = rounds
        self.scale = scale
        self.missed = 0

    def measure(
        self, *names: str, rounds: int | None = None, scale: float | None = None
    ) -> list[Numbers]:
        """Run these bodies in turns; give the median of each number of each body.

        A body whose name begins with ``peer_`` runs in the interpreter of the peers.

        :param rounds: how often, instead of the benchmark's
        :param scale: what the bodies are given, instead of the benchmark's
        """
        taken: dict[str, list[Numbers]] = {name: [] for name in names}
        for _ in range(rounds or self.rounds):
            for name in names:
                taken[name].append(run_body(name, self.scale if scale is None else scale))
        return [
            {key: statistics.median(one[key] for one in results) for key in results[0]}
            for results in taken.values()
        ]

    def at_most(self, name: str, ours: float, other: float, limit: float, unit: str = "s") -> None:
        """A figure: ``ours`` is at most ``limit`` times ``other``."""
        self._line(name, ours, other, unit, f"at most {limit:g}", ours <= limit * other)

    def faster(self, name: str, ours: float, other: float, times: float, unit: str = "s") -> None:
        """A figure: ``other`` is at least ``times`` times ``ours``."""
        self._line(name, ours, other, unit, f"at most 1/{times:g}", ours * times <= other)

    def below(self, name: str, ours: float, limit: float, unit: str) -> None:
        """A figure with a limit of its own: ``ours`` is below ``limit``."""
        self._line(name, ours, None, unit, f"below {limit:g} {unit}", ours < limit)

    def show(self, name: str, ours: float, other: float | None = None, unit: str = "s") -> None:
        """A number that nothing is wanted of."""
        self._line(name, ours, other, unit, "", True)

    def _line(
        self, name: str, ours: float, other: float | None, unit: str, wanted: str, good: bool
    ) -> None:
        ratio = "" if other is None else f"{ours / other:.3f}"
        beside = "" if other is None else f"{other:.3f} {unit}"
        verdict = "" if not wanted else "ok" if good else "MISSED"
        self.missed += not good
        print(ROW.format(name, f"{ours:.3f} {unit}", beside, ratio, wanted, verdict), flush=True)


def main(figures: Callable[[Bench], None], *, rounds: int) -> None:
    """The command line of a benchmark. Does not return.

    :param figures: measures and prints
    :param rounds: how often each body runs unless ``--rounds`` says otherwise
    """
    parser = argparse.ArgumentParser(description=figures.__doc__)
    parser.add_argument("--rounds", type=int, default=rounds, help="(default: %(default)s)")
    parser.add_argument("--scale", type=float, default=1.0, help="(default: %(default)s)")
    parser.add_argument(
        "--only-show",
        action="store_true",
        help="exit with 0 also if a figure is missed: for short rounds, and busy machines",
    )
    parser.add_argument("--body", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.body:
        print(json.dumps(bodies[options.body](options.scale)))
        sys.exit()
    print(
        f"# {Path(sys.argv[0]).name}: {machine()}; {options.rounds} rounds, scale {options.scale}"
    )
    print(ROW.format("figure", "ours", "beside", "ratio", "wanted", ""), flush=True)
    bench = Bench(options.rounds, options.scale)
    figures(bench)
    sys.exit(1 if bench.missed and not options.only_show else 0)


def run_body(name: str, scale: float) -> Numbers:
    """Run one body once, in a new interpreter.

    :raises RuntimeError: if it fails; with what it wrote to stderr
    """
    if name.startswith("peer_"):
        command, path = peers_python(), ""
    else:
        command, path = sys.executable, str(ROOT)
    done = subprocess.run(  # raises TimeoutExpired: a hang, not a speed
        [command, sys.argv[0], "--scale", str(scale), "--body", name],
        env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": ""},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    if done.returncode != 0:
        raise RuntimeError(f"{name} failed with {done.returncode}:\n{done.stderr[-4000:]}")
    numbers: Numbers = json.loads(done.stdout.splitlines()[-1])
    return numbers


def peers_python() -> str:
    """The interpreter that has the peers; installs them at the first call."""
    python = PEERS / "bin" / "python"
    done = PEERS / ".installed"
    wanted = " ".join(PACKAGES)
    if not done.is_file() or done.read_text() != wanted:
        print(f"# installing {wanted} into {PEERS.name}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(PEERS)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *PACKAGES], check=True)
        done.write_text(wanted)
    return str(python)


def raise_limit() -> None:
    """For a peer that does not do it itself: the limit of open descriptors, as high as allowed."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def touch_memory(size: int) -> None:
    """Use ``size`` bytes of memory once and give them back to the kernel.

    A virtual machine gets its memory from its host when it first touches it, which is slow and
    differs from one run to the next; what is measured afterwards finds memory that is there.
    """
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_POPULATE
    mmap.mmap(-1, size, flags=flags).close()


def machine() -> str:
    """What the numbers were measured on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{os.cpu_count()} CPUs, {memory:.0f} GiB, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}"
    )
