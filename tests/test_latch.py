"""Latches: they fire once, wake whoever waits, and call whoever asked."""

from __future__ import annotations

import asyncio
import threading

import pytest

from execo._core.latch import Latch, clip

TIMEOUT = 20.0


def test_it_fires_once() -> None:
    latch = Latch()
    calls: list[str] = []
    latch.add(lambda: calls.append("early"))
    assert not latch.fired
    latch.fire()
    latch.fire()
    latch.add(lambda: calls.append("late"))
    assert latch.fired
    assert calls == ["early", "late"]


def test_callbacks_run_in_order_and_in_the_firing_thread() -> None:
    latch = Latch()
    calls: list[tuple[int, int]] = []
    for n in range(5):
        latch.add(lambda n=n: calls.append((n, threading.get_ident())))  # type: ignore[misc]
    thread = threading.Thread(target=latch.fire)
    thread.start()
    ident = thread.ident
    thread.join()
    assert calls == [(n, ident) for n in range(5)]


def test_a_discarded_callback_is_not_called() -> None:
    latch = Latch()
    calls: list[int] = []
    kept, dropped = (lambda: calls.append(1)), (lambda: calls.append(2))
    latch.add(kept)
    latch.add(dropped)
    latch.discard(dropped)
    latch.discard(dropped)
    latch.fire()
    latch.discard(kept)
    assert calls == [1]


def test_a_callback_may_use_the_latch_and_others() -> None:
    first, second = Latch(), Latch()
    first.add(second.fire)
    first.add(lambda: first.add(second.fire))
    first.add(first.fire)
    first.fire()
    assert second.fired


def test_wait_ends_with_the_time_or_the_latch() -> None:
    latch = Latch()
    assert not latch.wait(0)
    assert not latch.wait(-1)
    assert not latch.wait(0.01)
    threading.Timer(0.05, latch.fire).start()
    assert latch.wait()
    assert latch.wait(0)


def test_a_wait_that_timed_out_leaves_nothing_behind() -> None:
    latch = Latch()
    for _ in range(3):
        latch.wait(0)
    assert not latch._callbacks
    latch.fire()


@pytest.mark.parametrize("timeout", [TIMEOUT, 1e12, float("inf"), None])
def test_many_threads_wait_for_one(timeout: float | None) -> None:
    latch = Latch()
    found: list[bool] = []
    threads = [
        threading.Thread(target=lambda: found.append(latch.wait(timeout))) for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    latch.fire()
    for thread in threads:
        thread.join(TIMEOUT)
    assert found == [True] * 20


def test_fire_races_with_waits_that_time_out() -> None:
    for _ in range(300):
        latch = Latch()
        waiter = threading.Thread(target=latch.wait, args=(0.0005,))
        waiter.start()
        latch.wait(0.0003)
        latch.fire()
        waiter.join(TIMEOUT)
        assert latch.wait(0)


def test_one_broken_callback_does_not_keep_the_others_waiting() -> None:
    latch = Latch()
    calls: list[int] = []
    latch.add(lambda: 1 / 0)
    latch.add(lambda: calls.append(1))
    try:
        latch.fire()
    except ZeroDivisionError:
        pass
    assert calls == [1]


def test_clip() -> None:
    assert clip(-1) == 0
    assert clip(2.5) == 2.5
    assert clip(1e300) == threading.TIMEOUT_MAX


def test_a_coroutine_waits() -> None:
    latch, fired = Latch(), Latch()
    fired.fire()

    async def both() -> None:
        threading.Timer(0.02, latch.fire).start()
        await asyncio.wait_for(asyncio.gather(wait(latch), wait(latch), wait(fired)), TIMEOUT)

    asyncio.run(both())


async def wait(latch: Latch) -> None:
    await latch


def test_a_cancelled_coroutine_leaves_nothing_behind() -> None:
    latch = Latch()

    async def give_up() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(wait(latch), 0.01)

    asyncio.run(give_up())
    assert not latch._callbacks
    latch.fire()


def test_a_loop_that_has_ended_is_no_trouble() -> None:
    latch = Latch()
    loop = asyncio.new_event_loop()
    task = loop.create_task(wait(latch))
    loop.run_until_complete(asyncio.sleep(0))
    assert latch._callbacks
    task.cancel()
    callbacks = list(latch._callbacks)
    loop.run_until_complete(asyncio.gather(task, return_exceptions=True))
    loop.close()
    for callback in callbacks:
        callback()  # as if it had fired at the moment of the cancelling
    latch.fire()
