"""The threads for user code: order within a strand, growth while they are blocked, survival."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator

import pytest

from execo._core import pool as pool_module
from execo._core.latch import Latch
from execo._core.loop import Loop
from execo._core.pool import Pool, Strand, current_strand, wait

TIMEOUT = 20.0
THREADS = 4


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.stop()


@pytest.fixture
def pool(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> Pool:
    """A pool whose threads end soon when they have nothing to do."""
    monkeypatch.setattr(pool_module, "IDLE_TIME", 0.2)
    return Pool(loop, "execo-handler", THREADS)


def strand(pool: Pool, name: str = "a test") -> Strand:
    return Strand(pool, lambda: name)


def finish(*strands: Strand) -> None:
    """Wait until all that was submitted to them has run."""
    for one in strands:
        done = threading.Event()
        one.submit(done.set)
        assert done.wait(TIMEOUT), "a strand does not go on"


# -- order --------------------------------------------------------------------------------------


def test_calls_of_a_strand_run_in_order_one_at_a_time(pool: Pool) -> None:
    calls: dict[int, list[int]] = {k: [] for k in range(10)}
    inside = dict.fromkeys(range(10), 0)
    overlaps: list[int] = []

    def note(k: int, n: int) -> None:
        inside[k] += 1
        if inside[k] != 1:
            overlaps.append(k)
        calls[k].append(n)
        inside[k] -= 1

    strands = [strand(pool) for _ in range(10)]
    for n in range(500):
        for k, one in enumerate(strands):
            one.submit(note, k, n)
    finish(*strands)
    assert calls == {k: list(range(500)) for k in range(10)}
    assert overlaps == []


def test_many_threads_submit_to_one_strand(pool: Pool) -> None:
    one = strand(pool)
    calls: list[tuple[int, int]] = []

    def submit(k: int) -> None:
        for n in range(500):
            one.submit(calls.append, (k, n))

    threads = [threading.Thread(target=submit, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    finish(one)
    for k in range(8):
        assert [n for thread, n in calls if thread == k] == list(range(500))


def test_a_long_strand_leaves_the_others_their_turn(pool: Pool) -> None:
    # All threads have a strand with more than it will ever run; another one gets its turn.
    stop = threading.Event()
    busy = [strand(pool) for _ in range(THREADS)]

    def again(one: Strand) -> None:
        if not stop.is_set():
            one.submit(again, one)

    for one in busy:
        one.submit(again, one)
    other = strand(pool)
    finish(other)
    stop.set()
    finish(*busy)


def test_a_call_knows_its_strand(pool: Pool) -> None:
    one, found = strand(pool), []
    one.submit(lambda: found.append(current_strand()))
    finish(one)
    assert found == [one]
    assert current_strand() is None


def test_the_io_thread_has_no_strand(pool: Pool, loop: Loop) -> None:
    one, found = strand(pool), []
    one.submit(lambda: found.append(loop.run_sync(current_strand)))
    finish(one)
    assert found == [None]


# -- growth -------------------------------------------------------------------------------------


def test_threads_are_added_while_others_are_blocked(pool: Pool) -> None:
    go_on = threading.Event()
    blocked = [strand(pool) for _ in range(THREADS + 3)]
    for one in blocked:
        one.submit(go_on.wait, TIMEOUT)
    try:
        finish(strand(pool))
    finally:
        go_on.set()
    finish(*blocked)


def test_each_may_wait_for_the_next(pool: Pool) -> None:
    latches = [Latch() for _ in range(12)]
    strands = [strand(pool) for _ in range(11)]

    def chain(mine: Latch, following: Latch) -> None:
        assert following.wait(TIMEOUT)
        mine.fire()

    for one, mine, following in zip(strands, latches, latches[1:], strict=False):
        one.submit(chain, mine, following)
    strand(pool).submit(latches[-1].fire)
    assert latches[0].wait(TIMEOUT)
    finish(*strands)


def test_work_that_comes_while_a_thread_takes_other_work_is_done(pool: Pool) -> None:
    # The first strand waits for the second, which comes just when the idle thread takes the first.
    for _ in range(300):
        first, second, done = strand(pool), strand(pool), Latch()
        first.submit(done.wait, TIMEOUT)
        second.submit(done.fire)
        assert done.wait(TIMEOUT)
        finish(first, second)


def test_idle_threads_end(pool: Pool) -> None:
    strands = [strand(pool) for _ in range(8)]
    for one in strands:
        one.submit(int)
    finish(*strands)
    mine = [t for t in threading.enumerate() if t.name.startswith("execo-handler")]
    assert mine
    for thread in mine:
        thread.join(TIMEOUT)
    assert not any(thread.is_alive() for thread in mine)
    finish(strand(pool))  # and come again


def test_work_that_comes_as_threads_end_is_done(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "IDLE_TIME", 0.001)
    pool = Pool(loop, "execo-handler", THREADS)
    one = strand(pool)
    for n in range(400):
        finish(one)
        if n % 3 == 0:
            threading.Event().wait(0.001)


# -- errors -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit])
def test_an_exception_is_logged_and_survived(
    pool: Pool, caplog: pytest.LogCaptureFixture, kind: type[BaseException]
) -> None:
    one = strand(pool, "<Process 'x'>")

    def fail() -> None:
        raise kind("on purpose")

    calls: list[int] = []
    one.submit(fail)
    one.submit(calls.append, 1)
    finish(one)
    assert calls == [1]
    assert "a handler of <Process 'x'> failed" in caplog.text
    assert "on purpose" in caplog.text


def test_sys_exit_in_a_handler_takes_no_thread_along(pool: Pool) -> None:
    one = strand(pool)
    for _ in range(50):
        one.submit(sys.exit, 1)
    finish(one)


# -- waiting inside a strand --------------------------------------------------------------------


def test_a_wait_outside_of_a_strand_is_a_plain_one() -> None:
    latch = Latch()
    assert not wait(latch, 0.01)
    threading.Timer(0.02, latch.fire).start()
    assert wait(latch, TIMEOUT)


def test_a_wait_inside_keeps_the_order(pool: Pool) -> None:
    one, latch = strand(pool), Latch()
    calls: list[str] = []

    def waits() -> None:
        calls.append("before")
        assert wait(latch, TIMEOUT)
        calls.append("after")

    one.submit(waits)
    one.submit(calls.append, "behind")
    strand(pool).submit(latch.fire)
    finish(one)
    assert calls == ["before", "after", "behind"]


@pytest.mark.parametrize(("timeout", "met"), [(TIMEOUT, True), (None, True), (0, False)])
def test_the_strand_is_told_of_a_wait(pool: Pool, timeout: float | None, met: bool) -> None:
    one, latch = strand(pool), Latch()
    told: list[object] = []

    def on_wait(waiting: bool) -> None:
        told.append((waiting, current_strand() is one))
        if waiting and met:
            latch.fire()  # what was held up goes on

    one.on_wait = on_wait
    one.submit(lambda: told.append(wait(latch, timeout)))
    finish(one)
    assert told == [(True, True), (False, True), met]


def test_a_wait_in_a_thread_of_a_handler_is_a_plain_one(pool: Pool) -> None:
    one, latch = strand(pool), Latch()
    told: list[bool] = []
    one.on_wait = told.append

    def handler() -> None:
        thread = threading.Thread(target=wait, args=(latch, 0.01))
        thread.start()
        thread.join()

    one.submit(handler)
    finish(one)
    assert told == []
