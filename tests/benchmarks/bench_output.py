"""Capturing the output of local processes: 1 GB, and 100 times 10 MB at once.

The producer is ``head -c N /dev/zero``, the same on both sides. Beside it: a loop of ``os.read`` on
the pipe of a bare ``Popen`` that keeps the blocks, and one that decodes each block as it comes and
joins the text at the end. The memory is touched before each measurement, see ``touch_memory``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

from harness import Bench, Numbers, body, main, touch_memory

SIZE = 1_000_000_000
MANY = 100
BLOCK = 64 * 1024


def producer(size: float) -> list[str]:
    return ["head", "-c", str(round(size)), "/dev/zero"]


# -- ours -------------------------------------------------------------------------------------


def capture(size: float, processes: int = 1) -> Numbers:
    from execo import Process

    Process("true").run()  # the I/O thread and the watchdog start once
    touch_memory(round(size * 2.5))
    begin = time.perf_counter()
    started = [Process(producer(size / processes)).start() for _ in range(processes)]
    for process in started:
        process.wait()
    waited = time.perf_counter()
    length = sum(len(process.stdout) for process in started)
    end = time.perf_counter()
    assert length == round(size / processes) * processes
    return {"wait": waited - begin, "total": end - begin}


@body
def one(scale: float) -> Numbers:
    return capture(SIZE * scale)


@body
def half(scale: float) -> Numbers:
    return capture(SIZE * scale / 2)


@body
def tenth(scale: float) -> Numbers:
    return capture(SIZE * scale / 10)


@body
def many(scale: float) -> Numbers:
    return capture(SIZE * scale, MANY)


# -- the floor --------------------------------------------------------------------------------


def bare_blocks(size: float) -> Iterator[bytes]:
    from subprocess import PIPE, Popen

    with Popen(producer(size), stdin=PIPE, stdout=PIPE, stderr=PIPE) as process:
        assert process.stdout is not None
        fd = process.stdout.fileno()
        while block := os.read(fd, BLOCK):
            yield block


@body
def bare_read(scale: float) -> Numbers:
    touch_memory(round(SIZE * scale * 2.5))
    begin = time.perf_counter()
    blocks = []
    for block in bare_blocks(SIZE * scale):
        blocks.append(block)  # noqa: PERF402 - the loop is what is measured
    seconds = time.perf_counter() - begin
    assert sum(map(len, blocks)) == round(SIZE * scale)
    return {"seconds": seconds}


@body
def bare_decode(scale: float) -> Numbers:
    import codecs

    touch_memory(round(SIZE * scale * 2.5))
    begin = time.perf_counter()
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    texts = [decoder.decode(block) for block in bare_blocks(SIZE * scale)]
    texts.append(decoder.decode(b"", final=True))
    text = "".join(texts)
    seconds = time.perf_counter() - begin
    assert len(text) == round(SIZE * scale)
    return {"seconds": seconds}


@body
def bare_many(scale: float) -> Numbers:
    import selectors
    from subprocess import PIPE, Popen

    touch_memory(round(SIZE * scale * 2.5))
    command = producer(SIZE * scale / MANY)
    begin = time.perf_counter()
    started = [Popen(command, stdin=PIPE, stdout=PIPE, stderr=PIPE) for _ in range(MANY)]
    blocks: list[bytes] = []
    with selectors.DefaultSelector() as selector:
        for process in started:
            assert process.stdout is not None
            selector.register(process.stdout, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select():
                if block := os.read(key.fd, BLOCK):
                    blocks.append(block)
                else:
                    selector.unregister(key.fileobj)
    for process in started:
        process.wait()
    return {"seconds": time.perf_counter() - begin}


# -- the figures ------------------------------------------------------------------------------


def figures(bench: Bench) -> None:
    """Capturing the output of local processes."""
    gigabyte = SIZE * bench.scale / 1e9
    bench.measure("bare_read", rounds=1)  # warms the machine up, and does not count
    whole, read, decode, crowd, floor = bench.measure(
        "one", "bare_read", "bare_decode", "many", "bare_many"
    )
    what = f"{gigabyte:g} GB of stdout,"
    bench.at_most(f"{what} wait() / os.read loop", whole["wait"], read["seconds"], 1.2)
    bench.at_most(
        f"{what} wait() and len(stdout) / read and decode", whole["total"], decode["seconds"], 1.25
    )
    less, fifty = bench.measure("tenth", "half")
    for name, numbers, share in (("a tenth", less, 10), ("half", fifty, 2)):
        bench.at_most(
            f"{what} per byte / {name} of it",
            whole["total"] / gigabyte,
            numbers["total"] / gigabyte * share,
            1.5,
            "s/GB",
        )
    crowded = f"{MANY} times {gigabyte * 1000 / MANY:g} MB at once,"
    bench.at_most(f"{crowded} total / one process", crowd["total"], whole["total"], 1.0)
    bench.show(f"{crowded} wait() / one process", crowd["wait"], whole["wait"])
    bench.show(f"{crowded} wait() / bare Popen and selectors", crowd["wait"], floor["seconds"])


if __name__ == "__main__":
    main(figures, rounds=5)
