"""What it costs to show the progress of 10 000 processes on a terminal.

The processes are those of one action on the fake transport: they run for two seconds each, a
thousand at a time, and one in fifty fails. What counts is the processor time that is spent for the
lines: that of the thread which draws, that of starting to watch, and what the I/O thread spends on
telling it (so many events, each as long as measured alone). Beside it a sweep of as many
combinations is shown, and polled.
"""

from __future__ import annotations

import io
import os
import sys
import tempfile
import threading
import time
from typing import Any, Self

from harness import Bench, Numbers, body, main

PROCESSES = 10_000
AT_A_TIME = 1000
SECONDS = 2.0


class Terminal:
    """A pseudo terminal as stderr; what is written to it is counted."""

    def __enter__(self) -> Self:
        os.environ["TERM"] = "xterm-256color"
        self._ours, self._theirs = os.openpty()
        self._before = sys.stderr
        sys.stderr = io.TextIOWrapper(os.fdopen(self._theirs, "wb", buffering=0), "utf-8")
        self.drawings = self.bytes = 0
        self._thread = threading.Thread(target=self._read)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        sys.stderr.close()
        sys.stderr = self._before
        self._thread.join()
        os.close(self._ours)

    def _read(self) -> None:
        try:
            while data := os.read(self._ours, 65536):
                self.drawings += data.count(b"\x1b[K")
                self.bytes += len(data)
        except OSError:
            pass  # the other side is closed


def remote(count: int) -> Any:
    from execo import Remote, transports
    from execo.testing import Exit, Script, scripts

    transports.register("fake", "execo.testing.fake:FakeTransport")
    scripts["work"] = Script(Exit(0, delay=SECONDS))
    scripts["fail"] = Script(Exit(1, delay=SECONDS))
    commands = ["fail" if index % 50 == 49 else "work" for index in range(count)]  # noqa: F841
    return Remote(
        "{{commands}}",
        [f"node{index}" for index in range(count)],
        connection_params={"transport": "fake"},
        process_args={"nolog_exit_code": True},
        fanout=max(1, count * AT_A_TIME // PROCESSES),
    )


def thread_time(thread: threading.Thread) -> float:
    assert thread.ident is not None
    return time.clock_gettime(time.pthread_getcpuclockid(thread.ident))


def telling() -> float:
    """Seconds for one event."""
    from execo import Process
    from execo.progress import board

    ear, times = board._Ear(), 200_000
    process = Process("true").run()
    run = process._run
    assert run is not None
    begin = time.thread_time()
    for _ in range(times):
        ear.process_ended(run)
    return (time.thread_time() - begin) / times


@body
def action(scale: float) -> Numbers:
    from execo.progress import board, show

    count = max(100, round(PROCESSES * scale))
    work = remote(count)
    with Terminal() as terminal:
        with show():
            pass  # rich is imported once
        begin, entering = time.perf_counter(), time.thread_time()
        with show(work):
            entering = time.thread_time() - entering
            work.run()
            assert board._board is not None
            drawing = thread_time(board._board._thread)
            seconds = time.perf_counter() - begin
            leaving = time.thread_time()
        leaving = time.thread_time() - leaving
    events = 2 * count * telling()
    assert len(work.failed) == count // 50
    assert terminal.drawings > seconds
    return {
        "seconds": seconds,
        "drawing": drawing,
        "entering": entering + leaving,
        "events": events,
        "share": 100 * (drawing + entering + leaving + events) / seconds,
        "drawings": terminal.drawings / seconds,
        "bytes": terminal.bytes / seconds,
    }


@body
def sweep(scale: float) -> Numbers:
    from execo.engine import ParamSweeper
    from execo.progress import board, show

    count = max(100, round(PROCESSES * scale))
    with tempfile.TemporaryDirectory() as folder, Terminal():
        sweeper = ParamSweeper(folder, [{"number": number} for number in range(count)])
        begin = time.perf_counter()
        with show(sweeper):
            nap = threading.Event()
            for combination in sweeper.get_next_batch(100):
                nap.wait(0.1)
                sweeper.done(combination)
            assert board._board is not None
            drawing = thread_time(board._board._thread)
        seconds = time.perf_counter() - begin
        sweeper.close()
    return {"share": 100 * drawing / seconds}


def figures(bench: Bench) -> None:
    """What it costs to show progress."""
    shown, swept = bench.measure("action", "sweep")
    count = max(100, round(PROCESSES * bench.scale))
    bench.show(f"{count} processes, the run", shown["seconds"])
    bench.show("  CPU time to draw", shown["drawing"])
    bench.show("  CPU time to begin and to end", shown["entering"])
    bench.show("  CPU time of the I/O thread", shown["events"])
    bench.below("  all of it, of one CPU", shown["share"], 1, "%")
    bench.below("  drawings a second", shown["drawings"], 4.1, "")
    bench.show("  bytes a second", shown["bytes"], unit="B")
    bench.below(f"a sweep of {count} combinations, of one CPU", swept["share"], 1, "%")


if __name__ == "__main__":
    main(figures, rounds=3)
