"""ParamSweeper, broken off anywhere: by kill -9, by a Ctrl-C, by what a signal handler does."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from execo.engine import HashableDict, ParamSweeper, sweep
from execo.engine.journal import Journal
from rounds import ROUNDS, chance
from sweeping import PATIENCE, SWEEP, At, Interrupted, fork
from sweeping_rounds import killed_at_random

pytest_plugins = ["sweeping"]
pytestmark = pytest.mark.usefixtures("sweepers_end")

COMBINATIONS = sweep({"n": range(8)})
STEP = max(1, 9 // ROUNDS)
"""Every so many instructions: all of them with EXECO_ROUNDS=9."""


def work(sweeper: ParamSweeper) -> None:
    """All that a script does, once."""
    for one in sweeper.get_next_batch(2, lambda left: sorted(left, key=str)):
        sweeper.failed(one, "so", retry=True)
    if (fourth := sweeper.get_next()) is not None:
        sweeper.done(fourth, result=1)
    if (fifth := sweeper.get_next()) is not None:
        sweeper.skip(fifth)
    sweeper.reset()
    sweeper.stats()


def is_free(folder: Path) -> bool:
    """Whether nobody has the lock."""
    with Journal(folder / "journal.jsonl") as journal:
        thread = threading.Thread(target=journal.run, args=(lambda: None,), daemon=True)
        thread.start()
        thread.join(PATIENCE)
        return not thread.is_alive()


def agrees(folder: Path, sweeper: ParamSweeper) -> None:
    """What it knows is what stands there, and it can go on."""
    fresh = ParamSweeper(folder, sorted(sweeper.get_sweeps(), key=str), lease=None)
    fresh.reset()
    sweeper.reset()
    assert fresh.stats() == sweeper.stats()
    fresh.close()


def test_killed_at_any_instruction(tmp_path: Path) -> None:
    def child(sweeper: ParamSweeper, number: int) -> None:
        with At(number, lambda: os.kill(os.getpid(), signal.SIGKILL), where_signals=False):
            work(sweeper)

    number, status = 1, int(signal.SIGKILL)
    while status == signal.SIGKILL:
        folder = tmp_path / str(number)
        sweeper = ParamSweeper(folder, COMBINATIONS, lease=None)
        sweeper.done(sweeper.get_next() or {})
        held = sweeper.get_next()
        status = fork(partial(child, sweeper, number))
        assert COMBINATIONS[0] in sweeper.get_done()
        sweeper.update()
        assert sweeper.get_inprogress() == {held}
        agrees(folder, sweeper)
        left = sweeper.get_next_batch(9)
        assert len(left) + len(sweeper.get_done()) + 1 == len(COMBINATIONS)
        sweeper.done_batch([*left, COMBINATIONS[1]])
        agrees(folder, sweeper)
        sweeper.close()
        number += 37 * STEP
    assert status == 0
    assert number > 2000


def test_a_handler_raises_anywhere(tmp_path: Path) -> None:
    """As Ctrl-C does: what has a line in the journal holds, and the lock is free."""

    def interrupt() -> None:
        raise Interrupted

    number, broken_off = 1, True
    while broken_off:
        folder = tmp_path / str(number)
        sweeper = ParamSweeper(folder, SWEEP, lease=None)
        sweeper.done(SWEEP[3])
        with At(number, interrupt, where_signals=True) as at, suppress(Interrupted):
            work(sweeper)
        broken_off = at.left == 0
        assert is_free(folder), number
        assert SWEEP[3] in sweeper.get_done()
        agrees(folder, sweeper)
        sweeper.reset(reset_inprogress=True)
        sweeper.done_batch(SWEEP)
        agrees(folder, sweeper)
        sweeper.close()
        number += STEP
    assert number > 300


def test_a_handler_uses_it_anywhere(folder: Path) -> None:
    """It works, or is told that this was in the middle of a change; nothing is handed out twice."""
    combinations = sweep({"n": range(4000)})
    sweeper = ParamSweeper(folder, combinations, lease=None)
    taken: list[HashableDict] = []
    told = 0

    def handler() -> None:
        nonlocal told
        try:
            if one := sweeper.get_next():
                taken.append(one)
                sweeper.done(one)
        except RuntimeError as exc:
            if "a signal handler has called it while it was being called" not in str(exc):
                raise
            told += 1

    number, handled = 1, True
    while handled:
        with At(number, handler, where_signals=True) as at:
            for one in sweeper.get_next_batch(2, lambda left: sorted(left, key=lambda c: -c["n"])):
                taken.append(one)
                sweeper.done(one)
        handled = at.left == 0
        number += STEP
    assert 0 < told < number // STEP
    assert len(taken) == len(set(taken)) > 100
    assert sweeper.get_done() == set(taken)
    assert is_free(folder)
    agrees(folder, sweeper)
    sweeper.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_alarms_at_random(folder: Path) -> None:
    """The same with real signals, while another process is at work."""
    random = chance()
    combinations = sweep({"n": range(20_000)})
    sweeper = ParamSweeper(folder, combinations)
    taken: list[HashableDict] = []
    pid = os.fork()
    if not pid:
        while one := sweeper.get_next():
            sweeper.cancel(one)
        os._exit(0)

    def handler(number: int, frame: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGALRM, handler)
    try:
        for _ in range(150 * ROUNDS):
            with suppress(Interrupted):
                try:
                    # Again and again: what is raised in a callback of a weak reference is ignored.
                    signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-5, 3e-3), 0.02)
                    while one := sweeper.get_next():
                        sweeper.done(one)
                        taken.append(one)
                finally:
                    signal.setitimer(signal.ITIMER_REAL, 0)
    finally:
        signal.signal(signal.SIGALRM, before)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert len(taken) == len(set(taken))
    assert set(taken) <= sweeper.get_done()
    sweeper.reset(reset_inprogress=True)
    agrees(folder, sweeper)
    sweeper.close()


def test_a_filter_uses_it(folder: Path, sweeper: ParamSweeper) -> None:
    def choose(left: set[HashableDict]) -> list[HashableDict]:
        assert sweeper.get_next() == SWEEP[0]
        sweeper.done(SWEEP[1])
        assert sweeper.get_remaining() == set(SWEEP[2:])
        return [*left]

    assert sweeper.get_next(choose) == SWEEP[2]
    assert sweeper.get_inprogress() == {SWEEP[0], SWEEP[2]}
    assert is_free(folder)
    agrees(folder, sweeper)


def test_a_handler_closes_it(folder: Path, sweeper: ParamSweeper) -> None:
    """Once what was being done is over."""

    def choose(left: set[HashableDict]) -> set[HashableDict]:
        sweeper.close()
        return left

    assert sweeper.get_next(choose) == SWEEP[0]
    with pytest.raises(OSError, match="it has been closed"):
        sweeper.get_next()
    assert is_free(folder)


def test_workers_that_are_killed_at_random(tmp_path: Path) -> None:
    """At length: ``benchmarks/rounds_sweeper.py``."""
    outcome = killed_at_random(
        tmp_path, workers=6, kills=40 * ROUNDS, combinations=200, chance=chance()
    )
    assert outcome.wrong == []
    assert outcome.taken_back > 0
