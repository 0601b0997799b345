"""Waiting for what processes print: 100 MB of log lines, short lines, many matches, many processes.

The lines are 53 bytes long; what is waited for comes at the end. *Captured* is output that was
there before, *live* is a process that prints it while it is searched; beside it the same process
without a search. The memory is touched before each measurement, see ``touch_memory``.
"""

from __future__ import annotations

import os
import time

from harness import Bench, Numbers, body, main, touch_memory

LINES = 1_887_000  # 100 MB
SHORT = 1_000_000
MATCHES = 1_000_000
PROCESSES = 1000
SIMPLE = r"READY on port (\d+)"


def log_of(lines: float) -> str:
    text = "line %012.0f of some realistic text, with words"
    return f"seq -f '{text}' {round(lines)}; echo READY on port 17"


def captured(lines: float, pattern: str) -> Numbers:
    from execo import Process

    touch_memory(round(lines * 53 * 3))
    process = Process(log_of(lines), shell=True).run()
    begin = time.perf_counter()
    index, match = process.expect(pattern, 0)
    end = time.perf_counter()
    assert index == 0
    assert match is not None
    return {"seconds": (end - begin) / len(process.stdout) * 1e8}


@body
def captured_simple(scale: float) -> Numbers:
    return captured(LINES * scale, SIMPLE)


@body
def captured_tenth(scale: float) -> Numbers:
    return captured(LINES * scale / 10, SIMPLE)


@body
def captured_line(scale: float) -> Numbers:
    return captured(LINES * scale, "^READY")


def live(lines: float, expect: bool) -> Numbers:
    from execo import Process

    Process("true").run()  # the I/O thread and the watchdog start once
    touch_memory(round(lines * 53 * 3))
    begin, cpu = time.perf_counter(), os.times()
    process = Process(log_of(lines), shell=True).start()
    if expect:
        assert process.expect(SIMPLE)[0] == 0
    process.wait()
    seconds, used = time.perf_counter() - begin, os.times()
    assert process.stdout_bytes.endswith(b"17\n")
    return {"seconds": seconds, "cpu": used.user + used.system - cpu.user - cpu.system}


@body
def live_simple(scale: float) -> Numbers:
    return live(LINES * scale, expect=True)


@body
def live_alone(scale: float) -> Numbers:
    return live(LINES * scale, expect=False)


def chatty(lines: float, expect: bool) -> Numbers:
    import sys

    from execo import Process

    Process("true").run()
    code = (
        f"import os\nfor n in range({round(lines)}): os.write(1, b'line %d\\n' % n)\n"
        "os.write(1, b'READY on port 17\\n')"
    )
    begin, cpu = time.perf_counter(), os.times()
    process = Process([sys.executable, "-c", code]).start()
    if expect:
        assert process.expect(SIMPLE)[0] == 0
    process.wait()
    seconds, used = time.perf_counter() - begin, os.times()
    return {"seconds": seconds, "cpu": used.user + used.system - cpu.user - cpu.system}


@body
def chatty_expect(scale: float) -> Numbers:
    return chatty(SHORT * scale, expect=True)


@body
def chatty_alone(scale: float) -> Numbers:
    return chatty(SHORT * scale, expect=False)


def loop(matches: float) -> Numbers:
    from execo import Process

    process = Process(f"seq {round(matches)}").run()
    begin = time.perf_counter()
    for _ in range(round(matches)):
        process.expect(r"^\d+\n")
    seconds = time.perf_counter() - begin
    assert process.ok
    return {"each": seconds / round(matches) * 1e6}


@body
def loop_whole(scale: float) -> Numbers:
    return loop(MATCHES * scale)


@body
def loop_tenth(scale: float) -> Numbers:
    return loop(MATCHES * scale / 10)


@body
def many(scale: float) -> Numbers:
    from execo import Local, ParallelActions, transports
    from execo.testing import Exit, Gate, Out, Script, scripts

    transports.register("fake", "execo.testing.fake:FakeTransport")
    scripts["serve"] = Script(Out(b"starting\n" * 100), Gate(), Out(b"READY on port 17\n"), Exit(0))
    count = round(PROCESSES * scale)
    actions = [Local("serve") for _ in range(count)]
    for action in actions:
        action.processes[0].transport = "fake"
    group = ParallelActions(actions).start()
    scripts["serve"].step()
    begin = time.perf_counter()
    found = group.expect(SIMPLE, 60)
    seconds = time.perf_counter() - begin
    assert [index for _, index, _ in found] == [0] * count
    group.wait()
    return {"seconds": seconds}


# -- the figures ------------------------------------------------------------------------------


def figures(bench: Bench) -> None:
    """Waiting for what processes print."""
    size = f"{LINES * bench.scale * 53 / 1e6:.0f} MB"
    bench.measure("captured_simple", rounds=1)  # warms the machine up, and does not count
    whole, tenth, line = bench.measure("captured_simple", "captured_tenth", "captured_line")
    for name, numbers in (("simple pattern", whole), ("^READY", line)):
        bench.below(f"{size} captured, {name}, per 100 MB", numbers["seconds"], 1.0, "s")
    bench.at_most(
        f"{size} captured, per 100 MB / a tenth of it", whole["seconds"], tenth["seconds"], 1.5
    )
    found, alone = bench.measure("live_simple", "live_alone")
    bench.show(f"{size} live / without expect", found["seconds"], alone["seconds"])
    scanning = (found["cpu"] - alone["cpu"]) / bench.scale
    bench.below(f"{size} live, CPU of the search, per 100 MB", scanning, 1.0, "s")
    short, quiet = bench.measure("chatty_expect", "chatty_alone")
    what = f"{round(SHORT * bench.scale)} writes of a line,"
    bench.at_most(f"{what} live / without expect", short["seconds"], quiet["seconds"], 2.0)
    bench.show(f"{what} CPU, live / without expect", short["cpu"], quiet["cpu"])
    loops, less = bench.measure("loop_whole", "loop_tenth", rounds=1)
    bench.at_most(
        f"{round(MATCHES * bench.scale)} matches, each / a tenth of them",
        loops["each"],
        less["each"],
        1.5,
        "us",
    )
    (crowd,) = bench.measure("many")
    bench.show(f"{round(PROCESSES * bench.scale)} processes at once", crowd["seconds"])


if __name__ == "__main__":
    main(figures, rounds=3)
