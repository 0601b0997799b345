"""What a command reads: write, the end of its input, no input at all."""

from __future__ import annotations

import time
from typing import Any

from programs import Place, buffers, by_node, only, program, raised, recorder


@program
def written_before_the_start(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    handler = recorder(cs)
    worker = task.shell("cat", key="k", handler=handler)
    worker.write(b"one\n")
    worker.write(b"two\n")
    worker.set_write_eof()
    task.resume()
    sizes = [event[3] for event in only(handler.events, "ev_written")]
    rest = [event for event in handler.events if event[0] != "ev_written"]
    return [sum(sizes), {event[1:3] for event in only(handler.events, "ev_written")}, *rest]


@program
def written_in_handlers(cs: Any, place: Place) -> list[Any]:
    lines = [b"two\n", b"three\n"]

    def answer(worker: Any, *_: object) -> None:
        if lines:
            worker.write(lines.pop(0))
        else:
            worker.set_write_eof()

    handler = recorder(cs, ev_start=lambda worker: worker.write(b"one\n"), ev_read=answer)
    cs.task_self().run("cat", key="k", handler=handler)
    written = only(handler.events, "ev_written")
    return [*written, *(event for event in handler.events if event not in written)]


@program
def written_to_all_nodes(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    handler = recorder(cs)
    worker = task.shell("echo %n; cat", nodes="n[0-2]", remote=False, handler=handler)
    worker.write(b"text\n")
    worker.set_write_eof()
    task.resume()
    written = sum(event[3] for event in only(handler.events, "ev_written"))
    rest = [event for event in handler.events if event[0] != "ev_written"]
    return [written, *by_node(rest), buffers(task.iter_buffers())]


@program
def written_behind_the_window(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    task.set_info("fanout", 1)
    worker = task.shell("cat", nodes="n[0-2]", remote=False)
    worker.write(b"text\n")
    worker.set_write_eof()
    task.resume()
    return buffers(task.iter_buffers())


@program
def a_great_deal_is_written(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    handler = recorder(cs)
    worker = task.shell("cksum", key="k", handler=handler)
    for _ in range(40):
        worker.write(b"0123456789abcde\n" * 6000)
    worker.set_write_eof()
    task.resume()
    written = sum(event[3] for event in only(handler.events, "ev_written"))
    return [written, worker.read()]


@program
def a_great_deal_comes_back(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    worker = task.shell("cat", key="k")
    worker.write(b"0123456789abcde\n" * 100_000)
    worker.set_write_eof()
    task.resume()
    return [len(worker.read())]


@program
def nobody_reads(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    handler = recorder(cs, "ev_written")
    worker = task.shell("exec 0<&-; sleep 0.4; echo out; exit 3", key="k", handler=handler)
    worker.write(b"x" * 1_000_000)
    task.resume()
    return [*handler.events, task.key_retcode("k")]


@program
def without_input(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    handler = recorder(cs)
    task.shell("cat; echo end", key="k", handler=handler, stdin=False)
    task.shell("cat; echo end", nodes="n1", remote=False, stdin=False)
    begin = time.monotonic()
    task.resume(20)
    return [time.monotonic() - begin < 15, *handler.events, buffers(task.iter_buffers())]


@program
def without_input_by_default(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    task.set_default("stdin", False)
    task.run("cat; echo end", key="k")
    return [task.key_buffer("k")]


@program
def the_input_stays_open(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    worker = task.run("cat", key="k", timeout=0.6)
    return [worker.did_timeout()]


@program
def written_without_input(cs: Any, place: Place) -> list[Any]:
    happened: list[Any] = []
    task = cs.task_self()
    worker = task.shell("cat; echo end", key="k", stdin=False)
    with raised(happened):
        worker.write(b"text\n")
    with raised(happened):
        worker.set_write_eof()
    with raised(happened):
        task.resume(20)
    return [*happened, task.key_buffer("k")]


@program
def written_too_late(cs: Any, place: Place) -> list[Any]:
    happened: list[Any] = []
    task = cs.task_self()
    worker = task.run("true", key="k")
    with raised(happened):
        worker.write(b"text\n")
    with raised(happened):
        worker.set_write_eof()
    return happened


@program
def written_after_the_end_of_input(cs: Any, place: Place) -> list[Any]:
    happened: list[Any] = []

    def more(worker: Any, node: str, sname: str, msg: bytes) -> None:
        with raised(happened):
            worker.write(b"more\n")

    task = cs.task_self()
    handler = recorder(cs, "ev_written", ev_read=more)
    worker = task.shell("cat", key="k", handler=handler)
    worker.write(b"text\n")
    worker.set_write_eof()
    task.resume(20)
    return [*happened, *handler.events]
