"""Minutes of mixed load, and whether the script that does all this stays as it is.

Two hundred hosts, embedded ones and those of two real sshd, are given what scripts do, by several
threads at once: commands by the hundred, timeouts, kills, copies, output, input, retries, handlers,
processes that are started again, the ssh command with its shared connections, short idle limits.
Meanwhile hosts fail, and sessions of one sshd are killed. After each step the *invariants* are
looked at: every process has ended, once, with a reason if it is not ok, and its output is complete.

Each ten seconds one line is printed. *Flat* is judged from minute 2 on (from a quarter of a shorter
run on), every two minutes and at the end, at rest: work is held up, idle connections are closed,
and the C library has given back its reserve. There are no more descriptors and threads than at
first, and the straight line that fits memory best grows by less than 5 MB (25 MB in a run of less
than six minutes: until then threads and connections have not all been at their most).

What is printed under load goes up and down with what is being done, and is no part of the verdict.

Run ``python tests/benchmarks/soak.py [--minutes N] [--seed N]``; the exit code is 1 if it is not
flat, or if an invariant was hurt. As root only.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import random
import shutil
import signal
import statistics
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import ROOT, machine

sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from bench_flat import descriptors, memory, settle, threads  # noqa: E402

from execo import (  # noqa: E402 - they are where the line above says
    Action,
    Get,
    Host,
    Local,
    ParallelActions,
    Process,
    ProcessOutputHandler,
    Put,
    Remote,
    Retry,
    SequentialActions,
    SshProcess,
    logger,
    transports,
)
from execo.errors import Reason  # noqa: E402
from execo.process import ProcessBase  # noqa: E402
from execo.testing import Cluster  # noqa: E402
from invariants import Ends, check_idle, left_of, wait_until  # noqa: E402
from sshd import RealSshd  # noqa: E402
from survival import session_processes  # noqa: E402

EMBEDDED, FAILING, REAL, KILLED = 130, 20, 40, 10
WORKERS = 6
INTERVAL = 10.0
PATIENCE = 120.0
"""Seconds: a hang, not a speed."""
GROWTH = 5.0
"""Megabytes."""
SHORT, SHORT_GROWTH = 360.0, 25.0
"""Seconds of a run that is too short to be flat, and how much its memory may grow."""
MOST_WRONG = 10
REST = 120.0
"""Seconds until things are judged, and between two looks at rest."""
FAULTS = ("refuse", "silent", "garbage", "drop", "close", "freeze")

QUIET: dict[str, Any] = {
    "nolog_error": True,
    "nolog_exit_code": True,
    "nolog_timeout": True,
    "nolog_write_error": True,
    "nolog_expect_fail": True,
}


class Lines(ProcessOutputHandler):
    """Counts lines, slowly now and then."""

    def __init__(self) -> None:
        self.count = 0
        self._nap = threading.Event()

    def read_line(self, process: ProcessBase, stream: int, string: str) -> None:
        self.count += 1
        if self.count % 200 == 0:
            self._nap.wait(0.001)


@dataclass
class Load:
    """What the workers use, and what they have found."""

    calm: list[Host]
    failing: list[Host]
    real: list[Host]
    killed: list[Host]
    params: dict[str, Any]
    folder: Path
    word: str
    wrong: list[str] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)
    over: threading.Event = field(default_factory=threading.Event)
    running: threading.Event = field(default_factory=threading.Event)
    busy: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def any_hosts(self, chance: random.Random, most: int) -> tuple[list[Host], dict[str, Any]]:
        """Some healthy hosts, and their parameters."""
        if chance.random() < 0.7:
            return chance.sample(self.calm, chance.randint(1, most)), self.params
        return chance.sample(self.real, chance.randint(1, min(most, len(self.real)))), {}

    def complete(self, process: ProcessBase, complete: bool) -> None:
        """Its output is complete, or it says that it is not: a host that is starved may take longer
        than ``drain_timeout``."""
        if not complete:
            assert process.truncated or not process.drained, f"lost output: {process!r}"
            with self.lock:
                self.done["truncated"] += 1

    @contextlib.contextmanager
    def checked(self) -> Iterator[_Checks]:
        """The invariants hold for all that is given to it."""
        checks = _Checks(self)
        yield checks
        checks.look()


class _Checks:
    def __init__(self, load: Load) -> None:
        self._load = load
        self._ends = Ends()
        self._processes: list[ProcessBase] = []

    def args(self, **more: Any) -> dict[str, Any]:
        """Process arguments."""
        return {**QUIET, "lifecycle_handlers": [self._ends], **more}

    def watch(self, one: Action | ProcessBase) -> Any:
        self._processes += one.processes if isinstance(one, Action) else [one]
        return one

    def run(self, one: Any) -> Any:
        """Start, wait, and give it back."""
        self.watch(one)
        one.start()
        one.wait(PATIENCE)
        return one

    def look(self) -> None:
        for one in self._processes:
            if not one.ended:
                one.wait(PATIENCE)
            assert one.ended, f"has not ended: {one.dump()}"
            assert one.ok or one.reason is not None, f"no reason: {one.dump()}"
            ended = self._ends.ended[one]
            assert ended == max(1, self._ends.started[one]), f"ended {ended} times: {one.dump()}"
        with self._load.lock:
            self._load.done["processes"] += len(self._processes)


# -- what is done ---------------------------------------------------------------------------------

Work = Callable[[Load, random.Random], None]


def commands(load: Load, chance: random.Random) -> None:
    hosts, params = load.any_hosts(chance, 40)
    with load.checked() as checks:
        remote = checks.run(Remote("echo {{{host}}}", hosts, params, process_args=checks.args()))
        for host, process in zip(hosts, remote.processes, strict=True):
            assert process.ok, process.dump()
            load.complete(process, process.stdout == f"{host.address}\n")


def exit_codes(load: Load, chance: random.Random) -> None:
    hosts, params = load.any_hosts(chance, 10)
    with load.checked() as checks:
        remote = checks.run(Remote("echo no; exit 3", hosts, params, process_args=checks.args()))
        for process in remote.processes:
            assert (process.exit_code, process.reason) == (3, Reason.EXIT_CODE), process.dump()
            load.complete(process, process.stdout == "no\n")


def output(load: Load, chance: random.Random) -> None:
    hosts, params = load.any_hosts(chance, 5)
    size = chance.randint(1, 1_500_000)
    text = f"yes 0123456789 | head -c {size}; echo done >&2"
    with load.checked() as checks:
        remote = checks.run(Remote(text, hosts, params, process_args=checks.args()))
        wanted = (b"0123456789\n" * (size // 11 + 1))[:size]
        for process in remote.processes:
            assert process.ok, repr(process)
            got = process.stdout_bytes
            load.complete(process, got == wanted and process.stderr == "done\n")


def timeouts(load: Load, chance: random.Random) -> None:
    hosts, params = load.any_hosts(chance, 15)
    with load.checked() as checks:
        args = checks.args(timeout=chance.uniform(0.05, 0.5))
        remote = checks.run(Remote(f"sleep {load.word}", hosts, params, process_args=args))
        for process in remote.processes:
            assert process.reason is Reason.TIMEOUT, process.dump()


def kills(load: Load, chance: random.Random) -> None:
    hosts, params = load.any_hosts(chance, 15)
    with load.checked() as checks:
        text = f"sleep {load.word} & sleep {load.word}; :"
        remote = checks.watch(Remote(text, hosts, params, process_args=checks.args()))
        remote.start()
        threading.Event().wait(chance.uniform(0, 0.5))
        remote.kill()
        remote.wait(PATIENCE)
        for process in remote.processes:
            assert process.ended, process.dump()
            assert process.killed or process.reason is Reason.CANCELLED, process.dump()


def copies(load: Load, chance: random.Random) -> None:
    hosts, params = load.any_hosts(chance, 6)
    place = Path(tempfile.mkdtemp(prefix="copy-", dir=load.folder))
    place.chmod(0o777)
    (place / "data").write_bytes(chance.randbytes(chance.randint(0, 300_000)))
    (place / "data").chmod(0o644)
    try:
        with load.checked() as checks:
            there = f"{place}/{{{{{{host}}}}}}"
            put = Put(hosts, [place / "data"], f"{there}/data", params, process_args=checks.args())
            assert checks.run(put).ok, [one.dump() for one in put.processes]
            args = checks.args()
            get = Get(hosts, [f"{there}/data"], f"{there}/back", params, process_args=args)
            # Both sides are this machine: what one's hosts have made is somebody else's.
            for host in hosts:
                (place / host.address).chmod(0o777)
            assert checks.run(get).ok, [one.dump() for one in get.processes]
            wanted = _digest(place / "data")
            for host in hosts:
                assert _digest(place / host.address / "back") == wanted, host
    finally:
        shutil.rmtree(place)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def handlers(load: Load, chance: random.Random) -> None:
    hosts, params = load.any_hosts(chance, 8)
    count = chance.randint(1, 2000)
    lines = {host.address: Lines() for host in hosts}
    with load.checked() as checks:
        made = [
            SshProcess(
                f"seq {count}",
                host,
                params,
                stdout_handlers=[lines[host.address]],
                **checks.args(),
            )
            for host in hosts
        ]
        for process in made:
            checks.watch(process).start()
        for host, process in zip(hosts, made, strict=True):
            assert process.wait(PATIENCE).ok, process.dump()
            assert lines[host.address].count == count, lines[host.address].count


def resets(load: Load, chance: random.Random) -> None:
    hosts, params = load.any_hosts(chance, 1)
    for _ in range(3):
        process = SshProcess("cat; exit 0", hosts[0], params, **QUIET)
        for number in range(chance.randint(1, 4)):
            process.reset()
            process.start()
            process.write(f"{number}\n")
            process.close_stdin()
            assert process.wait(PATIENCE).ok, process.dump()
            assert process.stdout == f"{number}\n", process.dump()
        with load.lock:
            load.done["processes"] += 1


def expectations(load: Load, chance: random.Random) -> None:
    hosts, params = load.any_hosts(chance, 5)
    with load.checked() as checks:
        text = "while read -r x; do echo got $x; done"
        remote = checks.watch(Remote(text, hosts, params, process_args=checks.args()))
        remote.start()
        for process in remote.processes:
            process.write("it\n")
        for process, index, _ in remote.expect(r"got it\n", timeout=PATIENCE):
            assert index == 0, process.dump()
        for process in remote.processes:
            process.close_stdin()
        remote.wait(PATIENCE)
        assert remote.ok, remote


def by_ssh(load: Load, chance: random.Random) -> None:
    hosts = chance.sample(load.real, chance.randint(1, 5))
    limit = chance.choice([1, 5, 600])
    params = {"transport": "openssh", "idle_limit": limit}
    with load.checked() as checks:
        remote = checks.run(Remote("seq 100", hosts, params, process_args=checks.args()))
        for process in remote.processes:
            assert process.ok, process.dump()
            load.complete(process, process.stdout.count("\n") == 100)


def briefly_kept(load: Load, chance: random.Random) -> None:
    hosts, params = load.any_hosts(chance, 10)
    params = {**params, "idle_limit": chance.choice([0.2, 1, 3])}
    with load.checked() as checks:
        remote = checks.run(Remote("true", hosts, params, process_args=checks.args()))
        assert remote.ok, [one.dump() for one in remote.processes if not one.ok]


def local(load: Load, chance: random.Random) -> None:
    with load.checked() as checks:
        args = checks.args(shell=True)
        steps: list[Action] = [
            ParallelActions(
                [Local(f"echo {number}", process_args=args) for number in range(20)],
                fanout=chance.choice([None, 5]),
            ),
            Local(f"sleep {load.word}", process_args={**args, "timeout": 0.1}),
        ]
        action = SequentialActions(steps)
        checks.run(action)
        for number, process in enumerate(action.processes[:20]):
            assert process.stdout == f"{number}\n", process.dump()
        assert action.processes[-1].reason is Reason.TIMEOUT, action.processes[-1].dump()


def on_failing_hosts(load: Load, chance: random.Random) -> None:
    hosts = chance.sample(load.failing, 5)
    params = {**load.params, "connect_timeout": 2}
    with load.checked() as checks:
        args = checks.args(timeout=15)
        retry = chance.choice([None, Retry(times=3, backoff=0.3)])
        remote = checks.run(Remote("seq 1000", hosts, params, process_args=args, retry=retry))
        _look_at_what_may_fail(load, remote.processes)


def on_killed_hosts(load: Load, chance: random.Random) -> None:
    params = {"transport": chance.choice(["paramiko", "openssh"])}
    with load.checked() as checks:
        args = checks.args(timeout=60)
        remote = checks.run(
            Remote("seq 1000; sleep 0.3", chance.sample(load.killed, 4), params, process_args=args)
        )
        # A process of the server that is about to become the command is killed as one of its own.
        _look_at_what_may_fail(load, remote.processes, Reason.SIGNAL)


def _look_at_what_may_fail(load: Load, processes: Sequence[ProcessBase], *also: Reason) -> None:
    for process in processes:
        if process.ok:
            load.complete(process, process.stdout.count("\n") == 1000)
        else:
            # A login that breaks off behind the right key is one that has failed.
            fair = (Reason.CONNECT, Reason.TIMEOUT, Reason.AUTH, *also)
            assert process.reason in fair, process.dump()


def idle(load: Load, chance: random.Random) -> None:
    transports.close_idle()


WORKS: dict[Work, int] = {
    commands: 10,
    exit_codes: 4,
    output: 4,
    timeouts: 4,
    kills: 4,
    copies: 4,
    handlers: 4,
    resets: 4,
    expectations: 4,
    by_ssh: 3,
    briefly_kept: 4,
    local: 4,
    on_failing_hosts: 4,
    on_killed_hosts: 3,
    idle: 1,
}


# -- who does it ----------------------------------------------------------------------------------


def worker(load: Load, seed: str) -> None:
    chance = random.Random(seed)
    while not load.over.is_set():
        load.running.wait()
        with load.lock:
            load.busy += 1
        (work,) = chance.choices([*WORKS], [*WORKS.values()])
        try:
            work(load, chance)
        except Exception:  # noqa: BLE001 - all of it is told at the end
            with load.lock:
                load.wrong.append(f"{work.__name__}: {traceback.format_exc()}")
            if len(load.wrong) >= MOST_WRONG:
                load.over.set()
        finally:
            with load.lock:
                load.busy -= 1
                load.done[work.__name__] += 1


def vandal(load: Load, cluster: Cluster, first: int, sshd: RealSshd, seed: str) -> None:
    """Lets hosts fail for a while, one at a time, and kills sessions."""
    chance = random.Random(seed)
    while not load.over.is_set():
        at = first + chance.randrange(len(load.failing))
        cluster.fault(at, chance.choice(FAULTS))
        load.over.wait(chance.uniform(0.1, 1.5))
        cluster.fault(at, None)
        sessions = session_processes(sshd.pid)
        if sessions and chance.random() < 0.3:
            with contextlib.suppress(ProcessLookupError):
                os.kill(chance.choice(sessions), signal.SIGKILL)


def rest(load: Load) -> dict[str, float]:
    """What is there when nothing is done."""
    load.running.clear()
    if not wait_until(lambda: not load.busy, 2 * PATIENCE):
        load.wrong.append(f"{load.busy} workers do not come to an end")
    found = settle()
    load.running.set()
    return found


# -- the verdict ----------------------------------------------------------------------------------


def growth(samples: Sequence[tuple[float, float]]) -> float:
    """How much the line that fits best grows from the first to the last of (seconds, value)."""
    middle = statistics.fmean(at for at, _ in samples)
    mean = statistics.fmean(value for _, value in samples)
    spread = sum((at - middle) ** 2 for at, _ in samples)
    if not spread:
        return 0.0
    slope = sum((at - middle) * (value - mean) for at, value in samples) / spread
    return slope * (samples[-1][0] - samples[0][0])


Sample = tuple[float, dict[str, float]]


def judge(rests: Sequence[Sample], most: float) -> list[str]:
    """What is not flat, in words; prints the figures.

    :param most: megabytes by which memory may grow
    """
    wrong = []
    memories = [(at, sample["memory"]) for at, sample in rests]
    values = [value for _, value in memories]
    grown = growth(memories)
    print(
        f"memory at rest: {values[0]:.1f} -> {values[-1]:.1f} MB, max-min "
        f"{max(values) - min(values):.1f}, the line grows by {grown:+.1f} (below {most:g})"
    )
    if grown >= most:
        wrong.append(f"memory grows by {grown:.1f} MB")
    for key in ("descriptors", "threads"):
        first, last = rests[0][1][key], rests[-1][1][key]
        print(f"{key} at rest: {first:.0f} -> {last:.0f} (no more)")
        if last > first:
            wrong.append(f"{key} at rest: {last - first:+.0f}")
    return wrong


def soak(load: Load, seconds: float) -> list[str]:
    """Have it run, sample it, and say what is not flat."""
    from_then = min(REST, seconds / 4)
    begin = time.monotonic()
    rests: list[Sample] = []

    def look_at_rest(at: float) -> None:
        found = rest(load)
        rests.append((at, found))
        print(f"{at:>5.0f}  at rest: {found}", flush=True)

    print(f"{'s':>5} {'memory MB':>10} {'descriptors':>12} {'threads':>8} {'processes':>10}")
    while not load.over.wait(INTERVAL):
        at = time.monotonic() - begin
        if at >= seconds:
            break
        if at >= from_then * (len(rests) + 1):
            look_at_rest(at)
            continue
        now = {"memory": memory(), "descriptors": descriptors(), "threads": threads()}
        print(
            f"{at:>5.0f} {now['memory']:>10.1f} {now['descriptors']:>12} {now['threads']:>8} "
            f"{load.done['processes']:>10}",
            flush=True,
        )
    if not rests:
        return ["it ended before anything could be judged"]
    look_at_rest(time.monotonic() - begin)
    return judge(rests, GROWTH if seconds >= SHORT else SHORT_GROWTH)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--minutes", type=float, default=10.0, help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="(default: %(default)s)")
    options = parser.parse_args()
    print(f"# {Path(sys.argv[0]).name}: {machine()}; seed {options.seed}", flush=True)
    logger.setLevel("CRITICAL")  # hosts that fail are not worth a line each
    word = f"1000.{options.seed:04d}{random.SystemRandom().randrange(10**16):016d}"
    with (
        tempfile.TemporaryDirectory(prefix="execo-soak-") as name,
        Cluster(EMBEDDED + FAILING) as cluster,
        RealSshd() as calm,
        RealSshd() as shaky,
    ):
        Path(name).chmod(0o755)
        hosts = cluster.hosts
        load = Load(
            calm=hosts[:EMBEDDED],
            failing=hosts[EMBEDDED:],
            real=calm.hosts(REAL),
            killed=shaky.hosts(KILLED),
            params=cluster.params,
            folder=Path(name),
            word=word,
        )
        load.running.set()
        team = [
            threading.Thread(target=worker, args=(load, f"{options.seed}.{number}"))
            for number in range(WORKERS)
        ]
        team.append(
            threading.Thread(
                target=vandal, args=(load, cluster, EMBEDDED, shaky, f"{options.seed}.v")
            )
        )
        Process("true").run()
        for thread in team:
            thread.start()
        try:
            wrong = soak(load, options.minutes * 60)
        finally:
            load.over.set()
            load.running.set()
            for thread in team:
                thread.join(2 * PATIENCE)
        check_idle()
        transports.close_idle()
        if not wait_until(lambda: not left_of(word)):
            wrong.append(f"left running: {len(left_of(word))} commands")
    print("steps:", dict(load.done))
    wrong += load.wrong
    for text in wrong:
        print("WRONG:", text[:2000])
    print("flat, and all invariants held" if not wrong else "FAILED")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
