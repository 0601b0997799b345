"""Workers on one folder that are killed at random, and what must hold whatever befalls them."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from execo.engine import ParamSweeper, sweep
from execo.engine.journal import TORN

__all__ = ["Outcome", "killed_at_random"]

WORK = 0.2
"""Seconds that a combination takes, at the most."""

PAUSE = 0.02
"""Seconds between two kills, on average."""


@dataclass
class Outcome:
    """What came of it.

    - ``kills``; ``taken_back``: how many combinations the dead had held; ``torn``: lines that were
      not written to their end
    - ``wrong``: what must not be
    """

    kills: int
    taken_back: int
    torn: int
    seconds: float
    wrong: list[str]


def killed_at_random(
    folder: Path, *, workers: int, kills: int, combinations: int, chance: random.Random
) -> Outcome:
    """That many workers; one after the other is killed, and another one comes in its place. After
    the last one they do what is left."""
    began = time.monotonic()
    (folder / "told").mkdir(parents=True)
    enough = folder / "enough"
    alive: set[int] = set()

    def one_more() -> None:
        seed = chance.random()
        pid = os.fork()
        if not pid:
            status = 1
            try:
                _work(folder, combinations, random.Random(seed), enough)
                status = 0
            except Exception as exc:  # noqa: BLE001
                sys.stderr.write(f"a worker failed: {exc!r}\n")
            finally:
                os._exit(status)
        alive.add(pid)

    nap = threading.Event()
    wrong = []
    for _ in range(workers):
        one_more()
    for _ in range(kills):
        nap.wait(chance.uniform(0, 2 * PAUSE))
        victim = chance.choice(sorted(alive))
        os.kill(victim, signal.SIGKILL)
        if os.waitpid(victim, 0)[1] != signal.SIGKILL:
            wrong.append(f"worker {victim} had ended by itself")
        alive.discard(victim)
        one_more()
    enough.touch()
    wrong += [f"worker {pid} failed in the end" for pid in alive if os.waitpid(pid, 0)[1] != 0]
    taken_back, torn = _check(folder, combinations, wrong)
    return Outcome(kills, taken_back, torn, time.monotonic() - began, wrong)


def _work(folder: Path, combinations: int, chance: random.Random, enough: Path) -> None:
    """Tells, in a file of its own, what it was given and what it has done, once it was so."""
    sweeper = ParamSweeper(folder / "sweep", sweep({"n": range(combinations)}))
    nap = threading.Event()
    with (folder / "told" / str(os.getpid())).open("ab", buffering=0) as told:
        while True:
            one = sweeper.get_next()
            if one is None:
                if enough.exists() and not sweeper.get_inprogress():
                    return
                nap.wait(PAUSE)
                continue
            told.write(b"G%d\n" % one["n"])
            if chance.random() < 0.5:
                nap.wait(chance.uniform(0, WORK))
            # Until the last kill there must be something to do.
            if chance.random() < 0.05 or enough.exists():
                sweeper.done(one, result=one["n"])
                told.write(b"D%d\n" % one["n"])
            elif chance.random() < 0.5:
                sweeper.cancel(one)
            else:
                sweeper.failed(one, "by chance", retry=True)


def _check(folder: Path, combinations: int, wrong: list[str]) -> tuple[int, int]:
    """How often something was taken back, and how many lines are torn."""
    given, done = _told(folder)
    story = _Story(wrong)
    for line in (folder / "sweep" / "journal.jsonl").read_bytes().split(b"\n")[:-1]:
        if line.endswith(TORN):
            story.counts["torn"] += 1
        else:
            story.read(line)
    wrong += [f"{n} was done {times} times" for n, times in story.done.items() if times != 1]
    if len(story.done) != combinations or any(by is not None for by in story.holder.values()):
        wrong.append(f"{len(story.done)} of {combinations} are done in the end")
    wrong += [f"the done of {n} was lost" for n in done if not story.done[n]]
    wrong += [f"{n} was given, and it is not written" for n in given if given[n] > story.given[n]]
    every = sweep({"n": range(combinations)})
    with contextlib.closing(ParamSweeper(folder / "sweep", every)) as sweeper:
        if sweeper.results != {one: one["n"] for one in every}:
            wrong.append("the results are others")
    return story.counts["free"], story.counts["torn"]


def _told(folder: Path) -> tuple[Counter[int], Counter[int]]:
    """What the workers were given, and what they had done, how often."""
    told: dict[str, Counter[int]] = {"G": Counter(), "D": Counter()}
    for path in (folder / "told").iterdir():
        for word in path.read_bytes().decode().split():
            told[word[0]][int(word[1:])] += 1
    return told["G"], told["D"]


class _Story:
    """What the lines of a journal say, read without any of what is tested."""

    def __init__(self, wrong: list[str]) -> None:
        self.wrong = wrong
        self.counts: Counter[str] = Counter()
        self.given: Counter[int] = Counter()
        self.done: Counter[int] = Counter()
        self.holder: dict[int, int | None] = {}
        self._numbers: dict[int, int] = {}

    def read(self, line: bytes) -> None:
        try:
            record = json.loads(line)
        except ValueError:
            self.wrong.append(f"a damaged line: {line!r}")
            return
        self.counts[record["do"]] += 1
        if "c" in record:
            self._numbers[record["n"]] = record["c"]["n"]
        if "n" not in record:
            return
        one, by = self._numbers[record["n"]], record["by"]
        if record["do"] == "take":
            self.given[one] += 1
            if self.holder.get(one) is not None or self.done[one]:
                self.wrong.append(f"{one} was handed out while it was held, or done: {line!r}")
            self.holder[one] = by
        else:
            if record["do"] != "free" and self.holder.get(one) != by:
                self.wrong.append(f"{one} was ended by somebody else: {line!r}")
            if record["do"] == "done":
                self.done[one] += 1
            self.holder[one] = None
