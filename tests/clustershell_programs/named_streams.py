"""StreamWorker and WorkerSimple: descriptors that a program hands over."""

from __future__ import annotations

import os
import subprocess
from typing import Any

from programs import Place, buffers, only, program, raised, recorder


@program
def a_reader(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    ours, theirs = os.pipe()
    handler = recorder(cs)
    worker = cs.StreamWorker(handler=handler, key="k")
    worker.set_reader("mine", ours)
    task.schedule(worker)
    os.write(theirs, b"one\ntwo\n")
    os.close(theirs)
    task.resume()
    happened: list[Any] = [*handler.events, buffers(task.iter_buffers())]
    with raised(happened):
        worker.read(sname="mine")
    return happened


@program
def a_reader_that_is_gathered(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    task.set_default("mine_msgtree", True)
    ours, theirs = os.pipe()
    worker = cs.StreamWorker(handler=None, key="k")
    worker.set_reader("mine", ours)
    task.schedule(worker)
    os.write(theirs, b"one\ntwo")
    os.close(theirs)
    task.resume()
    return [worker.read(sname="mine"), task.max_retcode()]


@program
def readers_of_stdout_and_stderr(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    handler = recorder(cs)
    worker = cs.StreamWorker(handler=handler, key="k")
    for name in ("stdout", "stderr"):
        ours, theirs = os.pipe()
        worker.set_reader(name, ours)
        os.write(theirs, name.encode() + b"\n")
        os.close(theirs)
    task.schedule(worker)
    task.resume()
    return [
        handler.events[:2],
        sorted(only(handler.events, "ev_read")),
        handler.events[4:],
        task.key_buffer("k"),
        task.key_error("k"),
    ]


@program
def a_writer(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    ours, theirs = os.pipe()
    handler = recorder(cs)
    worker = cs.StreamWorker(handler=handler, key="k")
    worker.set_writer("out", theirs)
    task.schedule(worker)
    worker.write(b"text", "out")
    worker.set_write_eof("out")
    task.resume()
    with os.fdopen(ours, "rb") as file:
        written = only(handler.events, "ev_written")
        rest = [event for event in handler.events if event not in written]
        return [written, *rest, file.read()]


@program
def a_reader_and_a_writer(cs: Any, place: Place) -> list[Any]:
    """A filter between two descriptors of a process that the program has started."""
    task = cs.task_self()
    process = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    handler = recorder(cs, "ev_written")
    worker = cs.StreamWorker(handler=handler, key="k")
    worker.set_writer("in", process.stdin.fileno(), retain=False)
    worker.set_reader("back", process.stdout.fileno())
    task.schedule(worker)
    worker.write(b"one\ntwo\n", "in")
    worker.set_write_eof("in")
    task.resume()
    found = [*handler.events, process.wait(10)]
    for stream in (process.stdin, process.stdout):
        with_errors(stream)
    return found


def with_errors(stream: Any) -> None:
    """Closed already, by the worker."""
    try:
        stream.close()
    except OSError:
        pass


@program
def descriptors_are_closed_or_not(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    found = []
    for closing in (True, False):
        ours, theirs = os.pipe()
        worker = cs.StreamWorker(handler=None, key="k")
        worker.set_reader("mine", ours, closefd=closing)
        task.schedule(worker)
        os.close(theirs)
        task.resume()
        try:
            os.fstat(ours)
            found.append("open")
        except OSError:
            found.append("closed")
    return found


@program
def a_reader_that_does_not_retain(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    worker = cs.StreamWorker(handler=(handler := recorder(cs)), key="k")
    one, first = os.pipe()
    two, second = os.pipe()
    worker.set_reader("retaining", one)
    worker.set_reader("other", two, retain=False)
    task.schedule(worker)
    os.write(first, b"text\n")
    os.close(first)
    task.resume()
    os.close(second)
    return [*handler.events]


@program
def a_stream_that_is_late(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    ours, theirs = os.pipe()
    handler = recorder(cs)
    worker = cs.StreamWorker(handler=handler, key="k", timeout=1.5)
    worker.set_reader("stdout", ours)
    task.schedule(worker)
    os.write(theirs, b"text\n")
    task.resume()
    os.close(theirs)
    return [*handler.events, worker.did_timeout(), task.num_timeout()]


@program
def a_simple_worker(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    process = subprocess.Popen(["sh", "-c", "cat; echo end"], stdin=-1, stdout=-1, stderr=-1)
    handler = recorder(cs, "ev_written")
    worker = cs.WorkerSimple(
        process.stdout, process.stdin, process.stderr, "k", handler, stderr=True
    )
    task.schedule(worker)
    worker.write(b"text\n")
    worker.set_write_eof()
    task.resume()
    return [*handler.events, worker.read(), task.key_buffer("k"), process.wait(10)]


@program
def another_name_for_stdout(cs: Any, place: Place) -> list[Any]:
    task = cs.task_self()
    handler = recorder(cs)
    worker = task.shell("echo out; echo err >&2", key="k", handler=handler)
    worker.SNAME_STDOUT = "mine"
    with_name: list[Any] = []
    with raised(with_name):
        task.resume()
    return [*with_name, handler.events[-1], task.key_buffer("k")]
