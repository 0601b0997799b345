"""The I/O thread: calls from all threads, in order; nothing that they raise ends it."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator

import pytest

from execo._core.loop import Loop
from execo._core.timer import Timer

TIMEOUT = 20.0


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.stop()


def test_calls_of_a_thread_stay_in_order(loop: Loop) -> None:
    calls: list[tuple[int, int]] = []
    idents: set[int] = set()

    def note(thread: int, n: int) -> None:
        calls.append((thread, n))
        idents.add(threading.get_ident())

    def submit(thread: int) -> None:
        for n in range(2000):
            loop.call_soon(note, thread, n)

    threads = [threading.Thread(target=submit, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    loop.run_sync(lambda: None)
    assert len(calls) == 8 * 2000
    for k in range(8):
        assert [n for thread, n in calls if thread == k] == list(range(2000))
    assert len(idents) == 1


def test_each_lone_call_wakes_the_thread(loop: Loop) -> None:
    for _ in range(2000):
        done = threading.Event()
        loop.call_soon(done.set)
        assert done.wait(TIMEOUT)


def test_a_call_from_the_thread_comes_later(loop: Loop) -> None:
    calls: list[str] = []
    done = threading.Event()

    def first() -> None:
        loop.call_soon(calls.append, "second")
        loop.call_soon(done.set)
        calls.append("first")

    loop.call_soon(first)
    assert done.wait(TIMEOUT)
    assert calls == ["first", "second"]


def test_run_sync_gives_the_result(loop: Loop) -> None:
    assert loop.run_sync(divmod, 7, 3) == (2, 1)
    assert loop.run_sync(lambda: None) is None
    assert loop.run_sync(loop.in_thread) is True
    assert loop.in_thread() is False


def test_run_sync_within_the_thread_is_a_plain_call(loop: Loop) -> None:
    assert loop.run_sync(lambda: loop.run_sync(lambda: loop.run_sync(loop.in_thread))) is True


def test_run_sync_comes_after_the_calls_before_it(loop: Loop) -> None:
    calls: list[int] = []
    for n in range(100):
        loop.call_soon(calls.append, n)
    assert loop.run_sync(lambda: list(calls)) == list(range(100))


def test_run_sync_from_many_threads(loop: Loop) -> None:
    found: list[int | None] = []

    def ask(k: int) -> None:
        found.extend(loop.run_sync(sum, (k * 100, n)) for n in range(100))

    threads = [threading.Thread(target=ask, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(n for n in found if n is not None) == list(range(800))


class Stop(BaseException):
    pass


@pytest.mark.parametrize("kind", [ValueError, Stop, GeneratorExit, SystemExit, KeyboardInterrupt])
def test_an_exception_does_not_end_the_thread(
    loop: Loop, caplog: pytest.LogCaptureFixture, kind: type[BaseException]
) -> None:
    hold = threading.Event()
    done = threading.Event()

    def fail() -> None:
        raise kind("on purpose")

    loop.call_soon(hold.wait, TIMEOUT)  # so that the rest comes in one batch
    loop.call_soon(fail)
    loop.call_soon(done.set)
    hold.set()
    assert done.wait(5.0), "what came behind it was not called"
    assert loop.run_sync(lambda: 1) == 1
    assert "on purpose" in caplog.text


@pytest.mark.parametrize("kind", [ValueError, Stop])
def test_an_exception_of_a_timer_does_not_end_the_thread(
    loop: Loop, caplog: pytest.LogCaptureFixture, kind: type[BaseException]
) -> None:
    done = threading.Event()

    def fail() -> None:
        raise kind("on purpose")

    loop.run_sync(lambda: (loop.call_later(0, fail), loop.call_later(0.01, done.set)))
    assert done.wait(TIMEOUT)
    assert "on purpose" in caplog.text


def test_run_sync_does_not_hang_on_an_exception(
    loop: Loop, caplog: pytest.LogCaptureFixture
) -> None:
    assert loop.run_sync(lambda: 1 / 0) is None
    assert loop.run_sync(lambda: 1) == 1  # it is logged by now
    assert "ZeroDivisionError" in caplog.text


def test_stop_runs_what_was_asked_before() -> None:
    loop = Loop()
    calls: list[int] = []
    for n in range(1000):
        loop.call_soon(calls.append, n)
    loop.stop()
    assert calls == list(range(1000))


def test_what_is_asked_after_the_end_is_dropped() -> None:
    loop = Loop()
    loop.stop()
    calls: list[int] = []
    loop.call_soon(calls.append, 1)
    assert loop.run_sync(lambda: 1) is None
    loop.stop()
    assert calls == []


def test_stop_ends_while_others_ask() -> None:
    for _ in range(3):
        loop = Loop()
        ended = threading.Event()

        def ask(loop: Loop = loop, ended: threading.Event = ended) -> None:
            while not ended.is_set():
                loop.call_soon(int)

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        loop.stop()
        ended.set()
        for thread in threads:
            thread.join(TIMEOUT)


def test_it_reads_and_writes_for_others(loop: Loop) -> None:
    # The methods of the loop below belong to its thread; the guard sees the descriptors.
    read, write = os.pipe()
    found = threading.Event()
    try:
        loop.run_sync(loop.add_reader, read, found.set)
        assert not found.is_set()
        os.write(write, b"x")
        assert found.wait(TIMEOUT)
        loop.run_sync(loop.remove_reader, read)
    finally:
        os.close(read)
        os.close(write)


def test_it_says_nothing_when_all_is_well(loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        loop.run_sync(lambda: None)
        loop.stop()
    assert caplog.records == []


def test_a_timer_calls_once_and_what_it_was_told_last(loop: Loop) -> None:
    calls: list[str] = []
    done = threading.Event()
    timer = Timer(loop)

    def set_up() -> None:
        timer.set(0.0, calls.append, "replaced")
        timer.set(0.01, calls.append, "called")
        loop.call_later(0.05, done.set)

    loop.run_sync(set_up)
    assert timer.runs
    assert done.wait(TIMEOUT)
    assert calls == ["called"]
    assert not timer.runs


def test_a_timer_that_is_cancelled_calls_nothing(loop: Loop) -> None:
    calls: list[str] = []
    done = threading.Event()
    timer = Timer(loop)

    def set_up() -> None:
        timer.set(0.0, calls.append, "cancelled")
        timer.cancel()
        loop.call_later(0.05, done.set)

    loop.run_sync(set_up)
    assert done.wait(TIMEOUT)
    assert not calls
    assert not timer.runs


def test_a_timer_may_be_set_by_its_own_call(loop: Loop) -> None:
    calls: list[int] = []
    done = threading.Event()
    timer = Timer(loop)

    def again(left: int) -> None:
        calls.append(left)
        if left:
            timer.set(0.0, again, left - 1)
        else:
            done.set()

    loop.run_sync(timer.set, 0.0, again, 3)
    assert done.wait(TIMEOUT)
    assert calls == [3, 2, 1, 0]
